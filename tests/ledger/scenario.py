"""The little language of tests/scenarios: steps on a ledger, each with the output that it must give.

A scenario is paragraphs: a step, the line `----`, the expected output; lines that begin with `#` are for the
reader. Keys are those of alice, bob and carol and times follow from heights, so ids and roots are the same in
every run; in the output an id is shown by the name of its transaction.

    create NAME by WHO [-> WHO AMOUNT, ...]          transfer NAME of SOURCE/INDEX, ... -> WHO AMOUNT, ...
    accept NAME ...       apply NAME ...       commit           block NAME ...  (apply and commit)
    begin NAME ...        slice            (apply one transaction at a time, the last slice gives the block)
    flush                 close (and open)     kill             power-cut
    status NAME ...       outputs WHO [spent | unspent]         asset NAME       log
    fsck
"""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

from bcdb.ledger import Outcome, TransactionResult
from bcdb.ledger.slices import Slices
from bcdb.model import decode_key
from tests.ledger.world import cut, faults, header, image, log_sizes, open_ledger
from tests.support.transactions import Signed, alice, bob, carol, create, transfer

PEOPLE = {"alice": alice, "bob": bob, "carol": carol}
SEPARATOR = "----"


def split(text: str) -> list[tuple[list[str], str, str]]:
    """(comment lines, step, expected output) of each paragraph."""
    steps = []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        rest = [line for line in lines if not line.startswith("#")]
        step = rest[0] if rest else ""
        assert not rest[1:] or rest[1] == SEPARATOR, f"{rest[1]!r} should be {SEPARATOR}"
        steps.append((comments, step, "\n".join(rest[2:])))
    return steps


def join(steps: list[tuple[list[str], str, str]]) -> str:
    paragraphs = []
    for comments, step, output in steps:
        lines = [*comments, *([step, SEPARATOR] if step else []), *([output] if output else [])]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"


