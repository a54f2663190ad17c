"""U1: late usage is shown beside an attempt, and a node with much of it still fits into an answer."""

from __future__ import annotations

from plait.v1 import execution_pb2
from plait_server.api.late_usage import SHOWN_BYTES_MAX, LateUsage

USAGE = {f"{number:0128}": "9" * 80 for number in range(64)}


def test_late_usage_of_many_attempts_is_that_of_the_newest() -> None:
    count = 1_000
    late = LateUsage({("a", number): USAGE for number in range(1, count + 1)})
    node = execution_pb2.ExecutionNode(
        path="a", attempts=[execution_pb2.Attempt(number=number) for number in range(1, count + 1)]
    )
    late.show_node(node)
    shown = [attempt.number for attempt in node.attempts if attempt.late_usage]
    assert shown == list(range(count + 1 - len(shown), count + 1))
    assert len(shown) > 10
    assert node.ByteSize() < SHOWN_BYTES_MAX + 32 * 1024
