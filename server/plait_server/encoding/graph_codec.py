"""Graphs and their analyses as plait.v1 messages, and as bytes."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from google.protobuf import duration_pb2

from plait.journal.v1 import graph_analysis_pb2
from plait.v1 import graph_pb2
from plait_server.core.definition.graph import (
    Analysis,
    Condition,
    Delay,
    Edge,
    EdgeColumns,
    Graph,
    Join,
    JoinMode,
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
    Transform,
)
from plait_server.core.definition.problems import Problem
from plait_server.core.slices import Slices, finish
from plait_server.encoding.graph_reading import GraphReader
from plait_server.encoding.pieces import find_inner_graph, pieces_of

EDGE_OBJECTS_MAX: Final = 10_000
"""Up to this many edges are kept as objects, which are faster to access."""
_NANOS: Final = 1_000_000_000


class InvalidGraphMessage(ValueError):
    """The message holds something that a graph of this version cannot represent."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        """The problems; at least one."""
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))


def graph_from_proto(message: graph_pb2.Graph, problems: list[Problem] | None = None) -> Graph:
    """Read a graph.

    Args:
        message: The graph; no reference to it is kept.
        problems: Collects what the core's values cannot represent; pass it on to `validate`. Without it such
            problems raise, because none are expected, as in a graph that was validated before it was stored.

    Raises:
        InvalidGraphMessage: There are such problems, and `problems` was not given.
    """
    found: list[Problem] = [] if problems is None else problems
    graph = GraphReader(found).whole(message)
    if problems is None and found:
        raise InvalidGraphMessage(found)
    return graph


def graph_from_bytes(content: bytes) -> Graph:
    """Read a graph that was valid when it was stored.

    Raises:
        InvalidGraphMessage: The graph uses something that this version does not know.
        google.protobuf.message.DecodeError: The bytes are not such a message.
    """
    return finish(graph_from_bytes_in_slices(content))


def graph_from_bytes_in_slices(content: bytes) -> Slices[Graph]:
    """Do what `graph_from_bytes` does, in slices: the bytes are cut between fields and parsed piece by piece."""
    problems: list[Problem] = []
    graph = yield from _read_in_slices(GraphReader(problems), content, 0, len(content))
    if problems:
        raise InvalidGraphMessage(problems)
    return graph


def _read_in_slices(reader: GraphReader, content: bytes, begin: int, end: int) -> Slices[Graph]:
    """Read the graph between two positions; recursion ends where the reader reports that it is too deep."""
    rest = graph_pb2.Graph()
    nodes: list[Node] = []
    columns: tuple[list[str], ...] = ([], [], [], [], [])
    ids: dict[str, str] = {}
    """One copy of each id's text, which edges share."""
    for piece_begin, piece_end in pieces_of(content, begin, end):
        found = find_inner_graph(content, piece_begin, piece_end)
        if found is not None and (inner := reader.inner(len(nodes))) is not None:
            graph = yield from _read_in_slices(inner, content, found.begin, found.end)
            node = reader.node(graph_pb2.Node.FromString(found.node), len(nodes))
            nodes.append(replace(node, kind=Subgraph(graph=graph)))
            continue
        piece = graph_pb2.Graph.FromString(content[piece_begin:piece_end])
        nodes += reader.nodes(piece, len(nodes))
        for edge in piece.edges:
            source, target = edge.source, edge.target
            columns[0].append(ids.setdefault(source, source))
            columns[1].append(ids.setdefault(target, target))
            columns[2].append(edge.handle)
            columns[3].append(edge.when)
            columns[4].append(edge.branch_name)
        if not piece.nodes and not piece.edges:
            rest.MergeFrom(piece)
        yield
    edges: Sequence[Edge] = EdgeColumns(columns)
    if len(edges) <= EDGE_OBJECTS_MAX:
        edges = tuple(edges)
    return reader.graph(rest, tuple(nodes), edges)


def graph_to_proto(graph: Graph) -> graph_pb2.Graph:
    """Write a graph; reading it back returns an equal one.

    Raises:
        ValueError: A number is out of its field's range; this cannot happen for a valid graph.
    """
    message = graph_pb2.Graph(
        name=graph.name,
        nodes=[_node_to_proto(node) for node in graph.nodes],
        edges=[
            graph_pb2.Edge(
                source=edge.source,
                target=edge.target,
                handle=edge.handle,
                when=edge.when,
                branch_name=edge.branch_name,
            )
            for edge in graph.edges
        ],
        scheduling=_enum_name(graph.scheduling),
        output=graph.output,
        labels=graph.labels,
    )
    if graph.policy != Policy():
        message.policy.CopyFrom(policy_to_proto(graph.policy))
    return message


def analysis_to_bytes(analysis: Analysis) -> bytes:
    """Write an analysis as plait.journal.v1.GraphAnalysis; equal analyses have equal bytes."""
    return _analysis_to_proto(analysis).SerializeToString(deterministic=True)


def analysis_from_bytes(content: bytes) -> Analysis:
    """Read an analysis written by `analysis_to_bytes`.

    Raises:
        google.protobuf.message.DecodeError: The bytes are not such a message.
    """
    return finish(analysis_from_bytes_in_slices(content))


