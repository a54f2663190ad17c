"""Admission: which executions run, and which wait to begin (Q3).

Each namespace has running slots and a queue. An execution in the queue is a row of the journal and a `Queued`, a small
object: no execution in memory, no task. When a slot is free the supervisor reads the first of the queue back and
starts it.

Rules
1. A slot belongs to an execution that has begun, and in which anything runs or waits for capacity. One in which
   everything waits, that is paused or asleep gives its slot back; when it goes on it takes a slot at once, even if
   none is free, and new ones wait for longer.
2. A submission gets a slot only if one is free and nobody waits. Until it is durable it holds a `Place`: the slot,
   or a place in the queue. So what runs and what waits never exceed their limits, however many are submitted at once.
3. What was accepted is never dropped. A full queue refuses submissions; what returns to a queue, or is found in it
   after a restart, is taken even if the queue is full.
4. `Locations` has the execution in one place at a time. A `Queued` that is no longer the location of its execution is
   skipped when its turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias, assert_never

import trio

from plait_server.core.namespace_settings import EffectiveSettings, QueueOrder
from plait_server.core.run.execution import Execution
from plait_server.errors import QueueFull
from plait_server.runtime.namespace_registry import NamespaceRegistry

_SPARE_ENTRIES: Final = 64
"""Outdated entries of a queue that are always allowed, so that a small queue is not rebuilt all the time."""

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class Queued:
    """A location: the execution waits for a running slot, and exists only in the journal."""

    __slots__ = (
        "_queue",
        "created_s",
        "due_time_s",
        "key",
        "last_sequence",
        "number",
        "owner_epoch",
        "priority",
    )

    def __init__(
        self,
        key: Key,
        *,
        owner_epoch: int,
        last_sequence: int,
        priority: int,
        created_s: float,
        due_time_s: float | None,
    ) -> None:
        self.key = key
        self.owner_epoch = owner_epoch
        self.last_sequence = last_sequence
        self.priority = priority
        self.created_s = created_s
        """Wall time of its submission."""
        self.due_time_s = due_time_s
        """Wall time at which its wait ends; None if it may wait for ever."""
        self.number = 0
        """Tells those submitted in the same instant apart."""
        self._queue: NamespaceAdmission | None = None

    @classmethod
    def of(cls, key: Key, execution: Execution, owner_epoch: int, due_time_s: float | None) -> Queued:
        """Return the location of an execution that has not begun."""
        return cls(
            key,
            owner_epoch=owner_epoch,
            last_sequence=execution.sequence,
            priority=execution.priority,
            created_s=execution.created_s,
            due_time_s=due_time_s,
        )

    def __repr__(self) -> str:
        return f"<Queued {self.key[1]}, waiting={self.is_waiting}>"

    @property
    def is_waiting(self) -> bool:
        """Whether it is in its queue."""
        return self._queue is not None

    def is_due(self, now_s: float) -> bool:
        """Whether its wait is over."""
        return self.due_time_s is not None and self.due_time_s <= now_s

    def enter(self, queue: NamespaceAdmission, number: int) -> None:
        """Record the queue that it was put into."""
        self._queue, self.number = queue, number

    def leave(self) -> None:
        """Leave the queue, because the execution moves on. Idempotent."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.note_left()


_Entry: TypeAlias = "tuple[float, float, int, Queued]"


