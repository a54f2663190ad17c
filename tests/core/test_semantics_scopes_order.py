"""What goes first over all scopes (N3, N4, R2, R4), what limits them (Q1), and their branches (B1, N6)."""

from __future__ import annotations

import json

import pytest

from plait_server.core.run.events import ScopeOpened
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def offers(*lines: str) -> list[str]:
    """Paths of the tasks that wait for capacity after the start, in R4's order."""
    d = Driver(build(*lines), grants=False).start()
    return [offer.node_path for offer in sorted(d.offered.values(), key=lambda offer: offer.places)]


# R2.


def test_levels_inside_levels() -> None:
    """R2: a node starts only when all nodes of all lower levels ended; a sub-graph is one node."""
    d = run("scheduling LEVELS; sub x { scheduling LEVELS; a -> b; c }; x -> y; z -> w")
    assert d.running() == ["z", "x/a", "x/c"]
    d.succeed("x/a")
    assert (d.state("x/b"), d.running()) == ("IDLE", ["z", "x/c"])
    d.succeed("z")
    assert d.state("w") == "IDLE", "x, of a lower level, has not ended"
    d.succeed("x/c")
    assert d.state("x/b") == "RUNNING"
    d.succeed("x/b")
    assert d.running() == ["y", "w"]
    d.succeed("y", "w")
    assert d.ended == "SUCCEEDED"


def test_levels_in_two_scopes_and_two_deep() -> None:
    """R2, N1: each scope has levels of its own."""
    inner = "scheduling LEVELS; a -> b; c"
    d = run(f"sub x {{ scheduling LEVELS; sub y {{ {inner} }}; sub v {{ {inner} }}; e; y -> f }}")
    d.succeed("x/y/a", "x/y/c")
    assert (d.state("x/y/b"), d.state("x/v/b")) == ("RUNNING", "IDLE")
    d.succeed("x/v/a", "x/v/c", "x/y/b")
    assert (d.state("x/v/b"), d.state("x/y"), d.state("x/f")) == ("RUNNING", "SUCCEEDED", "IDLE")
    d.succeed("x/v/b")
    assert d.state("x/f") == "IDLE"
    d.succeed("x/e")
    assert d.state("x/f") == "RUNNING"
    d.succeed("x/f")
    assert d.ended == "SUCCEEDED"


def test_inner_graph_inherits_no_scheduling() -> None:
    """N1: an inner graph inherits no policy and no scheduling."""
    d = run("scheduling LEVELS; sub x { a -> b; c }")
    d.succeed("x/a")
    assert (d.state("x/b"), d.state("x/c")) == ("RUNNING", "RUNNING")
    other = run("sub x { scheduling LEVELS; a -> b; c }; s -> t; r")
    other.succeed("x/a", "s")
    assert (other.state("x/b"), other.state("t")) == ("IDLE", "RUNNING")


def test_levels_go_on_after_a_restart() -> None:
    """A1: what a scope holds follows from its own events."""
    d = run("scheduling LEVELS; sub x { scheduling LEVELS; a -> b; c }; x -> y")
    d.succeed("x/a")
    d.restart()
    assert d.state("x/b") == "IDLE"
    d.succeed("x/c")
    assert d.state("x/b") == "RUNNING"


def test_sub_graph_node_is_held_by_levels_itself() -> None:
    """R2: starts wait: its scope opens later."""
    d = run("scheduling LEVELS; a -> x; sub x { b }; c")
    d.succeed("a")
    assert d.states() == {"a": "SUCCEEDED", "x": "IDLE", "c": "RUNNING"}
    d.succeed("c")
    assert d.state("x/b") == "RUNNING"


# N4.


def test_scope_that_opens_decides_its_sources_at_the_end_of_the_order() -> None:
    """N4: whether another scope's node begins first is by the order of decisions."""
    t = "kind=transform"
    d = run(f"sub x {{ node a {t}; node b {t} }}; node y {t}; y -> z; node z {t}")
    assert d.story() == [
        "x RUNNING",
        "y SUCCEEDED",
        "x/a SUCCEEDED",
        "x/b SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "z SUCCEEDED",
    ]


def test_scopes_that_open_in_one_instant_interleave_by_decisions() -> None:
    """N4: J5's order is that of the execution, not of each scope."""
    t = "kind=transform"
    inner = f"node a {t}; a -> b; node b {t}"
    d = run(f"sub x {{ {inner} }}; sub y {{ {inner} }}")
    assert d.story() == [
        "x RUNNING",
        "y RUNNING",
        "x/a SUCCEEDED",
        "y/a SUCCEEDED",
        "x/b SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "y/b SUCCEEDED",
        "y ends SUCCEEDED",
        "y SUCCEEDED",
    ]


def test_scope_that_is_over_ends_before_another_node_begins() -> None:
    """N4: after E4's sweep comes: a scope whose nodes have all ended ends; then one other node begins."""
    d = run(
        "sub x { a }; s -> t; node t kind=transform",
        "sub w { node u kind=transform; u -> v; node v kind=transform }; x -> w",
    )
    d.succeed("x/a")
    assert d.story()[-8:] == [
        "x/a SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "w RUNNING",
        "w/u SUCCEEDED",
        "w/v SUCCEEDED",
        "w ends SUCCEEDED",
        "w SUCCEEDED",
    ]


# R4, N3.


