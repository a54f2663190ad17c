"""The spans of nodes in scopes (B2, E6, N2): below the scope's node, or a branch that the scope opened."""

from __future__ import annotations

from plait_server.core.run.states import CancelStage
from plait_server.telemetry.spans import Span
from tests.core.driver import Driver
from tests.core.graph_text import build
from tests.telemetry.tracing import Tree, attributes, label, trace_of


def run(*lines: str, grants: bool = True) -> Driver:
    d = Driver(build(*lines), grants=grants)
    d.now_s = 1_000.0  # a clock that shows 0 says of a node that it never began
    return d.start()


def ended(driver: Driver) -> Tree:
    """Return the trace of an execution that has ended, whose spans nest."""
    assert driver.execution.is_ended
    tree = trace_of(driver)
    tree.check_nesting()
    return tree


def shown(tree: Tree) -> list[str]:
    """The tree as indented lines, in order of time."""
    lines: list[str] = []

    def show(span: Span, depth: int) -> None:
        lines.append("  " * depth + label(span))
        for child in sorted(tree, key=lambda each: (each.start_ns, label(each))):
            if child.parent_id == span.span_id:
                show(child, depth + 1)

    show(tree.get("execution"), 0)
    return lines


def figures(driver: Driver) -> tuple[object, object, object]:
    has = attributes(ended(driver).get("execution"))
    return has["plait.critical_path_s"], has["plait.node_time_s"], has["plait.speedup"]


def test_nodes_of_a_scope_lie_under_its_node() -> None:
    d = run("a -> s; s -> z", "sub s {b -> c}")
    for path in ("a", "s/b", "s/c", "z"):
        d.advance(1)
        d.succeed(path)
    tree = ended(d)
    assert shown(tree) == [
        "execution",
        "  a",
        "    attempt a 1",
        "  s",
        "    s/b",
        "      attempt s/b 1",
        "    s/c",
        "      attempt s/c 1",
        "  z",
        "    attempt z 1",
    ]
    node = tree.get("s")
    assert (node.start_ns, node.end_ns) == (1_001_000_000_000, 1_003_000_000_000)
    assert node.name == "node subgraph"
    assert attributes(tree.get("s/c"))["plait.node.level"] == 1
    assert attributes(tree.get("s/c"))["plait.node.id"] == "c"


def test_branches_that_a_scope_opened_lie_under_its_node() -> None:
    """N6: the scope's forks are numbered after those of the branch that it goes on in."""
    d = run("a -> s", "sub s {b -> c,d; d -> e,f}")
    for path in ("a", "s/b", "s/c", "s/d", "s/e", "s/f"):
        d.advance(1)
        d.succeed(path)
    assert [line for line in shown(ended(d)) if "attempt" not in line] == [
        "execution",
        "  a",
        "  s",
        "    s/b",
        "    branch 0-001",
        "      s/c",
        "    branch 0-002",
        "      s/d",
        "      branch 0-002-001",
        "        s/e",
        "      branch 0-002-002",
        "        s/f",
    ]


def test_scopes_in_scopes_nest() -> None:
    d = run("sub s {sub t {x -> y,z}}")
    for path in ("s/t/x", "s/t/y", "s/t/z"):
        d.advance(1)
        d.succeed(path)
    assert [line for line in shown(ended(d)) if "attempt" not in line] == [
        "execution",
        "  s",
        "    s/t",
        "      s/t/x",
        "      branch 0-001",
        "        s/t/y",
        "      branch 0-002",
        "        s/t/z",
    ]


def test_branches_of_two_scopes_of_one_name_are_told_apart() -> None:
    d = run("sub s {a; b}; sub t {a; b}")
    d.succeed("s/a", "s/b", "t/a", "t/b")
    tree = ended(d)
    branches = [span for span in tree if span.name == "branch"]
    assert len({span.span_id for span in branches}) == len(branches) == 6
    assert {tree.parent("s/a"), tree.parent("t/a")} == {"branch 0-001-001", "branch 0-002-001"}


def test_the_critical_path_goes_through_scopes() -> None:
    """The node of a scope works as long as what is in it; its time is not counted beside theirs."""
    d = run("a -> s; s -> z", "sub s {b -> d; c -> d}")
    d.advance(1)
    d.succeed("a")
    d.advance(2)
    d.succeed("s/b")
    d.advance(3)
    d.succeed("s/c")
    d.advance(4)
    d.succeed("s/d")
    d.advance(5)
    d.succeed("z")
    # a 1, c 5, d 4, z 5; and b 2 beside c.
    assert figures(d) == (15.0, 17.0, 1.133)


def test_the_wait_for_capacity_in_a_scope_is_no_work() -> None:
    d = run("sub s {a}", grants=False)
    d.grant_after("s/a", 3.0)
    d.advance(2)
    d.succeed("s/a")
    assert figures(d)[:2] == (2.0, 2.0)
    assert ended(d).parent("queue s/a 1") == "s/a"


