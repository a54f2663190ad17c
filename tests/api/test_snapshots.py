"""Snapshots that are written in slices are of one sequence, whatever happens between the slices."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from plait.v1 import execution_service_pb2
from plait_server.api import snapshots
from plait_server.api.snapshots import write_snapshot
from plait_server.core.run.execution import Execution
from plait_server.core.run.states import NodeState
from plait_server.encoding.execution_codec import describe_node
from plait_server.runtime.closed_scopes import ClosedScopes
from plait_server.runtime.view import View
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Runtime, returns, running, with_limit

NODES = [f"n{number}" for number in range(300)]


def whole(frames: list[bytes]) -> execution_service_pb2.Snapshot:
    """Put the parts together."""
    snapshot = execution_service_pb2.Snapshot()
    for frame in frames:
        part = execution_service_pb2.WatchExecutionResponse.FromString(frame).snapshot
        assert part.last == (frame is frames[-1])
        snapshot.MergeFrom(part)
    return snapshot


async def replayed(runtime: Runtime, sequence: int) -> Execution:
    """Return the state after an event."""
    ended = await runtime.replay()
    execution = Execution(ended.root.graph, ended.root.analysis)
    for event in runtime.events()[:sequence]:
        execution.apply(event)
    return execution


async def test_a_snapshot_is_of_one_sequence_though_nodes_change_while_it_is_written(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = {name: returns("1", 0.001 * number) for number, name in enumerate(NODES)}
    async with running(scripts=scripts, slots=1_000) as runtime:
        await runtime.submit(f"{', '.join(NODES)} -> end")
        await trio.sleep(0.1)
        looks = itertools.count()

        async def view_of() -> View:
            # Time passes between two slices, and ever less of it.
            await trio.sleep(0.2 / (1 + next(looks)))
            return await runtime.supervisor.view(NAMESPACE, "x")

        monkeypatch.setattr(snapshots, "SLICE_S", 0.0)
        monkeypatch.setattr(snapshots, "_NODES_PER_LOOK", 50)
        monkeypatch.setattr(snapshots, "LAST_NODES_MAX", 20)
        sequence, frames = await write_snapshot(NAMESPACE, view_of, ClosedScopes(runtime.journal))
        assert next(looks) > 7
        snapshot = whole([frame async for frame in frames])
        assert snapshot.sequence == snapshot.execution.last_sequence == sequence
        records = (await replayed(runtime, sequence)).root.records
        # QUEUED is the allocator's knowledge, and compares as IDLE (A1).
        shown = [
            NodeState.IDLE if int(node.state) == NodeState.QUEUED else int(node.state)
            for node in snapshot.nodes
        ]
        assert shown == [record.state for record in records]
        assert len(set(shown)) > 1
        assert snapshot.execution.node_counts.succeeded == shown.count(NodeState.SUCCEEDED)


async def test_a_small_execution_is_written_at_once(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.submit("a -> b")
        await runtime.wait_ended()
        looks = itertools.count()

        async def view_of() -> View:
            next(looks)
            return await runtime.supervisor.view(NAMESPACE, "x")

        _, written = await write_snapshot(NAMESPACE, view_of, ClosedScopes(runtime.journal))
        frames = [frame async for frame in written]
        assert next(looks) == 1
        view = await view_of()
        expected = [
            describe_node(
                view.execution,
                record,
                is_queued=view.is_queued,
                queue_reason=view.queue_reason,
                in_list=True,
            )
            for record in view.execution.root.records
        ]
        assert list(whole(frames).nodes) == expected
        assert len(frames) == 1


async def test_n2_a_snapshot_has_the_nodes_of_scopes_that_opened_and_ended_while_it_was_written(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 30
    graph = build(
        *(f"sub s{number} {{ a -> b; sub b {{ c -> d }} }}; s{number} -> e" for number in range(count))
    )
    scripts = {f"s{number}/b/c": returns("1", 0.02 * number) for number in range(count)}
    scripts |= {f"s{number}/a": returns("1", 0.01 * number) for number in range(count)}
    async with running(scripts=scripts, slots=1_000) as runtime:
        await runtime.submit(with_limit(graph, 1_000))
        await trio.sleep(0.1)
        looks = itertools.count()

        async def view_of() -> View:
            await trio.sleep(0.1 / (1 + next(looks)))
            return await runtime.supervisor.view(NAMESPACE, "x")

        monkeypatch.setattr(snapshots, "SLICE_S", 0.0)
        monkeypatch.setattr(snapshots, "_NODES_PER_LOOK", 20)
        monkeypatch.setattr(snapshots, "LAST_NODES_MAX", 5)
        monkeypatch.setattr(snapshots, "FRAME_BYTES_MAX", 1_000)
        sequence, frames = await write_snapshot(NAMESPACE, view_of, ClosedScopes(runtime.journal))
        # What happens from now on is not in it.
        await trio.sleep(0.1)
        snapshot = whole([frame async for frame in frames])
        assert next(looks) > 5

        states: dict[str, NodeState] = {}
        execution = Execution((await runtime.replay()).root.graph, (await runtime.replay()).root.analysis)
        for event in runtime.events()[:sequence]:
            execution.apply(event)
            for scope in execution.scopes.values():
                states |= {record.path: record.state for record in scope.records}
        assert len(execution.closed) > 0
        assert len(execution.scopes) > 1
        shown = {node.path: int(node.state) for node in snapshot.nodes}
        assert len(snapshot.nodes) == len(shown) == snapshot.execution.node_count
        assert {
            path: NodeState.IDLE if state == NodeState.QUEUED else state for path, state in shown.items()
        } == states
        order = [node.path for node in snapshot.nodes]
        for path in order:
            if "/" in path:
                assert order.index(path.rpartition("/")[0]) < order.index(path)