class NamespaceAdmission:
    """The slots and the queue of one namespace."""

    __slots__ = ("_entries", "_numbers", "name", "places", "running", "settings", "slots_promised", "waiting")

    def __init__(self, name: str, settings: EffectiveSettings) -> None:
        self.name = name
        self.settings = settings
        self.running = 0
        """Executions that hold a slot."""
        self.waiting = 0
        """Executions in the queue."""
        self.slots_promised = 0
        """Slots of submissions that are not durable yet."""
        self.places = 0
        """Places in the queue of submissions that are not durable yet."""
        self._numbers = count()
        self._entries: list[_Entry] = []
        """A heap; some entries have left the queue."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not (self.running or self.waiting or self.slots_promised or self.places)

    @property
    def has_free_slot(self) -> bool:
        """Whether one more may run."""
        return self.running + self.slots_promised < self.settings.running_max

    @property
    def is_startable(self) -> bool:
        """Whether one that waits may start."""
        return self.waiting > 0 and self.has_free_slot

    def check_room(self) -> None:
        """Check that one more submission can be accepted.

        Raises:
            QueueFull: No slot is free, and the queue is full.
        """
        is_direct = self.has_free_slot and not self.waiting
        if not is_direct and self.waiting + self.places >= self.settings.queue_max:
            most = self.settings.queue_max
            message = (
                f"the queue of namespace {self.name!r} is full: {most:,} executions may wait to begin; try again "
                "later, or raise queue_max or running_max of the namespace"
            )
            raise QueueFull(message, namespace=self.name, queue_max=most)

    def push(self, queued: Queued) -> None:
        """Put an execution into the queue, at the place that it has by its priority and submission."""
        queued.enter(self, next(self._numbers))
        self.waiting += 1
        heapq.heappush(self._entries, self._entry(queued))

    def take_first(self) -> Queued:
        """Remove and return the execution whose turn it is; there is one."""
        while True:
            queued = heapq.heappop(self._entries)[3]
            if queued.is_waiting:
                queued.leave()
                return queued

    def note_left(self) -> None:
        """Record that an execution has left the queue; its entry is skipped later."""
        self.waiting -= 1
        if len(self._entries) > 2 * self.waiting + _SPARE_ENTRIES:
            self._rebuild()

    def apply(self, settings: EffectiveSettings) -> None:
        """Take over new settings."""
        has_new_order = settings.order is not self.settings.order
        self.settings = settings
        if has_new_order:
            self._rebuild()

    def _rebuild(self) -> None:
        self._entries = [self._entry(each[3]) for each in self._entries if each[3].is_waiting]
        heapq.heapify(self._entries)

    def _entry(self, queued: Queued) -> _Entry:
        match self.settings.order:
            case QueueOrder.FIFO:
                return queued.created_s, 0, queued.number, queued
            case QueueOrder.LIFO:
                return -queued.created_s, 0, -queued.number, queued
            case QueueOrder.PRIORITY:
                return -queued.priority, queued.created_s, queued.number, queued
            case _:
                assert_never(self.settings.order)


class Place:
    """A slot or a place in a queue that is kept for a submission until it is durable; given up at the end of the block.

    In the block the caller has the execution hold a slot, or puts it into the queue, if it became durable.
    """

    def __init__(self, namespace: NamespaceAdmission, on_close: Callable[[NamespaceAdmission], None]) -> None:
        self._namespace = namespace
        self._on_close = on_close
        self._is_open = True
        self.has_slot: Final = namespace.has_free_slot and not namespace.waiting
        """Whether it is a slot."""
        namespace.slots_promised += self.has_slot
        namespace.places += not self.has_slot

    def __repr__(self) -> str:
        return f"<Place in {self._namespace.name}, slot={self.has_slot}>"

    def close(self) -> None:
        """Give the place up. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._namespace.slots_promised -= self.has_slot
            self._namespace.places -= not self.has_slot
            self._on_close(self._namespace)

    def __enter__(self) -> Self:
        """Return the place itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the place up."""
        self.close()


class AdmissionCounts(NamedTuple):
    """How many executions of a namespace run and wait."""

    running: int
    waiting: int


