"""Graphs in Python become the message one would have written by hand."""

import json
import math
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from plait.v1 import graph_pb2, payload_pb2
from plait_client.graph_builder import GraphBuilder, NodeRef, any_of, cel, collect, policy, quorum, retry
from plait_client.graph_file import parse_graph
from plait_client.graph_value import graph_value


def edges_of(graph: GraphBuilder) -> list[tuple[str, str, str]]:
    return [(edge.source, edge.target, edge.handle) for edge in graph.build().edges]


def test_the_contact_sheet() -> None:
    graph = GraphBuilder("contact-sheet", labels={"team": "art"})
    images: list[NodeRef] = []
    for number in range(3):
        prompt = graph.task(f"prompt-{number}", "llm.prompt", input={"topic": cel("input.topic")})
        images.append(graph.task(f"image-{number}", "image.generate", after=prompt))
    graph.task("sheet", "image.sheet", after=images, join=collect(min_success_rate=0.5))
    message = graph.build()
    assert (message.name, dict(message.labels)) == ("contact-sheet", {"team": "art"})
    assert [node.id for node in message.nodes] == [
        *("prompt-0", "image-0", "prompt-1", "image-1", "prompt-2", "image-2", "sheet")
    ]
    assert json.loads(message.nodes[0].input.json) == {"topic": "{{ input.topic }}"}
    assert not message.nodes[1].HasField("input")
    assert message.nodes[6].join == graph_pb2.Join(mode="JOIN_MODE_COLLECT", min_success_rate=0.5)
    assert edges_of(graph) == [
        ("prompt-0", "image-0", ""),
        ("prompt-1", "image-1", ""),
        ("prompt-2", "image-2", ""),
        ("image-0", "sheet", ""),
        ("image-1", "sheet", ""),
        ("image-2", "sheet", ""),
    ]
    assert repr(graph) == "<GraphBuilder 'contact-sheet' 7 nodes, 6 edges>"


def test_every_kind_of_node() -> None:
    graph = GraphBuilder()
    graph.task("t", "type")
    graph.condition("c", "input.ok")
    graph.switch("s", "input.kind", ["image", "text"])
    graph.transform("f", input=None)
    graph.delay("d", timedelta(minutes=1), input="x")
    nodes = graph.build().nodes
    assert [node.WhichOneof("kind") for node in nodes] == [
        "task",
        "condition",
        "switch",
        "transform",
        "delay",
    ]
    assert nodes[1].condition.expression == "input.ok"
    assert (nodes[2].switch.expression, list(nodes[2].switch.cases)) == ("input.kind", ["image", "text"])
    assert nodes[3].input.json == "null"
    assert (nodes[4].delay.duration, nodes[4].input.json) == (Duration(seconds=60), '"x"')


def test_edges_leave_by_handles() -> None:
    graph = GraphBuilder()
    check = graph.condition("check", "input.ok")
    kind = graph.switch("kind", "input.kind", ["image"], after=check.on(True))
    graph.task("a", "t", after=[check.on(False), kind.on("image"), kind.on("default"), "kind"])
    graph.task("b", "t", after=NodeRef("a").error)
    assert edges_of(graph) == [
        ("check", "kind", "true"),
        ("check", "a", "false"),
        ("kind", "a", "image"),
        ("kind", "a", "default"),
        ("kind", "a", ""),
        ("a", "b", "error"),
    ]


def test_edges_have_conditions_and_names() -> None:
    graph = GraphBuilder()
    first = graph.task("a", "t")
    graph.task("b", "t", after=first.if_("output.n > 3").named("large"))
    graph.task("c", "t")
    graph.edge("a", "c", handle="error", when="true", branch_name="rescue")
    graph.edge(first.error.named("x"), NodeRef("b"), branch_name="y")
    assert list(graph.build().edges) == [
        graph_pb2.Edge(source="a", target="b", when="output.n > 3", branch_name="large"),
        graph_pb2.Edge(source="a", target="c", handle="error", when="true", branch_name="rescue"),
        graph_pb2.Edge(source="a", target="b", handle="error", branch_name="y"),
    ]


