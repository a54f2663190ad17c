"""J5: the order of what one input leads to. Every graph runs beside the slow model, which must agree."""

from tests.core.against_model import SideBySide
from tests.core.graph_text import build


def run(*lines: str) -> SideBySide:
    both = SideBySide(build(*lines))
    both.start()
    return both


def ended(both: SideBySide) -> list[str]:
    """The nodes that ended or were put back, in the order of their events, each with its state."""
    return [
        f"{event.node_path} {both.driver.state(event.node_path)}"
        for event in both.driver.events
        if event.node_path
        and event.node_state is not None
        and (event.node_state.is_ended or event.reason == "SIBLING_FAILED")
    ]


def test_what_failed_upstream_is_skipped_before_a_quorum_that_fails_cancels_it() -> None:
    """J5: a node whose join says SKIPPED ends before losers do."""
    both = run("a -> b; a,b -> q; node q join=QUORUM:2 on_error=TOLERATE")
    both.end_attempt("a", "FAILED BAD")
    assert ended(both) == ["a FAILED/BAD", "b SKIPPED/UPSTREAM_FAILED", "q FAILED/QUORUM_UNREACHABLE"]


def test_a_skipped_node_s_edges_resolve_before_anything_else_begins() -> None:
    """J5: after each step the first that has something to do goes on."""
    both = run("c -true-> t; c -false-> x; x -> y; y -> z; node c kind=condition:true; node t kind=transform")
    assert ended(both) == [
        "c SUCCEEDED",
        "x SKIPPED/DEAD_PATH",
        "y SKIPPED/DEAD_PATH",
        "z SKIPPED/DEAD_PATH",
        "t SUCCEEDED",
    ]


def test_edges_decide_joins_in_graph_order_and_nodes_begin_in_the_order_of_the_decisions() -> None:
    """J5: edges resolve one by one in graph order; a node begins in the order of the decisions."""
    both = run(
        "node a; node b kind=transform; node c kind=transform; node d kind=transform",
        "a -> d; a -> b; a -> c",
    )
    both.end_attempt("a", "SUCCEEDED")
    assert ended(both) == ["a SUCCEEDED", "d SUCCEEDED", "b SUCCEEDED", "c SUCCEEDED"]


def test_what_a_node_decides_begins_after_what_was_decided_before() -> None:
    """J5, R5: in the order of the decisions; a node of the engine begins and ends as one step."""
    both = run(
        "node a kind=transform; node b kind=transform; node c kind=transform; node d kind=transform",
        "a -> c; b -> d",
    )
    assert ended(both) == ["a SUCCEEDED", "b SUCCEEDED", "c SUCCEEDED", "d SUCCEEDED"]


def test_a_locked_node_and_a_delay_take_their_turn() -> None:
    """J5, C4: a lock replaces the run, not its place in the order of the decisions."""
    both = run("node a kind=transform; node b kind=delay:1; node c locked; node d kind=transform")
    assert ended(both) == ["a SUCCEEDED", "c SKIPPED/LOCKED", "d SUCCEEDED"]
    assert [event.node_path for event in both.driver.events if event.node_path] == ["a", "b", "c", "d"]


def test_a_failure_sweeps_before_another_node_begins() -> None:
    """J5, E4: the sweep comes before the next node whose join was decided."""
    both = run("node a kind=condition:broken; node b locked; node c kind=transform")
    assert ended(both) == ["a FAILED/EXPRESSION", "b IDLE/SIBLING_FAILED", "c IDLE/SIBLING_FAILED"]


def test_losers_end_in_graph_order_before_their_edges_resolve() -> None:
    """J5, J1: losers end, in graph order; one is not skipped because another's `error` edge died first."""
    both = run("node late; node early; node w; early -error-> late; early,late,w -> j; node j join=ANY")
    both.end_attempt("w", "SUCCEEDED")
    assert ended(both) == ["w SUCCEEDED", "late CANCELLED/RACE_LOST", "early CANCELLED/RACE_LOST"]
    both = run("node early; node late; node w; early -error-> late; early,late,w -> j; node j join=ANY")
    both.end_attempt("w", "SUCCEEDED")
    assert ended(both) == ["w SUCCEEDED", "early CANCELLED/RACE_LOST", "late CANCELLED/RACE_LOST"]


def test_a_join_may_lose_before_it_fails() -> None:
    """J5: a join may lose before it fails."""
    both = run("x -> q when=false; y -> q; x -> w; q -> w; node q join=QUORUM:2; node w join=ANY")
    both.end_attempt("y", "SUCCEEDED")
    both.end_attempt("x", "SUCCEEDED")
    assert ended(both) == ["y SUCCEEDED", "x SUCCEEDED", "q CANCELLED/RACE_LOST"]


def test_a_join_names_the_causes_that_stand_when_it_fails() -> None:
    """J5: a join names the causes that stand when it fails, not those of when it was decided."""
    both = run(
        "policy CONTINUE; s -> first; s -> q; first -> q; first -> rest",
        "node first join=ANY; node q join=QUORUM:2",
    )
    both.end_attempt("s", "FAILED BAD")
    assert ended(both) == [
        "s FAILED/BAD",
        "first FAILED/ALL_BRANCHES_FAILED",
        "rest SKIPPED/UPSTREAM_FAILED",
        "q FAILED/QUORUM_UNREACHABLE",
    ]
    causes = both.driver.scope.failures[-1].causes
    assert [(cause.node_path, cause.code) for cause in causes] == [
        ("s", "BAD"),
        ("first", "ALL_BRANCHES_FAILED"),
    ]


def test_a_failing_collect_takes_its_turn() -> None:
    """J5: a node FAILS with its join in the order of the decisions, COLLECT and its object too."""
    both = run(
        "policy CONTINUE; s -> c; s -> q; node q join=QUORUM:1; node c join=COLLECT:0.5; node s on_error=TOLERATE"
    )
    both.end_attempt("s", "FAILED BAD")
    assert ended(both) == ["s FAILED/BAD", "c FAILED/MIN_SUCCESS_RATE", "q FAILED/QUORUM_UNREACHABLE"]


def test_tasks_are_given_out_last_and_by_r4() -> None:
    """J5, R4: first by priority, then by the longer remaining path, then in graph order."""
    both = run(
        "node a; node b; node c priority=1; node d; node t kind=transform; node e; d -> e; t -> e",
    )
    events = [event.node_path for event in both.driver.events if event.node_path]
    assert events == ["t", "c", "d", "a", "b"]


def test_under_levels_starts_and_locks_wait_while_skips_and_failing_joins_do_not() -> None:
    """R2: joins, other skips and losers are decided at once; starts wait, and a lock waits with them."""
    both = run(
        "scheduling LEVELS; policy CONTINUE; node slow",
        "a -> run; a -error-> skipped; a -> locked; b -> any; skipped -> gone",
        "node locked locked; node run kind=transform; node any join=ANY",
    )
    both.end_attempt("a", "SUCCEEDED")
    both.end_attempt("b", "FAILED BAD")
    before = [
        "a SUCCEEDED",
        "skipped SKIPPED/DEAD_PATH",
        "gone SKIPPED/DEAD_PATH",
        "b FAILED/BAD",
        "any FAILED/ALL_BRANCHES_FAILED",
    ]
    assert ended(both) == before
    both.end_attempt("slow", "SUCCEEDED")
    assert ended(both) == [*before, "slow SUCCEEDED", "run SUCCEEDED", "locked SKIPPED/LOCKED"]
