"""Scopes in the machine, where the sentences of SEMANTICS say nothing: answers that come late, ranks, numbers."""

from __future__ import annotations

import json

from plait_server.core.limits import EXECUTION_NODES_MAX
from plait_server.core.run.commands import FindGraph, MakeOutput
from tests.core.driver import Driver
from tests.core.graph_text import build


def answer_all(driver: Driver) -> None:
    while driver.questions:
        driver.answer()


def test_output_of_a_scope_that_lost_a_race_meanwhile_changes_nothing() -> None:
    driver = Driver(build("sub s { a }; b; s, b -> j; node j join=ANY; long"), answers=False).start()
    answer_all(driver)
    driver.succeed("s/a")
    (question,) = driver.questions
    assert isinstance(question, MakeOutput)
    answer = driver._answer_to(question)  # it is answered when nobody waits any more
    driver.succeed("b")
    assert driver.state("s") == "CANCELLED/RACE_LOST"
    before = len(driver.events)
    driver.do(answer)
    assert len(driver.events) == before


def test_graph_that_is_found_after_its_node_was_cancelled_opens_nothing() -> None:
    driver = Driver(build("g -> x; node x kind=output_of:g; other"), answers=False).start()
    answer_all(driver)
    driver.succeed("g", output=json.dumps({"nodes": [{"id": "a", "transform": {}}]}))
    while not isinstance(driver.questions[0], FindGraph):
        driver.answer()
    answer = driver._answer_to(driver.questions.pop())  # it is answered when nobody waits any more
    driver.cancel()
    driver.do(answer)
    assert driver.state("x") == "CANCELLED"
    assert list(driver.execution.scopes) == [""]


def test_l4_the_nodes_of_an_execution_are_bounded_in_all() -> None:
    """L4, N7: the node that would open one scope too many FAILS with BUDGET_EXCEEDED."""
    driver = Driver(build("a -> s; sub s { b; c }"), answers=True).start()
    for state in (driver.execution, driver.replica):
        state.totals.node_count = EXECUTION_NODES_MAX - 1
    driver.succeed("a")
    assert driver.state("s") == "FAILED/BUDGET_EXCEEDED"
    assert "1,000,000" in driver.execution.totals.failures[0][1].message


def test_n3_an_offer_says_where_each_node_around_it_stands() -> None:
    driver = Driver(build("first; sub s { x; sub t { y; z -> last }; t -> end }"), grants=False).start()
    offer = driver.offered["s/t/z"]
    assert [place.order for place in offer.places] == [1, 1, 1]
    assert [-place.distance for place in offer.places] == [0, 1, 1]


def test_n6_the_forks_of_a_scope_are_numbered_after_those_that_were_open() -> None:
    """Two scopes on one branch: the second goes on where the first stopped."""
    driver = Driver(build("sub s { a; b }; s -> t; sub t { c; d }")).start()
    driver.succeed("s/a", "s/b", "t/c", "t/d")
    branches = {event.node_path: event.branch for event in driver.events}
    assert (branches["s/a"], branches["s/b"]) == ("0-001", "0-002")
    assert (branches["t/c"], branches["t/d"]) == ("0-003", "0-004")


def test_e6_the_failures_of_a_scope_are_its_own_and_those_inside() -> None:
    driver = Driver(
        build("sub s { sub t { a; node a on_error=IGNORE }; b; node b on_error=IGNORE }; c")
    ).start()
    driver.fail("s/t/a", "ONE")
    driver.fail("s/b", "TWO")
    driver.fail("c", "THREE")
    codes = {
        path: [each.code for each in driver.execution.totals.failures_in(path)] for path in ("", "s", "s/t")
    }
    assert codes == {"": ["ONE", "TWO", "THREE"], "s": ["ONE", "TWO"], "s/t": ["ONE"]}


def test_n1_the_limit_of_a_scope_goes_with_it() -> None:
    driver = Driver(build("sub s { a; sub t { b; policy limit=2 }; policy limit=1 }; s -> after")).start()
    assert driver.limits == {"s": 1, "s/t": 2}
    driver.succeed("s/a", "s/t/b")
    assert driver.limits == {}


def test_n1_the_timeout_of_a_node_that_was_put_back_does_nothing() -> None:
    """E7: its scope is stopped, and a retry may go on with it."""
    driver = Driver(
        build("sub s { w -> more }; z; long; policy STOP_DISPATCH; node s node_timeout=5")
    ).start()
    driver.fail("z")
    driver.succeed("s/w")
    assert driver.state("s") == "IDLE/SIBLING_FAILED"
    driver.advance(10)
    assert driver.state("s") == "IDLE/SIBLING_FAILED"
    assert driver.state("long") == "RUNNING"
