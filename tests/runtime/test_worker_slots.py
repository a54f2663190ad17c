"""Pools: whatever workers have gained and lost since it was asked last, the one with the most room is found."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st

from plait_server.runtime.worker_slots import WorkerPool, WorkerSlots

OPERATIONS = st.lists(
    st.tuples(st.sampled_from(("add", "remove", "take", "give back", "close", "ask")), st.integers(0, 3)),
    max_size=60,
)


class Crew:
    """Four workers and a pool, to which things happen as the allocator lets them happen."""

    def __init__(self) -> None:
        self.pool = WorkerPool("t")
        self.workers = [WorkerSlots("default", f"w{number}", f"w{number}.1", {"t": 0}) for number in range(4)]
        self.taken: list[list[object]] = [[] for _ in self.workers]
        self.attached: list[WorkerSlots] = []

    def do(self, what: str, number: int) -> None:
        worker, taken = self.workers[number], self.taken[number]
        match what:
            case "add":
                worker.set_slots(3)
                if worker not in self.attached:
                    self.attached.append(worker)
                self.pool.add(worker)
            case "remove":
                self.pool.remove(worker)
                self.attached = [each for each in self.attached if each is not worker]
            case "take":
                taken.append(object())
                worker.take(taken[-1], "t")
            case "give back" if taken:
                worker.give_back(taken.pop())
                if worker in self.attached:
                    self.pool.add(worker)
            case "close":
                worker.set_slots(0)
            case _:
                assert self.pool.best() is self.expected()

    def expected(self) -> WorkerSlots | None:
        room = [each for each in self.attached if each.free("t")]
        return max(room, key=lambda each: each.free("t"), default=None)


@given(OPERATIONS)
def test_the_worker_with_the_most_room_is_found(operations: list[tuple[str, int]]) -> None:
    async def live() -> None:
        await trio.lowlevel.checkpoint()
        crew = Crew()
        for what, number in operations:
            crew.do(what, number)
        crew.do("ask", 0)

    trio.run(live)
