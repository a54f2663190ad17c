"""R4: after 10 s each permit that a request lacks is kept for it when it comes free."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.runtime.capacity import Desk


async def test_before_ten_seconds_nothing_is_kept(autojump_clock: MockClock) -> None:
    """R4: one that cannot start now holds nobody back until it reserves."""
    desk = Desk(types={"rare": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("holds-x", execution="x")
    desk.dispatch()
    desk.ask("needs-both", execution="x", type_="rare", priority=9)
    desk.ask("small", execution="x")
    desk.dispatch()
    await trio.sleep(9.9)
    assert desk.end("holds-x") == ["small"]


async def test_after_ten_seconds_each_permit_it_lacks_is_kept(autojump_clock: MockClock) -> None:
    """R4: nobody later in the order takes it."""
    desk = Desk(types={"rare": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("holds-x", execution="x")
    desk.dispatch()
    desk.ask("needs-both", execution="x", type_="rare", priority=9)
    desk.ask("small", execution="x")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("holds-x") == []
    assert desk.end("holds-rare") == ["needs-both"]
    assert desk.end("needs-both") == ["small"]


async def test_one_earlier_in_the_order_may_take_what_is_kept(autojump_clock: MockClock) -> None:
    """R4: it is kept from those later in the order, and from nobody else."""
    desk = Desk(types={"rare": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("holds-x", execution="x")
    desk.dispatch()
    desk.ask("needs-both", execution="x", type_="rare", priority=5)
    desk.dispatch()
    await trio.sleep(20)
    desk.ask("more-urgent", execution="x", priority=6)
    desk.ask("less-urgent", execution="x", priority=4)
    assert desk.end("holds-x") == ["more-urgent"]
    assert desk.end("more-urgent") == []
    assert desk.end("holds-rare") == ["needs-both"]


async def test_a_permit_it_does_not_lack_is_not_kept(autojump_clock: MockClock) -> None:
    """R4: each permit it lacks, and no other: a full type leaves the rest of the server alone."""
    desk = Desk(server=3, types={"rare": 1})
    desk.execution("x")
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", type_="rare")
    desk.dispatch()
    desk.ask("waits", type_="rare", priority=9)
    desk.dispatch()
    await trio.sleep(60)
    for number in range(4):
        desk.ask(f"n{number}")
    assert desk.dispatch() == ["n0", "n1"]
    assert desk.reason("waits") == "SERVER_LIMIT"


async def test_two_that_reserve_keep_a_permit_each(autojump_clock: MockClock) -> None:
    desk = Desk(server=2)
    for execution in ("x", "y", "z"):
        desk.execution(execution)
    desk.worker(types={"t": 0, "u": 0, "v": 0})
    desk.ask("a", execution="z")
    desk.ask("b", execution="z")
    desk.dispatch()
    desk.ask("first", execution="x", type_="u", priority=2)
    desk.ask("second", execution="y", type_="v", priority=1)
    desk.ask("third", execution="z")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("a") == ["first"]
    assert desk.end("b") == ["second"]
    assert desk.end("first") == ["third"]


async def test_a_request_that_was_withdrawn_keeps_nothing(autojump_clock: MockClock) -> None:
    desk = Desk(types={"rare": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("holds-x", execution="x")
    desk.dispatch()
    desk.ask("needs-both", execution="x", type_="rare", priority=9)
    desk.ask("small", execution="x")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("holds-x") == []
    desk.allocator.withdraw("default", "x", "needs-both")
    assert desk.dispatch() == ["small"]


async def test_who_needs_two_scarce_things_is_not_starved_by_a_stream_of_smaller_ones(
    autojump_clock: MockClock,
) -> None:
    """R4: without reservations the two would never be free in the same moment."""
    desk = Desk(types={"t": 4, "u": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"t": 0, "u": 0})
    desk.ask("x0", execution="x", type_="t")
    desk.ask("y0", execution="y", type_="u")
    desk.dispatch()
    desk.ask("big", execution="x", type_="u", priority=1)
    running = {"x": "x0", "y": "y0"}
    for turn in range(1, 40):
        for execution, type_ in (("x", "t"), ("y", "u")):
            desk.ask(f"{execution}{turn}", execution=execution, type_=type_)
            # The one ends while the other has just begun, so that both are never free together.
            await trio.sleep(0.5)
            path = running.pop(execution, None)
            granted = desk.end(path) if path is not None else desk.dispatch()
            for started in granted:
                if started != "big":
                    running[started[0]] = started
        if "big" in desk.grants:
            break
    assert "big" in desk.grants
    assert trio.current_time() < 15


async def test_a_slot_is_kept_as_other_permits_are(autojump_clock: MockClock) -> None:
    """R4, Q1: worker slots are permits too."""
    desk = Desk()
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    old = desk.allocator.take_back(desk.request("old"), "v", "v.1")
    desk.worker("w", slots=1)
    desk.ask("holds-slot", execution="y")
    desk.dispatch()
    desk.ask("urgent", execution="x", priority=1)
    desk.ask("other", execution="y")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("holds-slot") == []
    old.release()
    assert desk.dispatch() == ["urgent"]
    assert desk.end("urgent") == ["other"]


async def test_a_slot_is_kept_from_other_types_too(autojump_clock: MockClock) -> None:
    """R4: a slot of a worker is one permit, whatever types the worker serves."""
    desk = Desk()
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    old = desk.allocator.take_back(desk.request("old"), "v", "v.1")
    desk.worker("w", slots=1, types={"t": 0, "u": 0})
    desk.ask("holds-slot", execution="y", type_="u")
    desk.dispatch()
    desk.ask("urgent", execution="x", priority=1)
    desk.ask("other", execution="y", type_="u")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("holds-slot") == []
    assert desk.reason("other", "y") == "WORKER_SLOTS"
    old.release()
    assert desk.dispatch() == ["urgent"]
    assert desk.end("urgent") == ["other"]


async def test_a_permit_that_was_taken_by_others_meanwhile_is_kept_when_it_comes_free(
    autojump_clock: MockClock,
) -> None:
    """R4: each permit it lacks after 10 s, not only what it lacked when it was last looked at."""
    desk = Desk(types={"rare": 1})
    desk.execution("x", limit=1)
    desk.execution("y", limit=10)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.dispatch()
    desk.ask("needs-both", execution="x", type_="rare", priority=9)
    desk.dispatch()
    await trio.sleep(5)
    desk.ask("small", execution="x")
    assert desk.dispatch() == ["small"]
    await trio.sleep(7)
    desk.ask("other", execution="x")
    assert desk.end("small") == []
    assert desk.end("holds-rare") == ["needs-both"]


async def test_one_that_no_worker_serves_is_kept_nothing(autojump_clock: MockClock) -> None:
    """R4: what it waits for is no permit, and those it would keep would lie idle until a worker comes."""
    desk = Desk(server=1)
    desk.execution("x")
    desk.execution("y")
    desk.worker(types={"t": 0})
    desk.ask("holds-server", execution="y")
    desk.dispatch()
    desk.ask("misspelt", execution="x", type_="tt", priority=9)
    desk.ask("other", execution="y")
    desk.dispatch()
    await trio.sleep(60)
    assert desk.end("holds-server") == ["other"]


async def test_of_those_that_need_the_same_only_the_first_reserves(autojump_clock: MockClock) -> None:
    """R4: the others cannot start before it; what was kept for them would lie idle."""
    desk = Desk(server=3, types={"rare": 1})
    for number in range(4):
        desk.execution(f"x{number}")
    desk.execution("y")
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("a", execution="y")
    desk.ask("b", execution="y")
    desk.dispatch()
    for number in range(4):
        desk.ask(f"rare{number}", execution=f"x{number}", type_="rare", priority=1)
    desk.ask("c", execution="y")
    desk.ask("d", execution="y")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("a") == []
    assert desk.end("b") == ["c"]
    assert desk.end("holds-rare") == ["rare0"]
    assert desk.end("c") == ["d"]


async def test_nothing_is_kept_from_another_namespace(autojump_clock: MockClock) -> None:
    """R4 acts within a namespace; one that waits for its own workers does not stop the others."""
    desk = Desk(server=2)
    for namespace in ("one", "two"):
        desk.execution(namespace, namespace=namespace)
        desk.worker(namespace, slots=1 if namespace == "one" else 9, namespace=namespace)
    desk.ask("one-0", execution="one", namespace="one")
    desk.ask("two-0", execution="two", namespace="two")
    desk.dispatch()
    desk.ask("one-1", execution="one", namespace="one", priority=9)
    desk.ask("two-1", execution="two", namespace="two")
    desk.dispatch()
    await trio.sleep(60)
    assert desk.end("two-0") == ["two-1"]
    assert desk.end("one-0") == ["one-1"]
