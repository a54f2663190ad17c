"""Runs one seed: builds its world, lets it run, breaks it, heals it, and holds the laws against what is left."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from random import Random
from typing import Final, cast

import trio

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.inline import InlineOffload
from plait_server.config import NamespaceOptions, ServerConfig, TypeOptions
from plait_server.core.definition.graph import Graph
from plait_server.ports.evaluator import Evaluator, Offload
from plait_server.testing.simulation.administrator import Administrator
from plait_server.testing.simulation.checks import Checks
from plait_server.testing.simulation.clients import Client
from plait_server.testing.simulation.coverage import Coverage
from plait_server.testing.simulation.deletion_checks import problem_of_deletions
from plait_server.testing.simulation.faults import Faults
from plait_server.testing.simulation.graphs import TYPES, make_graph
from plait_server.testing.simulation.host import Host
from plait_server.testing.simulation.limiters import Limiter
from plait_server.testing.simulation.list_watchers import SETTLED_S, ListWatcher
from plait_server.testing.simulation.readable import describe_failure
from plait_server.testing.simulation.store import Stores
from plait_server.testing.simulation.workers import Worker
from plait_server.testing.simulation.world import SimulationFailure, World, run_in_virtual_time

HEALED_S_MAX: Final = 3 * 3_600.0
"""Everything must have ended so many virtual seconds after all was healed: a chain of long waits, or a due time
that was worked out while the wall clock was an hour off."""
SETTLED_S_MAX: Final = 60.0
"""Permits and slots are free so many seconds after the end: the grace time of cancels, and a lease."""
SQLITE_SHARE: Final = 0.08
"""Share of seeds that run on a SQLite file: its commits are real and take most of their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a seed came to."""

    seed: int
    failure: str
    """A readable account of what failed; empty if nothing did."""
    check: str
    """The check that failed; empty if none did."""
    digest: str
    """A hash over all events of all executions."""
    executions: int
    events: int
    virtual_s: float
    """How long it took in virtual seconds."""
    real_s: float
    """How long it took in real seconds."""
    coverage: Coverage


def simulate(seed: int) -> Result:
    """Run one seed to its end. Gives the same result every time, but for `real_s`."""
    begun_s = time.perf_counter()
    simulation = Simulation(seed)
    failure: SimulationFailure | None
    try:
        run_in_virtual_time(simulation.world, simulation.main)
        failure = simulation.world.failure
    except Exception as error:  # noqa: BLE001 # whatever the server raises is a failure of the seed
        failure = simulation.world.failure or SimulationFailure("the server runs", shown(error))
    records = simulation.stores.records
    checks = Checks(
        records,
        simulation.host.collector,
        simulation.world.spent,
        simulation.namespace.settings,
        simulation.world,
    )
    if failure is None:
        failure = checks.check(simulation.clients)
    simulation.stores.remove()
    if simulation.stores.snapshot_reads:
        simulation.world.count("an execution is read from a snapshot")
    coverage = Coverage()
    coverage.take(simulation.world.seen, checks.rows, records)
    return Result(
        seed=seed,
        failure=describe_failure(simulation.world, records, failure) if failure is not None else "",
        check=failure.check if failure is not None else "",
        digest=records.digest(),
        executions=len(records.executions),
        events=sum(len(durable.contents) for durable in records.executions.values()),
        virtual_s=simulation.virtual_s,
        real_s=time.perf_counter() - begun_s,
        coverage=coverage,
    )


def shown(error: BaseException) -> str:
    """Show an exception with those inside it, and where the innermost came from."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return "; ".join(shown(each) for each in inner)
    place = error.__traceback__
    lines: list[str] = []
    while place is not None:
        code = place.tb_frame.f_code
        lines.append(f"{code.co_filename.rpartition('/')[2]}:{place.tb_lineno} {code.co_name}")
        place = place.tb_next
    return f"{type(error).__name__}: {error} ({' < '.join(reversed(lines[-6:]))})"


@functools.cache
def _evaluator() -> Evaluator:
    return CelEvaluator()


@functools.cache
def _offload() -> Offload:
    # Pure, and costly to make: shared by all seeds of a process.
    return InlineOffload()


