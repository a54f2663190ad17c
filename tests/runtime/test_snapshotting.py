"""K2: open executions get snapshots, and are read back from them: a cache, never the truth."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from plait_server.core.run.states import ExecutionState
from plait_server.runtime.building import Definitions
from plait_server.runtime.recovery import load_execution, read_execution
from plait_server.runtime.snapshotting import SnapshotSettings
from tests.runtime.world import NAMESPACE, Runtime, hangs, returns, running

OFTEN = SnapshotSettings(events=5, spacing_s=0.0)
CHAIN = "a -> b; b -> c; c -> d; d -> e; e -> f"
SCRIPTS = {node: returns("1", 2) for node in "abcde"} | {"f": hangs}


def sequences(runtime: Runtime) -> set[int]:
    """Return of which sequences the execution has snapshots."""
    return {sequence for sequence, _ in runtime.store.executions[NAMESPACE, "x"].snapshots}


async def read(runtime: Runtime) -> tuple[str, int]:
    """Read the execution from its snapshot; return its digest and how many events were read for it."""
    journal = runtime.journal.inner
    execution = await read_execution(journal, (NAMESPACE, "x"), Definitions())
    return execution.digest(), execution.sequence


async def test_open_execution_has_one_snapshot_from_which_it_is_read(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """K2: every so many events; the one before is dropped."""
    async with running(scripts=SCRIPTS, snapshots=OFTEN) as runtime:
        await runtime.submit(CHAIN)
        await trio.sleep(20)
        newest = sequences(runtime)
        assert len(newest) == 1
        assert runtime.environment.snapshots.written == 2
        journal = runtime.journal.inner.namespace(NAMESPACE)
        whole = await load_execution(journal, "x")
        # Without its first events there is no other way to read it.
        runtime.store.damage_event(NAMESPACE, "x", 3)
        assert await read(runtime) == (whole.digest(), whole.sequence)
    assert not caplog.records


async def test_execution_continues_from_its_snapshot(autojump_clock: MockClock) -> None:
    """A1: a restart reads the snapshot and the events after it; nothing is started again."""
    async with running(scripts=SCRIPTS, snapshots=OFTEN) as runtime:
        await runtime.submit(CHAIN)
        await trio.sleep(9)
        runtime.crash()
    async with running(
        runtime.store, scripts=dict.fromkeys("abcdef", returns("2", 1)), snapshots=OFTEN
    ) as again:
        execution = await again.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert again.names().count("AttemptStarted") == 6
        again.assert_nothing_is_held()
        await trio.sleep(1)
        assert not sequences(again), "an ended execution needs none"


@pytest.mark.parametrize("what", ["head", "part", "event"])
async def test_snapshot_that_does_not_fit_is_passed_over(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """K2: whatever is wrong with it, the events are read instead, and the log says so."""
    async with running(scripts=SCRIPTS, snapshots=OFTEN) as runtime:
        await runtime.submit(CHAIN)
        await trio.sleep(20)
        stored = runtime.store.executions[NAMESPACE, "x"]
        (sequence,) = sequences(runtime)
        number = 0 if what == "head" else 1
        content, checksum = stored.snapshots[sequence, number]
        if what == "event":
            del stored.snapshots[sequence, 1], stored.snapshots[sequence, 0]
            stored.snapshots[sequence - 1, 0] = content, checksum  # Of another event.
        else:
            stored.snapshots[sequence, number] = content.replace(b"1", b"2"), checksum
        whole = await load_execution(runtime.journal.inner.namespace(NAMESPACE), "x")
        with caplog.at_level(logging.WARNING):
            assert await read(runtime) == (whole.digest(), whole.sequence)
        assert "a snapshot is not used" in caplog.text


async def test_small_or_short_execution_has_no_snapshot(autojump_clock: MockClock) -> None:
    """As many events as it has nodes, if these are more; and not within the first second."""
    for settings in (
        SnapshotSettings(events=5, spacing_s=1_000.0),
        SnapshotSettings(events=50, spacing_s=0.0),
    ):
        async with running(scripts=SCRIPTS, snapshots=settings) as runtime:
            await runtime.submit(CHAIN)
            await trio.sleep(20)
            assert not sequences(runtime)
    wide = "; ".join(f"w{number}" for number in range(20))
    async with running(scripts=SCRIPTS, snapshots=OFTEN, slots=1) as runtime:
        await runtime.submit(f"{CHAIN}; {wide}")
        await trio.sleep(12)
        assert 5 < len(runtime.events()) < 26
        assert not sequences(runtime)
