"""R4, Q1, Q6: who is granted capacity, in which order, and what is said of those who wait."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.runtime.capacity import Desk


async def test_higher_priority_goes_first_then_the_longer_path_then_the_graphs_order() -> None:
    """R4."""
    desk = Desk()
    desk.execution(limit=1)
    desk.worker()
    desk.ask("late")
    desk.ask("long", remaining=3)
    desk.ask("longer", remaining=4)
    desk.ask("later")
    desk.ask("urgent", priority=1)
    granted = desk.dispatch()
    while desk.grants:
        granted += desk.end(granted[-1])
    assert granted == ["urgent", "longer", "long", "late", "later"]


async def test_the_earlier_submission_goes_before_the_graphs_order() -> None:
    """R4: also when the later one was read back first, or asks first."""
    desk = Desk(server=1)
    desk.execution("later", submitted_s=2.0)
    desk.execution("earlier", submitted_s=1.0)
    desk.worker()
    desk.ask("later-0", execution="later")
    desk.ask("earlier-1", execution="earlier")
    desk.ask("later-long", execution="later", remaining=1)
    desk.ask("earlier-2", execution="earlier")
    granted = desk.dispatch()
    while desk.grants:
        granted += desk.end(granted[-1])
    assert granted == ["later-long", "earlier-1", "earlier-2", "later-0"]


async def test_order_holds_across_the_types_of_an_execution() -> None:
    """R4 acts on all ready nodes, not on those of one type."""
    desk = Desk()
    desk.execution(limit=1)
    desk.worker(types={"t": 0, "u": 0})
    desk.ask("a", type_="t", priority=1)
    desk.ask("b", type_="u", priority=3)
    desk.ask("c", type_="t", priority=2)
    assert desk.dispatch() == ["b"]
    assert desk.end("b") == ["c"]
    assert desk.end("c") == ["a"]


async def test_a_node_that_lacks_a_permit_holds_nobody_back() -> None:
    """R4: one that cannot start now is passed over, however high its priority."""
    desk = Desk(types={"rare": 1})
    desk.execution()
    desk.worker(types={"rare": 0, "t": 0})
    desk.ask("first", type_="rare")
    desk.ask("second", type_="rare", priority=1_000)
    desk.ask("plain")
    assert desk.dispatch() == ["second", "plain"]
    assert desk.reason("first") == "NODE_TYPE_LIMIT"


async def test_a_request_that_lacks_one_permit_holds_none_of_the_others() -> None:
    """Q1: all of its permits or none."""
    desk = Desk(server=1)
    desk.execution("x")
    desk.execution("y")
    desk.worker("w", types={"t": 0})
    desk.ask("no-worker", execution="x", type_="absent", priority=9)
    assert desk.dispatch() == []
    assert desk.allocator.statistics().running == 0
    desk.ask("b", execution="y")
    assert desk.dispatch() == ["b"]


async def test_every_limit_is_kept() -> None:
    """Q1: server, execution, node type and worker slots."""
    desk = Desk(server=3)
    desk.execution("x", limit=2)
    desk.execution("y", limit=10)
    desk.worker("w", slots=10)
    for number in range(5):
        desk.ask(f"x{number}", execution="x")
        desk.ask(f"y{number}", execution="y")
    granted = desk.dispatch()
    assert len(granted) == 3
    assert sum(path.startswith("x") for path in granted) <= 2
    assert desk.reason("x4", "x") == "SERVER_LIMIT"


async def test_reasons_name_the_first_thing_that_is_lacking() -> None:
    """Q6."""
    desk = Desk(types={"scarce": 1})
    desk.execution("x", limit=2)
    desk.execution("z", limit=10)
    desk.ask("n")
    desk.dispatch()
    assert desk.reason("n") == "NO_WORKER"
    desk.worker("w", slots=3, types={"t": 0, "scarce": 0})
    desk.dispatch()
    assert desk.reason("n") == ""
    desk.ask("m")
    desk.ask("o")
    desk.dispatch()
    assert desk.reason("o") == "EXECUTION_LIMIT"
    desk.ask("s1", execution="z", type_="scarce")
    desk.ask("s2", execution="z", type_="scarce")
    desk.dispatch()
    assert desk.reason("s2", "z") == "NODE_TYPE_LIMIT"
    desk.ask("p", execution="z")
    desk.dispatch()
    assert desk.reason("p", "z") == "WORKER_SLOTS"
    assert desk.reason("nobody") == ""


async def test_a_worker_of_another_namespace_is_no_worker() -> None:
    """Namespaces share nothing but the server."""
    desk = Desk()
    desk.execution()
    desk.worker(namespace="other")
    desk.ask("a")
    assert desk.dispatch() == []
    assert desk.reason("a") == "NO_WORKER"


async def test_worker_slots_and_the_limit_of_its_type_are_kept() -> None:
    """Q1: a worker takes as many attempts as it has slots, and of a type as many as it says."""
    desk = Desk()
    desk.execution()
    desk.worker("w", slots=3, types={"t": 2, "u": 0})
    for number in range(4):
        desk.ask(f"t{number}", type_="t")
        desk.ask(f"u{number}", type_="u")
    granted = desk.dispatch()
    assert len(granted) == 3
    assert sum(path.startswith("t") for path in granted) == 2
    assert desk.end("t0") == ["u1"]
    assert desk.end("t1") == ["t2"]


async def test_the_worker_with_most_room_is_taken() -> None:
    desk = Desk()
    desk.execution()
    desk.worker("small", slots=1)
    desk.worker("large", slots=3)
    for number in range(4):
        desk.ask(f"n{number}")
    desk.dispatch()
    workers = [grant.worker for grant in desk.grants.values()]
    assert [worker and worker.worker_id for worker in workers] == ["large", "large", "small", "large"]


async def test_a_closed_worker_gets_nothing_and_more_slots_let_waiters_start() -> None:
    desk = Desk()
    desk.execution()
    desk.worker("w", slots=1)
    woken: list[str] = []
    desk.allocator.on_capacity = lambda: woken.append("capacity")
    desk.allocator.set_worker_slots("default", "w.1", 0)
    desk.ask("a")
    desk.ask("b")
    assert desk.dispatch() == []
    desk.allocator.set_worker_slots("default", "w.1", 2)
    assert woken
    assert desk.dispatch() == ["a", "b"]


async def test_a_free_permit_wakes_the_next_waiter() -> None:
    """Q1: at once."""
    desk = Desk(server=1)
    desk.execution("x")
    desk.execution("y")
    desk.worker()
    woken: list[str] = []
    desk.allocator.on_capacity = lambda: woken.append("capacity")
    desk.ask("a", execution="x")
    desk.ask("b", execution="y")
    desk.dispatch()
    assert woken == []
    desk.grants["a"].release_engine()
    assert woken
    assert desk.dispatch() == ["b"]


async def test_the_engines_permits_come_back_before_the_workers_slot() -> None:
    """Q1: the engine's at the decision, the worker's slot when it has exited."""
    desk = Desk(server=1)
    desk.execution()
    desk.worker("w", slots=1)
    desk.worker("v", slots=1)
    desk.ask("a")
    desk.ask("b")
    desk.ask("c")
    assert desk.dispatch() == ["a"]
    desk.grants["a"].release_engine()
    assert desk.dispatch() == ["b"]
    first, second = desk.grants["a"].worker, desk.grants["b"].worker
    assert first is not None
    assert second is not None
    assert first is not second
    desk.grants["b"].release_engine()
    assert desk.dispatch() == []
    assert desk.reason("c") == "WORKER_SLOTS"
    desk.grants["a"].release_slot()
    assert desk.dispatch() == ["c"]


async def test_giving_back_twice_gives_back_once() -> None:
    desk = Desk(server=2)
    desk.execution()
    desk.worker("w", slots=2)
    desk.ask("a")
    desk.ask("b")
    desk.dispatch()
    grant = desk.grants["a"]
    for _ in range(2):
        grant.release_engine()
        grant.release_slot()
        grant.release()
    assert grant.is_empty
    assert desk.allocator.statistics().running == 1
    assert desk.allocator.slots_in_use("default", "w.1") == 1


async def test_a_withdrawn_request_is_never_granted() -> None:
    desk = Desk(server=1)
    desk.execution()
    desk.worker()
    for path in ("a", "b", "c", "d"):
        desk.ask(path)
    assert desk.dispatch() == ["a"]
    desk.allocator.withdraw("default", "x", "b")
    desk.allocator.withdraw("default", "x", "b")
    desk.allocator.withdraw("default", "x", "d")
    desk.allocator.withdraw("default", "x", "never asked")
    assert desk.end("a") == ["c"]
    assert desk.end("c") == []
    assert desk.allocator.statistics().waiting == 0


async def test_a_node_may_ask_again_after_it_withdrew() -> None:
    desk = Desk(server=1)
    desk.execution()
    desk.worker()
    desk.ask("a")
    desk.ask("b")
    desk.dispatch()
    desk.allocator.withdraw("default", "x", "b")
    desk.ask("b")
    assert desk.end("a") == ["b"]
    assert desk.end("b") == []


async def test_what_already_runs_is_taken_back_past_every_limit() -> None:
    """Q2: a limit that is lower than what runs aborts nothing, and nothing new starts until it is kept again."""
    desk = Desk(server=1)
    desk.execution("x", limit=1)
    grants = [desk.allocator.take_back(desk.request(f"old{number}"), "w", "w.1") for number in range(3)]
    assert desk.allocator.statistics().running == 3
    assert desk.allocator.slots_in_use("default", "w.1") == 3
    desk.ask("new")
    assert desk.dispatch() == []
    desk.worker("w", slots=1)
    assert desk.dispatch() == []
    for grant in grants[:2]:
        grant.release()
        assert desk.dispatch() == []
    grants[2].release()
    assert desk.dispatch() == ["new"]
    desk.end("new")
    assert desk.allocator.statistics().running == 0


async def test_taken_back_attempts_count_when_their_worker_comes_back() -> None:
    desk = Desk()
    desk.execution()
    grant = desk.allocator.take_back(desk.request("old"), "w", "w.1")
    desk.worker("w", slots=2, types={"t": 1})
    desk.ask("a")
    desk.ask("b")
    assert desk.dispatch() == ["a"]
    desk.end("a")
    grant.release()
    assert desk.allocator.slots_in_use("default", "w.1") == 1


async def test_a_removed_worker_gets_nothing_and_its_grants_can_still_be_given_back() -> None:
    desk = Desk()
    desk.execution()
    desk.worker("w", slots=2)
    desk.ask("a")
    desk.dispatch()
    desk.allocator.remove_worker("default", "w.1")
    desk.allocator.remove_worker("default", "w.1")
    desk.ask("b")
    assert desk.dispatch() == []
    assert desk.reason("b") == "NO_WORKER"
    desk.grants["a"].release()
    assert desk.allocator.statistics().running == 0
    desk.worker("v")
    assert desk.dispatch() == ["b"]


async def test_an_execution_that_is_opened_again_has_its_whole_limit() -> None:
    """An execution that is dropped and read again finds no permits of its former life taken, and no others free."""
    desk = Desk()
    desk.execution("x", limit=1)
    desk.worker()
    desk.ask("a")
    desk.ask("b")
    desk.dispatch()
    desk.allocator.withdraw("default", "x", "b")
    desk.grants["a"].release()
    desk.allocator.close_execution("default", "x")

    desk.execution("x", limit=1)
    kept = desk.allocator.take_back(desk.request("a"), "w", "w.1")
    desk.ask("b")
    assert desk.dispatch() == []
    assert desk.reason("b") == "EXECUTION_LIMIT"
    kept.release()
    assert desk.dispatch() == ["b"]


async def test_namespaces_take_turns() -> None:
    """R4 acts within a namespace; namespaces share the server evenly, whoever asked first or has priority."""
    desk = Desk(server=1)
    for namespace in ("one", "two"):
        desk.execution(namespace, namespace=namespace)
        desk.worker(namespace, namespace=namespace)
    for number in range(4):
        desk.ask(f"one-{number}", execution="one", namespace="one", priority=9)
    desk.ask("two-0", execution="two", namespace="two")
    desk.ask("two-1", execution="two", namespace="two")
    granted = desk.dispatch()
    while desk.grants:
        granted += desk.end(granted[-1])
    assert sorted(path.partition("-")[0] for path in granted[:4]) == ["one", "one", "two", "two"]
    assert granted[4:] == ["one-2", "one-3"]


async def test_namespaces_share_the_turns_by_their_weights() -> None:
    """A weight that changes counts from then on."""
    weights = {"one": 1, "two": 3}
    desk = Desk(server=1)
    desk.allocator.share_by(weights.__getitem__)
    for name in weights:
        desk.execution(name, namespace=name)
        desk.worker(name, namespace=name)
        for number in range(60):
            desk.ask(f"{name}-{number}", execution=name, namespace=name)
    granted = desk.dispatch()
    for _ in range(39):
        granted += desk.end(granted[-1])
    assert sum(path.startswith("one") for path in granted) == 10
    weights["one"] = 3
    granted = granted[-1:]
    for _ in range(20):
        granted += desk.end(granted[-1])
    assert 9 <= sum(path.startswith("one") for path in granted[1:]) <= 11


async def test_a_namespace_that_comes_late_takes_turns_too() -> None:
    """Grants to others before it came give it no head start."""
    desk = Desk(server=1)
    for namespace in ("one", "two", "late"):
        desk.execution(namespace, namespace=namespace)
        desk.worker(namespace, namespace=namespace)
    for number in range(40):
        desk.ask(f"one-{number}", execution="one", namespace="one")
        desk.ask(f"two-{number}", execution="two", namespace="two")
    granted = desk.dispatch()
    for _ in range(30):
        granted += desk.end(granted[-1])
    for number in range(20):
        desk.ask(f"late-{number}", execution="late", namespace="late")
    before = len(granted)
    for _ in range(12):
        granted += desk.end(granted[-1])
    turns = [path.partition("-")[0] for path in granted[before:]]
    assert {name: turns.count(name) for name in ("one", "two", "late")} == {"one": 4, "two": 4, "late": 4}


async def test_a_grant_says_how_long_its_node_waited(autojump_clock: MockClock) -> None:
    desk = Desk(server=1)
    desk.execution()
    desk.worker()
    desk.ask("a")
    desk.ask("b")
    desk.dispatch()
    await trio.sleep(4)
    desk.end("a")
    assert desk.grants["b"].queue_s == 4
