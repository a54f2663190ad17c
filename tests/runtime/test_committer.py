"""Group commit: whatever was decided in one round is one append (DESIGN 3.3), and failures reach who waits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.errors import JournalFull, JournalUnavailable, ShuttingDown, StoreDamaged
from plait_server.ports.journal import Appended, AppendItem, AppendResult, ExecutionRow, SequenceConflict
from plait_server.runtime.committer import Committer
from tests.runtime.gated_journal import Gate, GatedJournal


def item(id: str, expected: int = 0, namespace: str = "n") -> AppendItem:
    return AppendItem(
        namespace=namespace,
        execution_id=id,
        expected_sequence=expected,
        owner_epoch=1,
        events=[b"event"],
        row=ExecutionRow(summary=b"", is_open=True),
    )


class Desk:
    """A committer, what was asked of it, and how it was answered."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.gate = Gate()
        self.committer = Committer(GatedJournal(MemoryStore(), self.gate))
        self.answers: dict[str, AppendResult | Exception] = {}
        self.nursery = nursery
        self.scope = trio.CancelScope()

    def append(self, name: str, what: AppendItem, *, patiently: bool = False) -> None:
        method = self.committer.append_when_there_is_room if patiently else self.committer.append
        self.nursery.start_soon(self._append, name, what, method)

    async def _append(self, name: str, what: AppendItem, method: Callable[..., object]) -> None:
        try:
            self.answers[name] = await method(what)  # type: ignore[misc] # one of two coroutine functions
        except Exception as error:  # noqa: BLE001 # kept, and looked at by the test
            self.answers[name] = error

    async def run(self) -> None:
        with self.scope:
            await self.committer.run()


@asynccontextmanager
async def a_desk() -> AsyncGenerator[Desk]:
    async with trio.open_nursery() as nursery:
        desk = Desk(nursery)
        nursery.start_soon(desk.run)
        await wait_all_tasks_blocked()
        yield desk
        nursery.cancel_scope.cancel()


