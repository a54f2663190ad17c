"""Q1, R4: whatever happens in whatever order, limits hold, no permit leaks, and nothing waits that could start."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from plait_server.runtime.allocator import RESERVE_AFTER_S, Allocator, Grant, Request

EXECUTIONS = {"x": ("one", 1), "y": ("one", 3), "z": ("two", 2)}
"""Name -> namespace and limit."""
TYPES = ("t", "u")
TYPE_LIMITS = {"u": 2}
SERVER_LIMIT = 4


@dataclass
class Ask:
    execution: str
    type: str
    priority: int
    remaining: int


@dataclass
class Withdraw:
    pick: int


@dataclass
class GiveBack:
    pick: int
    part: str


@dataclass
class SetWorker:
    namespace: str
    name: str
    slots: int
    type_limit: int


@dataclass
class RemoveWorker:
    namespace: str
    name: str


@dataclass
class Pass:
    seconds: float


PICKS = st.integers(0, 30)
WORKERS = st.sampled_from(("a", "b"))
NAMESPACES = st.sampled_from(("one", "two"))
ACTIONS = st.one_of(
    st.builds(
        Ask, st.sampled_from(tuple(EXECUTIONS)), st.sampled_from(TYPES), st.integers(0, 2), st.integers(0, 2)
    ),
    st.builds(Withdraw, PICKS),
    st.builds(GiveBack, PICKS, st.sampled_from(("engine", "slot", "all", "all", "all"))),
    st.builds(SetWorker, NAMESPACES, WORKERS, st.integers(0, 3), st.integers(0, 2)),
    st.builds(RemoveWorker, NAMESPACES, WORKERS),
    st.builds(Pass, st.sampled_from((0.5, 4.0, 11.0))),
)


@dataclass
class Slots:
    """A worker as the model knows it."""

    is_open: bool
    total: int
    by_type: dict[str, int]
    taken: Counter[str] = field(default_factory=Counter[str])

    def has_room(self, type_: str) -> bool:
        limit = self.by_type[type_]
        free = self.is_open and self.taken.total() < self.total
        return free and (limit == 0 or self.taken[type_] < limit)


class Model:
    """An allocator, and beside it plain counts of what is out."""

    def __init__(self) -> None:
        self.allocator = Allocator(server_limit=SERVER_LIMIT, type_limits=TYPE_LIMITS)
        for name, (namespace, limit) in EXECUTIONS.items():
            self.allocator.open_execution(namespace, name, limit)
        self.waiting: dict[str, tuple[Request, tuple[int, int, int]]] = {}
        self.granted: dict[str, tuple[Grant, Request, Slots]] = {}
        self.workers: dict[str, Slots] = {}
        self.engine: Counter[str] = Counter()
        self.count = 0

    def do(self, action: object) -> None:
        match action:
            case Ask():
                self.ask(action)
            case Withdraw():
                if self.waiting:
                    path = sorted(self.waiting)[action.pick % len(self.waiting)]
                    request, _ = self.waiting.pop(path)
                    self.allocator.withdraw(request.namespace, request.execution_id, path)
            case GiveBack():
                if self.granted:
                    path = sorted(self.granted)[action.pick % len(self.granted)]
                    self.give_back(path, action.part)
            case SetWorker():
                self.set_worker(action)
            case RemoveWorker():
                instance = f"{action.namespace}.{action.name}"
                self.workers.pop(instance, None)
                self.allocator.remove_worker(instance)
            case _:
                pass

    def ask(self, ask: Ask) -> None:
        self.count += 1
        path = f"n{self.count:03}"
        namespace, _ = EXECUTIONS[ask.execution]
        rank = (-ask.priority, -ask.remaining, self.count)
        request = Request(
            namespace,
            ask.execution,
            path,
            ask.type,
            ask.priority,
            ask.remaining,
            self.count,
            trio.current_time(),
            partial(self.on_grant, path),
        )
        self.waiting[path] = request, rank
        self.allocator.offer(request)

    def on_grant(self, path: str, grant: Grant) -> None:
        request, _ = self.waiting.pop(path)
        assert grant.worker is not None
        worker = self.workers[grant.worker.instance_id]
        assert self.engine_has_room(request), "a limit of the engine was passed"
        assert worker.has_room(request.type), "a worker was given more than it takes"
        self.engine.update(("server", request.execution_id, request.type))
        worker.taken[request.type] += 1
        self.granted[path] = grant, request, worker

    def give_back(self, path: str, part: str) -> None:
        grant, request, worker = self.granted[path]
        had_slot, had_engine = grant.worker is not None, path in self.out_of_engine
        match part:
            case "engine":
                grant.release_engine()
            case "slot":
                grant.release_slot()
            case _:
                grant.release()
        if had_slot and part != "engine":
            worker.taken[request.type] -= 1
        if had_engine and part != "slot":
            self.engine.subtract(("server", request.execution_id, request.type))
        if grant.is_empty:
            del self.granted[path]

    @property
    def out_of_engine(self) -> list[str]:
        return [path for path, (grant, _, _) in self.granted.items() if grant._engine]

    def set_worker(self, action: SetWorker) -> None:
        instance = f"{action.namespace}.{action.name}"
        types = {"t": action.type_limit, "u": 0}
        worker = self.workers.get(instance)
        if worker is None:
            self.workers[instance] = Slots(action.slots > 0, action.slots, types)
            self.allocator.attach_worker(action.namespace, action.name, instance, action.slots, types)
            return
        worker.is_open, worker.total = action.slots > 0, action.slots or worker.total
        self.allocator.set_worker_slots(instance, action.slots)

    def engine_has_room(self, request: Request) -> bool:
        limits = {
            "server": SERVER_LIMIT,
            request.execution_id: EXECUTIONS[request.execution_id][1],
            request.type: TYPE_LIMITS.get(request.type, 10_000),
        }
        return all(self.engine[name] < limit for name, limit in limits.items())

    def could_start(self, request: Request) -> bool:
        workers = (
            worker for name, worker in self.workers.items() if name.startswith(f"{request.namespace}.")
        )
        return self.engine_has_room(request) and any(worker.has_room(request.type) for worker in workers)

    def check(self) -> None:
        statistics = self.allocator.statistics()
        assert statistics.waiting == len(self.waiting)
        assert statistics.running == self.engine["server"] <= SERVER_LIMIT
        for name, worker in self.workers.items():
            assert self.allocator.slots_in_use(name) == worker.taken.total()
        now_s = trio.current_time()
        for path, (request, rank) in self.waiting.items():
            reason = self.allocator.reason(request.namespace, request.execution_id, path)
            if not self.could_start(request):
                assert reason, f"{path} waits and nothing is said of it"
                continue
            assert any(
                other_rank < rank and now_s - other.ready_s >= RESERVE_AFTER_S
                for other, other_rank in self.waiting.values()
            ), f"{path} could start, and nobody reserves what it needs"

    def drain(self) -> None:
        """Let everything run to its end: each waiter must have its turn."""
        for namespace in ("one", "two"):
            for name in ("a", "b"):
                self.set_worker(SetWorker(namespace, name, 3, 0))
        for _ in range(len(self.waiting) + 1):
            self.allocator.dispatch()
            self.check()
            for path in sorted(self.granted):
                self.give_back(path, "all")
        self.allocator.dispatch()
        assert not self.waiting
        assert self.allocator.statistics().running == 0
        assert all(self.allocator.slots_in_use(name) == 0 for name in self.workers)
        for execution, (namespace, _) in EXECUTIONS.items():
            self.allocator.close_execution(namespace, execution)


@given(st.lists(ACTIONS, max_size=60))
@settings(max_examples=400)
def test_limits_hold_and_no_permit_leaks(actions: list[object]) -> None:
    clock = MockClock()

    async def live() -> None:
        model = Model()
        for action in actions:
            if isinstance(action, Pass):
                clock.jump(action.seconds)
            model.do(action)
            model.allocator.dispatch()
            model.check()
        model.drain()

    trio.run(live, clock=clock)
