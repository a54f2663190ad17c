"""Writes snapshots of open executions in the background, one execution at a time (K2).

An execution is due when it has had `events` events since its newest snapshot, or as many as that snapshot has nodes or
attempts, if these are more: so the cost is bounded by the events. It waits for `spacing_s`, too, because an
execution that ends by then needs no snapshot, and reading the events of a second takes less than a second.

A snapshot is written in slices, from the state in memory. If anything goes wrong, there is none, and the events are
read instead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import trio

from plait_server.core.run.execution import Execution
from plait_server.encoding.execution_snapshot import Snapshot, SnapshotWriter
from plait_server.errors import JournalFull, JournalUnavailable
from plait_server.ports.journal import Journal
from plait_server.ports.log_fields import key_fields
from plait_server.ports.snapshots import HEAD, SnapshotDamaged
from plait_server.runtime.feed import Feed
from plait_server.runtime.slicing import Pacing, in_slices

logger = logging.getLogger(__name__)

LAST_MAX: Final = 500
"""Nodes and scopes that the last, undivided slice may write: 5 ms."""
ROUNDS_MAX: Final = 10
"""The most rounds of writing nodes that have changed in the meantime."""
BYTES_MAX: Final = 256 * 1024 * 1024
"""A larger snapshot is given up: it would take more memory than reading the events takes time."""
PARTS_PER_DROP: Final = 8

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSettings:
    """How often executions get a snapshot."""

    events: int = 1_000
    """Events after which an execution gets the next."""
    spacing_s: float = 1.0
    """Seconds that must have passed, too."""


class SnapshotSource(Protocol):
    """The executor of an execution."""

    namespace: str
    execution: Execution
    feed: Feed

    async def wait_durable(self) -> None:
        """Wait until the state in memory is durable, or the executor has stopped."""
        ...


class _Newest:
    """What is known of the newest snapshot of an execution."""

    __slots__ = ("items", "sequence", "time_s")

    def __init__(self, items: int) -> None:
        self.sequence = 0
        self.items = items
        self.time_s = trio.current_time()


class Snapshotting:
    """Writes the snapshots of a server. `run` is started once."""

    def __init__(self, journal: Journal, settings: SnapshotSettings) -> None:
        self._journal = journal
        self._settings = settings
        self._newest: dict[Key, _Newest] = {}
        self._due: dict[Key, SnapshotSource] = {}
        self._ended: dict[Key, None] = {}
        self._wake = trio.Event()
        self.written = 0
        """How many snapshots were written."""

    def __repr__(self) -> str:
        return f"<Snapshotting {len(self._due)} due, {self.written} written>"

    def note(self, source: SnapshotSource) -> None:
        """Note that events of an execution became durable."""
        execution = source.execution
        sequence = execution.sequence
        if sequence < self._settings.events:
            return
        key = source.namespace, execution.execution_id
        if execution.is_ended:
            self._newest.pop(key, None)
            self._due.pop(key, None)
            self._ended[key] = None
            self._wake.set()
            return
        newest = self._newest.get(key)
        if newest is None:
            newest = self._newest[key] = _Newest(execution.totals.node_count)
        if (
            sequence - newest.sequence >= max(self._settings.events, newest.items)
            and trio.current_time() - newest.time_s >= self._settings.spacing_s
            # Most of its nodes change, and it ends soon.
            and not execution.is_cancelling
        ):
            self._due[key] = source
            self._wake.set()

    async def run(self) -> None:
        """Write snapshots until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._due or self._ended:
                is_over = bool(self._ended)
                key = next(iter(self._ended or self._due))
                try:
                    if is_over:
                        del self._ended[key]
                        await self._drop(key, keep=0)
                    else:
                        await self._write(key, self._due.pop(key))
                        self._due.pop(key, None)
                except JournalFull:
                    logger.debug("there is no room for a snapshot", extra=key_fields(key))
                except JournalUnavailable:
                    # Whoever appends next ends the server.
                    await trio.sleep(1.0)
                await trio.lowlevel.checkpoint()

    async def _write(self, key: Key, source: SnapshotSource) -> None:
        newest = self._newest.get(key)
        if newest is None:
            return  # It has ended.
        newest.time_s = trio.current_time()
        if not newest.sequence:
            found = await self._find(key)
            if found:
                # From before this start of the server.
                newest.sequence = found
                return
        snapshot = await self._encode(source)
        if snapshot is None:
            newest.sequence = source.execution.sequence  # Not tried again before as many more events.
            return
        pacing = Pacing()
        for number, part in (*enumerate(snapshot.parts, start=1), (HEAD, snapshot.head)):
            if key in self._ended or not await self._journal.snapshots.write(
                *key, sequence=snapshot.sequence, number=number, content=part
            ):
                return
            await pacing.pause_if_due()
            await trio.lowlevel.checkpoint()
        newest.sequence, newest.items = snapshot.sequence, snapshot.items
        self.written += 1
        await self._drop(key, keep=snapshot.sequence)

    async def _find(self, key: Key) -> int:
        """Return the sequence of the newest snapshot; 0 if there is none that can be used."""
        try:
            found = await self._journal.snapshots.find(*key)
        except SnapshotDamaged:
            return 0
        return found.sequence if found is not None else 0

    async def _encode(self, source: SnapshotSource) -> Snapshot | None:
        writer = SnapshotWriter(source.execution)
        for _ in range(ROUNDS_MAX):
            await in_slices(writer.write_round())
            await source.wait_durable()
            execution = source.execution
            # After a failed append the state stays ahead of the journal.
            is_durable = source.feed.last_sequence == execution.sequence
            if not is_durable or execution.is_ended or writer.size_bytes > BYTES_MAX:
                return None
            if writer.due_count() <= LAST_MAX:
                break
        writer.take_rest()
        return await in_slices(writer.finish())

    async def _drop(self, key: Key, *, keep: int) -> None:
        pacing = Pacing()
        while not await self._journal.snapshots.drop_some(*key, keep=keep, limit=PARTS_PER_DROP):
            await pacing.pause_if_due()
            await trio.lowlevel.checkpoint()
