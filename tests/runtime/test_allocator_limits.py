"""Q1, Q2: limits and rates that change while attempts run."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.limit_values import SERVER, LimitKind, LimitName, LimitValue
from plait_server.runtime.dispatching import keep_dispatching
from tests.runtime.capacity import NAMESPACE, Desk

TYPE = LimitName(LimitKind.TYPE, "", "t")
TYPE_HERE = LimitName(LimitKind.TYPE, NAMESPACE, "t")
HERE = LimitName(LimitKind.NAMESPACE, NAMESPACE, "")
KEY = LimitName(LimitKind.KEY, NAMESPACE, "k")


def at_once(limit: int) -> LimitValue:
    return LimitValue(max_concurrency=limit)


def desk_with(*, key: str = "") -> Desk:
    """A desk at which five ask."""
    desk = Desk()
    desk.worker()
    desk.execution()
    for path in "abcde":
        desk.ask(path, key=key)
    return desk


@pytest.mark.parametrize("name", [SERVER, HERE, TYPE, TYPE_HERE])
async def test_raising_a_limit_wakes_who_waits_and_lowering_it_aborts_nothing(name: LimitName) -> None:
    """Q2: limits can be changed while executions run; lowering one aborts nothing."""
    desk = desk_with()
    desk.allocator.set_limit(name, at_once(1))
    assert desk.dispatch() == ["a"]
    desk.allocator.set_limit(name, at_once(3))
    assert desk.dispatch() == ["b", "c"]
    desk.allocator.set_limit(name, at_once(1))
    assert desk.dispatch() == []
    assert set(desk.grants) == {"a", "b", "c"}
    assert desk.end("a") == desk.end("b") == []
    assert desk.end("c") == ["d"]


@pytest.mark.parametrize("name", [HERE, TYPE, TYPE_HERE])
async def test_a_limit_counts_what_ran_before_it_was_set_and_a_removed_one_holds_nobody(
    name: LimitName,
) -> None:
    desk = Desk()
    desk.worker()
    desk.execution()
    for path in "ab":
        desk.ask(path)
    assert desk.dispatch() == ["a", "b"]
    desk.allocator.set_limit(name, at_once(2))
    desk.ask("c")
    assert desk.dispatch() == []
    assert desk.end("a") == ["c"]
    desk.ask("d")
    assert desk.dispatch() == []
    desk.allocator.set_limit(name, None)
    assert desk.dispatch() == ["d"]
    for path in "bcd":
        desk.end(path)
    assert desk.allocator.statistics().running == 0


async def test_a_key_may_be_given_more_than_one() -> None:
    """Q1: a key's limit is 1 unless it is set."""
    desk = desk_with(key="k")
    assert desk.dispatch() == ["a"]
    desk.allocator.set_limit(KEY, at_once(3))
    assert desk.dispatch() == ["b", "c"]
    desk.allocator.set_limit(KEY, None)
    assert desk.end("a") == desk.end("b") == []
    assert desk.end("c") == ["d"]


async def test_a_key_that_nobody_uses_remembers_its_limit() -> None:
    desk = Desk()
    desk.allocator.set_limit(KEY, at_once(2))
    desk.worker()
    desk.execution()
    for path in "abc":
        desk.ask(path, key="k")
    assert desk.dispatch() == ["a", "b"]


async def test_an_executions_limit_changes_while_it_runs() -> None:
    """C10: an update takes effect at once and aborts nothing."""
    desk = Desk()
    desk.worker()
    desk.execution(limit=1)
    for path in "abcde":
        desk.ask(path)
    assert desk.dispatch() == ["a"]
    desk.allocator.change_execution(NAMESPACE, "x", 3, 0)
    assert desk.dispatch() == ["b", "c"]
    desk.allocator.change_execution(NAMESPACE, "x", 1, 0)
    assert desk.end("a") == desk.end("b") == []
    assert desk.reason("d") == "EXECUTION_LIMIT"
    assert desk.end("c") == ["d"]


