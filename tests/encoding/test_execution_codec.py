"""Executions and nodes as the contract shows them, folded from their events."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
import trio
from trio.testing import MockClock

from plait.v1 import execution_pb2, graph_pb2, state_pb2
from plait_server.api.watching import FRAME_BYTES_MAX, FRAME_ROOM
from plait_server.core.run.execution import Execution
from plait_server.encoding.execution_codec import FAILURES_SHOWN_MAX, describe, describe_node, summarize
from plait_server.runtime.view import View
from tests.encoding.test_event_bounds import FAILURE, LABELS, PAYLOAD, REASON, USAGE
from tests.runtime.world import EPOCH_S, NAMESPACE, Runtime, fails, hangs, returns, running


async def shown(runtime: Runtime) -> execution_pb2.Execution:
    view = await runtime.supervisor.view(NAMESPACE, "x")
    message = describe(NAMESPACE, view.execution, view.queued_counts())
    check_counts(message, view)
    return message


async def node(runtime: Runtime, path: str, *, in_list: bool = False) -> execution_pb2.ExecutionNode:
    view = await runtime.supervisor.view(NAMESPACE, "x")
    return describe_node(
        view.execution,
        view.execution.record(path),
        is_queued=view.is_queued,
        queue_reason=view.queue_reason,
        in_list=in_list,
    )


def check_counts(message: execution_pb2.Execution, view: View) -> None:
    """Compare the counts, which are kept, with the states of the nodes."""
    shown = [
        describe_node(
            view.execution,
            record,
            is_queued=view.is_queued,
            queue_reason=view.queue_reason,
            in_list=True,
        ).state
        for record in view.execution.root.records
    ]
    assert message.node_counts.ended == sum(state >= 32 for state in shown)
    prefix = len("NODE_STATE_")
    for full_name, state in list(state_pb2.NodeState.items())[1:]:
        name = full_name[prefix:].lower()
        assert getattr(message.node_counts, name) == sum(1 for each in shown if each == state), name


@pytest.mark.parametrize("scheduling", ["READY", "LEVELS"])
async def test_counts_are_those_of_the_nodes_at_any_time(scheduling: str, autojump_clock: MockClock) -> None:
    """What is queued is counted with them (A1)."""
    scripts = {"a": fails("UNAVAILABLE", after_s=1), "b": returns("1", 3), "c": returns("1", 0.5)}
    text = (
        f"scheduling {scheduling}; policy CONTINUE; node a retry=3; node c1 kind=delay:2; "
        "a, b, c, d, e -> f; c -> c1; c1 -> c2; d -> g; e -error-> h"
    )
    async with running(scripts=scripts, slots=2) as runtime:
        await runtime.submit(text)
        for _ in range(40):
            await shown(runtime)
            await trio.sleep(0.25)
        assert (await runtime.wait_ended()).is_ended
        await shown(runtime)


async def test_an_execution_shows_its_state_times_counts_and_output(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("1", 2), "b": fails(after_s=3)}) as runtime:
        await trio.sleep(5)
        await runtime.submit("policy CONTINUE; a -> c; b -> d", input='{"i":1}')
        await trio.sleep(1)
        message = await shown(runtime)
        assert message.state == state_pb2.EXECUTION_STATE_RUNNING
        assert (message.node_counts.running, message.node_counts.idle) == (2, 2)
        assert not message.HasField("end_time")
        await runtime.wait_ended()
        message = await shown(runtime)
        assert message.state == state_pb2.EXECUTION_STATE_PARTIALLY_SUCCEEDED
        assert (message.namespace, message.execution_id, message.run) == (NAMESPACE, "x", 1)
        assert message.create_time.seconds == message.start_time.seconds == EPOCH_S + 5
        assert message.end_time.seconds == EPOCH_S + 8
        assert json.loads(message.input.json) == {"i": 1}
        assert json.loads(message.output.json) == {"c": 1}
        counts = message.node_counts
        assert (counts.succeeded, counts.failed, counts.skipped, counts.running) == (2, 1, 1, 0)
        assert message.failure.node_path == "b"
        assert [failure.node_path for failure in message.failures] == ["b"]
        assert (message.node_count, message.failure_count) == (4, 1)
        assert message.last_sequence == len(runtime.events())


async def test_a_queued_node_is_shown_with_its_reason(autojump_clock: MockClock) -> None:
    """A1: QUEUED has no event; Q6: its reason is the allocator's."""
    async with running(slots=0) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        message = await node(runtime, "a")
        assert message.state == state_pb2.NODE_STATE_QUEUED
        assert message.reason == "NO_WORKER"
        assert (await shown(runtime)).node_counts.queued == 1
        assert (await node(runtime, "b")).state == state_pb2.NODE_STATE_IDLE


