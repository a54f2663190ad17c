"""Graphs and their analyses as plait.v1 messages.

A message can say what the core's values cannot: an enum number of a later version, a duration whose parts
have two signs, a digest where text belongs. Such fields are reported with the others (V5) and stand in the
graph as if they were absent. All else, however odd, is carried over as it is: what it means is the
validation's business.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar, assert_never

from google.protobuf import duration_pb2

from plait.journal.v1 import graph_analysis_pb2
from plait.v1 import graph_pb2, payload_pb2
from plait_server.core.definition.graph import (
    DEFAULT_RETRY,
    Analysis,
    Condition,
    Delay,
    Edge,
    EdgeColumns,
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
from plait_server.core.definition.validation import Problem
from plait_server.core.slices import Slices, finish
from plait_server.encoding.pieces import pieces_of

EDGE_OBJECTS_MAX: Final = 10_000
"""Edges up to which a graph that is read back keeps them as objects, which are quicker to look at."""
_NANOS: Final = 1_000_000_000
_Enum = TypeVar("_Enum", bound=enum.IntEnum)


class InvalidGraphMessage(ValueError):
    """The message says what no graph of this version can."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        """What is wrong; at least one."""
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))


def graph_from_proto(message: graph_pb2.Graph, problems: list[Problem] | None = None) -> Graph:
    """Read a graph.

    Args:
        message: The graph; it is read and not kept.
        problems: Takes what the core's values cannot say; hand it on to `validate`. Without it nothing of the
            kind is expected, as in a graph that was validated before it was stored.

    Raises:
        InvalidGraphMessage: There are such problems, and no list was given for them.
    """
    found: list[Problem] = [] if problems is None else problems
    reader = _Reader(found)
    graph = reader.graph(message, tuple(reader.nodes(message, 0)), tuple(reader.edges(message)))
    if problems is None and found:
        raise InvalidGraphMessage(found)
    return graph


def graph_from_bytes(content: bytes) -> Graph:
    """Read a graph that was valid when it was stored.

    Raises:
        InvalidGraphMessage: It holds what this version does not know.
        google.protobuf.message.DecodeError: It is no such message.
    """
    return finish(graph_from_bytes_in_slices(content))


def graph_from_bytes_in_slices(content: bytes) -> Slices[Graph]:
    """Do what `graph_from_bytes` does, in slices: the bytes are cut between fields, and read piece by piece."""
    problems: list[Problem] = []
    reader = _Reader(problems)
    rest = graph_pb2.Graph()
    nodes: list[Node] = []
    columns: tuple[list[str], ...] = ([], [], [], [], [])
    ids: dict[str, str] = {}
    """The text of each id, so that edges do not hold copies of it."""
    for begin, end in pieces_of(content):
        piece = graph_pb2.Graph.FromString(content[begin:end])
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
    graph = reader.graph(rest, tuple(nodes), edges)
    if problems:
        raise InvalidGraphMessage(problems)
    return graph


def graph_to_proto(graph: Graph) -> graph_pb2.Graph:
    """Write a graph; reading it gives an equal one.

    Raises:
        ValueError: A number is beyond what its field can carry, which no valid graph's is.
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
        message.policy.CopyFrom(_policy_to_proto(graph.policy))
    return message


def analysis_to_bytes(analysis: Analysis) -> bytes:
    """Write an analysis as plait.journal.v1.GraphAnalysis; equal analyses give equal bytes."""
    return _analysis_to_proto(analysis).SerializeToString(deterministic=True)


def analysis_from_bytes(content: bytes) -> Analysis:
    """Read what `analysis_to_bytes` wrote.

    Raises:
        google.protobuf.message.DecodeError: It is no such message.
    """
    return finish(analysis_from_bytes_in_slices(content))


def analysis_from_bytes_in_slices(content: bytes) -> Slices[Analysis]:
    """Do what `analysis_from_bytes` does, in slices."""
    message = graph_analysis_pb2.GraphAnalysis.FromString(content)
    yield
    levels = tuple(message.levels)
    yield
    remaining = tuple(message.remaining)
    yield
    inner = {node: _analysis_from_proto(message.inner[node]) for node in sorted(message.inner)}
    return Analysis(levels=levels, remaining=remaining, guarded=frozenset(message.guarded), inner=inner)


def _analysis_to_proto(analysis: Analysis) -> graph_analysis_pb2.GraphAnalysis:
    message = graph_analysis_pb2.GraphAnalysis(
        levels=analysis.levels, remaining=analysis.remaining, guarded=sorted(analysis.guarded)
    )
    for node, inner in analysis.inner.items():
        message.inner[node].CopyFrom(_analysis_to_proto(inner))
    return message


