"""Graphs as messages and back, and what a message can say that a graph cannot."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from plait.journal.v1 import graph_analysis_pb2
from plait.v1 import graph_pb2, payload_pb2
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.compiled import compile_graph
from plait_server.core.definition.graph import (
    DEFAULT_RETRY,
    Analysis,
    Condition,
    Delay,
    Edge,
    Graph,
    Join,
    JoinMode,
    Kind,
    Node,
    OnError,
    OnFailure,
    OnTimeout,
    Policy,
    RetryPolicy,
    Scheduling,
    Subgraph,
    Switch,
    Task,
    Timeouts,
    Transform,
)
from plait_server.core.definition.problems import Problem
from plait_server.encoding.graph_codec import (
    InvalidGraphMessage,
    analysis_from_bytes,
    analysis_to_bytes,
    graph_from_proto,
    graph_to_proto,
)

texts = st.text(max_size=8)
# Durations are kept to the nanosecond, which floats below a day hold easily.
seconds = st.integers(0, 10**9 * 86_400).map(lambda nanos: nanos // 10**9 + nanos % 10**9 / 10**9)
positive = st.integers(1, 2**31 - 1)
rates = st.floats(0, 1, exclude_min=True)
kinds = st.one_of(
    st.builds(Task, type=texts),
    st.builds(Condition, expression=texts),
    st.builds(Switch, expression=texts, cases=st.lists(texts, max_size=3).map(tuple)),
    st.just(Transform()),
    st.builds(Delay, duration_s=seconds),
    st.none(),
)
joins = st.builds(
    Join,
    mode=st.sampled_from(JoinMode),
    count=st.none() | positive,
    rate=st.none() | rates,
    cancel_losers=st.booleans(),
    min_success_rate=st.floats(0, 1),
)
retries = st.builds(
    RetryPolicy,
    max_attempts=positive,
    initial_backoff_s=seconds,
    multiplier=st.floats(1, 100),
    max_backoff_s=seconds,
    retryable_codes=st.lists(texts, min_size=1, max_size=3).map(tuple),
    max_lost_attempts=st.integers(0, 100),
)


timeouts = st.builds(
    Timeouts,
    attempt_s=seconds,
    node_s=seconds,
    queue_s=seconds,
    worker_s=seconds,
    heartbeat_s=seconds,
)


def nodes_of(kinds: st.SearchStrategy[Kind | None]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        id=texts,
        kind=kinds,
        input=st.none() | texts,
        join=st.none() | joins,
        retry=st.none() | retries,
        timeouts=st.none()
        | st.builds(
            Timeouts,
            attempt_s=seconds,
            node_s=seconds,
            queue_s=seconds,
            worker_s=seconds,
            heartbeat_s=seconds,
        ),
        on_error=st.sampled_from(OnError),
        on_timeout=st.none() | st.sampled_from(OnTimeout),
        priority=st.integers(-1000, 1000),
        concurrency_key=texts,
        locked=st.booleans(),
        locked_output=st.none() | texts,
    )


edges = st.builds(Edge, source=texts, target=texts, handle=texts, when=texts, branch_name=texts)
policies = st.builds(
    Policy,
    on_failure=st.sampled_from(OnFailure),
    min_success_rate=st.floats(0, 1),
    collect_errors=st.booleans(),
    timeout_s=seconds,
    max_concurrency=positive,
)


def graphs_of(kinds: st.SearchStrategy[Kind | None]) -> st.SearchStrategy[Graph]:
    return st.builds(
        Graph,
        nodes=st.lists(nodes_of(kinds), max_size=4).map(tuple),
        edges=st.lists(edges, max_size=4).map(tuple),
        name=texts,
        policy=st.just(Policy()) | policies,
        scheduling=st.sampled_from(Scheduling),
        output=texts,
        labels=st.dictionaries(texts, texts, max_size=3),
    )


inner_kinds = st.builds(Subgraph, graph=graphs_of(kinds)) | st.builds(Subgraph, output_of=texts)
graphs = graphs_of(kinds | inner_kinds)


def decoded(message: graph_pb2.Graph) -> tuple[Graph, dict[str, str]]:
    problems: list[Problem] = []
    graph = graph_from_proto(message, problems)
    return graph, {problem.field: problem.message for problem in problems}


def only_node(node: graph_pb2.Node) -> Node:
    graph, problems = decoded(graph_pb2.Graph(nodes=[node]))
    assert problems == {}
    return graph.nodes[0]


@given(graphs)
def test_a_graph_survives_the_wire(graph: Graph) -> None:
    content = graph_to_proto(graph).SerializeToString()
    assert graph_from_proto(graph_pb2.Graph.FromString(content)) == graph


@given(st.binary(max_size=60))
def test_whatever_parses_becomes_a_graph(content: bytes) -> None:
    message = graph_pb2.Graph()
    try:
        message.ParseFromString(content)
    except Exception:  # noqa: BLE001 -- Of what does not parse nothing is asked.
        return
    decoded(message)


def test_an_empty_message_is_a_graph_of_defaults() -> None:
    assert decoded(graph_pb2.Graph()) == (Graph(nodes=()), {})


def test_what_is_unspecified_has_its_default() -> None:
    node = graph_pb2.Node(
        id="a",
        task=graph_pb2.Task(type="t"),
        join=graph_pb2.Join(),
        retry=graph_pb2.RetryPolicy(),
        timeouts=graph_pb2.Timeouts(),
    )
    assert only_node(node) == Node(
        id="a", kind=Task(type="t"), join=Join(), retry=DEFAULT_RETRY, timeouts=Timeouts()
    )
    graph, problems = decoded(graph_pb2.Graph(policy=graph_pb2.Policy()))
    assert (graph.policy, graph.scheduling, problems) == (Policy(), Scheduling.READY, {})


def test_presence_makes_the_difference_where_zero_is_a_value() -> None:
    retry = graph_pb2.RetryPolicy(max_lost_attempts=0, initial_backoff=Duration(), max_backoff=Duration())
    node = only_node(graph_pb2.Node(retry=retry, join=graph_pb2.Join(cancel_losers=False)))
    assert node.retry == RetryPolicy(max_lost_attempts=0, initial_backoff_s=0, max_backoff_s=0)
    assert node.join == Join(cancel_losers=False)


def test_a_payload_without_content_is_no_value_and_null_is_one() -> None:
    assert only_node(graph_pb2.Node(input=payload_pb2.Payload())).input is None
    assert only_node(graph_pb2.Node(input=payload_pb2.Payload(json="null"))).input == "null"


def test_a_kind_of_a_later_version_is_no_kind() -> None:
    # Field 9, of the wire type of messages: what a later contract may put into the oneof.
    node = graph_pb2.Node.FromString(b"\x0a\x01a" + b"\x4a\x00")
    assert only_node(node) == Node(id="a", kind=None)


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (Duration(seconds=90), 90.0),
        (Duration(nanos=1), 1e-9),
        (Duration(seconds=-1, nanos=-500_000_000), -1.5),
        (Duration(seconds=2**63 - 1), float(2**63 - 1)),
    ],
)
def test_odd_durations_are_carried_over_for_validation(duration: Duration, expected: float) -> None:
    node = only_node(graph_pb2.Node(delay=graph_pb2.Delay(duration=duration)))
    assert node.kind == Delay(duration_s=expected)


def test_what_a_graph_cannot_say_is_reported_together_by_field() -> None:
    bad = Duration(seconds=1, nanos=-1)
    message = graph_pb2.Graph(
        nodes=[
            graph_pb2.Node(
                id="a",
                delay=graph_pb2.Delay(duration=bad),
                input=payload_pb2.Payload(digest="ab"),
                locked_output=payload_pb2.Payload(digest="ab"),
                retry=graph_pb2.RetryPolicy(initial_backoff=bad, max_backoff=bad),
                timeouts=graph_pb2.Timeouts(attempt=bad, node=Duration(nanos=10**9)),
            )
        ],
        policy=graph_pb2.Policy(timeout=Duration(seconds=-1, nanos=1)),
    )
    graph, problems = decoded(message)
    of_duration = "the nanos of a duration are less than a second and have the sign of its seconds"
    of_digest = "a digest is output only; give the text itself in `json`"
    assert problems == {
        "graph.nodes[0].delay.duration": of_duration,
        "graph.nodes[0].input.digest": of_digest,
        "graph.nodes[0].locked_output.digest": of_digest,
        "graph.nodes[0].retry.initial_backoff": of_duration,
        "graph.nodes[0].retry.max_backoff": of_duration,
        "graph.nodes[0].timeouts.attempt": of_duration,
        "graph.nodes[0].timeouts.node": of_duration,
        "graph.policy.timeout": of_duration,
    }
    assert graph.nodes[0].input is None


def test_enum_numbers_of_a_later_version_are_reported_by_field() -> None:
    # Numbers that the generated code has no names for can only come from the wire.
    node = b"\x78\x63" + b"\x70\x63" + b"\x5a\x02\x08\x63"
    content = b"\x12" + bytes([len(node)]) + node + b"\x22\x02\x08\x63" + b"\x28\x63"
    graph, problems = decoded(graph_pb2.Graph.FromString(content))
    assert problems == {
        "graph.nodes[0].join.mode": (
            "99 is no value that this version knows; it knows ALL (1), ANY (2), QUORUM (3), COLLECT (4)"
        ),
        "graph.nodes[0].on_error": (
            "99 is no value that this version knows; "
            "it knows UNSPECIFIED (0), FAIL (1), TOLERATE (2), IGNORE (3)"
        ),
        "graph.nodes[0].on_timeout": (
            "99 is no value that this version knows; it knows ERROR (1), CONTINUE (2), CANCEL (3)"
        ),
        "graph.policy.on_failure": (
            "99 is no value that this version knows; it knows FAIL_FAST (1), STOP_DISPATCH (2), CONTINUE (3)"
        ),
        "graph.scheduling": "99 is no value that this version knows; it knows READY (1), LEVELS (2)",
    }
    assert graph.nodes[0] == Node(id="", kind=None, join=Join())
    assert (graph.policy, graph.scheduling) == (Policy(), Scheduling.READY)


def test_without_a_list_for_them_problems_are_an_error() -> None:
    message = graph_pb2.Graph(nodes=[graph_pb2.Node(input=payload_pb2.Payload(digest="ab"))])
    with pytest.raises(InvalidGraphMessage, match=r"^graph.nodes\[0\].input.digest: a digest") as caught:
        graph_from_proto(message)
    assert [problem.field for problem in caught.value.problems] == ["graph.nodes[0].input.digest"]


def test_v9_an_analysis_survives_and_equal_ones_give_equal_bytes() -> None:
    analysis = Analysis(levels=(0, 1, 300), remaining=(2, 1, 0), guarded=frozenset({300, 2, 1}))
    content = analysis_to_bytes(analysis)
    assert analysis_from_bytes(content) == analysis
    assert list(graph_analysis_pb2.GraphAnalysis.FromString(content).guarded) == [1, 2, 300]
    assert (
        analysis_to_bytes(Analysis(levels=(0, 1, 300), remaining=(2, 1, 0), guarded=frozenset({1, 2, 300})))
        == content
    )


def nested(depth: int, innermost: graph_pb2.Graph) -> graph_pb2.Graph:
    graph = innermost
    for _ in range(depth):
        around = graph_pb2.Graph()
        around.nodes.add(id="sub").subgraph.graph.CopyFrom(graph)
        graph = around
    return graph


def test_v9_the_analyses_of_inner_graphs_survive_in_order() -> None:
    deep = Analysis(levels=(0,), remaining=(0,), guarded=frozenset())
    inner = Analysis(levels=(0, 1), remaining=(1, 0), guarded=frozenset({0}), inner={1: deep})
    analysis = Analysis(
        levels=(0,) * 300, remaining=(0,) * 300, guarded=frozenset(), inner={7: inner, 299: deep}
    )
    read = analysis_from_bytes(analysis_to_bytes(analysis))
    assert read == analysis
    assert list(read.inner) == [7, 299]


def test_what_an_inner_graph_cannot_say_is_reported_by_its_whole_path() -> None:
    inner = graph_pb2.Graph(policy=graph_pb2.Policy(timeout=Duration(seconds=-1, nanos=1)))
    inner.nodes.add(id="a").input.digest = "ab"
    outer = graph_pb2.Graph(nodes=[graph_pb2.Node(id="x", transform=graph_pb2.Transform())])
    outer.nodes.add(id="sub").subgraph.graph.CopyFrom(inner)
    assert set(decoded(outer)[1]) == {
        "graph.nodes[1].subgraph.graph.policy.timeout",
        "graph.nodes[1].subgraph.graph.nodes[0].input.digest",
    }


@pytest.mark.parametrize("depth", [16, 17, 30])
def test_l4_graphs_that_are_nested_too_deep_are_not_looked_into(depth: int) -> None:
    innermost = graph_pb2.Graph(nodes=[graph_pb2.Node(id="a", input=payload_pb2.Payload(digest="ab"))])
    graph, problems = decoded(nested(depth, innermost))
    path = "graph" + ".nodes[0].subgraph.graph" * 16
    if depth == 16:
        assert set(problems) == {f"{path}.nodes[0].input.digest"}
    else:
        assert problems == {
            f"{path}.nodes[0].subgraph": (
                "graphs are nested more than 16 deep here; put its nodes into the graph around it"
            )
        }
        for _ in range(16):
            assert isinstance(graph.nodes[0].kind, Subgraph)
            assert graph.nodes[0].kind.graph is not None
            graph = graph.nodes[0].kind.graph
        assert graph.nodes[0].kind == Subgraph()


def test_equal_graphs_inside_a_graph_are_one() -> None:
    """What runs them is then worked out once, however many nodes have them."""
    inner = Graph(nodes=(Node(id="a", kind=Transform()), Node(id="b", kind=Transform())))
    other = Graph(nodes=(Node(id="a", kind=Transform()),))
    nodes = tuple(
        Node(id=f"n{place}", kind=Subgraph(graph=each)) for place, each in enumerate((inner, other, inner))
    )
    graph = graph_from_proto(graph_to_proto(Graph(nodes=nodes)))
    definition = compile_graph(graph, analyze(graph, build_adjacency(graph)))
    assert definition.inner[0] is definition.inner[2]
    assert definition.inner[0] is not definition.inner[1]