async def test_a_node_shows_its_attempts(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": fails("ABORTED", after_s=1)}) as runtime:
        await runtime.submit("node a retry=3 backoff=2; a -> b")
        await trio.sleep(1.5)
        message = await node(runtime, "a")
        assert message.state == state_pb2.NODE_STATE_BACKING_OFF
        assert message.HasField("due_time")
        await runtime.wait_ended()
        whole, listed = await node(runtime, "a"), await node(runtime, "a", in_list=True)
        assert [attempt.number for attempt in whole.attempts] == [1, 2, 3]
        assert [attempt.number for attempt in listed.attempts] == [3]
        assert whole.attempt_count == listed.attempt_count == 3
        assert whole.attempts[0].failure.code == "ABORTED"
        assert whole.attempts[0].worker_id == "w"
        assert (whole.kind, whole.type, whole.level, whole.branch) == (graph_pb2.NODE_KIND_TASK, "t", 0, "0")
        assert whole.failure.node_path == "a"


async def test_inputs_and_outputs_are_not_in_lists(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("[1]")}) as runtime:
        await runtime.submit('node b input="x"; a -> b')
        await runtime.wait_ended()
        whole, listed = await node(runtime, "b"), await node(runtime, "b", in_list=True)
        assert whole.input.json == '"x"'
        assert whole.output.json == '"x"'
        assert not listed.HasField("input")
        assert not listed.HasField("output")


async def test_failures_are_bounded_and_counted(autojump_clock: MockClock) -> None:
    nodes = [f"n{number}" for number in range(FAILURES_SHOWN_MAX + 20)]
    async with running(scripts=dict.fromkeys(nodes, fails()), slots=200) as runtime:
        await runtime.submit(f"policy CONTINUE; {', '.join(nodes)} -> end")
        execution = await runtime.wait_ended()
        message = describe(NAMESPACE, execution, {})
        assert len(message.failures) == FAILURES_SHOWN_MAX
        assert message.failure_count == len(nodes)


async def test_a_summary_holds_no_payloads(autojump_clock: MockClock) -> None:
    async with running(scripts={"b": hangs}) as runtime:
        await runtime.submit("a -> b", input='"large"')
        await trio.sleep(1)
        view = await runtime.supervisor.view(NAMESPACE, "x")
        message = summarize(NAMESPACE, view.execution)
        assert not message.HasField("input")
        assert len(message.failures) == 0
        row = execution_pb2.Execution.FromString(runtime.store.executions[NAMESPACE, "x"].row.summary)
        assert row.state == message.state == state_pb2.EXECUTION_STATE_RUNNING


def bloat(execution: Execution) -> None:
    """Return an execution the largest that each of its fields may hold."""
    execution.labels = LABELS
    execution.input = execution.output = PAYLOAD
    execution.reason = REASON
    execution.failure = FAILURE
    execution.usage = {f"{number:0128}": Decimal("9" * 45 + "." + "9" * 40) for number in range(2_000)}
    execution.root.failures[:] = [FAILURE] * 200
    record = execution.record("a")
    record.failure, record.input, record.output = FAILURE, PAYLOAD, PAYLOAD
    for attempt in record.attempts:
        attempt.failure, attempt.usage = FAILURE, USAGE
    record.attempts *= 1_000


async def test_the_largest_execution_fits_into_the_first_part_of_a_snapshot(
    autojump_clock: MockClock,
) -> None:
    """DESIGN 4: a frame is at most 1 MiB, an answer 4 MiB; a page has room for the largest entry."""
    async with running(scripts={"a": fails()}) as runtime:
        await runtime.submit("a -> b")
        await runtime.wait_ended()
        view = await runtime.supervisor.view(NAMESPACE, "x")
        bloat(view.execution)
        whole = describe(NAMESPACE, view.execution, {})
        assert whole.ByteSize() <= FRAME_BYTES_MAX - FRAME_ROOM - 1_000
        assert 1 <= len(whole.failures) < FAILURES_SHOWN_MAX
        assert summarize(NAMESPACE, view.execution).ByteSize() <= 128 * 1024
        shown = await node(runtime, "a")
        assert shown.ByteSize() <= 3 * 1024 * 1024
        assert shown.attempt_count == 1_000
        assert len(shown.attempts) > 1
        assert (await node(runtime, "a", in_list=True)).ByteSize() <= 128 * 1024