class Simulation:
    """One seed, put together. `main` is run once."""

    def __init__(self, seed: int) -> None:
        self.world: Final = World(seed)
        chance = self.world.chance("setting")
        self._is_long = chance.random() < 0.2
        self._faulty_s = 200.0 if self._is_long else chance.choice((10.0, 25.0, 60.0))
        mishaps = 0.7 if self.world.is_reluctant else chance.choice((0.0, 0.2, 0.4, 0.7))
        self.stores: Final = Stores(chance.randbytes(32), is_sqlite=chance.random() < SQLITE_SHARE)
        config = ServerConfig(
            server_limit=chance.choice((1, 5, 1_000, 1_000)),
            types={TYPES[0]: TypeOptions(max_concurrency=2)} if chance.random() < 0.2 else {},
        )
        self.namespace: Final = self._choose_namespace()
        config = replace(config, namespaces={"*": self.namespace})
        self.host: Final = Host(self.world, self.stores, config, _evaluator(), _offload())
        self.workers: Final = self._make_workers(chance, mishaps)
        self.clients: Final = [
            Client(self.world, self.host, self.stores.records, f"client-{number}", self._make_graph(number))
            for number in range(chance.choice((4, 6, 8, 9)))
        ]
        self._list_watchers: Final = [
            ListWatcher(self.world, self.host, self.stores.records, number) for number in range(2)
        ]
        self._faults = Faults(self.world, self.host, self.workers, within_s=self._faulty_s)
        self.virtual_s = 0.0

    def __repr__(self) -> str:
        return f"<Simulation of seed {self.world.seed}>"

    def _choose_namespace(self) -> NamespaceOptions:
        retention_s: float | None = None
        if self.world.may_delete:
            retention_s = self.world.chance("retention").choice((None, None, 20.0, 60.0, 600.0))
        chance = self.world.chance("admission")
        if chance.random() < 0.6:
            return NamespaceOptions(retention_s=retention_s)
        return NamespaceOptions(
            retention_s=retention_s,
            running_max=chance.choice((1, 2, 3)),
            queue_max=chance.choice((0, 1, 3, 1_000)),
            order=chance.choice(("FIFO", "LIFO", "PRIORITY")),
            queue_timeout_s=chance.choice((0.0, 0.0, 10.0, 60.0)),
        )

    def _make_workers(self, chance: Random, mishaps: float) -> list[Worker]:
        started: dict[str, str] = {}
        workers: list[Worker] = []
        for number in range(chance.choice((1, 1, 2, 3))):
            types = {TYPES[0]: chance.choice((0, 0, 1, 2))}
            if number == 0 or chance.random() < 0.7:
                types[TYPES[1]] = 0
            if number > 0 and chance.random() < 0.5:
                types[TYPES[2]] = 1
            workers.append(
                self._make_worker(f"worker-{number}", types, chance.choice((1, 2, 5, 8)), mishaps, started)
            )
        # Attaches when all is healed.
        workers.append(self._make_worker("worker-rare", dict.fromkeys(TYPES, 0), 4, 0.0, started))
        return workers

    def _make_worker(
        self, name: str, types: dict[str, int], slots: int, mishaps: float, started: dict[str, str]
    ) -> Worker:
        return Worker(self.world, self.host, name, types=types, slots=slots, mishaps=mishaps, started=started)

    def _make_graph(self, number: int) -> Graph:
        return make_graph(self.world.chance("graph", number), is_long=self._is_long)

    async def main(self) -> None:
        """Run everything to its end."""
        world = self.world
        async with trio.open_nursery() as outer:
            outer.start_soon(self.host.run)
            async with trio.open_nursery() as machines:
                for worker in self.workers[:-1]:
                    machines.start_soon(worker.run)
                machines.start_soon(self._faults.run)
                machines.start_soon(Limiter(world, self.host).run)
                for watcher in self._list_watchers:
                    machines.start_soon(watcher.run)
                machines.start_soon(self._heal_later, machines)
                async with trio.open_nursery() as nursery:
                    for client in self.clients:
                        nursery.start_soon(client.run)
                    if self.namespace != NamespaceOptions():
                        nursery.start_soon(Administrator(world, self.host).run)
                    nursery.start_soon(self._watch_time, nursery.cancel_scope)
                    for client in self.clients:
                        await client.is_done.wait()
                    if not world.healed.is_set():
                        await trio.sleep(world.chance("after").choice((0.0, 15.0)))
                    self._heal(machines)
                    for client in self.clients:
                        await client.is_finished.wait()
                    nursery.cancel_scope.cancel()
                await self._settle()
                await self._settle_watchers()
                machines.cancel_scope.cancel()
            await self.host.stop()
            problem = await problem_of_deletions(self.stores)
            if problem:
                world.fail("K1", problem)
        self.virtual_s = trio.current_time()

    async def _heal_later(self, machines: trio.Nursery) -> None:
        await trio.sleep(self._faulty_s)
        self._heal(machines)

    def _heal(self, machines: trio.Nursery) -> None:
        if not self.world.healed.is_set():
            self.world.wall_offset_s = 0.0
            self._faults.heal()
            machines.start_soon(self.workers[-1].run)

    async def _watch_time(self, scope: trio.CancelScope) -> None:
        await self.world.healed.wait()
        await trio.sleep(HEALED_S_MAX)
        late = ", ".join(repr(client) for client in self.clients if not client.is_finished.is_set())
        self.world.fail(
            "ends in time", f"{late} has not ended {HEALED_S_MAX:g} virtual seconds after all was healed"
        )
        scope.cancel()

    async def _settle(self) -> None:
        """Wait until nothing is held any more (Q1), and fail if something is."""
        held = "the server is down"
        with trio.move_on_after(SETTLED_S_MAX):
            while held:
                await trio.sleep(1)
                held = self._held()
        if held:
            self.world.fail("Q1", f"{SETTLED_S_MAX:g} s after the end, {held}")

    async def _settle_watchers(self) -> None:
        """Wait until the watchers of the namespace know everything, and fail if one does not (A3)."""
        problem = "not looked yet"
        with trio.move_on_after(SETTLED_S):
            while problem:
                await trio.sleep(0.5)
                problem = next((each.problem() for each in self._list_watchers if each.problem()), "")
        if problem:
            self.world.fail("A3", problem)

    def _held(self) -> str:
        generation = self.host.generation
        if generation is None or generation.server is None:
            return "the server is down"
        server = generation.server
        statistics = server.allocator.statistics()
        if statistics.waiting or statistics.running:
            return f"the allocator still counts {statistics.waiting} waiting and {statistics.running} running"
        for snapshot in server.workers.list_workers("default"):
            if snapshot.slots_in_use:
                return f"{snapshot.slots_in_use} slots of {snapshot.instance_id} are still taken"
        live = server.supervisor.statistics()
        if live.live or live.asleep or live.queued or live.damaged:
            return f"the supervisor still has {live}"
        if active := server.supervisor.admission.active():
            return f"something runs or waits in the namespaces {active}"
        if generation.tracing.held:
            return f"{generation.tracing.held} spans are still to be sent"
        for worker in self.workers:
            if worker.process is not None and not worker.process.session.is_idle:
                return f"{worker.process.session!r} still holds something"
        return ""
