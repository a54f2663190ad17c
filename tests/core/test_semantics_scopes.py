"""Sub-graphs: what a scope takes and gives (L4, J2, S2.3, N1, N2), and whose failure is whose (E6)."""

from __future__ import annotations

import pytest

from plait_server.core.run.events import ExecutionEnded, ScopeOpened
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import NodeState
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def failure_of(driver: Driver, path: str) -> Failure:
    """The failure in the last event of a node."""
    failures = [getattr(e.detail, "failure", None) for e in driver.events if e.node_path == path]
    assert isinstance(failures[-1], Failure)
    return failures[-1]


def codes(failure: Failure) -> list[tuple[str, str]]:
    return [(cause.node_path, cause.code) for cause in failure.causes]


def failure_count(driver: Driver) -> int:
    detail = driver.events[-1].detail
    assert isinstance(detail, ExecutionEnded)
    return detail.failure_count


# L4, J2, S2.3.


def test_sub_graph_runs_as_a_scope_whose_output_is_its_node_s() -> None:
    """L4: a sub-graph node runs a named graph, an inline one, or one that an output is, as a scope."""
    d = run("sub x { a -> b }; x -> c")
    assert d.states() == {"x": "RUNNING", "x/a": "RUNNING", "x/b": "IDLE", "c": "IDLE"}
    d.succeed("x/a")
    d.succeed("x/b", output="7")
    assert d.story()[-5:] == [
        "x/b RUNNING",
        "x/b SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "c RUNNING",
    ]
    assert d.inputs["c"].json == "7"
    d.succeed("c")
    assert d.ended == "SUCCEEDED"


@pytest.mark.parametrize(
    ("settings", "given"), [("", "5"), ('node x input={"k":1}', '{"k":1}')], ids=["join", "input"]
)
def test_nodes_without_incoming_edges_take_their_scope_s_input(settings: str, given: str) -> None:
    """J2: a node with none [no incoming edge] its scope's input; that is what the sub-graph node runs with."""
    d = run("sub x { b; c }; a -> x", settings)
    d.succeed("a", output="5")
    assert (d.inputs["x/b"].json, d.inputs["x/c"].json) == (given, given)
    opened = next(e.detail for e in d.events if isinstance(e.detail, ScopeOpened))
    assert opened.input.json == given


def test_input_that_has_no_value_fails_the_node_before_its_scope_opens() -> None:
    """Section 5, T1: EXPRESSION, without a scope as without an attempt."""
    d = run("sub x { a }; node x input=broken")
    assert d.story() == ["x FAILED/EXPRESSION"]


@pytest.mark.parametrize(
    ("inner", "output"),
    [
        ('a; b; output "done"', "done"),
        ("a; b", {"a": 1, "b": 2}),
        ("a -> b", 2),
    ],
)
def test_output_of_a_scope_is_that_of_an_execution(inner: str, output: object) -> None:
    """S2.3, N1: a graph behaves alike alone and inside."""
    d = run(f"sub x {{ {inner} }}")
    d.succeed("x/a", output="1")
    d.succeed("x/b", output="2")
    assert d.output == output
    alone = run(inner)
    alone.succeed("a", output="1")
    alone.succeed("b", output="2")
    assert alone.output == output


def test_output_that_cannot_be_made_fails_the_node() -> None:
    """N7: an output that cannot be made FAILS the node with EXPRESSION, a failure of its own."""
    d = run("sub x { a; output broken }")
    d.succeed("x/a")
    assert d.story()[-2:] == ["x ends FAILED", "x FAILED/EXPRESSION"]
    assert codes(failure_of(d, "x")) == []
    assert d.named == ("x", "EXPRESSION")


def test_scopes_nest() -> None:
    """Section 1: scopes nest. N4: a scope whose nodes have all ended ends, the innermost first."""
    d = run("sub x { sub y { sub z { a } } }")
    assert d.running() == ["x/y/z/a"]
    d.succeed("x/y/z/a", output="3")
    assert d.story()[-7:] == [
        "x/y/z/a SUCCEEDED",
        "x/y/z ends SUCCEEDED",
        "x/y/z SUCCEEDED",
        "x/y ends SUCCEEDED",
        "x/y SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
    ]
    assert (d.ended, d.output) == ("SUCCEEDED", 3)


def test_equal_ids_in_different_scopes_are_different_nodes() -> None:
    """Section 1, R3: a node runs once per scope."""
    d = run("a; sub x { a }; sub y { a }")
    assert d.running() == ["a", "x/a", "y/a"]
    d.succeed("x/a", "a", "y/a")
    assert d.ended == "SUCCEEDED"


