"""WatchExecutions: what a watcher of a namespace sees, after whatever token (A3, FAILURES 39)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from plait.v1 import execution_pb2, execution_service_pb2
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.api.call import SLOW_S
from plait_server.api.list_watching import BOOKMARK_S, ExecutionsWatching
from plait_server.api.pages import PageTokens
from plait_server.core.lists.listing import Listing
from plait_server.core.run.states import ExecutionState
from plait_server.errors import (
    InvalidFilter,
    InvalidRequest,
    InvalidWatchToken,
    SlowConsumer,
    WatchTokenExpired,
)
from plait_server.ports.journal import Appended, AppendItem, DamagedRow, ExecutionRow, ListedExecution
from plait_server.runtime.changes import Changes

Pb = execution_service_pb2
RUNNING, SUCCEEDED = ExecutionState.RUNNING, ExecutionState.SUCCEEDED


class World:
    """Watchers over a journal in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store, owner="o")
        self.changes = Changes()
        self.watching = ExecutionsWatching(self.journal, self.changes, PageTokens(b"k"), self.describe)
        self.sequences: dict[str, int] = {}
        self.summary_bytes = 0

    def describe(self, namespace: str, row: ListedExecution | DamagedRow) -> execution_pb2.Execution:
        state = row.row.listing.state if isinstance(row, ListedExecution) else ExecutionState.CORRUPT
        return execution_pb2.Execution(
            namespace=namespace,
            execution_id=row.execution_id,
            state=int(state),  # type: ignore[arg-type] # the core's numbers are the contract's
            traceparent="x" * self.summary_bytes,
        )

    async def set(
        self, execution_id: str, state: ExecutionState, *, team: str = "a", namespace: str = "default"
    ) -> None:
        expected = self.sequences.get(execution_id, 0)
        item = AppendItem(
            namespace=namespace,
            execution_id=execution_id,
            expected_sequence=expected,
            owner_epoch=1,
            events=[b"e"],
            row=ExecutionRow(
                summary=b"", is_open=not state.is_ended, listing=Listing(state=state, labels={"team": team})
            ),
        )
        [result] = await self.journal.append_many([item])
        assert isinstance(result, Appended)
        self.sequences[execution_id] = result.last_sequence
        self.changes.note(namespace)

    async def delete(self, execution_id: str) -> None:
        await self.journal.deletions.begin(
            *("default", execution_id), now_s=1.0, is_corrupt=False, action=None, request=None
        )
        self.changes.note("default")

    @asynccontextmanager
    async def watch(self, **fields: object) -> AsyncGenerator[Watcher]:
        async with trio.open_nursery() as nursery:
            watcher = Watcher()
            request = Pb.WatchExecutionsRequest(**fields)  # type: ignore[arg-type] # The fields of the request.
            nursery.start_soon(self.watching.watch, request, watcher.send)
            yield watcher
            nursery.cancel_scope.cancel()


class Watcher:
    """Takes frames."""

    def __init__(self) -> None:
        self.frames: list[Pb.WatchExecutionsResponse] = []

    async def send(self, message: object) -> None:
        assert isinstance(message, Pb.WatchExecutionsResponse)
        self.frames.append(message)
        await trio.lowlevel.checkpoint()

    @property
    def token(self) -> str:
        return self.frames[-1].watch_token

    def take(self) -> list[str]:
        """Take what arrived: what happened to which execution, and its state."""
        taken = [shown(change) for frame in self.frames for change in frame.changes]
        del self.frames[:-1]
        self.frames[-1].ClearField("changes")
        return taken


def shown(change: Pb.ExecutionChange) -> str:
    kind = Pb.ExecutionChangeType.Name(change.type).removeprefix("EXECUTION_CHANGE_TYPE_")
    state = ExecutionState(change.execution.state).name if change.execution.state else ""
    return f"{kind} {change.execution_id} {state}".strip()


async def test_a_watcher_sees_each_change_once(autojump_clock: trio.testing.MockClock) -> None:
    """A3: everything once, in order, and nothing from before."""
    del autojump_clock
    world = World()
    await world.set("before", RUNNING)
    async with world.watch() as watcher:
        await trio.sleep(1)
        assert (watcher.take(), watcher.frames[0].caught_up) == ([], True)
        await world.set("a", RUNNING)
        await world.set("elsewhere", RUNNING, namespace="other")
        await trio.sleep(1)
        assert watcher.take() == ["UPDATED a RUNNING"]
        await world.set("a", RUNNING)
        await trio.sleep(1)
        assert watcher.take() == [], "a step that changes no state, reason or label is none"
        await world.set("b", RUNNING)
        await world.set("a", SUCCEEDED)
        await world.delete("a")
        await trio.sleep(1)
        assert watcher.take() == ["UPDATED b RUNNING", "DELETED a"]


