"""The offers and permits of one execution."""

from __future__ import annotations

from trio.testing import MockClock

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.run.commands import Granted, OfferNode, Place, RefuseGrant
from plait_server.core.run.execution import Execution
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.permits import Permits
from tests.core.graph_text import build


def execution() -> Execution:
    graph = build("node a")
    return Execution(graph, analyze(graph, build_adjacency(graph)))


def make(*, slots: int = 10) -> tuple[Allocator, Permits, list[Granted]]:
    allocator = Allocator(server_limit=10)
    allocator.attach_worker("ns", "w", "w.1", slots, {"t": 0})
    posted: list[Granted] = []
    permits = Permits(allocator, "ns", "x", posted.append)
    permits.open(execution())
    return allocator, permits, posted


def offer(permits: Permits, *paths: str) -> None:
    for order, path in enumerate(paths):
        permits.carry_out(OfferNode(path, "t", (Place(0, 0, order),)))
    permits.dispatch()


async def test_a_grant_is_taken_or_refused_by_its_number(autojump_clock: MockClock) -> None:
    """A node may be granted again before the core has seen that its first grant came too late."""
    allocator, permits, posted = make()
    offer(permits, "a")
    offer(permits, "a")
    first, second = posted
    assert first.grant != second.grant
    permits.hold(second.grant, ("a", 1))
    permits.carry_out(RefuseGrant("a", first.grant))
    assert allocator.slots_in_use("ns", "w.1") == 1
    permits.release_engine(("a", 1))
    assert permits.holds(("a", 1))
    permits.release_slot(("a", 1))
    permits.release_slot(("a", 1))
    assert permits.is_empty
    assert allocator.slots_in_use("ns", "w.1") == 0


async def test_closing_gives_everything_back_and_withdraws_what_waits(autojump_clock: MockClock) -> None:
    """Q1: held by attempts, granted and not decided on, or waiting."""
    allocator, permits, posted = make(slots=2)
    offer(permits, "a", "b", *(f"n{number}" for number in range(100)))
    permits.hold(posted[0].grant, ("a", 1))
    permits.close()
    statistics = allocator.statistics()
    assert (statistics.waiting, statistics.running, allocator.slots_in_use("ns", "w.1")) == (0, 0, 0)
    permits.open(execution())
    offer(permits, "a")
    assert posted[-1].node_path == "a"
