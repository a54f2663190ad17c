"""Sub-graphs that an upstream node's output is (L4, N7), and how deep and large an execution may be."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format

from plait_server.core.definition.graph import Graph, Subgraph
from plait_server.core.definition.graph import Node as GraphNode
from plait_server.core.run.events import ScopeOpened
from plait_server.encoding.graph_codec import graph_to_proto
from tests.core.driver import Driver
from tests.core.graph_text import build

DEEP = 16


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def as_output(graph: Graph) -> str:
    """A graph in the JSON mapping of plait.v1.Graph, as in graph files."""
    return json.dumps(json_format.MessageToDict(graph_to_proto(graph)))


def nested(depth: int, innermost: Graph) -> Graph:
    """A graph of so many scopes inside each other, with the innermost inside."""
    graph = innermost
    for _ in range(depth):
        graph = Graph(nodes=(GraphNode(id="x", kind=Subgraph(graph=graph)),))
    return graph


def test_output_that_is_a_graph_runs_as_a_scope() -> None:
    """L4: one that an upstream node's output is; N7: the graph stands in the event that opens the scope."""
    d = run("g -> x; node x kind=output_of:g; x -> y")
    d.succeed("g", output=as_output(build("a -> b; policy CONTINUE")))
    opened = next(e.detail for e in d.events if isinstance(e.detail, ScopeOpened))
    assert opened.graph_digest
    assert opened.analysis_digest
    assert d.states() == {"g": "SUCCEEDED", "x": "RUNNING", "y": "IDLE", "x/a": "RUNNING", "x/b": "IDLE"}
    d.restart()
    d.succeed("x/a")
    d.restart()
    d.succeed("x/b", output="4")
    assert d.inputs["y"].json == "4"
    d.succeed("y")
    assert d.ended == "SUCCEEDED"


def test_graph_is_the_output_of_any_upstream_node_in_the_scope() -> None:
    """L4: not only of the nearest; in a scope, of its own nodes (N5)."""
    d = run("sub s { g -> m; m -> x; node x kind=output_of:g }")
    d.succeed("s/g", output=as_output(build("a")))
    d.succeed("s/m", output="1")
    assert d.inputs["s/x/a"].json == "1", "the node's input is what its join gives, not the graph"
    d.succeed("s/x/a")
    assert d.ended == "SUCCEEDED"


def test_two_nodes_run_the_graph_of_one_output() -> None:
    d = run("g -> x, y; node x kind=output_of:g; node y kind=output_of:g")
    d.succeed("g", output=as_output(build("a")))
    d.succeed("x/a", "y/a")
    assert d.ended == "SUCCEEDED"


@pytest.mark.parametrize(
    "output",
    [
        "null",
        "3",
        '"a graph"',
        "[]",
        "{}",
        '{"nodes":[]}',
        '{"nodes":[{"id":"a"}]}',
        '{"nodes":[{"id":"a/b","task":{"type":"t"}}]}',
        '{"nodes":[{"id":"a","task":{"type":"t"}}],"edges":[{"source":"a","target":"z"}]}',
        '{"nodes":[{"id":"a","task":{"type":"t"}}],"colour":"red"}',
    ],
)
def test_output_that_is_no_valid_graph_is_an_invalid_argument(output: str) -> None:
    """N7: any other value that is no valid graph INVALID_ARGUMENT. L4: validated when it arrives."""
    d = run("g -> x; node x kind=output_of:g")
    d.succeed("g", output=output)
    assert d.story()[-1] == "x FAILED/INVALID_ARGUMENT"
    assert not any(isinstance(e.detail, ScopeOpened) for e in d.events)
    assert (d.ended, d.named) == ("FAILED", ("x", "INVALID_ARGUMENT"))


@pytest.mark.parametrize("settings", ["node x on_error=IGNORE", "x -error-> h", "policy CONTINUE"])
def test_failure_of_an_invalid_graph_is_one_like_any_other(settings: str) -> None:
    """Section 5."""
    d = run("g -> x; node x kind=output_of:g; x -> y", settings)
    d.succeed("g", output="null")
    assert d.state("x") == "FAILED/INVALID_ARGUMENT"
    assert (
        d.state("y")
        == {
            "node x on_error=IGNORE": "RUNNING",
            "x -error-> h": "SKIPPED/DEAD_PATH",
            "policy CONTINUE": "SKIPPED/UPSTREAM_FAILED",
        }[settings]
    )


def test_absent_output_is_an_expression_failure() -> None:
    """N7: an absent output is EXPRESSION (F3): of a node that FAILED, and was handled."""
    d = run("g -error-> x; node x kind=output_of:g")
    d.fail("g")
    assert d.story()[-2:] == ["g FAILED/INTERNAL", "x FAILED/EXPRESSION"]


@pytest.mark.parametrize(
    ("settings", "code"),
    [("on_error=IGNORE", "INVALID_ARGUMENT"), ("locked=null", "INVALID_ARGUMENT")],
)
def test_null_is_no_absent_output(settings: str, code: str) -> None:
    """F3: under IGNORE it is null; N7: that is no valid graph. C4: a lock gives `locked_output`."""
    d = run(f"g -> x; node g {settings}; node x kind=output_of:g")
    if "IGNORE" in settings:
        d.fail("g")
    assert d.state("x") == f"FAILED/{code}"


def test_failure_within_such_a_graph_goes_up() -> None:
    """E6."""
    d = run("g -> x; node x kind=output_of:g")
    d.succeed("g", output=as_output(build("a; b")))
    d.fail("x/a", "BAD")
    assert d.named == ("x", "BAD")


def test_graph_that_an_output_is_may_hold_sub_graphs() -> None:
    d = run("g -> x; node x kind=output_of:g")
    inner = build("sub s { a }; h -> y; node y kind=output_of:h")
    d.succeed("g", output=as_output(inner))
    d.succeed("x/h", output=as_output(build("b")))
    assert d.running() == ["x/s/a", "x/y/b"]
    d.succeed("x/s/a", "x/y/b")
    assert d.ended == "SUCCEEDED"


def test_scopes_may_be_sixteen_deep() -> None:
    """N7: scopes may be 16 deep below the execution."""
    d = Driver(nested(DEEP, build("a"))).start()
    path = "/".join(["x"] * DEEP) + "/a"
    d.succeed(path)
    assert d.ended == "SUCCEEDED"


def test_scope_that_would_be_deeper_fails_its_node_with_budget_exceeded() -> None:
    """N7: what shows it at submission is refused there, else the node FAILS with BUDGET_EXCEEDED."""
    d = Driver(nested(DEEP, build("g -> y; node y kind=output_of:g"))).start()
    path = "/".join(["x"] * DEEP)
    d.succeed(f"{path}/g", output=as_output(build("a")))
    assert d.state(f"{path}/y") == "FAILED/BUDGET_EXCEEDED"
    assert d.named == ("x", "BUDGET_EXCEEDED")


def test_scope_just_within_the_depth_opens() -> None:
    d = Driver(nested(DEEP - 1, build("g -> y; node y kind=output_of:g"))).start()
    path = "/".join(["x"] * (DEEP - 1))
    d.succeed(f"{path}/g", output=as_output(build("a")))
    d.succeed(f"{path}/y/a")
    assert d.ended == "SUCCEEDED"
