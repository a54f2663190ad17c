"""A cache of executions that no executor runs: ended ones and sleeping ones.

The cache is bounded by nodes and edges, because an execution takes from 20 kB to 300 MB. The newest is kept whatever
its size, because reading it back for each of a hundred pages would cost more; a large one that has not been read for
a while is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from plait_server.core.run.execution import Execution
from plait_server.errors import EventDamaged, ExecutionNotFound

KEPT_MAX: Final = 64
ELEMENTS_MAX: Final = 100_000
"""Nodes and edges of all cached executions except the newest: some 50 MB."""
LARGE_ELEMENTS: Final = 10_000
LARGE_KEPT_S: Final = 10.0
"""Seconds for which a larger execution is kept after it was last read."""
READS_MAX: Final = 4
"""Executions that are read back at once."""

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class Resting:
    """Caches executions that are not live. `run` is started once, by the supervisor's nursery."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Execution] = OrderedDict()
        self._sizes: dict[Key, int] = {}
        """Nodes and edges of each; counting them takes a millisecond if 10,000 scopes are open."""
        self._elements = 0
        self._large: OrderedDict[Key, float] = OrderedDict()
        """The large ones, and when each was last read."""
        self._came = trio.Event()
        self._reading: dict[Key, trio.Event] = {}
        self._deleted: set[Key] = set()
        """Those of them that were deleted in the meantime."""
        self._slots = trio.CapacityLimiter(READS_MAX)

    def __repr__(self) -> str:
        return f"<Resting {len(self._kept)} executions, {self._elements} nodes and edges>"

    def get(self, key: Key) -> Execution | None:
        """Return an execution; None if it is not kept."""
        execution = self._kept.get(key)
        if execution is not None:
            self._kept.move_to_end(key)
            self._note_look(key)
        return execution

    def put(self, key: Key, execution: Execution) -> None:
        """Cache an execution that has ended, or that sleeps; a sleeping one is dropped when it wakes."""
        self.drop(key)
        self._kept[key] = execution
        self._sizes[key] = _elements_of(execution)
        self._elements += self._sizes[key]
        self._note_look(key)
        while len(self._kept) > KEPT_MAX or (self._elements > ELEMENTS_MAX and len(self._kept) > 1):
            self.drop(next(iter(self._kept)))

    def drop(self, key: Key) -> None:
        """Drop an execution. Idempotent."""
        self._kept.pop(key, None)
        self._large.pop(key, None)
        self._elements -= self._sizes.pop(key, 0)

    def forget(self, key: Key) -> None:
        """Drop an execution that was deleted, also one that is being read back. Idempotent."""
        self.drop(key)
        if key in self._reading:
            self._deleted.add(key)

    async def read(self, key: Key, load: Callable[[], Awaitable[Execution]]) -> Execution | None:
        """Read an execution back. Of concurrent callers one reads; the others wait and get None, and then look again.

        Raises:
            ExecutionNotFound, EventDamaged, JournalUnavailable: Raised by `load`.
        """
        if key in self._reading:
            await self._reading[key].wait()
            return None
        self._reading[key] = trio.Event()
        execution: Execution | None = None
        try:
            async with self._slots:
                execution = await load()
        except EventDamaged:
            # What was deleted under the eyes of the reader looks damaged.
            if key not in self._deleted:
                raise
        finally:
            self._reading.pop(key).set()
            is_deleted = key in self._deleted
            self._deleted.discard(key)
        if is_deleted:
            raise ExecutionNotFound(execution_id=key[1])
        return execution

    async def run(self) -> None:
        """Drop large executions that have not been read for a while, until cancelled."""
        while True:
            await self._came.wait()
            self._came = trio.Event()
            while self._large:
                key, looked_s = next(iter(self._large.items()))
                await trio.sleep_until(looked_s + LARGE_KEPT_S)
                if self._large.get(key) == looked_s:
                    self.drop(key)

    def _note_look(self, key: Key) -> None:
        if self._sizes[key] > LARGE_ELEMENTS:
            self._large[key] = trio.current_time()
            self._large.move_to_end(key)
            self._came.set()


def _elements_of(execution: Execution) -> int:
    """Return the number of nodes and edges in open scopes, plus the number of ended scopes."""
    scopes = execution.scopes.values()
    return sum(len(scope.records) + len(scope.edge_states) for scope in scopes) + len(execution.closed)