def test_nodes_exist_from_the_beginning_of_their_scope() -> None:
    """N2: a node is RUNNING while a scope of it is open. The nodes of a scope exist from its beginning."""
    d = run("a -> x; sub x { b -> c }")
    assert d.states() == {"a": "RUNNING", "x": "IDLE"}
    d.succeed("a")
    assert d.states() == {"a": "SUCCEEDED", "x": "RUNNING", "x/b": "RUNNING", "x/c": "IDLE"}
    (opened,) = [
        (e.node_path, e.node_state, e.detail.node_count)
        for e in d.events
        if isinstance(e.detail, ScopeOpened)
    ]
    assert opened == ("x", NodeState.RUNNING, 2)


def test_attempts_in_a_scope_are_retried_there() -> None:
    """T1: a retry is of the task; N2: its sub-graph node is RUNNING meanwhile."""
    d = run("sub x { a -> b; node a retry=2 backoff=4 }")
    d.fail("x/a", "UNAVAILABLE")
    assert (d.state("x"), d.state("x/a")) == ("RUNNING", "BACKING_OFF/UNAVAILABLE")
    d.advance(4)
    d.succeed("x/a", "x/b")
    assert d.ended == "SUCCEEDED"


def test_engine_s_own_nodes_run_in_scopes() -> None:
    d = run('sub x { node s kind=switch:"x":x,y; s -x-> a; s -y-> b; a, b -> e; node e join=ANY }')
    assert (d.state("x/b"), d.state("x/a")) == ("SKIPPED/DEAD_PATH", "RUNNING")
    d.succeed("x/a")
    d.succeed("x/e", output="1")
    assert (d.ended, d.output) == ("SUCCEEDED", 1)


def test_scope_without_attempts_ends_in_the_instant_in_which_it_opens() -> None:
    """J5, N4: one instant."""
    d = run("sub x { node t kind=transform }; x -> u; node u kind=transform")
    assert d.story() == [
        "x RUNNING",
        "x/t SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "u SUCCEEDED",
    ]
    assert d.ended == "SUCCEEDED"


# N1: a sub-graph node takes everything that a node takes but `retry`.


def test_locked_sub_graph_node_opens_no_scope() -> None:
    """C4: a lock replaces the run: SKIPPED/LOCKED, with `locked_output`."""
    d = run("sub x { a }; x -> b; node x locked=5")
    assert d.story() == ["x SKIPPED/LOCKED", "b RUNNING"]
    assert d.inputs["b"].json == "5"


def test_lock_in_a_scope_is_of_its_node() -> None:
    """C4 within a scope: siblings are not held up."""
    d = run("sub x { a -> b; c; node a locked=5 }")
    assert d.story() == ["x RUNNING", "x/c RUNNING", "x/a SKIPPED/LOCKED", "x/b RUNNING"] or d.story() == [
        "x RUNNING",
        "x/a SKIPPED/LOCKED",
        "x/c RUNNING",
        "x/b RUNNING",
    ]
    assert d.inputs["x/b"].json == "5"


def test_sub_graph_node_on_a_dead_path_opens_no_scope() -> None:
    """Section 6: all edges DEAD: SKIPPED/DEAD_PATH."""
    d = run("a -> x when=false; sub x { b }")
    d.succeed("a")
    assert d.state("x") == "SKIPPED/DEAD_PATH"
    assert d.ended == "SUCCEEDED"


def test_when_that_gives_no_boolean_fails_the_node_not_the_scope() -> None:
    """F2: a `when` of a SUCCEEDED node that gives no boolean is a failure of that node."""
    d = run("sub x { a }; x -> b when=broken")
    d.succeed("x/a")
    assert d.story()[-3:] == ["x ends SUCCEEDED", "x FAILED/EXPRESSION", "b IDLE/SIBLING_FAILED"]
    assert codes(failure_of(d, "x")) == []


def test_join_of_a_sub_graph_node_fails_like_any_other() -> None:
    """J3: no scope opens."""
    d = run("a, b -> x; sub x { c }; node x join=ANY; policy CONTINUE")
    d.fail("a")
    d.fail("b")
    assert d.state("x") == "FAILED/ALL_BRANCHES_FAILED"
    assert codes(failure_of(d, "x")) == [("a", "INTERNAL"), ("b", "INTERNAL")]


# E6.


def test_parent_sees_one_node_fail_with_the_code_and_failure_of_the_summary() -> None:
    """E6: one node FAILs with the code of the child's summary (E1) and that failure as its only cause."""
    d = run("sub x { a; b -> c }; x -> y")
    d.fail("x/b", "BAD")
    assert d.story()[-6:] == [
        "x/b FAILED/BAD",
        "x/a IDLE/SIBLING_FAILED",
        "x/c IDLE/SIBLING_FAILED",
        "x ends FAILED",
        "x FAILED/BAD",
        "y IDLE/SIBLING_FAILED",
    ]
    assert codes(failure_of(d, "x")) == [("x/b", "BAD")]
    assert (d.ended, d.named) == ("FAILED", ("x", "BAD"))
    assert failure_count(d) == 2, "the list has the failures of all scopes"


