"""The ABCI server: an `Application` behind a Unix socket that CometBFT connects to four times.

One connection each for consensus, mempool, queries and snapshots; they do not wait for each other, so CheckTx
goes on while a block is applied, as far as the application gives way. What CometBFT may ask and bcdb does not
offer (snapshots, vote extensions) gets the answer that the protocol has for that.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consensus.cometbft.framing import Connection, Handler
from consensus.cometbft.messages import ACCEPT, CLASSES, RECHECK, REJECT, Timestamp
from consensus.engine import Application, Block, EngineError, Genesis, Proposal, Validator

ABCI_VERSION = "2.0.0"
SOCKET_MODE = 0o600
CONNECTIONS_MAX = 16
"""CometBFT opens four; the rest is room for one that is being replaced."""
CODE_UNKNOWN_QUERY = 1
CODE_NOT_A_MEMBER = 2
FILTER_BY_ID = "/p2p/filter/id/"
FILTER_BY_ADDRESS = "/p2p/filter/addr/"
OFFER_REJECT = 3
APPLY_ABORT = 2

TX_OVERHEAD_BYTES = 6
"""The tag and the length of a transaction in a block, at most."""

_NS = 1_000_000_000


class AbciServer:
    """Serves `application` at `path`.

    `is_member` decides by its node id (40 hex digits) whether a peer may connect. `block_bytes_max` is the
    consensus parameter that a new chain begins with. `failed` is set to what a handler raised.
    """

    def __init__(
        self,
        application: Application,
        path: Path,
        *,
        is_member: Callable[[str], bool],
        block_bytes_max: int,
    ) -> None:
        self._application = application
        self._path = path
        self._is_member = is_member
        self._block_bytes_max = block_bytes_max
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.failed: asyncio.Future[BaseException] | None = None
        self._handlers: dict[str, Handler] = {
            "echo": lambda asked: _answer("ResponseEcho", message=asked.message),
            "flush": lambda asked: _answer("ResponseFlush"),
            "info": self._info,
            "init_chain": self._init_chain,
            "query": self._query,
            "check_tx": self._check_tx,
            "prepare_proposal": self._prepare_proposal,
            "process_proposal": self._process_proposal,
            "finalize_block": self._finalize_block,
            "commit": self._commit,
            "extend_vote": lambda asked: _answer("ResponseExtendVote"),
            "verify_vote_extension": lambda asked: _answer("ResponseVerifyVoteExtension", status=ACCEPT),
            "list_snapshots": lambda asked: _answer("ResponseListSnapshots"),
            "offer_snapshot": lambda asked: _answer("ResponseOfferSnapshot", result=OFFER_REJECT),
            "load_snapshot_chunk": lambda asked: _answer("ResponseLoadSnapshotChunk"),
            "apply_snapshot_chunk": lambda asked: _answer("ResponseApplySnapshotChunk", result=APPLY_ABORT),
        }

    async def start(self) -> None:
        """Listen; the socket can be opened by this user only. What an earlier run left there is replaced."""
        loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        self._path.unlink(missing_ok=True)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            self._server = await loop.create_unix_server(self._connection, str(self._path))
        finally:
            os.umask(before)

    async def stop(self) -> None:
        """Close the socket and all connections."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        self._path.unlink(missing_ok=True)

    def _connection(self) -> Connection:
        return Connection(self._handlers, self._on_failure, self._on_open, self._connections.discard)

    def _on_open(self, connection: Connection) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            connection.close()
        else:
            self._connections.add(connection)

    def _on_failure(self, error: BaseException) -> None:
        if self.failed is not None and not self.failed.done():
            self.failed.set_result(error)

    # --- query and mempool connections ----------------------------------------------------------------------

    def _info(self, asked: Any) -> Any:
        if asked.abci_version != ABCI_VERSION:
            text = f"CometBFT speaks ABCI {asked.abci_version!r}; this application speaks {ABCI_VERSION}."
            raise EngineError(text)
        info = self._application.info()
        return _answer(
            "ResponseInfo",
            data="bcdb",
            app_version=info.app_version,
            last_block_height=info.height,
            last_block_app_hash=info.app_hash,
        )

    def _query(self, asked: Any) -> Any:
        path: str = asked.path
        if path.startswith(FILTER_BY_ADDRESS):
            # Addresses tell nothing here; the id, which is that of a key, is asked for next.
            return _answer("ResponseQuery")
        if path.startswith(FILTER_BY_ID):
            if self._is_member(path.removeprefix(FILTER_BY_ID)):
                return _answer("ResponseQuery")
            return _answer("ResponseQuery", code=CODE_NOT_A_MEMBER, log="This node is no member.")
        return _answer("ResponseQuery", code=CODE_UNKNOWN_QUERY, log="Queries are answered over HTTP.")

    def _check_tx(self, asked: Any) -> Any:
        result = self._application.check(asked.tx, recheck=asked.type == RECHECK)
        return _answer("ResponseCheckTx", code=result.code, log=result.text)

    # --- consensus connection -------------------------------------------------------------------------------

    async def _init_chain(self, asked: Any) -> Any:
        genesis = Genesis(
            asked.chain_id,
            _ns(asked.time),
            tuple(Validator(each.pub_key.ed25519, each.power) for each in asked.validators),
            asked.initial_height or 1,
            asked.app_state_bytes,
        )
        result = await self._application.init_chain(genesis)
        return _answer("ResponseInitChain", app_hash=result.app_hash)

    async def _prepare_proposal(self, asked: Any) -> Any:
        # CometBFT counts the encoded list: a tag and a length for each, beside its bytes.
        room = min(asked.max_tx_bytes - len(asked.txs) * TX_OVERHEAD_BYTES, self._block_bytes_max)
        proposal = Proposal(asked.height, _ns(asked.time), asked.proposer_address, tuple(asked.txs), room)
        return _answer("ResponsePrepareProposal", txs=await self._application.prepare(proposal))

    async def _process_proposal(self, asked: Any) -> Any:
        accepted = await self._application.process(_block(asked))
        return _answer("ResponseProcessProposal", status=ACCEPT if accepted else REJECT)

    async def _finalize_block(self, asked: Any) -> Any:
        result = await self._application.finalize(_block(asked))
        if len(result.results) != len(asked.txs):
            text = f"The application gave {len(result.results)} results for {len(asked.txs)} transactions"
            raise EngineError(text)
        answer = _answer("ResponseFinalizeBlock", app_hash=result.app_hash)
        for each in result.results:
            answer.tx_results.add(code=each.code, data=each.data)
        for validator in result.validator_updates:
            answer.validator_updates.add(power=validator.power).pub_key.ed25519 = validator.public_key
        return answer

    async def _commit(self, asked: Any) -> Any:
        done = await self._application.commit()
        return _answer("ResponseCommit", retain_height=done.retain_height)


def _answer(name: str, **fields: Any) -> Any:
    return CLASSES[name](**fields)


def _block(asked: Any) -> Block:
    return Block(asked.height, _ns(asked.time), asked.hash, asked.proposer_address, tuple(asked.txs))


def _ns(time: Any) -> int:
    """A `google.protobuf.Timestamp` in ns since the epoch."""
    assert isinstance(time, Timestamp)
    ns: int = time.seconds * _NS + time.nanos
    return ns
