"""R4, Q1, N1, N3: limits of scopes inside an execution, and the order across scopes."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from plait_server.core.run.commands import Place
from tests.runtime.capacity import Desk

A = (Place(0, 0, 1_000),)
"""The place of a sub-graph node `a` in the root's scope, behind all that a test asks for there."""
A_B = (*A, Place(0, 0, 0))
"""And that of a node `a/b` in the scope of `a`."""


async def test_a_scope_limits_its_attempts_and_those_inside() -> None:
    """N1, Q1: and a free permit wakes the next waiter at once."""
    desk = Desk()
    desk.execution()
    desk.scope("a", 2)
    desk.scope("a/b", 1)
    desk.worker()
    desk.ask("a/b/1", within=A_B, limit_path="a/b")
    desk.ask("a/b/2", within=A_B, limit_path="a/b")
    desk.ask("a/1", within=A, limit_path="a")
    desk.ask("a/2", within=A, limit_path="a")
    desk.ask("root")
    assert desk.dispatch() == ["root", "a/b/1", "a/1"]
    assert desk.reason("a/2") == "EXECUTION_LIMIT"
    assert desk.end("a/1") == ["a/2"]
    assert desk.end("a/b/1") == ["a/b/2"]
    assert desk.reason("a/2") == ""


async def test_what_a_scope_inside_blocks_holds_nothing_of_the_scope_around() -> None:
    """Q1: all of its permits or none."""
    desk = Desk()
    desk.execution(limit=3)
    desk.scope("a", 2)
    desk.scope("a/b", 1)
    desk.worker()
    for number in range(3):
        desk.ask(f"a/b/{number}", within=A_B, limit_path="a/b", priority=9)
    desk.ask("a/late", within=A, limit_path="a")
    assert desk.dispatch() == ["a/b/0", "a/late"]


async def test_nodes_are_compared_in_the_innermost_scope_that_has_both() -> None:
    """N3: each as the node there that it is or is in, whatever it is inside of that."""
    desk = Desk()
    desk.execution(limit=1)
    desk.worker()
    desk.ask("root")
    desk.ask("urgent-inside", within=A, priority=9)
    desk.ask("plain-inside", within=A, remaining=5)
    desk.ask("deeper", within=(*A, Place(-1, 0, 7)))
    desk.ask("long-node", within=(Place(0, -1, 3),))
    granted = desk.dispatch()
    while desk.grants:
        granted += desk.end(granted[-1])
    assert granted == ["long-node", "root", "urgent-inside", "deeper", "plain-inside"]


async def test_the_earlier_submission_goes_before_what_nodes_are_in() -> None:
    """R4: only priority and remaining path of the root's node come before it."""
    desk = Desk(server=1)
    desk.execution("later", submitted_s=2.0)
    desk.execution("earlier", submitted_s=1.0)
    desk.worker()
    desk.ask("later-urgent-inside", execution="later", within=A, priority=9)
    desk.ask("earlier-inside", execution="earlier", within=A)
    assert desk.dispatch() == ["earlier-inside"]


async def test_a_scope_that_is_exhausted_holds_no_other_scope_back() -> None:
    """R4: one that cannot start now holds nobody back, of the same type neither."""
    desk = Desk()
    desk.execution(limit=10)
    desk.scope("a", 1)
    desk.scope("c", 1)
    desk.worker()
    for number in range(3):
        desk.ask(f"a/{number}", within=A, limit_path="a", priority=5)
    assert desk.dispatch() == ["a/0"]
    desk.ask("c/0", within=(Place(0, 0, 2_000),), limit_path="c")
    desk.ask("c/1", within=(Place(0, 0, 2_000),), limit_path="c")
    assert desk.dispatch() == ["c/0"]
    assert desk.end("a/0") == ["a/1"]
    assert desk.end("c/0") == ["c/1"]