def test_failures_go_up_through_every_scope() -> None:
    """E6: a summary names a node of its own scope."""
    d = run("sub x { sub y { a } }")
    d.fail("x/y/a", "BAD")
    assert d.named == ("x", "BAD")
    failure = failure_of(d, "x")
    assert codes(failure) == [("x/y", "BAD")]
    assert codes(failure.causes[0]) == [("x/y/a", "BAD")]
    assert failure_count(d) == 3


def test_failure_is_decided_by_the_policy_of_its_scope() -> None:
    """E6: a failure in a sub-graph is decided by that scope's policy. N1: an inner graph inherits no policy."""
    d = run("sub x { a; b; policy CONTINUE }; y; policy FAIL_FAST")
    d.fail("x/a")
    assert (d.state("x/b"), d.state("y")) == ("RUNNING", "RUNNING")
    other = run("sub x { a; b }; y; policy CONTINUE")
    other.fail("x/a")
    assert (other.state("x/b"), other.state("x"), other.state("y")) == (
        "IDLE/SIBLING_FAILED",
        "FAILED/INTERNAL",
        "RUNNING",
    )


def test_scope_that_partially_succeeded_makes_its_node_succeed() -> None:
    """E6: its node SUCCEEDs with its output; E5 looks at the scope's own nodes alone."""
    d = run("sub x { a; b; policy CONTINUE }")
    d.fail("x/a")
    d.succeed("x/b", output="2")
    assert d.story()[-2:] == ["x ends PARTIALLY_SUCCEEDED", "x SUCCEEDED"]
    assert (d.ended, d.named, d.output) == ("SUCCEEDED", None, {"b": 2})
    assert failure_count(d) == 1


@pytest.mark.parametrize("minimum", ["0.6", "1"])
def test_min_success_rate_is_that_of_the_scope(minimum: str) -> None:
    """E5, N1: by the inner graph's `min_success_rate`, which the outer one does not touch."""
    d = run(f"sub x {{ a; b; policy CONTINUE min={minimum} }}; policy CONTINUE")
    d.fail("x/a", "BAD")
    d.succeed("x/b")
    assert d.story()[-2:] == ["x ends FAILED", "x FAILED/BAD"]


def test_failure_of_a_sub_graph_is_handled_like_any_other() -> None:
    """Section 5: an `error` edge of the node takes the failure, and carries it."""
    d = run("sub x { a }; x -error-> h; x -> n")
    d.fail("x/a", "BAD")
    assert d.story()[-4:] == [
        "x ends FAILED",
        "x FAILED/BAD",
        "n SKIPPED/DEAD_PATH",
        "h RUNNING",
    ]
    assert '"x/a"' in d.inputs["h"].json
    d.succeed("h")
    assert d.ended == "SUCCEEDED"


def test_ignored_failure_of_a_sub_graph_gives_null() -> None:
    """Section 5: `on_error: IGNORE`: ACTIVE, output null."""
    d = run("sub x { a }; x -> b; node x on_error=IGNORE")
    d.fail("x/a")
    assert (d.state("b"), d.inputs["b"].json) == ("RUNNING", "null")


def test_guard_of_a_sub_graph_node_guards_nothing_inside() -> None:
    """E3: guardedness is a property of the graph: here x is guarded, and x/a is not."""
    d = run("sub x { a; b }; x, y -> j; node j join=ANY")
    d.fail("x/a")
    assert d.treatments() == [("x/a", "UNHANDLED"), ("x", "TOLERATED")]
    assert (d.state("x/b"), d.state("y")) == ("IDLE/SIBLING_FAILED", "RUNNING")


def test_race_inside_a_scope_is_decided_there() -> None:
    """J1 within scopes."""
    d = run("sub x { a, b -> j; node j join=ANY }; c")
    d.succeed("x/a")
    assert (d.state("x/b"), d.state("x/j"), d.state("c")) == ("CANCELLED/RACE_LOST", "RUNNING", "RUNNING")


def test_execution_goes_on_after_a_restart_within_scopes() -> None:
    """A1: live and replayed state are equal after every event, open and ended scopes included."""
    d = run("sub x { sub y { a -> b }; y -> c }; x -> z; sub w { e; f; policy CONTINUE }")
    for path in ("x/y/a", "w/e", "x/y/b", "x/c", "w/f", "z"):
        d.restart()
        d.succeed(path)
    d.restart() if not d.execution.is_ended else None
    assert d.ended == "SUCCEEDED"
