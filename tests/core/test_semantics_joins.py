"""Section 6: joins, losers; section 4: readiness."""

import json

import pytest

from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def test_node_is_ready_the_moment_its_join_is_decided() -> None:
    """R1: a slow node never holds back one that does not depend on it."""
    d = run("a -> b; slow -> c")
    d.succeed("a")
    assert d.running() == ["b", "slow"]


def test_levels_starts_a_node_when_all_lower_levels_ended_retries_included() -> None:
    """R2: a node starts only when all nodes of all lower levels ended (retries included)."""
    d = run("scheduling LEVELS", "a -> b; c -> d", "node c retry=2")
    d.succeed("a")
    assert d.state("b") == "IDLE"
    d.fail("c", "UNAVAILABLE")
    assert d.state("c").startswith("BACKING_OFF")
    assert not d.running()
    d.advance(0.5)
    d.succeed("c")
    assert d.running() == ["b", "d"]


def test_levels_counts_error_edges() -> None:
    """Section 1: levels, upstream and remaining paths count `error` edges."""
    d = run("scheduling LEVELS", "a -error-> b; c -> x; b -> x; x -> y; c -> e; e -> f; f -> g")
    assert dict(zip((n.id for n in d.graph.nodes), d.analysis.levels, strict=True))["x"] == 2


def test_levels_decides_joins_skips_and_losers_at_once_and_locks_wait() -> None:
    """R2: joins, other skips and losers are decided at once; starts wait, and a lock waits with them."""
    d = run(
        "scheduling LEVELS",
        "a -> any; l -> any; a -> locked; a -> dead when=false; slow -> z",
        "node any join=ANY; node locked locked=1",
    )
    d.succeed("a")
    assert d.states() == {
        "a": "SUCCEEDED",
        "any": "IDLE",
        "l": "CANCELLED/RACE_LOST",
        "locked": "IDLE",
        "dead": "SKIPPED/DEAD_PATH",
        "slow": "RUNNING",
        "z": "IDLE",
    }
    d.succeed("slow")
    assert (d.state("any"), d.state("locked")) == ("RUNNING", "SKIPPED/LOCKED")


def test_node_runs_once_however_many_edges_lead_to_it() -> None:
    """R3."""
    d = run("a,b,c -> d", "node d join=ANY keep_losers")
    d.succeed("a", "b", "c")
    d.succeed("d")
    assert d.starts("d") == 1
    assert d.ended == "SUCCEEDED"


def test_nodes_without_incoming_edges_start_together() -> None:
    """R5."""
    assert run("a,b,c -> d").running() == ["a", "b", "c"]


def test_all_waits_for_every_edge_then_skips() -> None:
    """Section 6, ALL: when every edge resolved: any BROKEN: SKIPPED/UPSTREAM_FAILED."""
    d = run("policy CONTINUE", "a,b -> d")
    d.fail("a")
    assert d.state("d") == "IDLE"
    d.succeed("b")
    assert d.state("d") == "SKIPPED/UPSTREAM_FAILED"


def test_all_runs_with_its_active_edges() -> None:
    """Section 6, ALL: at least one ACTIVE, none BROKEN; object: source id -> output, of the ACTIVE edges."""
    d = run("a,b -> d; c -> d when=false")
    d.succeed("a", output="1")
    d.succeed("c")
    d.succeed("b", output="2")
    assert json.loads(d.inputs["d"].json) == {"a": 1, "b": 2}


def test_any_runs_with_the_first_active_edge() -> None:
    """Section 6, ANY: `{winner: id, output}`."""
    d = run("a,b,c -> d", "node d join=ANY")
    d.fail("a")
    d.succeed("b", output="2")
    assert json.loads(d.inputs["d"].json) == {"winner": "b", "output": 2}
    assert d.state("c") == "CANCELLED/RACE_LOST"


def test_any_fails_when_no_branch_is_left() -> None:
    """Section 6, ANY; J3; E1: a failed join is named with the failures behind its edges as causes."""
    d = run("a,b -> d; c -> d when=false", "node d join=ANY")
    d.fail("a", "X")
    d.succeed("c")
    d.fail("b", "Y")
    assert d.state("d") == "FAILED/ALL_BRANCHES_FAILED"
    assert (d.ended, d.named) == ("FAILED", ("d", "ALL_BRANCHES_FAILED"))
    assert d.execution.failure is not None
    assert [cause.node_path for cause in d.execution.failure.causes] == ["a", "b"]
    assert d.starts("d") == 0


def test_all_edges_dead_skips_every_join() -> None:
    """Section 6: all edges DEAD: SKIPPED/DEAD_PATH, for every join."""
    for join in ("ALL", "ANY", "QUORUM:2", "QUORUM:0.5", "COLLECT:1.0"):
        d = run("a,b -> d when=false", f"node d join={join}")
        d.succeed("a", "b")
        assert d.state("d") == "SKIPPED/DEAD_PATH", join
        assert d.ended == "SUCCEEDED"


def test_quorum_fails_as_soon_as_it_is_out_of_reach() -> None:
    """Section 6, QUORUM; J1: when a QUORUM fails, the losers are cancelled before E4 looks at the rest."""
    d = run("a,b,c -> d; z -> y", "node d join=QUORUM:2")
    d.fail("a")
    assert d.state("d") == "IDLE"
    d.fail("b")
    assert d.states() == {
        "a": "FAILED/INTERNAL",
        "b": "FAILED/INTERNAL",
        "c": "CANCELLED/RACE_LOST",
        "d": "FAILED/QUORUM_UNREACHABLE",
        "z": "IDLE/SIBLING_FAILED",
        "y": "IDLE/SIBLING_FAILED",
    }