def analysis_from_bytes_in_slices(content: bytes) -> Slices[Analysis]:
    """Do what `analysis_from_bytes` does, in slices."""
    message = graph_analysis_pb2.GraphAnalysis.FromString(content)
    yield
    return (yield from _analysis_from_proto(message))


def _analysis_to_proto(analysis: Analysis) -> graph_analysis_pb2.GraphAnalysis:
    message = graph_analysis_pb2.GraphAnalysis(
        levels=analysis.levels, remaining=analysis.remaining, guarded=sorted(analysis.guarded)
    )
    for node, inner in analysis.inner.items():
        message.inner[node].CopyFrom(_analysis_to_proto(inner))
    return message


def _analysis_from_proto(message: graph_analysis_pb2.GraphAnalysis) -> Slices[Analysis]:
    levels = tuple(message.levels)
    yield
    remaining = tuple(message.remaining)
    yield
    inner: dict[int, Analysis] = {}
    for node in sorted(message.inner):
        inner[node] = yield from _analysis_from_proto(message.inner[node])
    return Analysis(levels=levels, remaining=remaining, guarded=frozenset(message.guarded), inner=inner)


_ENUM_PREFIXES: Final[Mapping[type[enum.IntEnum], str]] = {
    Scheduling: "SCHEDULING",
    OnFailure: "ON_FAILURE",
    JoinMode: "JOIN_MODE",
    OnError: "ON_ERROR",
    OnTimeout: "ON_TIMEOUT",
}


def _node_to_proto(node: Node) -> graph_pb2.Node:
    message = graph_pb2.Node(
        id=node.id,
        on_error=_enum_name(node.on_error),
        on_timeout=_enum_name(node.on_timeout) if node.on_timeout else None,
        priority=node.priority,
        concurrency_key=node.concurrency_key,
        locked=node.locked,
    )
    match node.kind:
        case Task(type=type_):
            message.task.type = type_
        case Condition(expression=expression):
            message.condition.expression = expression
        case Switch(expression=expression, cases=cases):
            message.switch.expression = expression
            message.switch.cases.extend(cases)
        case Transform():
            message.transform.SetInParent()
        case Delay(duration_s=duration_s):
            message.delay.duration.CopyFrom(_duration(duration_s))
        case Subgraph(graph=graph, output_of=output_of):
            if graph is not None:
                message.subgraph.graph.CopyFrom(graph_to_proto(graph))
            elif output_of:
                message.subgraph.output_of = output_of
            else:
                message.subgraph.SetInParent()
        case None:
            pass
        case _:
            assert_never(node.kind)
    if node.input is not None:
        message.input.json = node.input
    if node.join is not None:
        message.join.CopyFrom(_join_to_proto(node.join))
    if node.retry is not None:
        message.retry.CopyFrom(_retry_to_proto(node.retry))
    if node.timeouts is not None:
        message.timeouts.attempt.CopyFrom(_duration(node.timeouts.attempt_s))
        message.timeouts.node.CopyFrom(_duration(node.timeouts.node_s))
        # Left out where they are not set, so that the digests of earlier graphs stay as they are.
        if node.timeouts.queue_s:
            message.timeouts.queue.CopyFrom(_duration(node.timeouts.queue_s))
        if node.timeouts.worker_s:
            message.timeouts.worker.CopyFrom(_duration(node.timeouts.worker_s))
        if node.timeouts.heartbeat_s:
            message.timeouts.heartbeat.CopyFrom(_duration(node.timeouts.heartbeat_s))
    if node.locked_output is not None:
        message.locked_output.json = node.locked_output
    return message


def _join_to_proto(join: Join) -> graph_pb2.Join:
    return graph_pb2.Join(
        mode=_enum_name(join.mode),
        count=join.count or 0,
        rate=join.rate or 0.0,
        cancel_losers=join.cancel_losers,
        min_success_rate=join.min_success_rate,
    )


def _retry_to_proto(retry: RetryPolicy) -> graph_pb2.RetryPolicy:
    return graph_pb2.RetryPolicy(
        max_attempts=retry.max_attempts,
        initial_backoff=_duration(retry.initial_backoff_s),
        multiplier=retry.multiplier,
        max_backoff=_duration(retry.max_backoff_s),
        retryable_codes=retry.retryable_codes,
        max_lost_attempts=retry.max_lost_attempts,
    )


def policy_to_proto(policy: Policy) -> graph_pb2.Policy:
    """Build the message of a policy."""
    return graph_pb2.Policy(
        on_failure=_enum_name(policy.on_failure),
        min_success_rate=policy.min_success_rate,
        collect_errors=policy.collect_errors,
        timeout=_duration(policy.timeout_s),
        max_concurrency=policy.max_concurrency,
    )


def _enum_name(value: enum.IntEnum) -> str:
    """Return the contract's name of an enum value: its class name as a prefix, then its own name."""
    return f"{_ENUM_PREFIXES[type(value)]}_{value.name}"


def _duration(seconds: float) -> duration_pb2.Duration:
    """Write seconds to the nanosecond; a float near ten years is itself exact only to 60 ns."""
    whole = int(seconds)
    nanos = round((seconds - whole) * _NANOS)
    if abs(nanos) == _NANOS:
        whole, nanos = whole + (1 if nanos > 0 else -1), 0
    return duration_pb2.Duration(seconds=whole, nanos=nanos)
