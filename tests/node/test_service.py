"""The service through real links: what is answered when, conflicts, bounds, what one link's fault costs."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from bcdb.model import limits
from bcdb.model.errors import (
    DoubleSpend,
    DuplicateTransaction,
    InputDoesNotExist,
    Overloaded,
    StorageFailed,
    Unavailable,
    ValidationError,
)
from bcdb.model.transaction import Verified
from bcdb.node import protocol
from bcdb.node.link import NodeLink
from tests.node.harness import running_node
from tests.support.transactions import Signed, alice, bob, carol, create, transfer


async def is_waiting(future: asyncio.Future[None]) -> bool:
    """Whether the future stays undone for as long as the loop has anything to do right away."""
    for _ in range(50):
        await asyncio.sleep(0)
    return not future.done()


async def commit(link: NodeLink, signed: Signed) -> protocol.Settled:
    settled = await link.submit_and_wait(signed.verified, 20)
    assert settled.status == "committed"
    return settled


async def test_accepted_committed_and_published(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        assert link.chain_id == "test-chain"
        assert link.head.height == 0
        asset = create(asset={"a": 1})
        settled = await link.submit_and_wait(asset.verified, 20)
        assert settled == protocol.Settled("committed", 1, 0)
        assert link.head.height == 1, "who learns of a block's content knows the height already"
        spent = transfer([(asset, 0)], [([bob.public_key], 1)])
        assert await link.submit_and_wait(spent.verified, 20) == protocol.Settled("committed", 2, 0)
        assert await link.status(spent.verified.id) == protocol.LocalStatus("committed", height=2)
        info = await link.info()
        assert (info.height, info.pending_count, info.accepted, info.committed) == (2, 0, 2, 2)
        assert (info.chain_id, info.engine, info.links) == ("test-chain", "solo", 1)
        assert info.validators == [(info.node_key, 10)]
        assert info.cpu_s > 0


async def test_nothing_is_answered_before_its_flush(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        asset = create(asset={"a": 1})
        accepted = link.submit_nowait(asset.verified)
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        again = link.submit_nowait(asset.verified)
        status = asyncio.ensure_future(link.status(asset.verified.id))
        settled = asyncio.ensure_future(link.settled(asset.verified.id, 20))
        assert (await link.info()).pending_count == 1, "accepted, but not durable"
        assert await is_waiting(accepted)
        assert await is_waiting(again), "a refusal rests on what is not durable yet"
        assert await is_waiting(status)
        node.ledger.gate.set()
        await accepted
        with pytest.raises(DuplicateTransaction):
            await again
        assert (await status).status == "pending"
        assert (await settled).status == "committed"


async def test_no_height_is_published_before_its_flush(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        asset = create(asset={"a": 1})
        heights: list[int] = []
        link.subscribe(lambda head: heights.append(head.height))
        applied = asyncio.Event()
        commit_block = node.ledger.commit

        def commit(outcome: object) -> int:
            node.ledger.shut()
            mark = commit_block(outcome)  # type: ignore[arg-type]
            applied.set()
            return mark

        node.ledger.commit = commit  # type: ignore[method-assign]
        await link.submit(asset.verified)
        await asyncio.wait_for(applied.wait(), 20)
        assert node.ledger.head.height == 1
        assert (await link.info()).height == 0
        settled = asyncio.ensure_future(link.settled(asset.verified.id, 20))
        status = asyncio.ensure_future(link.status(asset.verified.id))
        assert await is_waiting(settled)
        assert heights == []
        node.ledger.gate.set()
        assert (await status).status == "pending", "as of the published height"
        assert (await settled).status == "committed"
        assert heights == [1]


async def test_accepting_goes_on_while_a_flush_runs(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        first = link.submit_nowait(create(asset={"n": 0}).verified)
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        flushes = node.service.flushes
        others = [link.submit_nowait(create(asset={"n": n}).verified) for n in range(1, 50)]
        assert (await link.info()).pending_count == 50
        node.ledger.gate.set()
        await asyncio.gather(first, *others)
        assert node.service.flushes - flushes <= 10, "one flush covers all that arrived meanwhile"
        await link.wait_height(1, 20)


async def test_two_links_and_a_conflict(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        one, two = await node.link("one"), await node.link("two")
        asset = create(asset={"a": 1})
        await commit(one, asset)
        await two.wait_height(1, 20)
        left = transfer([(asset, 0)], [([bob.public_key], 1)])
        right = transfer([(asset, 0)], [([carol.public_key], 1)])
        results = await asyncio.gather(
            one.submit(left.verified), two.submit(right.verified), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["DoubleSpend", "NoneType"]
        winner = left if results[0] is None else right
        settled = await two.settled(winner.verified.id, 20)
        assert settled.status == "committed"
        await one.wait_height(settled.height, 20)
        for link in (one, two):
            with pytest.raises(DoubleSpend):
                await link.submit((right if winner is left else left).verified)
            with pytest.raises(DuplicateTransaction):
                await link.submit(winner.verified)


async def test_many_from_two_links_at_once(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        links = [await node.link("one"), await node.link("two")]
        assets = [create(asset={"n": number}) for number in range(300)]
        await asyncio.gather(*(links[n % 2].submit(asset.verified) for n, asset in enumerate(assets)))
        settled = await asyncio.gather(
            *(links[n % 2].settled(asset.verified.id, 20) for n, asset in enumerate(assets))
        )
        assert {found.status for found in settled} == {"committed"}
        assert len({(found.height, found.position) for found in settled}) == 300
        assert node.ledger.head.log_size == 300
        assert not node.ledger.pending


async def test_a_pending_output_can_not_be_spent(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        asset = create(asset={"a": 1})
        spender = transfer([(asset, 0)], [([bob.public_key], 1)])
        accepted, refused = link.submit_nowait(asset.verified), link.submit_nowait(spender.verified)
        await accepted
        with pytest.raises(InputDoesNotExist):
            await refused


async def test_a_refused_commit_raises_and_an_unknown_id_is_unknown(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        asset = create(asset={"a": 1})
        spender = transfer([(asset, 0)], [([bob.public_key], 1)])
        with pytest.raises(InputDoesNotExist):
            await link.submit_and_wait(spender.verified, 20)
        assert (await link.status(spender.verified.id)).status == "unknown"
        assert (await link.settled(spender.verified.id, 20)).status == "unknown"
        assert node.service.waiting == 0


async def test_a_full_log_is_overloaded_and_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAL_ENTRIES_MAX", 5)
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        assets = [create(asset={"n": number}) for number in range(8)]
        futures = [link.submit_nowait(asset.verified) for asset in assets]
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        node.ledger.gate.set()
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(result) for result in results] == [type(None)] * 5 + [Overloaded] * 3
        await link.settled(assets[4].verified.id, 20)
        await link.submit(assets[7].verified)


async def test_a_worker_may_not_have_too_much_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINK_SUBMITS_MAX", 2)
    monkeypatch.setattr(limits, "LINK_REQUESTS_MAX", 1)
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        futures = [link.submit_nowait(create(asset={"n": n}).verified) for n in range(3)]
        with pytest.raises(Overloaded):
            await futures[2]
        first = asyncio.ensure_future(link.settled(create(asset={"n": 0}).verified.id, 20))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await link.info()
        node.ledger.gate.set()
        await asyncio.gather(*futures[:2])
        assert (await first).status == "committed"


async def test_a_wait_that_is_over_gives_pending_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        blocked = asyncio.Event()

        async def no_commit() -> None:
            blocked.set()
            await asyncio.Event().wait()

        node.engine._started.commit = no_commit  # type: ignore[assignment, method-assign]
        asset = create(asset={"a": 1})
        assert await link.submit_and_wait(asset.verified, 0.3) == protocol.Settled("pending")
        assert (await link.status(asset.verified.id)).status == "pending"
        await link.info()
        assert node.service.waiting == 0
        waiting = asyncio.ensure_future(link.settled(asset.verified.id, 20))
        await link.info()
        assert node.service.waiting == 1
        link.close()
        with pytest.raises(Unavailable):
            await waiting
        async with asyncio.timeout(20):
            while node.service.waiting:
                await asyncio.sleep(0.001)
        node.abandon()


async def test_who_waits_gets_unavailable_when_the_node_goes(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        accepted = link.submit_nowait(create(asset={"a": 1}).verified)
        waiting = [
            asyncio.ensure_future(link.settled(b"x" * 32, 20)),
            asyncio.ensure_future(link.wait_height(5)),
            asyncio.ensure_future(link.wait_closed()),
        ]
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        for connection in tuple(node.server.connections):
            connection.cut("for the test")
        with pytest.raises(Unavailable):
            await accepted
        for future in waiting[:2]:
            with pytest.raises(Unavailable):
                await future
        await waiting[2]
        assert not link.is_open
        for call in (link.submit(create().verified), link.info(), link.wait_height(9)):
            with pytest.raises(Unavailable):
                await call


async def test_what_a_lost_worker_submitted_stays(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        one, two = await node.link("one"), await node.link("two")
        node.ledger.shut()
        asset = create(asset={"a": 1})
        one.submit_nowait(asset.verified).add_done_callback(lambda future: future.exception())
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        one.close()
        await one.wait_closed()
        node.ledger.gate.set()
        assert (await two.settled(asset.verified.id, 20)).status == "committed"


def damaged(signed: Signed) -> Verified:
    """What no worker sends: an output index that no key can hold."""
    spend = signed.verified.spends[0]
    return msgspec.structs.replace(
        signed.verified, spends=(msgspec.structs.replace(spend, output_index=2**40),)
    )


async def test_what_the_ledger_can_not_take_costs_its_own_link_only(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        bad, good = await node.link("bad"), await node.link("good")
        asset = create(asset={"a": 1})
        await commit(good, asset)
        broken = damaged(transfer([(asset, 0)], [([bob.public_key], 1)]))
        fine = [create(asset={"n": number}) for number in range(2)]
        node.service.submit(node.connection("bad"), protocol.Submit(1, [fine[0].verified, broken]))
        accepted = good.submit_nowait(fine[1].verified)
        await bad.wait_closed()
        await accepted
        await commit(good, fine[0])
        assert good.is_open
        assert not node.service.failure.done()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x00\x00\x01\xc1",
        b"\xff\xff\xff\xff",
        bytes(protocol.encode(protocol.AskInfo(1))),
        bytes(protocol.encode(protocol.Hello(99, "future", False))),
        bytes(protocol.encode(protocol.Hello(protocol.VERSION, "twice", False))) * 2,
    ],
)
async def test_a_link_that_talks_nonsense_is_cut_and_no_other(tmp_path: Path, raw: bytes) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        reader, writer = await asyncio.open_unix_connection(str(node.socket_path))
        writer.write(raw)
        async with asyncio.timeout(20):
            while await reader.read(1 << 16):
                pass
        writer.close()
        await commit(link, create(asset={"a": 1}))


async def test_a_worker_that_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINK_OUTPUT_BYTES_MAX", 64 * 1024)
    async with running_node(tmp_path) as node:
        link = await node.link()
        _, writer = await asyncio.open_unix_connection(str(node.socket_path), limit=1)
        writer.write(bytes(protocol.encode(protocol.Hello(protocol.VERSION, "stuck", False))))
        questions = b"".join(bytes(protocol.encode(protocol.AskInfo(number))) for number in range(20_000))
        writer.transport.set_write_buffer_limits(high=2**26)
        writer.write(questions)
        async with asyncio.timeout(20):
            while len(node.server.connections) == 2 or not node.server.connections:
                await asyncio.sleep(0.01)
        writer.transport.abort()
        await commit(link, create(asset={"a": 1}))


async def test_there_is_a_bound_on_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINKS_MAX", 1)
    async with running_node(tmp_path) as node:
        link = await node.link()
        with pytest.raises(Unavailable):
            await node.link("one too many")
        await commit(link, create(asset={"a": 1}))


async def test_a_failed_flush_makes_everything_unavailable(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        await commit(link, create(asset={"a": 0}))
        node.ledger.shut()
        asset = create(asset={"a": 1})
        accepted = link.submit_nowait(asset.verified)
        settled = asyncio.ensure_future(link.settled(asset.verified.id, 20))
        status = asyncio.ensure_future(link.status(asset.verified.id))
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        await link.info()
        node.ledger.flush_error = StorageFailed("The disk is gone.")
        node.ledger.gate.set()
        for waiting in (accepted, settled, status):
            with pytest.raises(Unavailable):
                await waiting
        with pytest.raises(Unavailable):
            await link.submit(create(asset={"a": 2}).verified)
        assert isinstance(await node.service.failure, StorageFailed)
        assert link.head.height == 1


async def test_a_broken_engine_ends_the_node_in_the_open(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()

        def broken(*_: object) -> object:
            raise RuntimeError("a bug")

        node.ledger.applying = broken  # type: ignore[assignment, method-assign]
        asset = create(asset={"a": 1})
        with pytest.raises(Unavailable):
            await link.submit_and_wait(asset.verified, 20)
        assert isinstance(await node.service.failure, RuntimeError)
        assert asset.verified.id in node.ledger.pending


async def test_pending_entries_are_taken_up_at_the_next_start(tmp_path: Path) -> None:
    assets = [create(asset={"n": number}) for number in range(20)]
    async with running_node(tmp_path) as node:
        link = await node.link()

        async def no_commit() -> None:
            await asyncio.Event().wait()

        node.engine._started.commit = no_commit  # type: ignore[assignment, method-assign]
        await asyncio.gather(*(link.submit(asset.verified) for asset in assets))
        node.abandon()
    async with running_node(tmp_path) as node:
        link = await node.link()
        settled = await asyncio.gather(*(link.settled(asset.verified.id, 20) for asset in assets))
        assert {found.status for found in settled} == {"committed"}
        assert [found.position for found in settled] == list(range(20)), "in the order of acceptance"


async def test_draining_answers_what_came_before_and_refuses_what_comes_after(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        node.ledger.shut()
        before = link.submit_nowait(create(asset={"n": 0}).verified)
        assert await asyncio.to_thread(node.ledger.flush_begun.wait, 20)
        draining = asyncio.create_task(node.service.drain())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await link.submit(create(asset={"n": 1}).verified)
        node.ledger.gate.set()
        await before
        await draining


async def test_listeners_see_every_head_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        seen: list[int] = []
        errors: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

        def broken(_: object) -> None:
            raise RuntimeError("a listener's bug")

        link.subscribe(broken)
        unsubscribe = link.subscribe(lambda head: seen.append(head.height))
        await commit(link, create(alice, asset={"n": 0}))
        unsubscribe()
        await commit(link, create(alice, asset={"n": 1}))
        assert seen == [1]
        assert len(errors) == 2
        assert (await link.wait_height(2)).height == 2
        assert (await link.wait_height(3, 0.01)).height == 2


async def test_workers_verify_what_the_node_hands_them(tmp_path: Path) -> None:
    signed = [create(asset={"n": number}) for number in range(40)]
    async with running_node(tmp_path) as node:
        link = await node.link("verifier", verifies=True)
        await node.link("projection")
        answers: list[object] = []
        answer = node.service.verifiers.answer

        def count(send: object, result: protocol.VerifyResult) -> None:
            answers.append(result)
            answer(send, result)  # type: ignore[arg-type]

        node.service.verifiers.answer = count  # type: ignore[assignment, method-assign]
        results = await node.service.verifiers.verify([found.raw for found in signed] + [b"{}"])
        assert results[:-1] == [found.verified for found in signed]
        assert isinstance(results[-1], ValidationError)
        assert len(answers) == 1
        link.close()
        await link.wait_closed()
        assert await node.service.verifiers.verify([signed[0].raw]) == [signed[0].verified]


async def test_too_many_waits_are_told_that_it_is_pending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(tmp_path) as node:
        link = await node.link()
        asset = create(asset={"a": 1})
        node.ledger.shut()
        accepted = link.submit_nowait(asset.verified)
        await link.info()
        node.ledger.gate.set()
        monkeypatch.setattr(limits, "LINK_REQUESTS_MAX", 0)
        node.service.wait_settled(node.connection("worker"), 10**6, asset.verified.id)
        assert node.service.waiting == 0
        with pytest.raises(Overloaded):
            await link.submit_and_wait(create(asset={"a": 2}).verified, 20)
        await accepted
        assert len(node.ledger.pending) + node.ledger.head.log_size == 1, "nothing was stored"


async def test_the_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        assert node.socket_path.stat().st_mode & 0o777 == 0o600
    assert not node.socket_path.exists()
