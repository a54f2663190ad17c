"""Q1, R4: whatever happens in whatever order, the allocator grants what the reference grants, and leaks nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from plait_server.core.limit_values import SERVER, LimitKind, LimitName, LimitValue
from plait_server.core.run.commands import Place
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.grant import Grant
from plait_server.runtime.waiting import PermitRequest
from tests.runtime.capacity import limits_of
from tests.runtime.reference_allocator import Reference, Slots, Waiter

NAMESPACES = ["one", "two"]
EXECUTIONS = {"x": ("one", 1, 2.0), "y": ("one", 3, 1.0), "w": ("one", 2, 1.0), "z": ("two", 2, 0.0)}
"""Name -> namespace, limit and time of submission; in the order of opening."""
SCOPES = {
    "p": (("p",), (Place(-1, 0, 10),)),
    "p/q": (("p", "p/q"), (Place(-1, 0, 10), Place(0, -1, 11))),
    "p/r": (("p", "p/r"), (Place(-1, 0, 10), Place(-1, -1, 12))),
    "s/l": (("s/l",), (Place(0, -1, 13), Place(0, 0, 0))),
    "s/m": (("s/l",), (Place(0, -1, 13), Place(0, 0, 0), Place(0, -1, 1))),
}
"""Path of a scope -> the limits around it and its own, and the places of the nodes that it is in."""
SCOPE_LIMITS = {"p": 2, "p/q": 1, "p/r": 2, "s/l": 1}
TYPES = {"t": 0, "u": 2, "v": 1}
"""Name -> limit, 0 for none."""
KEYS = ("k", "l")
SERVER_LIMIT = 4
NAMESPACE_LIMITS = {"one": 3}
WORKERS = {"a": {"t": 0, "u": 0}, "b": {"t": 1, "u": 0, "v": 0}, "c": {"v": 0}}
"""Name -> the types it serves, and its limit of each."""


@dataclass
class Ask:
    execution: str
    type: str
    priority: int
    remaining: int
    order: int
    scope: str = ""
    key: str = ""


@dataclass
class Reopen:
    """A scope ends and its node runs again, with all that is inside."""

    execution: str
    scope: str


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


@dataclass
class RemoveWorker:
    namespace: str
    name: str


@dataclass
class TakeBack:
    """An attempt that runs since before a restart turns up."""

    execution: str
    type: str
    worker: str
    scope: str
    key: str


@dataclass
class Pass:
    seconds: float


@dataclass
class SetMost:
    """A limit changes while things run; None removes it."""

    name: LimitName
    most: int | None


@dataclass
class SetRate:
    namespace: str
    type: str
    rate: tuple[float, int] | None
    """Starts a second and burst; None removes it."""


@dataclass
class SetExecution:
    execution: str
    limit: int


def few(most: int) -> st.SearchStrategy[int]:
    return st.integers(0, most)


ACTIONS = st.one_of(
    st.builds(Ask, st.sampled_from(tuple(EXECUTIONS)), st.sampled_from(tuple(TYPES)), few(2), few(1), few(2)),
    st.builds(Ask, st.just("x"), st.just("t"), few(1), few(0), few(0)),
    st.builds(
        Ask,
        st.sampled_from(("x", "y", "z")),
        st.sampled_from(tuple(TYPES)),
        few(1),
        few(1),
        few(2),
        st.sampled_from(tuple(SCOPES)),
    ),
    st.builds(
        Ask,
        st.sampled_from(tuple(EXECUTIONS)),
        st.sampled_from(tuple(TYPES)),
        few(1),
        few(1),
        few(2),
        st.sampled_from(("", "", *SCOPES)),
        st.sampled_from(KEYS),
    ),
    st.builds(Reopen, st.sampled_from(tuple(EXECUTIONS)), st.sampled_from(tuple(SCOPE_LIMITS))),
    st.builds(Withdraw, few(30)),
    st.builds(GiveBack, few(30), st.sampled_from(("engine", "slot", "all", "all", "all"))),
    st.builds(SetWorker, st.sampled_from(NAMESPACES), st.sampled_from(tuple(WORKERS)), few(3)),
    st.builds(RemoveWorker, st.sampled_from(NAMESPACES), st.sampled_from(tuple(WORKERS))),
    st.builds(
        TakeBack,
        st.sampled_from(tuple(EXECUTIONS)),
        st.sampled_from(tuple(TYPES)),
        st.sampled_from(tuple(WORKERS)),
        st.sampled_from(("", "", *SCOPES)),
        st.sampled_from(("", "", *KEYS)),
    ),
    st.builds(
        SetMost,
        st.one_of(
            st.builds(LimitName, st.just(LimitKind.NAMESPACE), st.sampled_from(NAMESPACES), st.just("")),
            st.builds(
                LimitName,
                st.just(LimitKind.TYPE),
                st.sampled_from(("", *NAMESPACES)),
                st.sampled_from(tuple(TYPES)),
            ),
            st.builds(LimitName, st.just(LimitKind.KEY), st.sampled_from(NAMESPACES), st.sampled_from(KEYS)),
        ),
        st.one_of(st.none(), st.integers(1, 3)),
    ),
    st.builds(SetMost, st.just(SERVER), st.integers(1, 5)),
    st.builds(
        SetRate,
        st.sampled_from(("", *NAMESPACES)),
        st.sampled_from(("t", "u")),
        st.one_of(st.none(), st.tuples(st.sampled_from((0.25, 1.0, 2.0)), st.integers(1, 3))),
    ),
    st.builds(SetExecution, st.sampled_from(tuple(EXECUTIONS)), st.integers(1, 4)),
    st.builds(Pass, st.sampled_from((0.5, 4.0, 11.0))),
)


def known_as(name: LimitName) -> str:
    """The name of a limit in the reference."""
    return "server" if name == SERVER else f"{name.kind.name.lower()} {name.namespace} {name.name}".rstrip()


class Model:
    """An allocator, and beside it the reference, to which the same happens."""

    def __init__(self) -> None:
        self.values: dict[LimitName, LimitValue] = dict(limits_of(TYPES, NAMESPACE_LIMITS))
        self.allocator = Allocator(server_limit=SERVER_LIMIT, limits=self.values)
        self.reference = Reference(list(TYPES), NAMESPACES)
        self.reference.limits["server"] = SERVER_LIMIT
        for limit_name, value in self.values.items():
            assert value.max_concurrency is not None
            self.reference.limits[known_as(limit_name)] = value.max_concurrency
        for name in NAMESPACES:
            self.reference.limits.update({f"key {name} {key}": 1 for key in KEYS})
        for name, (namespace, limit, submitted_s) in EXECUTIONS.items():
            self.allocator.open_execution(namespace, name, limit, submitted_s)
            self.reference.limits[name] = limit
            for scope, scope_limit in SCOPE_LIMITS.items():
                self.allocator.open_scope(namespace, name, scope, scope_limit)
                self.reference.limits[f"{name}:{scope}"] = scope_limit
        self.out: dict[str, tuple[Grant, Waiter, Slots]] = {}
        self.granted: list[tuple[str, str]] = []
        self.waiters: dict[str, Waiter] = {}
        self.places: dict[str, tuple[Place, ...]] = {}
        self.count = 0
        for namespace in NAMESPACES:
            for name in WORKERS:
                self.set_worker(namespace, name, 2)

    def do(self, action: object) -> None:
        match action:
            case Ask():
                self.ask(action)
            case Reopen():
                self.reopen(action)
            case Withdraw():
                if self.reference.waiting:
                    path = sorted(self.reference.waiting)[action.pick % len(self.reference.waiting)]
                    waiter = self.reference.waiting.pop(path)
                    self.allocator.withdraw(waiter.namespace, waiter.execution, path)
            case GiveBack():
                if self.out:
                    self.give_back(sorted(self.out)[action.pick % len(self.out)], action.part)
            case SetWorker():
                self.set_worker(action.namespace, action.name, action.slots)
            case RemoveWorker():
                instance = f"{action.namespace}.{action.name}"
                self.reference.workers.pop(instance, None)
                self.allocator.remove_worker(action.namespace, instance)
            case TakeBack():
                self.take_back(action)
            case SetMost():
                self.set_most(action)
            case SetRate():
                self.set_rate(action)
            case SetExecution():
                self.reference.set_limit(action.execution, action.limit)
                namespace = EXECUTIONS[action.execution][0]
                self.allocator.change_execution(namespace, action.execution, action.limit, 0)
            case _:
                pass

    def waiter(
        self,
        execution: str,
        type_: str,
        priority: int = 0,
        remaining: int = 0,
        order: int = 0,
        scope: str = "",
        key: str = "",
    ) -> Waiter:
        self.count += 1
        namespace, _, submitted_s = EXECUTIONS[execution]
        number = list(EXECUTIONS).index(execution)
        limits, around = SCOPES[scope] if scope else ((), ())
        places = (*around, Place(-priority, -remaining, order))
        (urgency, distance, first), *inside = places
        rank = (
            urgency,
            distance,
            submitted_s,
            number,
            first,
            *(part for place in inside for part in place),
            self.count,
        )
        path = f"n{self.count:03}"
        self.places[path] = places
        waiter = Waiter(
            namespace=namespace,
            execution=execution,
            path=path,
            type=type_,
            rank=rank,
            ready_s=trio.current_time(),
            scopes=tuple(f"{execution}:{limit}" for limit in limits),
            key=key,
        )
        self.waiters[path] = waiter
        return waiter

    def request(self, waiter: Waiter) -> PermitRequest:
        return PermitRequest(
            waiter.namespace,
            waiter.execution,
            waiter.path,
            waiter.type,
            self.places[waiter.path],
            waiter.scopes[-1].partition(":")[2] if waiter.scopes else "",
            waiter.ready_s,
            partial(self.on_grant, waiter.path),
            waiter.key,
        )

    def ask(self, ask: Ask) -> None:
        waiter = self.waiter(
            ask.execution, ask.type, ask.priority, ask.remaining, ask.order, ask.scope, ask.key
        )
        self.reference.offer(waiter)
        self.allocator.offer(self.request(waiter))

    def reopen(self, action: Reopen) -> None:
        """Close the limits of a scope and of those in it, the innermost first, unless something runs there."""
        limit = f"{action.execution}:{action.scope}"
        if any(limit in waiter.chain for _, waiter, _ in self.out.values()):
            return
        namespace = EXECUTIONS[action.execution][0]
        inside = [
            path for path in SCOPE_LIMITS if path == action.scope or path.startswith(f"{action.scope}/")
        ]
        for path in reversed(inside):
            self.allocator.close_scope(namespace, action.execution, path)
            self.reference.exhausted_s.pop(f"{action.execution}:{path}", None)
        for path in [path for path, each in self.reference.waiting.items() if limit in each.chain]:
            del self.reference.waiting[path]
        for path in inside:
            self.allocator.open_scope(namespace, action.execution, path, SCOPE_LIMITS[path])

    def on_grant(self, path: str, grant: Grant) -> None:
        assert grant.worker is not None
        self.granted.append((path, grant.worker.instance_id))
        self.out[path] = grant, self.waiters[path], self.reference.workers[grant.worker.instance_id]

    def take_back(self, action: TakeBack) -> None:
        namespace = EXECUTIONS[action.execution][0]
        instance = f"{namespace}.{action.worker}"
        slots = self.reference.workers.get(instance)
        if slots is None or action.type not in slots.limits:
            return
        waiter = self.waiter(action.execution, action.type, scope=action.scope, key=action.key)
        grant = self.allocator.take_back(self.request(waiter), action.worker, instance)
        self.reference.take(waiter, instance)
        self.out[waiter.path] = grant, waiter, slots

    def give_back(self, path: str, part: str) -> None:
        grant, waiter, slots = self.out[path]
        had_slot, had_engine = grant.worker is not None, bool(grant._engine)
        now_s = trio.current_time()
        if had_engine and part != "slot":
            self.reference.give_back_engine(waiter, now_s)
        if had_slot and part != "engine":
            self.reference.give_back_slot(waiter, slots, now_s)
        match part:
            case "engine":
                grant.release_engine()
            case "slot":
                grant.release_slot()
            case _:
                grant.release()
        if grant.is_empty:
            del self.out[path]

    def set_worker(self, namespace: str, name: str, slots: int) -> None:
        instance = f"{namespace}.{name}"
        self.reference.set_worker(namespace, instance, slots, WORKERS[name], trio.current_time())
        if (namespace, instance) in self.allocator._workers._instances:
            self.allocator.set_worker_slots(namespace, instance, slots)
        else:
            self.allocator.attach_worker(namespace, name, instance, slots, WORKERS[name])

    def set_most(self, action: SetMost) -> None:
        most = action.most
        if most is None and action.name.kind is LimitKind.KEY:
            most = 1
        self.reference.set_limit(known_as(action.name), most)
        known = self.values.get(action.name, LimitValue())
        self.set(action.name, replace(known, max_concurrency=action.most))

    def set_rate(self, action: SetRate) -> None:
        name = LimitName(LimitKind.TYPE, action.namespace, action.type)
        self.reference.set_rate(known_as(name), action.rate)
        rate, burst = action.rate or (None, 0)
        self.set(name, replace(self.values.get(name, LimitValue()), rate=rate, burst=burst))

    def set(self, name: LimitName, value: LimitValue) -> None:
        if value == LimitValue():
            self.values.pop(name, None)
            self.allocator.set_limit(name, None)
        else:
            self.values[name] = value
            self.allocator.set_limit(name, value)

    def dispatch(self) -> None:
        self.granted.clear()
        self.reference.now_s = trio.current_time()
        self.allocator.dispatch()
        assert self.granted == self.reference.dispatch()
        assert self.allocator.next_start_s > trio.current_time()
        assert self.allocator.next_start_s <= self.reference.next_start_s() + 1e-6

    def check(self) -> None:
        statistics = self.allocator.statistics()
        assert statistics.waiting == len(self.reference.waiting)
        assert statistics.running == self.reference.taken["server"]
        for name, worker in self.reference.workers.items():
            assert self.allocator.slots_in_use(name.partition(".")[0], name) == worker.taken
        for path, waiter in self.reference.waiting.items():
            reason = self.allocator.reason(waiter.namespace, waiter.execution, path)
            assert reason, f"{path} waits and nothing is said of it"
            assert reason == (self.reference.reason(waiter) or reason)

    def drain(self) -> None:
        """Let everything run to its end: each waiter must have its turn."""
        for namespace in NAMESPACES:
            for name in WORKERS:
                self.set_worker(namespace, name, 3)
            for name in TYPES:
                self.set_rate(SetRate(namespace, name, None))
                self.set_rate(SetRate("", name, None))
        for _ in range(len(self.reference.waiting) + len(self.out) + 1):
            self.dispatch()
            self.check()
            for path in sorted(self.out):
                self.give_back(path, "all")
        self.dispatch()
        assert not self.reference.waiting
        assert self.allocator.statistics().running == 0
        assert all(
            self.allocator.slots_in_use(name.partition(".")[0], name) == 0 for name in self.reference.workers
        )
        assert not self.allocator._limits._keys, "a key that nobody uses is forgotten"
        for execution, (namespace, _, _) in EXECUTIONS.items():
            self.allocator.close_execution(namespace, execution)


@given(st.lists(ACTIONS, min_size=20, max_size=100))  # With a smaller least size most have only five.
@settings(max_examples=100)
def test_it_grants_what_the_reference_grants_and_leaks_nothing(actions: list[object]) -> None:
    clock = MockClock()

    async def live() -> None:
        model = Model()
        for action in actions:
            if isinstance(action, Pass):
                clock.jump(action.seconds)
            model.reference.now_s = trio.current_time()
            model.do(action)
            model.dispatch()
            model.check()
        model.drain()

    trio.run(live, clock=clock)