async def test_a_watcher_begins_with_what_there_is(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    world = World()
    for number in range(120):
        await world.set(f"x{number}", RUNNING)
    await world.set("x0", SUCCEEDED)
    await world.delete("x0")
    await world.set("x1", SUCCEEDED)
    async with world.watch(include_initial=True) as watcher:
        await trio.sleep(1)
        assert watcher.frames[-1].caught_up
        assert not any(frame.caught_up for frame in watcher.frames[:-1])
        assert watcher.take() == [
            *(f"UPDATED x{number} RUNNING" for number in range(2, 120)),
            "UPDATED x1 SUCCEEDED",
        ]


async def test_a_watcher_resumes_where_it_left(autojump_clock: trio.testing.MockClock) -> None:
    """A3, FAILURES 39: after each token it gets the last state of every execution that changed since."""
    del autojump_clock
    world = World()
    for number in range(3):
        await world.set(f"x{number}", RUNNING)
    async with world.watch(include_initial=True) as watcher:
        await trio.sleep(1)
        token = watcher.token
    await world.set("x0", ExecutionState.CANCELLING)
    await world.set("x0", SUCCEEDED)
    await world.set("x2", SUCCEEDED)
    await world.delete("x2")
    async with world.watch(watch_token=token) as watcher:
        await trio.sleep(1)
        assert watcher.take() == ["UPDATED x0 SUCCEEDED", "DELETED x2"]
        token = watcher.token
    async with world.watch(watch_token=token) as watcher:
        await trio.sleep(1)
        assert watcher.take() == []


async def test_an_execution_that_ceases_to_match_leaves(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    world = World()
    await world.set("a", RUNNING)
    await world.set("b", SUCCEEDED)
    async with world.watch(filter="state = RUNNING AND labels.team = a", include_initial=True) as watcher:
        await trio.sleep(1)
        assert watcher.take() == ["UPDATED a RUNNING"]
        await world.set("a", SUCCEEDED)
        await world.set("other", RUNNING, team="b")
        await world.set("c", RUNNING)
        await trio.sleep(1)
        assert watcher.take() == ["LEFT a", "UPDATED c RUNNING"]


async def test_a_quiet_stream_has_bookmarks(autojump_clock: trio.testing.MockClock) -> None:
    """Their tokens move on with other namespaces, so that a quiet one's does not expire."""
    del autojump_clock
    world = World()
    async with world.watch() as watcher:
        await trio.sleep(1)
        first = watcher.token
        await world.set("x", RUNNING, namespace="other")
        await trio.sleep(BOOKMARK_S)
        assert len(watcher.frames) == 2
        assert watcher.token != first
        assert watcher.take() == []


async def test_large_changes_take_several_frames(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    world = World()
    world.summary_bytes = 200_000
    for number in range(12):
        await world.set(f"x{number}", RUNNING)
    async with world.watch(include_initial=True) as watcher:
        await trio.sleep(1)
        frames = list(watcher.frames)
    assert [len(frame.changes) for frame in frames] == [5, 5, 2]
    assert all(frame.ByteSize() <= 1 << 20 for frame in frames)
    async with world.watch(watch_token=frames[0].watch_token) as watcher:
        await trio.sleep(1)
        assert ids(watcher.frames) == [f"x{number}" for number in range(5, 12)]


async def test_a_slow_watcher_is_closed_and_slows_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """A3, FAILURES 38: it costs a page, and resumes with its token."""
    del autojump_clock
    world = World()

    async def send(message: object) -> None:
        await trio.sleep_forever()

    async with world.watch() as lively:
        with pytest.raises(SlowConsumer):
            await world.watching.watch(Pb.WatchExecutionsRequest(include_initial=True), send)
        assert trio.current_time() >= SLOW_S
        await world.set("a", RUNNING)
        await trio.sleep(1)
        assert lively.take() == ["UPDATED a RUNNING"]


async def test_tokens_hold_for_one_watch() -> None:
    world = World()
    for namespace in ("default", "other"):
        await world.set("x", RUNNING, namespace=namespace)
        world.sequences.clear()
    token = PageTokens(b"k").make("1", "WatchExecutions", "default", "")
    for request in (
        Pb.WatchExecutionsRequest(watch_token="x"),
        Pb.WatchExecutionsRequest(watch_token=token),
        Pb.WatchExecutionsRequest(watch_token=await token_of(world, filter="labels:a"), filter="labels:b"),
        Pb.WatchExecutionsRequest(watch_token=await token_of(world, namespace="other")),
    ):
        with pytest.raises(InvalidWatchToken):
            await world.watching.watch(request, Watcher().send)
    request = Pb.WatchExecutionsRequest(watch_token=await token_of(world), include_initial=True)
    with pytest.raises(InvalidRequest, match="include_initial"):
        await world.watching.watch(request, Watcher().send)
    with pytest.raises(InvalidFilter):
        await world.watching.watch(Pb.WatchExecutionsRequest(filter="("), Watcher().send)


async def test_a_token_from_before_what_was_forgotten_has_expired() -> None:
    """So has one of a store that was replaced by an older copy (FAILURES 14)."""
    world = World()
    await world.set("x", SUCCEEDED)
    token = await token_of(world)
    await world.delete("x")
    world.store.floor = world.store.last_change
    world.store.tombstones.clear()
    with pytest.raises(WatchTokenExpired):
        await world.watching.watch(Pb.WatchExecutionsRequest(watch_token=token), Watcher().send)
    await world.set("y", RUNNING)
    token = await token_of(world)
    world.store.last_change -= 1
    with pytest.raises(WatchTokenExpired):
        await world.watching.watch(Pb.WatchExecutionsRequest(watch_token=token), Watcher().send)


async def token_of(world: World, **fields: object) -> str:
    """Return the first token of a watch."""
    async with world.watch(**fields) as watcher:
        while not watcher.frames:
            await trio.lowlevel.checkpoint()
        return watcher.token


def ids(frames: Sequence[Pb.WatchExecutionsResponse]) -> list[str]:
    return [change.execution_id for frame in frames for change in frame.changes]
