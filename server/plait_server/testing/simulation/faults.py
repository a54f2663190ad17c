"""What goes wrong in a simulation, and when."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final, NamedTuple

import trio

from plait_server.errors import JournalUnavailable, PlaitError
from plait_server.testing.simulation.collector import Mood
from plait_server.testing.simulation.host import Generation, Host
from plait_server.testing.simulation.store import Break, BreakPoint
from plait_server.testing.simulation.workers import Worker
from plait_server.testing.simulation.world import World


class Fault(enum.Enum):
    """The kinds of faults that are put in on purpose; scripted handlers have theirs (`scripts.Act`)."""

    CRASH = "the server crashes"
    CRASH_BEFORE_APPEND = "the server crashes before an append"
    CRASH_AFTER_APPEND = "the server crashes after an append"
    CRASH_IN_RECOVERY = "the server crashes in its recovery"
    RESTART = "the server is restarted"
    STORE_FAILS_BEFORE = "the store fails before an append"
    STORE_FAILS_AFTER = "the store fails after an append"
    STORE_FULL = "the disk is full"
    STREAM_CUT = "a worker's stream is cut"
    STREAM_CUT_HIDDEN_FROM_SERVER = "a worker's stream is cut, and the server does not know"
    STREAM_CUT_HIDDEN_FROM_WORKER = "a worker's stream is cut, and the worker does not know"
    STALL_UP = "a stream stalls on the way to the server"
    STALL_DOWN = "a stream stalls on the way to the worker"
    FRAMES_LATE = "frames are late"
    WORKER_DIES = "a worker dies"
    WORKER_DIES_SILENTLY = "a worker dies silently"
    WORKER_DRAINS = "a worker drains"
    CREDIT_CHANGES = "a worker changes its credit"
    CLOCK_JUMPS = "the wall clock jumps"
    COLLECTOR_AWAY = "the collector of traces goes away"
    COLLECTOR_SLOW = "the collector of traces becomes slow"
    COLLECTOR_REFUSES = "the collector of traces refuses everything"
    COLLECTOR_TAKES_SOME = "the collector of traces takes a part"


_MOODS: Final = {
    Fault.COLLECTOR_AWAY: Mood.AWAY,
    Fault.COLLECTOR_SLOW: Mood.SLOW,
    Fault.COLLECTOR_REFUSES: Mood.REFUSES,
    Fault.COLLECTOR_TAKES_SOME: Mood.TAKES_SOME,
}


class _Planned(NamedTuple):
    after_s: float
    fault: Fault


FAULTS_MAX: Final = 7


class Faults:
    """Puts faults into a simulation until it heals. `run` is started once.

    Args:
        world: The seed.
        host: The server's machine.
        workers: All workers.
        within_s: Seconds within which the faults come.
    """

    def __init__(self, world: World, host: Host, workers: list[Worker], *, within_s: float) -> None:
        self._world = world
        self._host = host
        self._workers = workers
        self._chance = world.chance("faults")
        self._recovery: list[Fault] = []
        self._plan = self._make_plan(within_s)
        host.on_start = self._on_start
        host.downtime_s = lambda: self._chance.choice((0.0, 0.3, 3.0, 12.0, 25.0))

    def __repr__(self) -> str:
        return f"<Faults, {len(self._plan)} to come>"

    async def run(self) -> None:
        """Put in what is planned."""
        for planned in self._plan:
            await trio.sleep_until(planned.after_s)
            if self._world.healed.is_set():
                return
            await self._put_in(planned.fault)

    def heal(self) -> None:
        """Let everything work from now on."""
        world = self._world
        world.note("everything is healed")
        world.healed.set()
        self._host.collector.turn(Mood.WELL, for_s=0.0)
        self._recovery.clear()
        self._host.downtime_s = lambda: 0.3
        self._host.frame_delay_s = 0.02
        generation = self._host.generation
        if generation is not None:
            generation.journal.breaks.clear()
            generation.journal.is_full = False
        for link in self._host.links:
            link.up.delay_s = link.down.delay_s = 0.02
        for worker in self._workers:
            if worker.process is not None:
                worker.process.set_credit(worker.slots)

    def _make_plan(self, within_s: float) -> list[_Planned]:
        chance = self._chance
        kinds = [fault for fault in Fault if fault not in _MOODS]
        if chance.random() < 0.5:
            kinds = chance.sample(kinds, 4)
        # Most of what may go wrong goes wrong without any help.
        faults = chance.choices(kinds, k=0 if chance.random() < 0.15 else chance.randint(1, FAULTS_MAX))
        faults += chance.choices(list(_MOODS), k=chance.choice((0, 0, 1, 2)))
        return sorted(_Planned(chance.random() * chance.choice((6.0, within_s)), fault) for fault in faults)

    async def _put_in(self, fault: Fault) -> None:
        host, chance = self._host, self._chance
        self._world.note(f"fault: {fault.value}")
        match fault:
            case Fault.CRASH:
                self._count(fault)
                host.crash()
            case Fault.CRASH_IN_RECOVERY:
                # One crash to recover from, and one or two in the recovery.
                self._recovery += [fault] * chance.choice((1, 1, 2))
                host.crash()
            case Fault.CRASH_BEFORE_APPEND:
                self._break(fault, BreakPoint.BEFORE_APPEND, chance.randint(1, 4))
            case Fault.CRASH_AFTER_APPEND:
                self._break(fault, BreakPoint.AFTER_APPEND, chance.randint(1, 4))
            case Fault.STORE_FAILS_BEFORE:
                self._break(fault, BreakPoint.BEFORE_APPEND, chance.randint(1, 4))
            case Fault.STORE_FAILS_AFTER:
                self._break(fault, BreakPoint.AFTER_APPEND, chance.randint(1, 4))
            case Fault.RESTART:
                self._count(fault)
                await host.restart()
            case Fault.STORE_FULL:
                await self._fill()
            case Fault.CLOCK_JUMPS:
                self._count(fault)
                self._world.wall_offset_s += chance.choice((-1.0, 1.0, -30.0, 45.0, 3_600.0, -3_600.0))
            case _ if fault in _MOODS:
                self._count(fault)
                host.collector.turn(_MOODS[fault], for_s=chance.choice((2.0, 15.0, 60.0)))
            case Fault.WORKER_DIES | Fault.WORKER_DIES_SILENTLY | Fault.WORKER_DRAINS | Fault.CREDIT_CHANGES:
                self._disturb_worker(fault)
            case _:
                self._disturb_stream(fault)

    def _disturb_worker(self, fault: Fault) -> None:
        worker = self._chance.choice(self._workers)
        process = worker.process
        if process is None:
            return
        self._count(fault)
        match fault:
            case Fault.WORKER_DRAINS:
                worker.drain()
            case Fault.CREDIT_CHANGES:
                process.set_credit(self._chance.choice((0, 1, 2, 5)))
            case _:
                process.die(is_silent=fault is Fault.WORKER_DIES_SILENTLY)

    def _disturb_stream(self, fault: Fault) -> None:
        links = self._host.links
        if not links:
            return
        chance = self._chance
        link = chance.choice(links)
        self._count(fault)
        until_s = trio.current_time() + chance.choice((1.0, 8.0, 20.0))
        match fault:
            case Fault.STREAM_CUT:
                link.cut()
            case Fault.STREAM_CUT_HIDDEN_FROM_SERVER:
                link.cut(server_knows=False)
            case Fault.STREAM_CUT_HIDDEN_FROM_WORKER:
                link.cut(worker_knows=False)
            case Fault.STALL_UP:
                link.up.stall(until_s)
            case Fault.STALL_DOWN:
                link.down.stall(until_s)
            case _:
                self._host.frame_delay_s = 2.0
                for late in links:
                    late.up.delay_s = late.down.delay_s = 2.0

    async def _fill(self) -> None:
        generation = self._host.generation
        if generation is None:
            return
        self._count(Fault.STORE_FULL)
        generation.journal.is_full = True
        with trio.move_on_after(self._chance.choice((0.5, 4.0))):
            await self._world.healed.wait()
        generation.journal.is_full = False

    def _break(self, fault: Fault, point: BreakPoint, count: int) -> None:
        if self._host.generation is not None:
            self._host.generation.journal.breaks.append(Break(point, count, self._breaker(fault)))

    def _breaker(self, fault: Fault) -> Callable[[], PlaitError]:
        def act() -> PlaitError:
            self._count(fault)
            if fault not in (Fault.STORE_FAILS_BEFORE, Fault.STORE_FAILS_AFTER):
                self._host.crash()
            return JournalUnavailable("the simulated store fails")

        return act

    def _on_start(self, generation: Generation) -> None:
        if not self._recovery:
            return
        fault = self._recovery.pop()
        chance = self._chance
        point = chance.choice(list(BreakPoint))
        count = 1 if point in (BreakPoint.BEFORE_CLAIM, BreakPoint.AFTER_CLAIM) else chance.randint(1, 3)
        generation.journal.breaks.append(Break(point, count, self._breaker(fault)))

    def _count(self, fault: Fault) -> None:
        self._world.count(fault.value)
