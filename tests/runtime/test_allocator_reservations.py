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
