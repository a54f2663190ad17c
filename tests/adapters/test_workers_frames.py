"""Frames of workers are split before they are parsed: nothing is lost, and nothing may cost much."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.adapters.workers.frames import (
    COMPLETE_BYTES_MAX,
    FRAME_MESSAGES_MAX,
    PIECE_BYTES,
    PIECE_MESSAGES,
    WHOLE_BYTES,
    Oversized,
    split,
)
from plait_server.core.limits import HELD_ATTEMPTS_MAX, LABELS_MAX, MIB, PAYLOAD_BYTES_MAX, SERVED_TYPES_MAX
from plait_server.errors import InvalidRequest, ProtocolViolation


def complete(json_bytes: int, token: str = "t") -> pb.WorkerMessage:
    output = payload_pb2.Payload(json="x" * json_bytes)
    return pb.WorkerMessage(complete=pb.Complete(token=token, output=output))


def frame(*messages: pb.WorkerMessage) -> bytes:
    return pb.AttachRequest(messages=messages).SerializeToString()


def messages_of(content: bytes) -> list[pb.WorkerMessage]:
    """Parse a frame piece by piece; each is a frame of its own."""
    messages: list[pb.WorkerMessage] = []
    for piece in split(content):
        assert isinstance(piece, bytes)
        parsed = pb.AttachRequest.FromString(piece).messages
        assert len(parsed) <= max(PIECE_MESSAGES, WHOLE_BYTES // 2)
        messages += parsed
    return messages


def pong(number: int) -> pb.WorkerMessage:
    return pb.WorkerMessage(pong=pb.Pong(number=number))


def log_line(size: int) -> pb.WorkerMessage:
    return pb.WorkerMessage(log=pb.LogLine(message="x" * size))


MESSAGES = st.one_of(
    st.builds(pong, st.integers(0, 2**62)),
    st.just(pb.WorkerMessage()),
    st.builds(complete, st.sampled_from([0, 100, 126, 127, 128, 16_300, 16_400, PIECE_BYTES, 300_000])),
    st.builds(log_line, st.integers(0, 40_000)),
    # A message of a later protocol, and one field of it that stands beside `messages`.
    st.just(pb.WorkerMessage.FromString(b"\xfa\x01\x03abc")),
)


@given(st.lists(st.tuples(MESSAGES, st.integers(1, 200)), max_size=8))
def test_the_pieces_are_the_frame(runs: list[tuple[pb.WorkerMessage, int]]) -> None:
    messages = [message for message, times in runs for _ in range(times if message.ByteSize() < 1_000 else 1)]
    content = frame(*messages)
    assert messages_of(content) == messages


def test_fields_of_a_later_protocol_are_stepped_over() -> None:
    unknown = b"\x10\x05" + b"\x19" + bytes(8) + b"\x22\x03abc" + b"\x2d" + bytes(4)
    large = b"\x32\x80\x80\x08" + bytes(128 * 1024)
    pongs = [pb.WorkerMessage(pong=pb.Pong(number=number)) for number in range(5_000)]
    content = unknown + frame(*pongs[:4_000]) + large + unknown + frame(*pongs[4_000:])
    assert messages_of(content) == pongs


@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_a_frame_that_is_cut_is_refused(cut: int) -> None:
    content = frame(*[complete(100)] * 300, complete(100_000))
    with pytest.raises(ProtocolViolation):
        list(split(content[:-100_000]))
    with pytest.raises(ProtocolViolation):
        list(split(content + b"\x0a\xff\xff\x7f"[:cut] + b"\x0b" * (cut == 1)))


def test_a_frame_has_so_many_messages_and_no_more() -> None:
    assert len(messages_of(b"\x0a\x00" * FRAME_MESSAGES_MAX)) == FRAME_MESSAGES_MAX
    with pytest.raises(ProtocolViolation, match="16384 messages"):
        list(split(b"\x0a\x00" * (FRAME_MESSAGES_MAX + 1)))


@pytest.mark.parametrize("kind", ["complete", "fail"])
@pytest.mark.parametrize("extra", [0, 5 * MIB], ids=["alone in 4 MiB", "alone beyond"])
def test_a_result_too_large_is_named_and_not_parsed(kind: str, extra: int) -> None:
    text = "x" * (2 * MIB + extra)
    message = (
        pb.WorkerMessage(complete=pb.Complete(token="abc", output=payload_pb2.Payload(json=text)))
        if kind == "complete"
        else pb.WorkerMessage(fail=pb.Fail(token="abc", message=text))
    )
    (piece,) = split(frame(message))
    assert isinstance(piece, Oversized)
    assert (piece.token, piece.is_result) == ("abc", kind == "complete")
    assert piece.size > 2 * MIB + extra


def test_a_result_of_the_largest_size_is_handed_on_whole() -> None:
    largest = complete(PAYLOAD_BYTES_MAX)
    before, after = pb.WorkerMessage(drain=pb.Drain()), pb.WorkerMessage(pong=pb.Pong(number=1))
    assert messages_of(frame(before, largest, after)) == [before, largest, after]
    too_large = complete(COMPLETE_BYTES_MAX, "second")
    pieces = list(split(frame(before, too_large, after, largest)))
    assert [isinstance(piece, Oversized) for piece in pieces] == [False, True, False, False]


def test_a_result_of_many_fields_is_too_large_whatever_its_size() -> None:
    """The cost of parsing grows with objects, not bytes."""
    output = payload_pb2.Payload(json="x" * 70_000)
    units = pb.UsageTotals(amounts={f"{number:0128}": "1" for number in range(200)})
    causes = [failure_pb2.Failure()] * 10_001
    for message in (
        pb.WorkerMessage(complete=pb.Complete(token="abc", output=output, usage=units)),
        pb.WorkerMessage(fail=pb.Fail(token="abc", details=output, usage=units)),
        pb.WorkerMessage(fail=pb.Fail(token="abc", details=output, causes=causes)),
    ):
        (piece,) = split(frame(message))
        assert isinstance(piece, Oversized)
        assert piece.token == "abc"
    repeated = pb.Complete(token="abc").SerializeToString() * 20_000
    (piece,) = split(wrapped(repeated, b"\x4a"))
    assert isinstance(piece, Oversized)


def test_a_result_too_large_without_a_token_cannot_be_answered() -> None:
    with pytest.raises(ProtocolViolation, match="names no attempt"):
        list(split(frame(complete(2 * MIB, token=""))))


def test_several_messages_in_more_than_four_mebibytes_are_refused() -> None:
    lines = [pb.WorkerMessage(log=pb.LogLine(message="x" * 1_000))] * 5_000
    for messages in ([complete(5 * MIB), complete(1)], [complete(1), complete(5 * MIB)], lines):
        with pytest.raises(ProtocolViolation, match="several messages"):
            list(split(frame(*messages)))


def test_a_large_message_says_one_thing() -> None:
    """Nothing stands behind what was looked at, neither many small fields nor another result."""
    small = pb.WorkerMessage(complete=pb.Complete(token="abc")).SerializeToString()
    large = complete(100_000).SerializeToString()
    for body in (small + b"\x72\x00" * 500_000, small * 10 + large, large + small, large + large):
        with pytest.raises(ProtocolViolation, match="one thing"):
            list(split(delimited(body)))


def test_a_hello_is_at_most_four_mebibytes() -> None:
    with pytest.raises(ProtocolViolation, match="at most"):
        list(split(frame(pb.WorkerMessage(hello=pb.Hello(sdk="x" * 5 * MIB)))))


@pytest.mark.parametrize(
    ("message", "is_dropped"),
    [
        (pb.WorkerMessage(log=pb.LogLine(message="x" * 100_000)), True),
        (pb.WorkerMessage(progress=pb.Progress(message="x" * 100_000)), True),
        (pb.WorkerMessage(usage=pb.Usage(amount="1" * 100_000)), True),
        (pb.WorkerMessage(heartbeat=pb.AttemptHeartbeat(token="x" * 100_000)), True),
        (pb.WorkerMessage.FromString(b"\xfa\x01\xa0\x8d\x06" + bytes(100_000)), True),
        (pb.WorkerMessage(reject=pb.Reject(message="x" * 100_000)), False),
        (pb.WorkerMessage(accept=pb.Accept(token="x" * 100_000)), False),
        (pb.WorkerMessage(exited=pb.Exited(token="x" * 100_000)), False),
    ],
    ids=["log", "progress", "usage", "heartbeat", "later protocol", "reject", "accept", "exited"],
)
def test_other_messages_are_small(message: pb.WorkerMessage, is_dropped: bool) -> None:
    """Oversized reports are dropped; for anything else the worker is told."""
    pong = pb.WorkerMessage(pong=pb.Pong(number=1))
    if is_dropped:
        assert messages_of(frame(pong, message, pong)) == [pong, pong]
    else:
        with pytest.raises(ProtocolViolation, match="at most 65536"):
            list(split(frame(pong, message)))


@pytest.mark.parametrize(
    ("field", "limit", "entry"),
    [
        ("in_flight", HELD_ATTEMPTS_MAX, b"\x42\x00"),
        ("types", SERVED_TYPES_MAX, b"\x2a\x00"),
        ("labels", LABELS_MAX, b"\x3a\x00"),
    ],
)
def test_the_lists_of_hello_are_counted_before_it_is_parsed(field: str, limit: int, entry: bytes) -> None:
    def hello(count: int) -> bytes:
        return wrapped(pb.Hello(sdk="x" * 70_000).SerializeToString() + entry * count)

    assert len(messages_of(hello(limit))) == 1
    with pytest.raises(InvalidRequest, match=f"hello.{field}: must be at most {limit}"):
        list(split(hello(limit + 1)))


def test_a_hello_that_repeats_itself_is_refused() -> None:
    with pytest.raises(ProtocolViolation, match="repeats"):
        list(split(wrapped(b"\x12\x01w" * 50_000)))


@given(st.binary(max_size=40))
def test_any_bytes_are_split_or_refused(tail: bytes) -> None:
    with suppress(ProtocolViolation, InvalidRequest):
        for _ in split(frame(*[complete(10)] * 1_000) + tail):
            pass


def wrapped(content: bytes, tag: bytes = b"\x0a") -> bytes:
    """Make a frame of an encoded Hello, or of what the tag says."""
    return delimited(delimited(content, tag))


def delimited(content: bytes, tag: bytes = b"\x0a") -> bytes:
    """Make a field; by default the one that holds the messages of a frame."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return tag + bytes([*length, size]) + content