async def test_items_of_one_round_share_an_append(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        for number in range(20):
            desk.append(f"x{number}", item(f"x{number}"))
        await wait_all_tasks_blocked()
        assert [len(batch) for batch in desk.gate.batches] == [20]
        assert all(answer == Appended(last_sequence=1) for answer in desk.answers.values())


async def test_what_comes_during_an_append_shares_the_next(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        desk.gate.close()
        desk.append("first", item("first"))
        await wait_all_tasks_blocked()
        for number in range(7):
            desk.append(f"x{number}", item(f"x{number}"))
        await wait_all_tasks_blocked()
        assert desk.answers == {}
        desk.gate.open()
        await wait_all_tasks_blocked()
        assert [len(batch) for batch in desk.gate.batches] == [1, 7]


async def test_an_execution_stands_once_in_an_append(autojump_clock: MockClock) -> None:
    """The journal's rule 1: two that make the same execution go one after the other, and the second is refused."""
    async with a_desk() as desk:
        for number in range(3):
            desk.append(f"same-{number}", item("same"))
            desk.append(f"x{number}", item(f"x{number}"))
            desk.append(f"elsewhere-{number}", item("same", namespace=f"n{number}"))
        await wait_all_tasks_blocked()
        for batch in desk.gate.batches:
            keys = [(each.namespace, each.execution_id) for each in batch]
            assert len(set(keys)) == len(keys)
        same = [desk.answers[f"same-{number}"] for number in range(3)]
        assert sorted(type(answer).__name__ for answer in same) == [
            "Appended",
            "SequenceConflict",
            "SequenceConflict",
        ]
        assert SequenceConflict(last_sequence=1) in same
        assert len(desk.answers) == 9


async def test_an_execution_that_is_held_back_keeps_its_order(autojump_clock: MockClock) -> None:
    async with a_desk() as desk:
        for number in range(5):
            desk.append(f"step-{number}", item("x", expected=number))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert [desk.answers[f"step-{number}"] for number in range(5)] == [
            Appended(last_sequence=number + 1) for number in range(5)
        ]


async def test_a_full_disk_refuses_some_and_lets_others_wait(autojump_clock: MockClock) -> None:
    """FAILURES 7: a submission is refused at once, a step waits until there is space."""
    async with a_desk() as desk:
        desk.gate.breaks = [JournalFull(), JournalFull(), JournalFull()]
        desk.append("submission", item("a"))
        desk.append("step", item("b"), patiently=True)
        await wait_all_tasks_blocked()
        assert isinstance(desk.answers["submission"], JournalFull)
        assert "step" not in desk.answers
        await trio.sleep(10)
        assert desk.answers["step"] == Appended(last_sequence=1)


async def test_a_store_that_fails_reaches_all_of_the_append_and_stops_the_server(
    autojump_clock: MockClock,
) -> None:
    """Rule 4, FAILURES 8: each learns that it is unknown, and the store is read anew by another start."""
    desks: list[Desk] = []
    with pytest.RaisesGroup(JournalUnavailable, flatten_subgroups=True):
        async with a_desk() as desk:
            desks.append(desk)
            desk.gate.breaks = [JournalUnavailable()]
            for number in range(5):
                desk.append(f"x{number}", item(f"x{number}"), patiently=bool(number % 2))
            await trio.sleep(1)
    assert [type(answer) for answer in desks[0].answers.values()] == [JournalUnavailable] * 5


async def test_a_caller_that_leaves_leaves_its_item(autojump_clock: MockClock) -> None:
    """Rule 8: once queued it is appended, and nobody else is harmed."""
    async with a_desk() as desk:
        desk.gate.close()
        desk.append("first", item("first"))
        await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await desk.committer.append(item("left"))
        desk.append("other", item("other"))
        await wait_all_tasks_blocked()
        desk.gate.open()
        await wait_all_tasks_blocked()
        assert [each.execution_id for batch in desk.gate.batches for each in batch] == [
            "first",
            "left",
            "other",
        ]
        assert desk.answers["other"] == Appended(last_sequence=1)


async def test_an_append_under_way_is_finished_when_the_committer_stops(autojump_clock: MockClock) -> None:
    """Rule 8: what is durable is answered; what was not begun is refused, so that nobody waits for ever."""
    async with a_desk() as desk:
        desk.gate.close()
        desk.append("under way", item("a"))
        await wait_all_tasks_blocked()
        desk.append("queued", item("b"))
        await wait_all_tasks_blocked()
        desk.scope.cancel()
        await wait_all_tasks_blocked()
        assert desk.answers == {}
        desk.gate.open()
        await wait_all_tasks_blocked()
        assert desk.answers["under way"] == Appended(last_sequence=1)
        assert isinstance(desk.answers["queued"], ShuttingDown)
        with pytest.raises(ShuttingDown):
            await desk.committer.append(item("late"))


async def test_a_damaged_store_stops_the_committer_and_leaves_nobody_waiting(
    autojump_clock: MockClock,
) -> None:
    """K4: the server stops; a submission that waits, shielded, would hold it up for ever."""
    answers: list[str] = []

    async def submit(committer: Committer, name: str) -> None:
        with trio.CancelScope(shield=True):
            try:
                await committer.append(item(name))
            except (StoreDamaged, ShuttingDown, JournalUnavailable):
                answers.append(name)

    gate = Gate()
    committer = Committer(GatedJournal(MemoryStore(), gate))
    gate.breaks = [StoreDamaged()]
    with trio.fail_after(60), pytest.RaisesGroup(StoreDamaged):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, committer, "a")
            nursery.start_soon(submit, committer, "b")
            await wait_all_tasks_blocked()
            nursery.start_soon(committer.run)
    assert sorted(answers) == ["a", "b"]


async def test_statistics_tell_how_long_items_waited(autojump_clock: MockClock) -> None:
    """From the moment an item is queued, so that the append under way counts too."""
    async with a_desk() as desk:
        desk.gate.close()
        desk.append("first", item("first"))
        await wait_all_tasks_blocked()
        await trio.sleep(1)
        for number in range(9):
            desk.append(f"x{number}", item(f"x{number}"))
        await trio.sleep(2)
        assert desk.committer.statistics().items == 0
        desk.gate.open()
        await wait_all_tasks_blocked()
        found = desk.committer.statistics()
        assert (found.appends, found.items) == (2, 10)
        assert found.wait_p50_s == pytest.approx(2, rel=0.1)
        assert found.wait_p99_s == pytest.approx(3)