class Admission:
    """The slots and queues of all namespaces."""

    def __init__(self, registry: NamespaceRegistry) -> None:
        self._registry = registry
        self._namespaces: dict[str, NamespaceAdmission] = {}
        """Those in which anything runs or waits."""
        self._holders: dict[Key, None] = {}
        """The executions that hold a slot."""
        self._startable: dict[NamespaceAdmission, None] = {}
        """The namespaces in which one that waits may start, in the order of their turns."""
        self._has_startable = trio.Event()
        registry.on_change(self._on_change)

    def __repr__(self) -> str:
        waiting = sum(each.waiting for each in self._namespaces.values())
        return f"<Admission {len(self._holders)} running, {waiting} waiting>"

    # Submissions.

    def check_room(self, namespace: str) -> None:
        """Check that a namespace can accept one more submission.

        Raises:
            QueueFull: No slot is free, and the queue is full.
        """
        found = self._namespaces.get(namespace)
        if found is not None:
            found.check_room()

    def reserve(self, namespace: str) -> Place:
        """Keep a slot, or a place in the queue, for a submission.

        Raises:
            QueueFull: No slot is free, and the queue is full.
        """
        found = self._get(namespace)
        found.check_room()
        return Place(found, self._look)

    def due_time_s(self, namespace: str, created_s: float) -> float | None:
        """Return when the wait of an execution ends (wall time), by the present settings; None if it does not."""
        timeout_s = self._registry.of(namespace).queue_timeout_s
        return created_s + timeout_s if timeout_s else None

    # Slots.

    def hold(self, key: Key) -> None:
        """Let an execution hold a slot, whether or not one is free. Idempotent."""
        if key not in self._holders:
            self._holders[key] = None
            self._get(key[0]).running += 1

    def release(self, key: Key) -> None:
        """Let an execution give its slot back. Idempotent."""
        if key in self._holders:
            del self._holders[key]
            namespace = self._get(key[0])
            namespace.running -= 1
            self._look(namespace)

    def has_slot(self, key: Key) -> bool:
        """Whether an execution holds a slot."""
        return key in self._holders

    # The queues.

    def push(self, queued: Queued) -> None:
        """Put an execution into the queue of its namespace."""
        namespace = self._get(queued.key[0])
        namespace.push(queued)
        self._look(namespace)

    async def wait_startable(self) -> None:
        """Wait until an execution may start that waits."""
        await self._has_startable.wait()

    def start_first(self) -> Queued | None:
        """Take the execution whose turn it is out of its queue, and let it hold a slot; None if none may start.

        Namespaces take turns.
        """
        while self._startable:
            namespace = next(iter(self._startable))
            del self._startable[namespace]
            if namespace.is_startable:
                queued = namespace.take_first()
                self.hold(queued.key)
                self._look(namespace)
                return queued
        self._has_startable = trio.Event()
        return None

    # What others ask.

    def counts(self, namespace: str) -> AdmissionCounts:
        """Return how many executions of a namespace run and wait."""
        found = self._namespaces.get(namespace)
        return AdmissionCounts(found.running, found.waiting) if found is not None else AdmissionCounts(0, 0)

    def active(self) -> list[str]:
        """Return the namespaces in which anything runs or waits."""
        return [name for name, each in self._namespaces.items() if not each.is_idle]

    def reason(self, namespace: str) -> str:
        """Return why an execution in the queue of a namespace waits (Q6)."""
        running, most = self.counts(namespace).running, self._registry.of(namespace).running_max
        return f"waits for a running slot of namespace {namespace} ({running:,} of {most:,} running)"

    # Inside.

    def _get(self, name: str) -> NamespaceAdmission:
        namespace = self._namespaces.get(name)
        if namespace is None:
            namespace = self._namespaces[name] = NamespaceAdmission(name, self._registry.of(name))
        return namespace

    def _look(self, namespace: NamespaceAdmission) -> None:
        """See whether one that waits may start, after anything has changed."""
        if namespace.is_startable:
            self._startable[namespace] = None
            self._has_startable.set()
        elif namespace.is_idle:
            self._namespaces.pop(namespace.name, None)

    def _on_change(self, name: str) -> None:
        namespace = self._namespaces.get(name)
        if namespace is not None:
            namespace.apply(self._registry.of(name))
            self._look(namespace)