class Runner:
    """Runs the steps of one scenario on a ledger below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images = 0
        self._ledger = open_ledger(folder / "ledger")
        self._synced: dict[str, int] = {}
        self._transactions: dict[str, Signed] = {}
        self._applied: Outcome | None = None
        self._applying: Slices[Outcome] | None = None
        self.flush()

    def finish(self) -> None:
        self._ledger.close()

    def run(self, step: str) -> str:
        """Do one step and give what it shows."""
        if not step:
            return ""
        word, _, rest = step.partition(" ")
        steps: dict[str, Callable[[str], str]] = {
            "create": self.create,
            "transfer": self.transfer,
            "accept": self.accept,
            "apply": self.apply,
            "commit": self.commit,
            "begin": self.begin,
            "slice": self.slice,
            "block": lambda names: "\n".join((self.apply(names), self.commit())),
            "flush": self.flush,
            "close": self.close,
            "kill": self.kill,
            "power-cut": self.power_cut,
            "status": self.status,
            "outputs": self.outputs,
            "asset": self.asset,
            "log": self.log,
            "fsck": self.fsck,
        }
        shown = steps[word](rest)
        for name, transaction in self._transactions.items():
            shown = shown.replace(transaction.verified.id.hex(), name)
        return shown

    # --- transactions -----------------------------------------------------------------------------

    def create(self, rest: str) -> str:
        head, _, recipients = rest.partition(" -> ")
        name, _, issuers = head.partition(" by ")
        self._transactions[name] = create(
            [PEOPLE[who] for who in issuers.split("+")],
            recipients=_recipients(recipients) if recipients else None,
            asset={"name": name},
        )
        return ""

    def transfer(self, rest: str) -> str:
        head, _, recipients = rest.partition(" -> ")
        name, _, inputs = head.partition(" of ")
        spent = []
        for item in inputs.split(", "):
            source, _, index = item.partition("/")
            spent.append((self._transactions[source], int(index)))
        self._transactions[name] = transfer(spent, _recipients(recipients), metadata={"name": name})
        return ""

    def _named(self, names: str) -> list[Signed]:
        return [self._transactions[name] for name in names.split()]

    # --- the way of a write -----------------------------------------------------------------------

    def accept(self, names: str) -> str:
        refusals = self._ledger.accept([item.verified for item in self._named(names)])
        return "\n".join(
            f"{name}: accepted" if refusal is None else f"{name}: refused, {refusal.name}: {refusal.text}"
            for name, refusal in zip(names.split(), refusals, strict=True)
        )

    def apply(self, names: str) -> str:
        height = self._ledger.head.height + 1
        return self._show(self._ledger.apply(header(height), [item.verified for item in self._named(names)]))

    def begin(self, names: str) -> str:
        height = self._ledger.head.height + 1
        self._applying = self._ledger.applying(header(height), [item.verified for item in self._named(names)])
        return self.slice()

    def slice(self, _: str = "") -> str:
        assert self._applying is not None, "begin a block first"
        with mock.patch("bcdb.ledger.apply.SLICE_TRANSACTIONS", 1):
            try:
                next(self._applying)
            except StopIteration as end:
                self._applying = None
                return self._show(end.value)
        return "a pause"

    def _show(self, outcome: Outcome) -> str:
        self._applied = outcome
        lines = [f"block {outcome.header.height}, app hash {outcome.app_hash.hex()}"]
        lines += [_result(result) for result in outcome.results]
        return "\n".join(lines)

    def commit(self, _: str = "") -> str:
        outcome = self._applied
        assert outcome is not None, "apply a block first"
        self._ledger.commit(outcome)
        self._applied = None
        lines = []
        for transaction_id, rejection in outcome.settled.items():
            fate = "committed" if rejection is None else f"rejected, {rejection.name}: {rejection.text}"
            lines.append(f"settled {transaction_id.hex()}: {fate}")
        return "\n".join(lines) or "settled nothing"

    def flush(self, _: str = "") -> str:
        self._synced = log_sizes(self._ledger.path)
        self._ledger.flush()
        return ""

    # --- ends and beginnings ----------------------------------------------------------------------

    def close(self, _: str = "") -> str:
        self._ledger.close()
        return self._open(self._ledger.path)

    def kill(self, _: str = "") -> str:
        return self._open(self._image())

    def power_cut(self, _: str = "") -> str:
        survivor = self._image()
        cut(survivor, self._synced)
        return self._open(survivor)

    def _image(self) -> Path:
        self._images += 1
        survivor = image(self._ledger, self._folder / f"image{self._images}")
        self._ledger.close()
        return survivor

    def _open(self, path: Path) -> str:
        self._ledger = open_ledger(path)
        self._applied = None
        self.flush()
        pending = [transaction_id.hex() for transaction_id in self._ledger.pending]
        return f"at height {self._ledger.head.height}, pending: {', '.join(pending) or 'nothing'}"

    # --- what can be asked ------------------------------------------------------------------------

    def status(self, names: str) -> str:
        return "\n".join(f"{name}: {self._status(self._transactions[name])}" for name in names.split())

    def _status(self, transaction: Signed) -> str:
        transaction_id = transaction.verified.id
        stored = self._ledger.reader.transaction(transaction_id)
        if stored is not None:
            assert stored.body == transaction.raw
            return f"committed in block {stored.height} at {stored.position}"
        if transaction_id in self._ledger.pending:
            return "pending"
        rejection = self._ledger.rejection(transaction_id)
        if rejection is not None:
            return f"rejected at height {rejection.height}, {rejection.name}: {rejection.text}"
        return "unknown"

    def outputs(self, rest: str) -> str:
        who, _, state = rest.partition(" ")
        key = decode_key(PEOPLE[who].public_key)
        page = self._ledger.reader.outputs_of(
            key, spent={"": None, "spent": True, "unspent": False}[state], limit=100
        )
        lines = []
        for row in page.items:
            output = self._ledger.reader.output(row.transaction_id, row.output_index)
            assert output is not None
            assert (output.spent_height != 0) == row.spent
            spender = (
                f", spent in block {output.spent_height} by {output.spent_by.hex()}"
                if output.spent_by
                else ""
            )
            lines.append(f"{row.transaction_id.hex()}/{row.output_index}: {output.amount}{spender}")
        return "\n".join(lines) or "none"

    def asset(self, name: str) -> str:
        page = self._ledger.reader.transactions_of(self._transactions[name].verified.id, limit=100)
        return "\n".join(
            f"{item.operation} {item.id.hex()} {item.height}/{item.position}" for item in page.items
        )

    def log(self, _: str) -> str:
        head = self._ledger.head
        return f"height {head.height}, {head.log_size} leaves, app hash {head.app_hash.hex()}"

    def fsck(self, _: str) -> str:
        path = self._ledger.path
        self._ledger.close()
        found = faults(path)
        self._open(path)
        return "\n".join(f"{fault.where}: {fault.what}" for fault in found) or "clean"


def _recipients(text: str) -> list[tuple[list[str], int]]:
    recipients = []
    for item in text.split(", "):
        people, _, amount = item.partition(" ")
        recipients.append(([PEOPLE[who].public_key for who in people.split("+")], int(amount)))
    return recipients


def _result(result: TransactionResult) -> str:
    if result.status == "rejected":
        return f"{result.id.hex()}: rejected, {result.name}: {result.text}"
    place = f" at {result.position}" if result.status == "committed" else ""
    return f"{result.id.hex()}: {result.status}{place}"
