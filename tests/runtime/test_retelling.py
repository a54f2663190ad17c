"""After a start, telemetry is told the earlier events of open executions again, once and in order (B2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import trio
from trio.testing import MockClock

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.ports.journal import Claim
from plait_server.runtime.retelling import tell_again
from tests.runtime.world import NAMESPACE, returns, running


class Listener:
    """Hears of every event, or of those of some executions only."""

    def __init__(self, *deaf_to: str) -> None:
        self._deaf_to = deaf_to
        self.told: list[tuple[str, int]] = []

    async def event_again(self, namespace: str, execution: Execution, event: Event) -> bool:
        assert namespace == NAMESPACE
        assert execution.sequence == event.sequence
        self.told.append((execution.execution_id, event.sequence))
        await trio.lowlevel.checkpoint()
        return execution.execution_id not in self._deaf_to


async def open_executions(store: MemoryStore, *ids: str) -> Sequence[Claim]:
    """Leave executions open behind a crash, and claim them."""
    async with running(store, scripts={"b": returns("1", 1_000.0)}) as runtime:
        for execution_id in ids:
            await runtime.submit("a -> b", id=execution_id)
        await trio.sleep(5)
        runtime.crash()
    claims = await MemoryJournal(store, owner="next").claim(limit=10)
    return [claim for claim in claims if isinstance(claim, Claim)]


async def test_all_that_was_open_is_told_up_to_the_start(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    claims = await open_executions(store, "x", "y")
    assert [claim.last_sequence for claim in claims] == [5, 5]
    # Since the start, x had two events more, and y none.
    claims = [replace(claims[0], last_sequence=3), claims[1]]
    listener = Listener()
    await tell_again(MemoryJournal(store, owner="next"), listener, claims)
    assert listener.told == [*(("x", each) for each in (1, 2, 3)), *(("y", each) for each in (1, 2, 3, 4, 5))]


async def test_who_does_not_want_an_execution_hears_of_the_others(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    claims = await open_executions(store, "x", "y")
    listener = Listener("x")
    await tell_again(MemoryJournal(store, owner="next"), listener, claims)
    assert listener.told == [("x", 1), *(("y", each) for each in (1, 2, 3, 4, 5))]