async def test_a_permit_of_a_scope_is_kept_for_the_first_that_lacks_it(autojump_clock: MockClock) -> None:
    """R4: after 10 s, against those later in the order."""
    desk = Desk(types={"rare": 1})
    desk.execution("x")
    desk.execution("y")
    desk.scope("a", 1)
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("holds-rare", execution="y", type_="rare")
    desk.ask("a/holds", within=A, limit_path="a")
    desk.dispatch()
    desk.ask("a/needs-both", within=A, limit_path="a", type_="rare", priority=9)
    desk.ask("a/small", within=A, limit_path="a")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("a/holds") == []
    assert desk.reason("a/small") == "EXECUTION_LIMIT"
    assert desk.end("holds-rare") == ["a/needs-both"]
    assert desk.end("a/needs-both") == ["a/small"]


async def test_the_first_of_an_execution_is_kept_what_else_it_lacks_while_a_scope_blocks_it(
    autojump_clock: MockClock,
) -> None:
    """R4: each permit it lacks, a slot too."""
    desk = Desk()
    desk.execution("x")
    desk.execution("y")
    desk.scope("a", 1)
    desk.worker("v", slots=1, types={"u": 0})
    desk.worker("w", slots=1, types={"t": 0, "u": 0})
    desk.ask("a/holds", within=A, limit_path="a", type_="u", priority=9)
    desk.ask("holds-slot", execution="y", type_="t")
    desk.dispatch()
    desk.ask("a/waits", within=A, limit_path="a", type_="t")
    desk.ask("later", execution="y", type_="t")
    desk.dispatch()
    await trio.sleep(10)
    assert desk.end("holds-slot") == []
    assert desk.end("a/holds") == ["a/waits"]


async def test_a_scope_that_is_closed_withdraws_what_waits_and_opens_again_with_its_whole_limit() -> None:
    desk = Desk()
    desk.execution()
    desk.scope("a", 1)
    desk.scope("a/b", 1)
    desk.worker()
    desk.ask("a/b/1", within=A_B, limit_path="a/b")
    desk.ask("a/b/2", within=A_B, limit_path="a/b")
    desk.dispatch()
    for path in ("a/b", "a", "a"):
        desk.allocator.close_scope("default", "x", path)
    assert desk.end("a/b/1") == []
    assert desk.allocator.statistics().waiting == 0
    desk.scope("a", 1)
    desk.ask("a/1", within=A, limit_path="a")
    assert desk.dispatch() == ["a/1"]


async def test_an_execution_closes_with_the_scopes_in_it() -> None:
    desk = Desk()
    desk.execution()
    desk.scope("a", 1)
    desk.worker()
    desk.ask("a/1", within=A, limit_path="a")
    desk.ask("root")
    desk.allocator.close_execution("default", "x")
    assert desk.dispatch() == []
    assert desk.allocator.statistics().waiting == 0


async def test_what_runs_in_a_scope_is_taken_back_past_its_limit() -> None:
    """Q1: after a restart the permits of a scope are held by what already runs."""
    desk = Desk()
    desk.execution()
    desk.scope("a", 1)
    desk.worker()
    grants = [
        desk.allocator.take_back(desk.request(f"a/old{number}")._replace(limit_path="a"), "w", "w.1")
        for number in range(2)
    ]
    desk.ask("a/new", within=A, limit_path="a")
    assert desk.dispatch() == []
    grants[0].release()
    assert desk.dispatch() == []
    grants[1].release()
    assert desk.dispatch() == ["a/new"]


async def test_a_thousand_scopes_leave_nothing_behind() -> None:
    """Their nodes all run, and then the allocator knows of none."""
    desk = Desk()
    desk.execution(limit=3)
    desk.worker()
    for number in range(1_000):
        desk.scope(f"s{number}", 1)
        for again in range(2):
            within = (Place(0, 0, number),)
            desk.ask(f"s{number}/{again}", within=within, limit_path=f"s{number}")
    granted = desk.dispatch()
    for path in granted:
        granted += desk.end(path)
    assert sorted(granted) == sorted(f"s{number}/{again}" for number in range(1_000) for again in range(2))
    queue = desk.allocator._executions["default", "x"]
    for number in range(1_000):
        desk.allocator.close_scope("default", "x", f"s{number}")
    assert (queue.count, queue.groups, queue.scopes) == (0, {}, {})
