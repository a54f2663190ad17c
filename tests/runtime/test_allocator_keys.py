"""Q1: limits of concurrency keys and of namespaces, and R4's reservations under them."""

from __future__ import annotations

from trio.testing import MockClock

from plait_server.runtime.waiting import PermitRequest
from tests.runtime.capacity import NAMESPACE, Desk


async def test_of_the_same_key_one_runs_at_a_time_whatever_its_execution_and_type() -> None:
    """Q1: a key's limit, 1 unless another is set, is the namespace's: of all executions and types."""
    desk = Desk()
    desk.worker(types={"t": 0, "u": 0})
    desk.execution("x")
    desk.execution("y")
    desk.ask("a", key="k")
    desk.ask("b", key="k", execution="y", type_="u")
    desk.ask("c", key="l")
    desk.ask("d")
    assert desk.dispatch() == ["a", "c", "d"]
    assert desk.reason("b", "y") == "KEY_LIMIT"
    assert desk.end("a") == ["b"]
    assert desk.reason("b", "y") == ""


async def test_a_key_of_another_namespace_is_another_key() -> None:
    desk = Desk()
    desk.worker()
    desk.worker("v", namespace="other")
    desk.execution()
    desk.execution("o", namespace="other")
    desk.ask("a", key="k")
    desk.ask("b", key="k", execution="o", namespace="other")
    assert sorted(desk.dispatch()) == ["a", "b"]


async def test_of_a_key_the_first_in_r4s_order_goes_on() -> None:
    """R4: among those that wait for a key, too, the higher priority is first, then the longer remaining path."""
    desk = Desk()
    desk.worker()
    for name in ("x", "y", "z"):
        desk.execution(name)
    desk.ask("runs", key="k")
    assert desk.dispatch() == ["runs"]
    desk.ask("short", key="k", execution="x", remaining=1)
    desk.ask("long", key="k", execution="y", remaining=2)
    desk.ask("urgent", key="k", execution="z", priority=1)
    assert desk.dispatch() == []
    assert desk.end("runs") == ["urgent"]
    assert desk.end("urgent") == ["long"]
    assert desk.end("long") == ["short"]


async def test_who_waits_for_a_key_holds_nobody_back_and_holds_nothing() -> None:
    """Q1: all of its permits or none."""
    desk = Desk(server=2)
    desk.worker()
    desk.execution(limit=2)
    desk.ask("runs", key="k")
    desk.ask("waits", key="k", priority=1)
    assert desk.dispatch() == ["waits"]
    desk.ask("other")
    assert desk.dispatch() == ["other"]


async def test_one_of_a_key_that_lacks_something_else_lets_another_of_the_key_go_first() -> None:
    """R4: one that cannot start now holds nobody back."""
    desk = Desk()
    desk.worker()
    for name, limit in (("full", 1), ("x", 10), ("y", 10)):
        desk.execution(name, limit)
    desk.ask("fills", execution="full")
    desk.ask("runs", key="k")
    assert desk.dispatch() == ["fills", "runs"]
    desk.ask("first", execution="full", key="k", priority=2)
    desk.ask("second", execution="y", key="k", priority=1)
    assert desk.dispatch() == []
    assert desk.end("runs") == ["second"]
    assert desk.reason("first", "full") == "EXECUTION_LIMIT"
    assert desk.end("fills") == []
    assert desk.reason("first", "full") == "KEY_LIMIT"
    assert desk.end("second") == ["first"]


async def test_a_key_is_kept_for_the_first_that_has_waited_ten_seconds(autojump_clock: MockClock) -> None:
    """R4: after 10 s each permit it lacks is kept for it against everyone later in this order."""
    desk = Desk()
    desk.worker("w", 1, {"u": 0})
    desk.worker("v", 10, {"t": 0})
    for name in ("x", "y"):
        desk.execution(name)
    desk.ask("fills", type_="u")
    desk.ask("runs", key="k")
    assert desk.dispatch() == ["fills", "runs"]
    desk.ask("first", key="k", type_="u", priority=1)
    desk.ask("later", key="k", execution="y")
    autojump_clock.jump(11)
    assert desk.end("runs") == []
    assert desk.reason("later", "y") == "KEY_LIMIT"
    assert desk.end("fills") == ["first"]
    assert desk.end("first") == ["later"]


async def test_one_that_lacks_its_key_keeps_nothing_else(autojump_clock: MockClock) -> None:
    """The slot would lie idle for as long as another attempt has the key, which itself is kept."""
    desk = Desk()
    desk.worker("w", 2)
    desk.execution()
    desk.ask("runs", key="k")
    desk.ask("fills")
    assert desk.dispatch() == ["runs", "fills"]
    desk.ask("first", key="k", priority=1)
    desk.ask("later")
    autojump_clock.jump(11)
    assert desk.end("fills") == ["later"]
    assert desk.end("runs") == ["first"]