def test_tasks_are_compared_in_the_innermost_scope_that_has_both() -> None:
    """N3: each as the node there that it is or is in."""
    assert offers("sub x { a -> b; b -> c }; y -> z") == ["y", "x/a"], "x has 0 edges left, and y has 1"
    assert offers("sub x { a }; x -> p; y") == ["x/a", "y"]
    assert offers("y; sub x { a -> b }") == ["y", "x/a"], "equal: in graph order"
    assert offers("sub x { a; b -> c }; sub v { d -> e }") == ["x/b", "x/a", "v/d"]


def test_priority_is_of_the_node_in_the_scope_that_has_both() -> None:
    """R4, N3: higher priority of the node first; inside, it counts among its siblings."""
    assert offers("y; sub x { a }; node x priority=1") == ["x/a", "y"]
    assert offers("y; sub x { a; b; node b priority=9 }") == ["y", "x/b", "x/a"]
    assert offers("sub x { sub w { a; b; node b priority=1 }; c }; y") == ["x/w/b", "x/w/a", "x/c", "y"]


# Q1, N1.


@pytest.mark.parametrize(
    ("graph", "path", "limits"),
    [
        ("sub x { a }", "x/a", []),
        ("sub x { a; policy limit=1 }", "x/a", ["x"]),
        ("sub x { sub y { a; policy limit=2 }; policy limit=3 }", "x/y/a", ["x", "x/y"]),
        ("sub x { sub y { a }; policy limit=3 }", "x/y/a", ["x"]),
        ("sub x { sub y { a; policy limit=3 } }", "x/y/a", ["x/y"]),
        ("sub x { b; policy limit=1 }; a", "a", []),
    ],
)
def test_limits_of_a_scope_bound_those_inside(graph: str, path: str, limits: list[str]) -> None:
    """N1: its `max_concurrency`, if given, limits the attempts of its scope and of those inside (Q1)."""
    d = Driver(build(graph), grants=False).start()
    assert list(d.offered[path].scope_limits) == limits


def test_sub_graph_holds_no_permit() -> None:
    """Q1: only attempts at workers hold permits, so nesting cannot deadlock."""
    d = Driver(build("sub x { sub y { a } }; policy limit=1"), grants=False).start()
    assert list(d.offered) == ["x/y/a"]
    assert (d.state("x"), d.state("x/y")) == ("RUNNING", "RUNNING")


# B1, N6.


def branches(driver: Driver) -> dict[str, str]:
    """Node path -> the branch that its events name."""
    return {event.node_path: event.branch for event in driver.events if event.node_path}


def test_scope_goes_on_in_the_branch_of_its_node() -> None:
    """N6: a scope goes on in the branch of its node. B1: several sources open one each."""
    d = run("sub x { a }; sub y { b; c }")
    assert branches(d) == {
        "x": "0-001",
        "x/a": "0-001",
        "y": "0-002",
        "y/b": "0-002-001",
        "y/c": "0-002-002",
    }


def test_numbering_of_forks_goes_on_from_scope_to_scope() -> None:
    """B1: ordinals under one parent are never reused. N6: the numbers stand in the event that opens the scope."""
    d = run("sub x { a; b }; sub y { c; d }; x -> y")
    d.succeed("x/a", "x/b", "y/c", "y/d")
    assert branches(d) == {
        "x": "0",
        "x/a": "0-001",
        "x/b": "0-002",
        "y": "0",
        "y/c": "0-003",
        "y/d": "0-004",
    }
    before = [e.detail.branches_before for e in d.events if isinstance(e.detail, ScopeOpened)]
    assert before == [0, 2]


def test_forks_of_a_scope_are_numbered_after_those_of_the_scope_around_it() -> None:
    """N6: its forks are numbered when it opens; those around it were when that opened."""
    d = run("sub x { a -> b; a -> c }; x -> p; x -> q")
    d.succeed("x/a", "x/b", "x/c", "p", "q")
    assert branches(d) == {
        "x": "0",
        "x/a": "0",
        "x/b": "0-003",
        "x/c": "0-004",
        "p": "0-001",
        "q": "0-002",
    }


def test_forks_are_numbered_in_the_order_in_which_scopes_open() -> None:
    """N6: two scopes of one branch, the later in the graph opens first."""
    d = run("a -> x; a -> y; x, y -> j; j -> v; sub v { b; c }; v -> w; sub w { sub u { d; e } }")
    for path in ("a", "x", "y", "j", "v/b", "v/c"):
        d.succeed(path)
    assert {path: branch for path, branch in branches(d).items() if "/" in path} == {
        "v/b": "0-003",
        "v/c": "0-004",
        "w/u": "0",
        "w/u/d": "0-005",
        "w/u/e": "0-006",
    }


def test_branches_go_on_after_a_restart() -> None:
    d = run("sub x { a; b }; sub y { c; d }; x -> y")
    d.succeed("x/a")
    d.restart()
    d.succeed("x/b")
    d.restart()
    d.succeed("y/c")
    assert branches(d)["y/c"] == "0-003"


def test_branch_in_collected_results_is_the_whole_path() -> None:
    """J4: `branch` is the edge's branch as an uncut path."""
    d = run("s -> x; s -> t; sub x { a, b -> j; node j join=COLLECT }")
    d.succeed("s", "x/a", "x/b")
    results = json.loads(d.inputs["x/j"].json)["results"]
    assert [(each["source"], each["branch"]) for each in results] == [
        ("a", "0-001-001"),
        ("b", "0-001-002"),
    ]
