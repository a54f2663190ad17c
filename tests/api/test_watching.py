"""Frames of events: joined bytes are the messages that carry them, and frames keep their bounds."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import event_pb2, execution_service_pb2
from plait_server.api.watching import FRAME_BYTES_MAX, cut_frame, join_events, join_frame

messages = st.lists(
    st.builds(
        event_pb2.Event,
        sequence=st.integers(0, 2**63 - 1),
        run=st.integers(0, 2**31 - 1),
        node_path=st.text(max_size=8) | st.sampled_from(["n" * 100, "n" * 127, "n" * 16_384]),
    ),
    max_size=6,
)


@given(messages)
def test_joined_events_are_the_field_of_both_answers(events: Sequence[event_pb2.Event]) -> None:
    contents = [event.SerializeToString() for event in events]
    watched = execution_service_pb2.WatchExecutionResponse.FromString(join_frame(contents))
    listed = execution_service_pb2.ListEventsResponse.FromString(join_events(contents))
    assert list(watched.events.events) == list(events)
    assert list(listed.events) == list(events)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_a_length_at_each_edge_of_its_encoding_is_written_right(size: int) -> None:
    carried = execution_service_pb2.WatchExecutionResponse()
    event = carried.events.events.add(node_path="n" * size)
    while event.ByteSize() > size and event.node_path:  # The tag and the length of the path count, too.
        event.node_path = event.node_path[: size - event.ByteSize()]
    assert join_frame([event.SerializeToString()]) == carried.SerializeToString()


@given(st.lists(st.integers(0, FRAME_BYTES_MAX * 2), max_size=8), st.integers(1, 5))
def test_a_frame_keeps_its_bounds_and_is_as_full_as_they_allow(sizes: Sequence[int], events_max: int) -> None:
    zeros = bytes(FRAME_BYTES_MAX * 2)
    events = [zeros[:size] for size in sizes]
    frame = cut_frame(events, events_max)
    assert frame == events[: len(frame)]
    assert len(frame) <= events_max
    assert bool(frame) is bool(events)
    if len(frame) > 1:
        assert len(join_frame(frame)) <= FRAME_BYTES_MAX
    if len(frame) < min(len(events), events_max):
        # The next would go over the limit; a length and a tag take 8 bytes at most.
        assert sum(len(event) + 8 for event in events[: len(frame) + 1]) > FRAME_BYTES_MAX


def test_a_large_event_goes_alone() -> None:
    large = bytes(FRAME_BYTES_MAX + 1)
    assert cut_frame([large, b"x"], 100) == [large]
    assert cut_frame([b"x", large], 100) == [b"x"]
