"""The location of each execution, and waiting for it to change."""

from __future__ import annotations

import trio

from plait_server.errors import EventDamaged
from plait_server.runtime.locations import Asleep, Damaged, Loading, Locations, Unread

A, B, C = ("ns", "a"), ("ns", "b"), ("ns", "c")


def test_execution_has_one_location() -> None:
    locations = Locations()
    locations.put(A, Unread(1))
    locations.put(A, Asleep(1, 5, 100.0))
    assert locations.get(A) == Asleep(1, 5, 100.0)
    assert (locations.count(Unread), locations.count(Asleep)) == (0, 1)
    locations.remove(A)
    locations.remove(A)
    assert locations.get(A) is None
    assert locations.count(Asleep) == 0


def test_those_who_wait_for_an_execution_to_be_loaded_are_woken_wherever_it_goes() -> None:
    locations = Locations()
    first, second = Loading(1, trio.Event()), Loading(1, trio.Event())
    locations.put(A, first)
    locations.put(B, second)
    assert locations.loading() == [first, second]
    locations.put(A, Damaged(EventDamaged("damaged")))
    locations.remove(B)
    assert first.moved.is_set()
    assert second.moved.is_set()


def test_unread_executions_come_in_the_order_they_were_put_without_those_that_moved() -> None:
    locations = Locations()
    for key in (B, A, C):
        locations.put(key, Unread(1))
    locations.remove(B)
    assert locations.first_unread() == A
    locations.put(A, Loading(1, trio.Event()))
    assert locations.first_unread() == C
    locations.remove(C)
    assert locations.first_unread() is None


def test_sleepers_come_by_due_time_and_one_that_slept_twice_only_by_the_later_sleep() -> None:
    locations = Locations()
    locations.put(A, Asleep(1, 5, 10.0))
    locations.put(B, Asleep(1, 5, 20.0))
    locations.put(A, Loading(1, trio.Event()))
    locations.put(A, Asleep(1, 7, 30.0))
    assert locations.first_due() == (B, 20.0)
    locations.remove(B)
    assert locations.first_due() == (A, 30.0)


def test_executions_that_are_woken_early_leave_nothing_behind() -> None:
    locations = Locations()
    for number in range(1_000):
        locations.put(A, Asleep(1, number, 1e9 + number))
    assert len(locations._sleepers) < 30