def _analysis_from_proto(message: graph_analysis_pb2.GraphAnalysis) -> Analysis:
    return Analysis(
        levels=tuple(message.levels),
        remaining=tuple(message.remaining),
        guarded=frozenset(message.guarded),
        inner={node: _analysis_from_proto(message.inner[node]) for node in sorted(message.inner)},
    )


_SCHEDULINGS: Final[Mapping[int, Scheduling]] = {0: Scheduling.READY, **{int(v): v for v in Scheduling}}
_ON_FAILURES: Final[Mapping[int, OnFailure]] = {0: OnFailure.FAIL_FAST, **{int(v): v for v in OnFailure}}
_JOIN_MODES: Final[Mapping[int, JoinMode]] = {0: JoinMode.ALL, **{int(v): v for v in JoinMode}}
_ON_ERRORS: Final[Mapping[int, OnError]] = {int(v): v for v in OnError}
_ON_TIMEOUTS: Final[Mapping[int, OnTimeout]] = {int(v): v for v in OnTimeout}


_ENUM_PREFIXES: Final[Mapping[type[enum.IntEnum], str]] = {
    Scheduling: "SCHEDULING",
    OnFailure: "ON_FAILURE",
    JoinMode: "JOIN_MODE",
    OnError: "ON_ERROR",
    OnTimeout: "ON_TIMEOUT",
}