@pytest.mark.parametrize(
    ("id", "expression"),
    [
        ("a", "nodes.a"),
        ("_a1", "nodes._a1"),
        ("a-b", 'nodes["a-b"]'),
        ("1", 'nodes["1"]'),
        ("in", 'nodes["in"]'),
    ],
)
def test_a_node_says_how_expressions_name_it(id: str, expression: str) -> None:
    assert NodeRef(id).output == f"{expression}.output"
    assert NodeRef(id).failure == f"{expression}.failure"


def test_settings_of_a_task() -> None:
    graph = GraphBuilder()
    graph.task(
        "a",
        "t",
        retry=retry(
            3, initial_backoff=0.5, max_backoff=timedelta(seconds=9), codes=["BUSY"], max_lost_attempts=0
        ),
        attempt_timeout=1.5,
        node_timeout=60,
        queue_timeout=30,
        worker_timeout=40,
        heartbeat_timeout=5,
        concurrency_key="input.customer",
        on_error="IGNORE",
        on_timeout="CONTINUE",
        priority=7,
    )
    node = graph.build().nodes[0]
    assert node.retry == graph_pb2.RetryPolicy(
        max_attempts=3,
        initial_backoff=Duration(nanos=500_000_000),
        max_backoff=Duration(seconds=9),
        retryable_codes=["BUSY"],
        max_lost_attempts=0,
    )
    assert node.timeouts == graph_pb2.Timeouts(
        attempt=Duration(seconds=1, nanos=500_000_000),
        node=Duration(seconds=60),
        queue=Duration(seconds=30),
        worker=Duration(seconds=40),
        heartbeat=Duration(seconds=5),
    )
    assert (node.on_error, node.on_timeout) == (graph_pb2.ON_ERROR_IGNORE, graph_pb2.ON_TIMEOUT_CONTINUE)
    assert (node.priority, node.concurrency_key) == (7, "input.customer")


def test_joins() -> None:
    assert any_of(cancel_losers=False) == graph_pb2.Join(mode="JOIN_MODE_ANY", cancel_losers=False)
    assert quorum(2) == graph_pb2.Join(mode="JOIN_MODE_QUORUM", count=2, cancel_losers=True)
    assert quorum(rate=0.5) == graph_pb2.Join(mode="JOIN_MODE_QUORUM", rate=0.5, cancel_losers=True)
    assert collect() == graph_pb2.Join(mode="JOIN_MODE_COLLECT")


def test_settings_of_the_graph() -> None:
    graph = GraphBuilder(
        "g",
        output="nodes.a.output",
        scheduling="LEVELS",
        policy=policy("CONTINUE", min_success_rate=0.8, collect_errors=True, timeout=90, max_concurrency=3),
    ).build()
    assert (graph.output, graph.scheduling) == ("nodes.a.output", graph_pb2.SCHEDULING_LEVELS)
    assert graph.policy == graph_pb2.Policy(
        on_failure="ON_FAILURE_CONTINUE",
        min_success_rate=0.8,
        collect_errors=True,
        timeout=Duration(seconds=90),
        max_concurrency=3,
    )
    assert policy() == graph_pb2.Policy(on_failure="ON_FAILURE_FAIL_FAST")


def test_an_id_is_given_once() -> None:
    graph = GraphBuilder()
    graph.task("a", "t")
    with pytest.raises(ValueError, match=r"^there is already a node 'a'; choose another id$"):
        graph.transform("a")


def test_an_edge_leads_between_nodes_that_are_there_and_a_refused_node_is_not() -> None:
    graph = GraphBuilder()
    graph.task("a", "t")
    message = r"^there is no node 'x' yet; add it before what comes after it$"
    with pytest.raises(ValueError, match=message):
        graph.task("b", "t", after=["a", "x"])
    with pytest.raises(ValueError, match=message):
        graph.edge("a", "x")
    assert edges_of(graph) == []
    graph.task("b", "t", after="a")
    assert edges_of(graph) == [("a", "b", "")]