def test_quorum_rate_counts_the_edges_that_are_not_dead() -> None:
    """Section 6, QUORUM: `rate` of the edges not DEAD, rounded up, at least 1."""
    d = run("a,b,c -> d; e -> d when=false", "node d join=QUORUM:0.5")
    d.succeed("a")
    assert d.state("d") == "IDLE", "ceil(0.5 * 4) = 2"
    d.succeed("e")
    assert d.state("d") == "IDLE", "ceil(0.5 * 3) = 2"
    d.succeed("b", output="2")
    assert json.loads(d.inputs["d"].json) == {"a": None, "b": 2}
    assert d.state("c") == "CANCELLED/RACE_LOST"


def test_quorum_waits_while_nothing_is_active_or_broken() -> None:
    """Section 6, QUORUM: FAILED only if at least one is ACTIVE or BROKEN."""
    d = run("a,b -> d when=false", "node d join=QUORUM:2")
    d.succeed("a")
    assert d.state("d") == "IDLE"
    d.succeed("b")
    assert d.state("d") == "SKIPPED/DEAD_PATH"


def test_collect_gives_all_results_in_edge_order() -> None:
    """Section 6, COLLECT; J4: DEAD left out; an ACTIVE `error` edge and a BROKEN edge are failures."""
    d = run("a,b -> j; c -> j when=false; e -error-> j; f -> g; g -> j", "node j join=COLLECT")
    d.fail("f", "F")
    d.fail("e", "E")
    d.succeed("c")
    d.fail("b", "B")
    d.succeed("a", output="1")
    collected = json.loads(d.inputs["j"].json)
    results = [
        (r["source"], r["success"], r.get("data"), r.get("error", {}).get("node_path"))
        for r in collected["results"]
    ]
    assert results == [
        ("a", True, 1, None),
        ("b", False, None, "b"),
        ("e", False, None, "e"),
        ("g", False, None, "f"),
    ]
    assert (collected["success_count"], collected["failure_count"]) == (1, 3)
    d.succeed("j")
    assert d.ended == "SUCCEEDED"


@pytest.mark.parametrize(("rate", "state"), [("0.5", "RUNNING"), ("0.51", "FAILED/MIN_SUCCESS_RATE")])
def test_collect_fails_below_its_min_success_rate(rate: str, state: str) -> None:
    """Section 6, COLLECT: FAILED/MIN_SUCCESS_RATE with that object in the failure."""
    d = run("a,b -> j", f"node j join=COLLECT:{rate}")
    d.succeed("a")
    d.fail("b")
    assert d.state("j") == state
    if state.startswith("FAILED"):
        failure = d.execution.failure
        assert failure is not None
        assert failure.details is not None
        assert json.loads(failure.details.json)["success_count"] == 1


def test_collect_runs_even_with_no_success() -> None:
    """Section 6, COLLECT: [0: runs even with none]."""
    d = run("a,b -> j", "node j join=COLLECT")
    d.fail("a")
    d.fail("b")
    assert d.state("j") == "RUNNING"


def test_losers_go_up_but_a_wanted_node_and_a_sink_stay() -> None:
    """J1: all of whose plain edges lead to joins already decided or to losers; a sink is never a loser."""
    d = run(
        "up -> mid; mid -> j; w -> j; both -> j; both -> other; w -error-> sink; s -error-> x",
        "node j join=ANY",
    )
    d.succeed("w")
    assert d.state("up") == d.state("mid") == "CANCELLED/RACE_LOST"
    assert d.state("both") == "RUNNING"
    assert d.state("s") == "RUNNING"


def test_cancel_losers_false_keeps_its_sources_wanted() -> None:
    """J1: an edge into a join with `cancel_losers: false` keeps its source wanted."""
    d = run("a,b -> j", "node j join=ANY keep_losers")
    d.succeed("a")
    assert d.state("b") == "RUNNING"
    d = run("a,b -> j; b -> k; c -> k", "node j join=ANY keep_losers; node k join=ANY")
    d.succeed("a", "c")
    assert d.state("b") == "RUNNING"


def test_losers_are_cancelled_whatever_their_state() -> None:
    """J1: every node not ended, whatever its state."""
    d = run(
        "w,run,back,wait -> j; up -> idle; idle -> j",
        "node j join=ANY; node back retry=2; node wait kind=delay:9",
    )
    d.fail("back", "UNAVAILABLE")
    d.succeed("w")
    for path in ("run", "back", "wait", "up", "idle"):
        assert d.state(path) == "CANCELLED/RACE_LOST", path
    assert [stop.node_path for stop in d.stopped] == ["run", "up"]


def test_error_edge_counts_like_any_other_in_any_and_carries_the_failure() -> None:
    """J2: an ACTIVE `error` edge carries the failure as an object, and counts like any other."""
    d = run("a -error-> j; b -> j", "node j join=ANY")
    d.fail("a", "X")
    carried = json.loads(d.inputs["j"].json)
    assert (carried["winner"], carried["output"]["code"]) == ("a", "X")


def test_failed_join_is_a_failure_like_any_other_without_retries() -> None:
    """J3: (`error` edge, on_error, E3, E4); it has no attempts, so no retries."""
    d = run("a -> j; j -error-> h", "node j join=ANY retry=3 codes=ALL_BRANCHES_FAILED")
    d.fail("a")
    assert (d.state("j"), d.state("h"), d.starts("j")) == ("FAILED/ALL_BRANCHES_FAILED", "RUNNING", 0)
    d = run("a -> j; j -> h", "node j join=ANY on_error=IGNORE")
    d.fail("a")
    assert d.inputs["h"].json == "null"
