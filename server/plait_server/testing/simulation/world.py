"""What one seed decides: the clock, ids, chance, and the order in which trio runs its tasks."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeVar

import trio
import trio._core._run as trio_run
import trio.testing

EPOCH_S: Final = 1_750_000_000.0
"""Wall time at which every simulation begins; a round date of 2025."""
STEPS_MAX: Final = 200_000
"""Steps of tasks within one virtual instant, beyond which the simulation is held to be a livelock: a round of all tasks
is some hundred steps, and whatever is due at once takes some tens of rounds."""

_SWITCH: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_Value = TypeVar("_Value")


class SimulationFailure(Exception):
    """A check failed.

    Args:
        check: Which, by the number of its sentence where it has one.
        message: What was seen, and what was wanted.
        execution_id: The execution concerned, if it is one.
    """

    def __init__(self, check: str, message: str, execution_id: str = "") -> None:
        self.check = check
        self.message = message
        self.execution_id = execution_id
        super().__init__(f"{check}: {message}")


class World:
    """The seed of a simulation and all chance in it.

    Args:
        seed: Every whole number is one.
    """

    def __init__(self, seed: int) -> None:
        self.seed: Final = seed
        self.is_reluctant: Final = self.chance("mood").random() < 0.3
        """Whether workers often hand back what they were given, so that nodes wait that ran before."""
        self.may_delete: Final = self.chance("deletions").random() < 0.5
        """Whether executions are deleted, by clients or after a short time."""
        self.wall_offset_s = 0.0
        """How far the wall clock was set forward or back."""
        self._ids = self.chance("ids")
        self._jitter = self.chance("jitter")
        self.failure: SimulationFailure | None = None
        """The first check that failed."""
        self.failed = trio.Event()
        self.healed = trio.Event()
        """Set when nothing goes wrong any more."""
        self.seen: Counter[str] = Counter()
        """Faults and other things that happened, by name."""
        self.spent: dict[tuple[str, str, int], str] = {}
        """(execution, node path, attempt) -> tokens that its handler used."""
        self.beats: dict[tuple[str, str, int], list[str]] = {}
        """(execution, node path, attempt) -> the details of the heartbeats that its handler sent, as JSON text."""
        self.details: dict[tuple[str, str, int], str | None] = {}
        """The same -> the details of an earlier attempt that its handler was given."""
        self.notes: list[str] = []
        """What happened, for the reader of a failure."""

    def __repr__(self) -> str:
        return f"<World of seed {self.seed}>"

    def chance(self, *purpose: object) -> random.Random:
        """Give dice of their own to a purpose, so that what one rolls changes nothing for the others."""
        # A text seeds by its SHA-512: the same in every process.
        return random.Random("/".join(map(str, (self.seed, *purpose))))  # noqa: S311 # a simulation

    def count(self, what: str) -> None:
        """Count that something happened, for the coverage."""
        self.seen[what] += 1

    def note(self, text: str) -> None:
        """Write down that something happened."""
        self.notes.append(f"{trio.current_time():10.3f} {text}")

    def fail(self, check: str, message: str, execution_id: str = "") -> None:
        """Let the simulation fail; the first failure counts."""
        if self.failure is None:
            self.failure = SimulationFailure(check, message, execution_id)
            self.note(f"FAILED {check}")
            self.failed.set()

    # The server's seams (ports.seams.Seams).

    def now_s(self) -> float:
        """Return the wall time, seconds since 1970."""
        return EPOCH_S + trio.current_time() + self.wall_offset_s

    def new_id(self) -> str:
        """Make an id as the server's own seams do: 48 bits of time and 80 of chance."""
        value = int(self.now_s() * 1000) << 80 | self._ids.getrandbits(80)
        return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._jitter.random()


class _StepBudget(trio.abc.Instrument):
    """Ends a simulation in which time stands still."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._clock: trio.abc.Clock | None = None
        self._now_s = -1.0
        self._steps = 0
        self.scope = trio.CancelScope()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps += 1
        if self._steps & 1023:
            return
        now_s = trio.current_time()
        if now_s != self._now_s:
            self._now_s = now_s
            self._steps = 0
        elif self._steps >= STEPS_MAX and not self.scope.cancel_called:
            self._world.fail(
                "livelock",
                f"time stood still at {now_s:.6f} s for {STEPS_MAX:,} steps of tasks; the last was of {task.name}",
            )
            self.scope.cancel()


@contextlib.contextmanager
def deterministic_trio(seed: int) -> Generator[None]:
    """Make the order in which trio runs tasks follow from a seed, inside.

    This is the only place that touches trio's inner parts. trio shuffles each round of runnable tasks, so that
    nobody relies on an order; with this switch (made for Hypothesis) it sorts them first and shuffles with this
    generator.
    """
    inner = trio_run.__dict__
    generator: random.Random = inner["_r"]
    state, before = generator.getstate(), inner[_SWITCH]
    inner[_SWITCH] = True
    generator.seed(seed)
    try:
        yield
    finally:
        generator.setstate(state)
        inner[_SWITCH] = before


def run_in_virtual_time(world: World, main: Callable[[], Awaitable[_Value]]) -> _Value | None:
    """Run a function under trio until it returns, the world fails or time stands still.

    Nothing in it may use threads or sockets: the clock jumps whenever all tasks wait.

    Returns:
        What the function gave; None if a check failed.

    Raises:
        BaseException: what the function raised.
    """
    budget = _StepBudget(world)

    async def stop_when_failed() -> None:
        await world.failed.wait()
        budget.scope.cancel()

    async def whole() -> _Value | None:
        value: _Value | None = None
        with budget.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stop_when_failed)
                value = await main()
                nursery.cancel_scope.cancel()
        return None if world.failure is not None else value

    clock = trio.testing.MockClock(autojump_threshold=0)
    with deterministic_trio(world.seed):
        return trio.run(whole, clock=clock, instruments=[budget], strict_exception_groups=True)