def test_a_scope_that_failed_shows_it_at_its_node() -> None:
    """E6: the parent sees one node fail, with the code of the child's summary."""
    d = run("sub s {a -> b; c -> d}")
    d.advance(1)
    d.fail("s/a", "BAD")
    tree = ended(d)
    node = tree.get("s")
    assert attributes(node)["error.type"] == "BAD"
    assert node.error is not None
    aborted = tree.get("s/c")
    assert (attributes(aborted)["plait.node.state"], attributes(aborted)["plait.reason"]) == (
        "IDLE",
        "SIBLING_FAILED",
    )
    assert aborted.error is None
    assert aborted.end_ns == 1_001_000_000_000
    assert {"s/b", "s/d"}.isdisjoint(tree.labels())


def test_what_is_stopped_around_scopes_has_its_spans() -> None:
    """E7: nodes in a scope that a failure outside stopped are put back, and so is the scope's node."""
    d = run("sub s {sub t {x -> y; v}}; node f")
    d.advance(1)
    d.succeed("s/t/v")
    d.advance(1)
    d.fail("f")
    assert [line for line in shown(ended(d)) if "attempt" not in line] == [
        "execution",
        "  branch 0-001",
        "    s",
        "      s/t",
        "        branch 0-001-001",
        "          s/t/x",
        "        branch 0-001-002",
        "          s/t/v",
        "  branch 0-002",
        "    f",
    ]
    has = attributes(ended(d).get("execution"))
    assert (has["plait.critical_path_s"], has["plait.node_time_s"]) == (2.0, 5.0)


def test_a_loser_takes_its_scope_with_it() -> None:
    """J1, N4: what ends a node with scopes ends the nodes in them first."""
    d = run("sub s {x -> y}; node f; s -> j; f -> j; node j join=ANY")
    d.advance(1)
    d.succeed("f")
    d.succeed("j")
    tree = ended(d)
    for path in ("s/x", "s/y", "s"):
        assert attributes(tree.get(path))["plait.reason"] == "RACE_LOST"
        assert tree.get(path).error is None
    assert tree.parent("s/x") == "s"


def test_receipts_of_what_was_cancelled_in_a_scope_come_when_it_is_closed() -> None:
    """C1."""
    d = run("sub s {a}")
    d.advance(1)
    d.cancel()
    d.advance(1)
    d.receipt("s/a", CancelStage.EXITED)
    tree = ended(d)
    assert (tree.get("s").end_ns, tree.get("execution").end_ns) == (1_001_000_000_000, 1_002_000_000_000)


def test_a_scope_whose_time_was_over() -> None:
    """N1: its node is TIMED_OUT/DEADLINE_EXCEEDED."""
    d = run("sub s {policy timeout=2; a -> b}")
    d.advance(3)
    tree = ended(d)
    assert attributes(tree.get("s"))["error.type"] == "DEADLINE_EXCEEDED"
    assert tree.get("s/a").error is None
    assert attributes(tree.get("s/a"))["plait.reason"] == "EXECUTION_TIMEOUT"


def test_a_scope_that_never_opened_has_no_spans_in_it() -> None:
    d = run("node c kind=condition:true; c -true-> a; c -false-> s; sub s {x}")
    d.succeed("a")
    tree = ended(d)
    assert attributes(tree.get("s"))["plait.node.state"] == "SKIPPED"
    assert "s/x" not in tree.labels()


def test_a_join_in_a_scope_links_to_what_fed_it_there() -> None:
    d = run("sub s {a -> j; b -> j}")
    d.succeed("s/a", "s/b", "s/j")
    assert ended(d).links("s/j") == ["s/a", "s/b"]


def test_spans_nest_if_the_clock_jumps_in_a_scope() -> None:
    """Rule 3; after the scope is closed, the branches around it still enclose it."""
    d = run("a -> s,p; s -> t; p -> t", "sub s {x -> y; x -> v}")
    d.advance(1)
    d.succeed("a")
    d.now_s = 2_000.0
    d.succeed("s/x")
    d.now_s = 10.0
    d.succeed("s/y")
    d.succeed("s/v")
    d.succeed("p")
    d.now_s = 5.0
    d.succeed("t")
    tree = ended(d)
    assert tree.get("s").end_ns >= 2_000_000_000_000


def test_a_task_in_a_scope_waits_since_the_scope_opened() -> None:
    d = run("a -> s", "sub s {x}", grants=False)
    d.grant("a")
    d.advance(5)
    d.succeed("a")
    d.advance(2)
    d.cancel()
    tree = ended(d)
    assert (tree.get("s/x").start_ns, tree.get("s/x").end_ns) == (1_005_000_000_000, 1_007_000_000_000)