async def test_a_types_limits_of_the_server_and_of_its_namespace_hold_both() -> None:
    """Q1: a limit of a node type holds server-wide, another in a namespace."""
    desk = Desk(types={"t": 3})
    desk.allocator.set_limit(TYPE_HERE, at_once(2))
    for namespace, execution in ((NAMESPACE, "x"), ("other", "o")):
        desk.worker(f"w {namespace}", namespace=namespace)
        desk.execution(execution, namespace=namespace)
        for number in range(4):
            desk.ask(f"{execution}{number}", execution=execution, namespace=namespace)
    granted = desk.dispatch()
    assert sorted(granted) == ["o0", "x0", "x1"]
    assert desk.reason("x2") == "NODE_TYPE_LIMIT"
    assert desk.end("x0") == ["o1"]
    assert desk.end("x1") == ["x2"]
    assert desk.end("o0") == ["o2"]


async def test_a_permit_is_kept_that_was_lacked_until_the_limit_was_raised(autojump_clock: MockClock) -> None:
    """R4: after 10 s each permit it lacks is kept for it, when it comes free, against everyone later."""
    desk = Desk(server=2)
    desk.worker("w", 1, {"u": 0})
    desk.worker("v", 10, {"t": 0})
    desk.execution()
    desk.ask("fills", type_="u")
    desk.ask("runs")
    assert desk.dispatch() == ["fills", "runs"]
    desk.ask("first", type_="u", priority=1)
    desk.ask("later")
    autojump_clock.jump(11)
    desk.allocator.set_limit(SERVER, at_once(3))
    assert desk.dispatch() == []
    assert desk.reason("later") == "SERVER_LIMIT"
    desk.allocator.set_limit(SERVER, at_once(4))
    assert desk.dispatch() == ["later"]
    assert desk.end("fills") == ["first"]


# Rates.


