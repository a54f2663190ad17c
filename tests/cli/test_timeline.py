"""Events as lines."""

from __future__ import annotations

import pytest

from plait.v1 import event_pb2, state_pb2
from plait_server.cli.timeline import Timeline


@pytest.mark.parametrize("name", event_pb2.EventType.keys()[1:])
def test_every_type_of_event_is_known(name: str) -> None:
    line = Timeline(8).line(event_pb2.Event(type=name, node_path="a"))
    assert "older than the server" not in line


def test_scopes_are_told_at_their_nodes() -> None:
    timeline = Timeline(12)
    opened = event_pb2.Event(
        type=event_pb2.EVENT_TYPE_SCOPE_OPENED,
        node_path="outer/inner",
        node_state=state_pb2.NODE_STATE_RUNNING,
        scope_opened=event_pb2.ScopeOpened(scope_path="outer/inner", node_count=3),
    )
    ended = event_pb2.Event(
        type=event_pb2.EVENT_TYPE_SCOPE_ENDED,
        node_path="outer/inner",
        scope_ended=event_pb2.ScopeEnded(
            scope_path="outer/inner", state=state_pb2.EXECUTION_STATE_PARTIALLY_SUCCEEDED
        ),
    )
    assert [timeline.line(event) for event in (opened, ended)] == [
        "    0.000  outer/inner   opened      3 nodes",
        "    0.000  outer/inner   graph ended partially succeeded",
    ]


def test_what_a_stopped_attempt_used_is_told() -> None:
    event = event_pb2.Event(type=event_pb2.EVENT_TYPE_USAGE_REPORTED, node_path="a")
    event.usage_reported.usage["tokens"] = "12"
    assert Timeline(8).line(event) == "    0.000  a         used        12 tokens"