class _Reader:
    """Reads one graph, and names a field only if there is something to say of it: names cost time."""

    __slots__ = ("_problems", "_tasks")

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._tasks: dict[str, Task] = {}
        """One value for all nodes of a type."""

    def nodes(self, message: graph_pb2.Graph, begin: int) -> list[Node]:
        """Read the nodes of a message, the first of which is at position `begin`."""
        return [self._node(node, position) for position, node in enumerate(message.nodes, begin)]

    def edges(self, message: graph_pb2.Graph) -> list[Edge]:
        """Read the edges of a message."""
        return [
            Edge(
                source=edge.source,
                target=edge.target,
                handle=edge.handle,
                when=edge.when,
                branch_name=edge.branch_name,
            )
            for edge in message.edges
        ]

    def graph(self, message: graph_pb2.Graph, nodes: tuple[Node, ...], edges: Sequence[Edge]) -> Graph:
        """Read the rest of a message, and put the graph together."""
        return Graph(
            name=message.name,
            nodes=nodes,
            edges=edges,
            policy=self._policy(message.policy) if message.HasField("policy") else Policy(),
            scheduling=self._enum(message.scheduling, _SCHEDULINGS, "graph.scheduling") or Scheduling.READY,
            output=message.output,
            labels=dict(message.labels),
        )

    def _node(self, message: graph_pb2.Node, position: int) -> Node:
        has = message.HasField
        on_error, on_timeout = message.on_error, message.on_timeout
        return Node(
            id=message.id,
            kind=self._kind(message, position),
            input=self._payload(message.input, position, "input") if has("input") else None,
            join=self._join(message.join, position) if has("join") else None,
            retry=self._retry(message.retry, position) if has("retry") else None,
            timeouts=self._timeouts(message.timeouts, position) if has("timeouts") else None,
            on_error=(
                self._enum(on_error, _ON_ERRORS, f"graph.nodes[{position}].on_error") or OnError.UNSPECIFIED
                if on_error
                else OnError.UNSPECIFIED
            ),
            on_timeout=(
                self._enum(on_timeout, _ON_TIMEOUTS, f"graph.nodes[{position}].on_timeout")
                if on_timeout
                else None
            ),
            priority=message.priority,
            locked=message.locked,
            locked_output=(
                self._payload(message.locked_output, position, "locked_output")
                if has("locked_output")
                else None
            ),
        )

    def _kind(self, message: graph_pb2.Node, position: int) -> Kind | None:
        match message.WhichOneof("kind"):
            case "task":
                type_ = message.task.type
                return self._tasks.get(type_) or self._tasks.setdefault(type_, Task(type=type_))
            case "condition":
                return Condition(expression=message.condition.expression)
            case "switch":
                return Switch(expression=message.switch.expression, cases=tuple(message.switch.cases))
            case "transform":
                return Transform()
            case "delay":
                field = f"graph.nodes[{position}].delay.duration"
                return Delay(duration_s=self._seconds(message.delay.duration, field))
            case "subgraph":
                source = message.subgraph
                if source.WhichOneof("source") != "graph":
                    return Subgraph(output_of=source.output_of)
                return Subgraph(graph=graph_from_proto(source.graph, self._problems))
            case _:
                return None

    def _payload(self, message: payload_pb2.Payload, position: int, name: str) -> str | None:
        match message.WhichOneof("content"):
            case "json":
                return message.json
            case "digest":
                field = f"graph.nodes[{position}].{name}.digest"
                self._report(field, "a digest is output only; give the text itself in `json`")
                return None
            case _:
                return None

    def _join(self, message: graph_pb2.Join, position: int) -> Join:
        return Join(
            mode=(
                self._enum(message.mode, _JOIN_MODES, f"graph.nodes[{position}].join.mode") or JoinMode.ALL
            ),
            count=message.count or None,
            rate=message.rate or None,
            cancel_losers=message.cancel_losers if message.HasField("cancel_losers") else True,
            min_success_rate=message.min_success_rate,
        )

    def _retry(self, message: graph_pb2.RetryPolicy, position: int) -> RetryPolicy:
        has = message.HasField
        field = f"graph.nodes[{position}].retry"
        return RetryPolicy(
            max_attempts=message.max_attempts or DEFAULT_RETRY.max_attempts,
            initial_backoff_s=(
                self._seconds(message.initial_backoff, f"{field}.initial_backoff")
                if has("initial_backoff")
                else DEFAULT_RETRY.initial_backoff_s
            ),
            multiplier=message.multiplier or DEFAULT_RETRY.multiplier,
            max_backoff_s=(
                self._seconds(message.max_backoff, f"{field}.max_backoff")
                if has("max_backoff")
                else DEFAULT_RETRY.max_backoff_s
            ),
            retryable_codes=tuple(message.retryable_codes),
            max_lost_attempts=(
                message.max_lost_attempts if has("max_lost_attempts") else DEFAULT_RETRY.max_lost_attempts
            ),
        )

    def _timeouts(self, message: graph_pb2.Timeouts, position: int) -> Timeouts:
        field = f"graph.nodes[{position}].timeouts"
        return Timeouts(
            attempt_s=self._seconds(message.attempt, f"{field}.attempt"),
            node_s=self._seconds(message.node, f"{field}.node"),
        )

    def _policy(self, message: graph_pb2.Policy) -> Policy:
        on_failure = self._enum(message.on_failure, _ON_FAILURES, "graph.policy.on_failure")
        return Policy(
            on_failure=on_failure or OnFailure.FAIL_FAST,
            min_success_rate=message.min_success_rate,
            collect_errors=message.collect_errors,
            timeout_s=self._seconds(message.timeout, "graph.policy.timeout"),
            max_concurrency=message.max_concurrency,
        )

    def _seconds(self, message: duration_pb2.Duration, field: str) -> float:
        seconds, nanos = message.seconds, message.nanos
        if abs(nanos) >= _NANOS or (seconds > 0 > nanos) or (seconds < 0 < nanos):
            self._report(
                field, "the nanos of a duration are less than a second and have the sign of its seconds"
            )
            return 0.0
        return seconds + nanos / _NANOS

    def _enum(self, number: int, known: Mapping[int, _Enum], field: str) -> _Enum | None:
        value = known.get(number)
        if value is None:
            names = ", ".join(f"{v.name} ({int(v)})" for v in dict.fromkeys(known.values()))
            self._report(field, f"{number} is no value that this version knows; it knows {names}")
        return value

    def _report(self, field: str, message: str) -> None:
        self._problems.append(Problem(field=field, message=message))


def _node_to_proto(node: Node) -> graph_pb2.Node:
    message = graph_pb2.Node(
        id=node.id,
        on_error=_enum_name(node.on_error),
        on_timeout=_enum_name(node.on_timeout) if node.on_timeout else None,
        priority=node.priority,
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


def _policy_to_proto(policy: Policy) -> graph_pb2.Policy:
    return graph_pb2.Policy(
        on_failure=_enum_name(policy.on_failure),
        min_success_rate=policy.min_success_rate,
        collect_errors=policy.collect_errors,
        timeout=_duration(policy.timeout_s),
        max_concurrency=policy.max_concurrency,
    )


def _enum_name(value: enum.IntEnum) -> str:
    """Return the contract's name of a value: that of its class as a prefix, and its own."""
    return f"{_ENUM_PREFIXES[type(value)]}_{value.name}"


def _duration(seconds: float) -> duration_pb2.Duration:
    """Write seconds to the nanosecond; a float of ten years is itself exact to 60 ns only."""
    whole = int(seconds)
    nanos = round((seconds - whole) * _NANOS)
    if abs(nanos) == _NANOS:
        whole, nanos = whole + (1 if nanos > 0 else -1), 0
    return duration_pb2.Duration(seconds=whole, nanos=nanos)
