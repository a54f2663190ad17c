"""K1, K3: ended executions are kept for a time and then deleted; callers delete them now."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.namespace_settings import NamespaceSettings
from plait_server.errors import (
    EventDamaged,
    ExecutionNotEnded,
    ExecutionNotFound,
    JournalFull,
    RequestIdReused,
)
from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import REQUESTS_KEPT_S
from plait_server.ports.journal import RequestRecord
from plait_server.runtime.keeping import LOOK_S
from tests.runtime.world import NAMESPACE, Runtime, Seams, hangs, returns, running

DAY_S = 86_400.0
ACTION = ActionRecord(
    time_s=1.0,
    principal="p",
    is_verified=True,
    method="DeleteExecution",
    execution_id="x",
    target="",
    detail="{}",
)
LONG = f'"{"x" * 40_000}"'
"""An output that is kept by digest."""


def request(fingerprint: bytes = b"f") -> RequestRecord:
    return RequestRecord(method="DeleteExecution", request_id="r", fingerprint=fingerprint, execution_id="x")


async def delete(runtime: Runtime, id: str = "x", *, request: RequestRecord | None = None) -> None:
    await runtime.supervisor.keeping.delete(NAMESPACE, id, request, ACTION)


def is_empty(store: MemoryStore) -> bool:
    return not (store.executions or store.contents or store.uses or store.doomed)


async def test_an_ended_execution_is_kept_for_seven_days(autojump_clock: MockClock) -> None:
    """K1: an ended execution is kept [7 days, per namespace], then deleted."""
    async with running(scripts={"a": returns(LONG)}) as runtime:
        await runtime.submit("a", id="x")
        await runtime.wait_ended()
        await trio.sleep(7 * DAY_S - 2 * LOOK_S)
        assert (await runtime.supervisor.view(NAMESPACE, "x")).execution.is_ended
        await trio.sleep(4 * LOOK_S)
        with pytest.raises(ExecutionNotFound):
            await runtime.supervisor.view(NAMESPACE, "x")
        assert is_empty(runtime.store)


async def test_a_namespace_says_how_long_it_keeps_them(autojump_clock: MockClock) -> None:
    """K1: per namespace."""
    settings = NamespaceSettings(retention_s=100.0)
    async with running(settings=settings, scripts={"a": hangs}) as runtime:
        await runtime.submit("a", id="open")
        await runtime.submit("node n kind=transform", id="x")
        await trio.sleep(100.0 + 2 * LOOK_S)
        assert [id for _, id in runtime.store.executions] == ["open"]
        assert not (await runtime.supervisor.view(NAMESPACE, "open")).execution.is_ended


async def test_only_an_ended_execution_is_deleted(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a", id="x")
        with pytest.raises(ExecutionNotEnded, match="Cancel it first"):
            await delete(runtime)
        await runtime.cancel()
        await runtime.wait_ended()
        await delete(runtime)
        with pytest.raises(ExecutionNotFound):
            await delete(runtime)
        with pytest.raises(ExecutionNotFound):
            await delete(runtime, "missing")


async def test_a_deletion_is_idempotent_by_its_request_id(autojump_clock: MockClock) -> None:
    """K3: a request id lives as long as what it made, at least 24 h."""
    async with running() as runtime:
        for _ in range(2):
            await runtime.submit("node n kind=transform", id="x")
            await runtime.wait_ended()
            await delete(runtime, request=request())
            await delete(runtime, request=request())
            with pytest.raises(RequestIdReused):
                await delete(runtime, request=request(b"other"))
            await trio.sleep(REQUESTS_KEPT_S + 2 * LOOK_S)


async def test_a_submission_s_request_id_outlives_it_by_a_day(autojump_clock: MockClock) -> None:
    """K3: what was deleted is not carried out again by a late repetition of its submission."""
    record = RequestRecord(method="SubmitGraph", request_id="s", fingerprint=b"f", execution_id="x")
    async with running() as runtime:
        await runtime.submit("node n kind=transform", id="x", request=record)
        await runtime.wait_ended()
        await delete(runtime)
        await trio.sleep(REQUESTS_KEPT_S - 2 * LOOK_S)
        with pytest.raises(ExecutionNotFound):
            await runtime.submit("node n kind=transform", id="x", request=record)
        await trio.sleep(4 * LOOK_S)
        await runtime.submit("node n kind=transform", id="x", request=record)


async def test_a_deletion_waits_until_attempts_have_left_their_workers(autojump_clock: MockClock) -> None:
    """A stopped attempt of an ended execution may write to the audit; nothing is written to what is deleted."""
    graph = "a -> j; b -> j\nnode j join=ANY"
    async with running(scripts={"a": returns("1"), "b": hangs}) as runtime:
        await runtime.submit(graph, id="x")
        await runtime.wait_ended()
        await delete(runtime)
        await trio.sleep(60)
        runtime.assert_nothing_is_held()
        with pytest.raises(ExecutionNotFound):
            await runtime.supervisor.view(NAMESPACE, "x")


async def test_a_damaged_execution_can_be_deleted(autojump_clock: MockClock) -> None:
    """K4: a quarantined execution is left alone, until someone deletes it."""
    store = MemoryStore()
    async with running(store, scripts={"a": hangs}) as runtime:
        await runtime.submit("a", id="x")
        await wait_all_tasks_blocked()
        runtime.crash()
    store.damage_event(NAMESPACE, "x", 2)
    async with running(store, seams=Seams()) as runtime:
        with pytest.raises(EventDamaged):
            await runtime.supervisor.view(NAMESPACE, "x")
        await delete(runtime)
        with pytest.raises(ExecutionNotFound):
            await runtime.supervisor.view(NAMESPACE, "x")
        await trio.sleep(1)
        assert is_empty(store)


async def test_a_deletion_goes_on_after_a_restart(autojump_clock: MockClock) -> None:
    """K1: a deletion that was begun is finished."""
    store = MemoryStore()
    async with running(store, scripts={"a": returns(LONG)}) as runtime:
        await runtime.submit("a", id="x")
        await runtime.wait_ended()
        await delete(runtime)
        runtime.crash()
    assert not store.executions
    assert store.contents
    async with running(store):
        await trio.sleep(1)
        assert is_empty(store)


async def test_who_reads_while_it_is_deleted_finds_it_or_not(autojump_clock: MockClock) -> None:
    """A read that meets the deletion is no sign of damage, and brings nothing back into memory."""
    store = MemoryStore()
    async with running(store) as runtime:
        await runtime.submit("node n kind=transform", id="x")
        await runtime.wait_ended()
        runtime.crash()
    async with running(store, reads_yield=True) as runtime:
        async with trio.open_nursery() as nursery:

            async def look() -> None:
                with pytest.raises(ExecutionNotFound):
                    await runtime.supervisor.view(NAMESPACE, "x")

            nursery.start_soon(look)
            await wait_all_tasks_blocked()
            await delete(runtime)
        with pytest.raises(ExecutionNotFound):
            await runtime.supervisor.view(NAMESPACE, "x")


async def test_nothing_is_deleted_while_the_disk_is_full(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.submit("node n kind=transform", id="x")
        await runtime.wait_ended()
        runtime.gate.is_full = True
        with pytest.raises(JournalFull):
            await delete(runtime)
        await trio.sleep(8 * DAY_S)
        assert runtime.store.executions
        runtime.gate.is_full = False
        await trio.sleep(2 * LOOK_S)
        assert is_empty(runtime.store)