def test_an_input_is_json() -> None:
    graph = GraphBuilder()
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        graph.task("a", "t", input=math.nan)
    with pytest.raises(ValueError, match="inf is no duration; write a number of seconds"):
        graph.delay("d", math.inf)
    assert graph.task("a", "t", input={"é": [1, True, None]}) == NodeRef("a")
    assert graph.build().nodes[0].input.json == '{"é":[1,true,null]}'


def test_what_was_built_is_the_caller_s() -> None:
    graph = GraphBuilder()
    graph.task("a", "t")
    first = graph.build()
    graph.task("b", "t", after="a")
    first.name = "mine"
    assert (len(first.nodes), len(graph.build().nodes), graph.build().name) == (1, 2, "")


# Sub-graphs.


def test_a_sub_graph_is_another_builder_s_graph_as_it_is_now() -> None:
    inner = GraphBuilder("inner", output="nodes.a.output")
    inner.task("a", "t")
    graph = GraphBuilder()
    first = graph.task("first", "t")
    sub = graph.subgraph(
        "sub",
        inner,
        input={"x": first.output},
        after=first,
        join=any_of(),
        timeout=90,
        on_error="TOLERATE",
        on_timeout="CANCEL",
        priority=2,
    )
    graph.task("last", "t", after=sub)
    inner.task("b", "t")
    assert graph.build().nodes[1] == graph_pb2.Node(
        id="sub",
        subgraph=graph_pb2.Subgraph(
            graph=graph_pb2.Graph(
                name="inner",
                output="nodes.a.output",
                scheduling=graph_pb2.SCHEDULING_READY,
                nodes=[graph_pb2.Node(id="a", task=graph_pb2.Task(type="t"))],
            )
        ),
        input=payload_pb2.Payload(json='{"x":"nodes.first.output"}'),
        join=any_of(),
        timeouts=graph_pb2.Timeouts(node=Duration(seconds=90)),
        on_error=graph_pb2.ON_ERROR_TOLERATE,
        on_timeout=graph_pb2.ON_TIMEOUT_CANCEL,
        priority=2,
    )
    assert edges_of(graph) == [("first", "sub", ""), ("sub", "last", "")]


def test_a_sub_graph_may_be_the_output_of_a_node() -> None:
    graph = GraphBuilder()
    plan = graph.task("plan", "t")
    graph.subgraph("run", output_of=plan, after=plan)
    graph.subgraph("again", output_of="plan", after="run")
    assert [node.subgraph.output_of for node in graph.build().nodes] == ["", "plan", "plan"]
    with pytest.raises(ValueError, match="there is no node 'paln' yet"):
        graph.subgraph("x", output_of="paln")
    with pytest.raises(ValueError, match="either `graph` or the graph that `output_of` returns"):
        graph.subgraph("x")
    with pytest.raises(ValueError, match="either `graph` or"):
        graph.subgraph("x", GraphBuilder(), output_of=plan)


def test_a_graph_as_a_value_is_that_of_a_graph_file() -> None:
    inner = GraphBuilder(policy=policy("CONTINUE", timeout=2.5))
    inner.transform("a", input=None)
    graph = GraphBuilder("g", labels={"k": "v"})
    first = graph.task(
        "first", "t", input={"text": cel("input.x"), "n": [1, 2.5]}, retry=retry(3, max_backoff=9)
    )
    graph.subgraph("sub", inner, input="x", after=first.if_("true"))
    value = graph_value(graph)
    assert value["nodes"][0]["input"] == {"text": "{{ input.x }}", "n": [1, 2.5]}
    assert value["nodes"][1]["subgraph"]["graph"]["nodes"] == [{"id": "a", "transform": {}, "input": None}]
    assert parse_graph(json.dumps(value)) == graph.build()
    assert graph_value(graph.build()) == value
