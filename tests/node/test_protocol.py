"""Frames: every cut of the stream gives the same frames, and no bytes raise anything but `ProtocolError`."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcdb.ledger import Head
from bcdb.model import limits
from bcdb.model.errors import DoubleSpend, Overloaded, Unavailable, ValidationError
from bcdb.node import protocol
from tests.support.transactions import create

HEAD = Head(7, 1_000, b"h" * 32, b"a" * 32, 9)
VERIFIED = create(asset={"frame": 1}).verified
TO_NODE: list[protocol.ToNode] = [
    protocol.Hello(1, "worker-0", True),
    protocol.Submit(5, [VERIFIED, VERIFIED]),
    protocol.Await(6, VERIFIED.id),
    protocol.Forget(6),
    protocol.AskStatus(7, VERIFIED.id),
    protocol.AskInfo(8),
    protocol.VerifyResult(9, [VERIFIED, None], [protocol.Refusal(1, "InvalidHash", "wrong")]),
]
TO_WORKER: list[protocol.ToWorker] = [
    protocol.Welcome(1, "chain", HEAD),
    protocol.Answered(5, 2, [protocol.Refusal(1, "DoubleSpend", "spent")]),
    protocol.SettledAnswer(6, protocol.Settled("committed", 7, 3)),
    protocol.StatusAnswer(7, protocol.LocalStatus("rejected", "DoubleSpend", "spent", 7)),
    protocol.Published(HEAD),
    protocol.VerifyRequest(9, [VERIFIED.body]),
    protocol.Declined(9, "Unavailable", "gone"),
]


def frames_of(stream: bytes, cuts: list[int]) -> list[bytes]:
    splitter = protocol.FrameSplitter()
    found, start = [], 0
    for cut in [*sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]:
        found += [bytes(frame) for frame in splitter.feed(stream[start:cut])]
        start = cut
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=10**6), max_size=20))
def test_any_cut_of_the_stream_gives_the_same_messages(cuts: list[int]) -> None:
    stream = b"".join(bytes(protocol.encode(message)) for message in TO_NODE)
    found = [protocol.decode_to_node(memoryview(frame)) for frame in frames_of(stream, cuts)]
    assert found == TO_NODE


def test_byte_by_byte() -> None:
    stream = b"".join(bytes(protocol.encode(message)) for message in TO_WORKER)
    found = frames_of(stream, list(range(len(stream))))
    assert [protocol.decode_to_worker(memoryview(frame)) for frame in found] == TO_WORKER


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_a_protocol_error(raw: bytes) -> None:
    for decode in (protocol.decode_to_node, protocol.decode_to_worker):
        with contextlib.suppress(protocol.ProtocolError):
            decode(memoryview(raw))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TO_NODE), st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_damaged_message_is_a_message_or_a_protocol_error(
    message: protocol.ToNode, at: int, byte: int
) -> None:
    frame = bytearray(protocol.encode(message)[protocol.PREFIX_BYTES :])
    frame[at % len(frame)] = byte
    with contextlib.suppress(protocol.ProtocolError):
        protocol.decode_to_node(memoryview(bytes(frame)))


def test_a_nest_of_arrays_is_a_protocol_error() -> None:
    with pytest.raises(protocol.ProtocolError):
        protocol.decode_to_node(memoryview(b"\x91" * 100_000))


def test_too_long_a_frame_is_refused_before_it_comes() -> None:
    splitter = protocol.FrameSplitter()
    with pytest.raises(protocol.ProtocolError):
        list(splitter.feed((limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


def test_too_long_a_message_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FRAME_BYTES_MAX", 100)
    with pytest.raises(protocol.ProtocolError):
        protocol.encode(TO_NODE[1])


@pytest.mark.parametrize("error", [DoubleSpend("twice"), Overloaded("full"), Unavailable("gone")])
def test_errors_keep_their_class_and_text(error: ValidationError) -> None:
    restored = protocol.restore_error(error.name, error.text)
    assert (type(restored), restored.text) == (type(error), error.text)


def test_a_name_from_a_later_version_is_still_a_validation_error() -> None:
    assert type(protocol.restore_error("NotHereYet", "x")) is ValidationError
