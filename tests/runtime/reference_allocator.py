"""What the allocator should do, written down without regard to cost: every question looks at everything.

R4 and Q1 read word by word, and the allocator's rules where those are silent. `dispatch` grants one request at a
time and works everything out anew before each.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

RESERVE_AFTER_S = 10.0


@dataclass(kw_only=True)
class Waiter:
    namespace: str
    execution: str
    path: str
    type: str
    rank: tuple[float, ...]
    ready_s: float
    scopes: tuple[str, ...] = ()
    """The limits of scopes around it, the outermost first."""
    key: str = ""

    @property
    def chain(self) -> list[str]:
        return [self.execution, *self.scopes]

    @property
    def held_under(self) -> list[str]:
        """The limits whose permits are reserved for the first request under them."""
        return [*self.chain, f"key {self.namespace} {self.key}"] if self.key else self.chain


@dataclass
class Slots:
    """A worker: `place` is its turn among equals."""

    namespace: str
    place: int
    slots: int
    is_open: bool
    limits: dict[str, int]
    taken: int = 0
    taken_of: Counter[str] = field(default_factory=Counter[str])

    def free(self, type_: str) -> int:
        if not self.is_open or type_ not in self.limits:
            return 0
        room = self.slots - self.taken
        if self.limits[type_]:
            room = min(room, self.limits[type_] - self.taken_of[type_])
        return max(0, room)


@dataclass
class Bucket:
    """A rate: so many tokens a second, and at most so many at once."""

    per_s: float
    burst: int
    tokens: float
    updated_s: float

    def fill(self, now_s: float) -> None:
        self.tokens = min(self.burst, self.tokens + (now_s - self.updated_s) * self.per_s)
        self.updated_s = now_s

    def wait_s(self, now_s: float) -> float:
        self.fill(now_s)
        return max(0.0, (1 - self.tokens) / self.per_s)


class Reference:
    """Counts, lists, and nothing that is kept up to date beside them but when something was last exhausted."""

    def __init__(self, types: list[str], namespaces: list[str]) -> None:
        self.types = types
        self.limits: dict[str, int] = {}
        """Without an entry any number may run."""
        self.buckets: dict[str, Bucket] = {}
        self.now_s = 0.0
        """Kept up to date by whoever lets time pass."""
        self.taken: Counter[str] = Counter()
        self.workers: dict[str, Slots] = {}
        self.waiting: dict[str, Waiter] = {}
        self.exhausted_s: dict[str, float] = {}
        """Time up to which nothing was free of it, the last time."""
        self.turns = dict.fromkeys(namespaces, 0)
        self.turn = 0
        self.places = 0

    # What is free, and since when.

    def free(self, name: str) -> int:
        return self.limits.get(name, 1_000_000) - self.taken[name]

    def has_slot(self, namespace: str, type_: str) -> bool:
        return any(each.free(type_) for each in self.workers_of(namespace, type_).values())

    def workers_of(self, namespace: str, type_: str) -> dict[str, Slots]:
        found = [item for item in self.workers.items() if item[1].namespace == namespace]
        return {name: each for name, each in found if type_ in each.limits}

    def note_exhausted(self, now_s: float) -> None:
        """Called before anything comes free."""
        for name in self.limits:
            if self.free(name) <= 0:
                self.exhausted_s[name] = now_s
        for namespace in self.turns:
            for type_ in self.types:
                if not self.has_slot(namespace, type_):
                    self.exhausted_s[f"slot {namespace} {type_}"] = now_s

    # What is kept for whom.

    def heads(self, namespace: str) -> list[Waiter]:
        """The first of those that need the same permits, in R4's order: those behind have to wait for it."""
        heads: dict[tuple[object, ...], Waiter] = {}
        for waiter in sorted(self.waiting.values(), key=lambda each: each.rank):
            if waiter.namespace == namespace:
                heads.setdefault((waiter.execution, waiter.scopes, waiter.type, waiter.key), waiter)
        return list(heads.values())

    def keeps(self, waiter: Waiter, name: str) -> bool:
        """It lacked it after 10 s."""
        is_served = bool(self.workers_of(waiter.namespace, waiter.type))
        since_s = self.exhausted_s.get(name, float("-inf"))
        has_rate = not self.rate_wait_s(waiter)
        return is_served and has_rate and since_s >= waiter.ready_s + RESERVE_AFTER_S

    def first_under(self, limit: str) -> Waiter:
        """The first of all that need a permit of an execution's, a scope's or a key's limit."""
        return min(
            (each for each in self.waiting.values() if limit in each.held_under), key=lambda each: each.rank
        )

    def execution_lets(self, waiter: Waiter) -> bool:
        """Whether its execution, the scopes around it and its key have permits that are not kept for others."""
        for limit in waiter.held_under:
            first = self.first_under(limit)
            is_kept = first is not waiter and self.keeps(first, limit)
            if self.free(limit) <= (1 if is_kept else 0):
                return False
        return True

    def reservers(self, rank: tuple[float, ...], namespace: str) -> list[Waiter]:
        """The first of each execution, if a limit around it is exhausted; else the first of each type."""
        found: dict[str, Waiter] = {}
        types: set[str] = set()
        for head in self.heads(namespace):
            if any(self.free(limit) <= 0 for limit in head.chain):
                if head is self.first_under(head.execution):
                    found[head.path] = head
            elif self.execution_lets(head) and head.type not in types:
                types.add(head.type)
                found[head.path] = head
        return [each for each in found.values() if each.rank < rank]

    def worker_for(self, waiter: Waiter, reservers: list[Waiter]) -> str | None:
        kept: Counter[str] = Counter()
        for each in reservers:
            if self.keeps(each, f"slot {each.namespace} {each.type}"):
                worker = self.most_room(each, kept)
                if worker is not None:
                    kept[worker] += 1
        return self.most_room(waiter, kept)

    def most_room(self, waiter: Waiter, kept: Counter[str]) -> str | None:
        rooms = [
            (each.free(waiter.type) - kept[name], -each.place, name)
            for name, each in self.workers_of(waiter.namespace, waiter.type).items()
        ]
        room, _, name = max(rooms, default=(0, 0, ""))
        return name if room > 0 else None

    def rate_wait_s(self, waiter: Waiter) -> float:
        """How long the rates of its type hold it back."""
        found = [self.buckets[name] for name in self.type_limits(waiter) if name in self.buckets]
        return max((bucket.wait_s(self.now_s) for bucket in found), default=0.0)

    def startable(self, waiter: Waiter, *, in_s: float = 0.0) -> str | None:
        """The worker at which it can start now, or could if the rates let it go on; None if it cannot."""
        if self.rate_wait_s(waiter) > in_s:
            return None
        reservers = self.reservers(waiter.rank, waiter.namespace)
        if not self.execution_lets(waiter):
            return None
        for shared in ("server", f"namespace {waiter.namespace}"):
            kept = sum(self.keeps(each, shared) for each in reservers)
            if self.free(shared) - kept <= 0:
                return None
        for limit in self.type_limits(waiter):
            kept = sum(each.type == waiter.type and self.keeps(each, limit) for each in reservers)
            if self.free(limit) - kept <= 0:
                return None
        return self.worker_for(waiter, reservers)

    # What happens.

    def offer(self, waiter: Waiter) -> None:
        self.waiting[waiter.path] = waiter

    def dispatch(self) -> list[tuple[str, str]]:
        """Grant what can be granted: (path, worker), in order."""
        granted: list[tuple[str, str]] = []
        while (grant := self.next_grant()) is not None:
            granted.append(grant)
        return granted

    def next_grant(self) -> tuple[str, str] | None:
        for namespace in sorted(self.turns, key=lambda name: max(self.turns[name], self.turn)):
            for head in self.heads(namespace):
                worker = self.startable(head)
                if worker is None:
                    continue
                self.turn = max(self.turns[namespace], self.turn)
                self.turns[namespace] = self.turn + 1
                del self.waiting[head.path]
                self.take(head, worker)
                for name in self.type_limits(head):
                    if name in self.buckets:
                        self.buckets[name].tokens -= 1
                return head.path, worker
        return None

    def take(self, waiter: Waiter, worker: str) -> None:
        self.taken.update(self.engine(waiter))
        slots = self.workers[worker]
        slots.taken += 1
        slots.taken_of[waiter.type] += 1

    def engine(self, waiter: Waiter) -> list[str]:
        return [
            "server",
            f"namespace {waiter.namespace}",
            *waiter.held_under,
            *self.type_limits(waiter),
        ]

    def type_limits(self, waiter: Waiter) -> list[str]:
        return [f"type  {waiter.type}", f"type {waiter.namespace} {waiter.type}"]

    def set_limit(self, name: str, most: int | None) -> None:
        self.note_exhausted(self.now_s)
        if most is not None:
            self.limits[name] = most
        else:
            self.limits.pop(name, None)
            self.exhausted_s.pop(name, None)

    def set_rate(self, name: str, rate: tuple[float, int] | None) -> None:
        bucket = self.buckets.get(name)
        if rate is None:
            self.buckets.pop(name, None)
        elif bucket is None:
            self.buckets[name] = Bucket(*rate, tokens=rate[1], updated_s=self.now_s)
        else:
            bucket.fill(self.now_s)
            bucket.per_s, bucket.burst = rate
            bucket.fill(self.now_s)

    def next_start_s(self) -> float:
        """The first time at which something can start that only lacks a rate."""
        waits = [
            self.rate_wait_s(head)
            for namespace in self.turns
            for head in self.heads(namespace)
            if self.rate_wait_s(head) and self.startable(head, in_s=float("inf"))
        ]
        return self.now_s + min(waits, default=float("inf"))

    def give_back_engine(self, waiter: Waiter, now_s: float) -> None:
        self.note_exhausted(now_s)
        self.taken.subtract(self.engine(waiter))

    def give_back_slot(self, waiter: Waiter, slots: Slots, now_s: float) -> None:
        self.note_exhausted(now_s)
        slots.taken -= 1
        slots.taken_of[waiter.type] -= 1

    def set_worker(self, namespace: str, name: str, slots: int, types: dict[str, int], now_s: float) -> None:
        self.note_exhausted(now_s)
        worker = self.workers.get(name)
        if worker is None:
            self.places += 1
            worker = self.workers[name] = Slots(namespace, self.places, 0, False, types)
        worker.is_open = slots > 0
        worker.slots = slots or worker.slots

    def reason(self, waiter: Waiter) -> str:
        """Why it waits, without what is kept for others: empty if that is why."""
        if not self.workers_of(waiter.namespace, waiter.type):
            return "NO_WORKER"
        if self.free("server") <= 0:
            return "SERVER_LIMIT"
        if self.free(f"namespace {waiter.namespace}") <= 0:
            return "NAMESPACE_LIMIT"
        if any(self.free(limit) <= 0 for limit in waiter.chain):
            return "EXECUTION_LIMIT"
        if waiter.key and self.free(f"key {waiter.namespace} {waiter.key}") <= 0:
            return "KEY_LIMIT"
        if any(self.free(limit) <= 0 for limit in self.type_limits(waiter)):
            return "NODE_TYPE_LIMIT"
        if self.rate_wait_s(waiter):
            return "RATE_LIMIT"
        return "" if self.has_slot(waiter.namespace, waiter.type) else "WORKER_SLOTS"