async def test_withdrawn_requests_and_closed_executions_leave_nothing_of_a_key() -> None:
    desk = Desk()
    desk.worker()
    desk.execution("x")
    desk.execution("y")
    desk.ask("runs", key="k")
    assert desk.dispatch() == ["runs"]
    desk.ask("a", key="k")
    desk.ask("b", key="k", execution="y")
    desk.ask("c", key="l", execution="y")
    desk.allocator.withdraw(NAMESPACE, "x", "a")
    desk.allocator.close_execution(NAMESPACE, "y")
    assert desk.end("runs") == []
    assert desk.allocator.statistics().waiting == 0
    assert not desk.allocator._limits._keys


async def test_what_already_runs_with_a_key_is_taken_back_past_its_limit() -> None:
    """Q1: after a restart running attempts hold their keys, even two of them."""
    desk = Desk()
    desk.execution()
    grants = []
    for path in ("a", "b"):
        request: PermitRequest = desk.request(path)._replace(key="k")
        grants.append(desk.allocator.take_back(request, "w", "w.1"))
    desk.worker()
    desk.ask("c", key="k")
    assert desk.dispatch() == []
    grants[0].release()
    assert desk.dispatch() == []
    grants[1].release()
    assert desk.dispatch() == ["c"]


async def test_a_thousand_executions_that_wait_for_a_key_move_one_by_one() -> None:
    """A permit of a key that comes free unblocks one of those that wait for it, while slots are rare."""
    desk = Desk()
    desk.worker("w", 1)
    desk.execution("first")
    desk.ask("runs", execution="first", key="k")
    assert desk.dispatch() == ["runs"]
    for number in range(1_000):
        desk.execution(f"x{number}")
        desk.ask(f"{number}", execution=f"x{number}", key="k")
    assert desk.dispatch() == []
    current = "runs"
    line = next(iter(desk.allocator._limits.of_key(NAMESPACE, "k").lines.values()))
    for number in range(20):
        desk.ask(f"fills {number}", execution="first", priority=1)  # Takes the slot that comes free.
        assert desk.end(current) == [f"fills {number}"]
        blocked = sum(group.is_blocked for _, _, group in line._blocked._entries)
        assert blocked >= 999 - number
        assert desk.end(f"fills {number}") == [f"{number}"]
        current = f"{number}"


async def test_a_namespaces_limit_holds_over_its_executions_and_for_no_other() -> None:
    """Q1: a namespace has a limit."""
    desk = Desk(namespaces={NAMESPACE: 2})
    desk.worker()
    desk.worker("v", namespace="other")
    desk.execution("x")
    desk.execution("y")
    desk.execution("o", namespace="other")
    for path in ("a", "b", "c"):
        desk.ask(path, execution="y" if path == "b" else "x")
        desk.ask(f"other {path}", execution="o", namespace="other")
    assert sorted(desk.dispatch()) == ["a", "c", "other a", "other b", "other c"]
    assert desk.reason("b", "y") == "NAMESPACE_LIMIT"
    assert desk.end("other a") == []
    assert desk.end("c") == ["b"]


async def test_a_namespaces_permit_is_kept_for_the_first_that_has_waited_ten_seconds(
    autojump_clock: MockClock,
) -> None:
    """R4: after 10 s each permit it lacks is kept for it, when it comes free, against everyone later in this order."""
    desk = Desk(namespaces={NAMESPACE: 2})
    desk.worker("w", 1, {"u": 0})
    desk.worker("v", 10, {"t": 0})
    desk.execution()
    desk.ask("fills", type_="u")
    desk.ask("runs")
    assert desk.dispatch() == ["fills", "runs"]
    desk.ask("first", type_="u", priority=1)
    desk.ask("later")
    autojump_clock.jump(11)
    assert desk.end("runs") == []
    assert desk.reason("later") == "NAMESPACE_LIMIT"
    assert desk.end("fills") == ["first", "later"]


async def test_a_request_that_is_withdrawn_before_its_turn_does_not_hide_the_next_of_its_key() -> None:
    desk = Desk(server=1)
    desk.worker()
    for name in ("x", "y", "z"):
        desk.execution(name)
    desk.ask("runs", execution="z")
    assert desk.dispatch() == ["runs"]
    desk.ask("first", key="k", priority=1)
    desk.ask("second", key="k", execution="y")
    assert desk.dispatch() == []
    desk.allocator.withdraw(NAMESPACE, "x", "first")
    assert desk.end("runs") == ["second"]