async def test_a_rate_spaces_starts_and_a_timer_wakes_who_only_lacks_it(autojump_clock: MockClock) -> None:
    """Q1: a rate per node type; one that lacks only that starts at the time that is told, exactly."""
    desk = desk_with()
    desk.allocator.set_limit(TYPE, LimitValue(rate=0.5, burst=2))
    starts: list[tuple[str, float]] = []
    desk.on_grant = lambda path: starts.append((path, trio.current_time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_dispatching, desk.allocator)
        await wait_all_tasks_blocked()
        begin_s = trio.current_time()
        desk.allocator.on_capacity()
        await wait_all_tasks_blocked()
        assert desk.reason("c") == "RATE_LIMIT"
        assert desk.allocator.next_start_s == pytest.approx(begin_s + 2.0)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    times = [round(time_s - begin_s, 6) for _, time_s in starts]
    assert [path for path, _ in starts] == list("abcde")
    assert times == [0.0, 0.0, 2.0, 4.0, 6.0]
    assert desk.allocator.next_start_s == float("inf")


async def test_a_bucket_fills_up_to_its_burst_and_no_further(autojump_clock: MockClock) -> None:
    desk = Desk()
    desk.worker()
    desk.execution()
    desk.allocator.set_limit(TYPE, LimitValue(rate=1.0, burst=3))
    autojump_clock.jump(1_000)
    for path in "abcde":
        desk.ask(path)
    assert desk.dispatch() == ["a", "b", "c"]
    autojump_clock.jump(2)
    assert desk.dispatch() == ["d", "e"]


async def test_a_rate_without_a_burst_allows_the_starts_of_a_second_at_once() -> None:
    desk = desk_with()
    desk.allocator.set_limit(TYPE, LimitValue(rate=2.5))
    assert desk.dispatch() == ["a", "b", "c"]


async def test_the_slower_of_two_rates_decides_and_a_wait_for_another_permit_costs_none(
    autojump_clock: MockClock,
) -> None:
    desk = desk_with()
    desk.allocator.set_limit(TYPE, LimitValue(rate=10.0, burst=1))
    desk.allocator.set_limit(TYPE_HERE, LimitValue(max_concurrency=1, rate=0.1, burst=1))
    assert desk.dispatch() == ["a"]
    autojump_clock.jump(5)
    assert desk.end("a") == []
    assert desk.reason("b") == "RATE_LIMIT"
    assert desk.allocator.next_start_s == pytest.approx(trio.current_time() + 5)
    autojump_clock.jump(15)
    assert desk.dispatch() == ["b"]
    assert desk.reason("c") == "NODE_TYPE_LIMIT"
    assert desk.end("b") == []
    autojump_clock.jump(10)
    assert desk.dispatch() == ["c"]


async def test_a_rate_that_is_raised_or_removed_wakes_at_once(autojump_clock: MockClock) -> None:
    """Q2."""
    desk = desk_with()
    desk.allocator.set_limit(TYPE, LimitValue(rate=0.001, burst=1))
    assert desk.dispatch() == ["a"]
    autojump_clock.jump(1)
    desk.allocator.set_limit(TYPE, LimitValue(rate=1.0, burst=1))
    assert desk.dispatch() == []
    assert desk.allocator.next_start_s <= trio.current_time() + 1
    autojump_clock.jump(1)
    assert desk.dispatch() == ["b"]
    desk.allocator.set_limit(TYPE, None)
    assert desk.dispatch() == ["c", "d", "e"]


async def test_one_that_lacks_a_rate_keeps_nothing(autojump_clock: MockClock) -> None:
    """What it lacks besides would lie idle until its time; a start at its rate is not lost meanwhile."""
    desk = Desk(server=1)
    desk.worker(types={"t": 0, "u": 0})
    desk.execution()
    desk.allocator.set_limit(TYPE, LimitValue(rate=0.01, burst=1))
    desk.ask("a", priority=1)
    assert desk.dispatch() == ["a"]
    desk.ask("slow", priority=1)
    desk.ask("b", type_="u")
    autojump_clock.jump(11)
    assert desk.end("a") == ["b"]
    desk.ask("c", type_="u")
    autojump_clock.jump(100)
    assert desk.end("b") == ["slow"]


async def test_what_was_kept_for_one_goes_to_others_once_another_takes_its_start(
    autojump_clock: MockClock,
) -> None:
    """A start at a rate that namespaces share is kept for nobody; who lost it keeps nothing else meanwhile."""
    desk = Desk(server=3)
    desk.worker("w", 1, {"t": 0})
    desk.worker("v", 10, {"u": 0})
    desk.worker("o", 1, {"t": 0}, namespace="other")
    desk.execution("x")
    desk.execution("o", namespace="other")
    desk.ask("fills")
    desk.ask("b", type_="u")
    desk.ask("c", type_="u")
    assert desk.dispatch() == ["fills", "b", "c"]
    desk.allocator.set_limit(TYPE, LimitValue(rate=0.01, burst=1))
    desk.ask("first", priority=1)
    desk.ask("later", type_="u")
    autojump_clock.jump(11)
    desk.allocator.set_limit(SERVER, at_once(4))
    assert desk.dispatch() == []
    assert desk.reason("later") == "SERVER_LIMIT"
    desk.ask("other", execution="o", namespace="other")
    desk.allocator.set_limit(SERVER, at_once(5))
    assert sorted(desk.dispatch()) == ["later", "other"]


async def test_queues_that_come_and_go_while_a_rate_is_exhausted_leave_nothing() -> None:
    desk = Desk()
    desk.worker()
    desk.execution()
    desk.allocator.set_limit(TYPE, LimitValue(rate=0.001, burst=1))
    desk.ask("a")
    assert desk.dispatch() == ["a"]
    for number in range(200):
        desk.ask(f"{number}")
        assert desk.dispatch() == []
        desk.allocator.withdraw(NAMESPACE, "x", f"{number}")
    assert len(desk.allocator._paced._entries) < 30
    assert desk.allocator.next_start_s == float("inf")
