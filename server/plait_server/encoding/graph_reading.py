"""Reads plait.v1.Graph into the core's values.

A message can express things that these cannot: an enum number of a later version, a duration whose parts differ in
sign, a digest in place of a text, graphs nested too deep. Such fields are reported with the other problems (V5)
and read as absent. Everything else is copied unchanged, for validation to check.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from google.protobuf import duration_pb2

from plait.v1 import graph_pb2, payload_pb2
from plait_server.core.definition.graph import (
    DEFAULT_RETRY,
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
from plait_server.core.definition.node_rules import too_deep
from plait_server.core.definition.problems import Problem
from plait_server.core.limits import SCOPES_DEEP_MAX

_NANOS: Final = 1_000_000_000
_Enum = TypeVar("_Enum", bound=enum.IntEnum)

_SCHEDULINGS: Final[Mapping[int, Scheduling]] = {0: Scheduling.READY, **{int(v): v for v in Scheduling}}
_ON_FAILURES: Final[Mapping[int, OnFailure]] = {0: OnFailure.FAIL_FAST, **{int(v): v for v in OnFailure}}
_JOIN_MODES: Final[Mapping[int, JoinMode]] = {0: JoinMode.ALL, **{int(v): v for v in JoinMode}}
_ON_ERRORS: Final[Mapping[int, OnError]] = {int(v): v for v in OnError}
_ON_TIMEOUTS: Final[Mapping[int, OnTimeout]] = {int(v): v for v in OnTimeout}


SHARED_BYTES_MAX: Final = 4_096
"""Bytes of a graph inside a graph up to which an equal one is looked for: what is written for that is not much."""


def policy_from_proto(message: graph_pb2.Policy, field: str, problems: list[Problem]) -> Policy:
    """Read a policy that stands alone; `field` is its path in problems."""
    return GraphReader(problems).policy(message, field)


class GraphReader:
    """Reads one graph. Paths of fields are built only to report problems, because building them is slow."""

    __slots__ = ("_depth", "_graphs", "_path", "_problems", "_tasks")

    def __init__(self, problems: list[Problem]) -> None:
        self._problems = problems
        self._path = "graph"
        self._depth = 0
        self._tasks: dict[str, Task] = {}
        """One value, shared by all nodes of a type."""
        self._graphs: dict[bytes, Graph] = {}
        """The graphs inside by their bytes: one value, shared by all nodes with an equal one."""

    def whole(self, message: graph_pb2.Graph) -> Graph:
        """Read a message that holds a whole graph."""
        return self.graph(message, tuple(self.nodes(message, 0)), tuple(self.edges(message)))

    def inner(self, position: int) -> GraphReader | None:
        """Return a reader for the graph in the sub-graph node at a position; None if it is nested too deep."""
        field = f"{self._path}.nodes[{position}].subgraph"
        if self._depth == SCOPES_DEEP_MAX:
            self._report(field, too_deep())
            return None
        reader = GraphReader(self._problems)
        reader._path = f"{field}.graph"
        reader._depth = self._depth + 1
        reader._tasks = self._tasks
        reader._graphs = self._graphs
        return reader

    def _inner_graph(self, message: graph_pb2.Graph, position: int) -> Graph | None:
        reader = self.inner(position)
        if reader is None:
            return None
        if message.ByteSize() > SHARED_BYTES_MAX:
            return reader.whole(message)
        content = message.SerializeToString(deterministic=True)
        known = self._graphs.get(content)
        if known is None:
            problems = len(self._problems)
            known = reader.whole(message)
            if len(self._problems) == problems:  # Else each is to be reported where it stands.
                self._graphs[content] = known
        return known

    def nodes(self, message: graph_pb2.Graph, begin: int) -> list[Node]:
        """Read the nodes of a message; the first one is at position `begin` in the graph."""
        return [self.node(node, position) for position, node in enumerate(message.nodes, begin)]

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
        """Read the rest of a message, and build the graph."""
        return Graph(
            name=message.name,
            nodes=nodes,
            edges=edges,
            policy=self.policy(message.policy, f"{self._path}.policy")
            if message.HasField("policy")
            else Policy(),
            scheduling=self._enum(message.scheduling, _SCHEDULINGS, f"{self._path}.scheduling")
            or Scheduling.READY,
            output=message.output,
            labels=dict(message.labels),
        )

    def node(self, message: graph_pb2.Node, position: int) -> Node:
        """Read a node."""
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
                self._enum(on_error, _ON_ERRORS, f"{self._path}.nodes[{position}].on_error")
                or OnError.UNSPECIFIED
                if on_error
                else OnError.UNSPECIFIED
            ),
            on_timeout=(
                self._enum(on_timeout, _ON_TIMEOUTS, f"{self._path}.nodes[{position}].on_timeout")
                if on_timeout
                else None
            ),
            priority=message.priority,
            concurrency_key=message.concurrency_key,
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
                field = f"{self._path}.nodes[{position}].delay.duration"
                return Delay(duration_s=self._seconds(message.delay.duration, field))
            case "subgraph":
                source = message.subgraph
                if source.WhichOneof("source") != "graph":
                    return Subgraph(output_of=source.output_of)
                return Subgraph(graph=self._inner_graph(source.graph, position))
            case _:
                return None

    def _payload(self, message: payload_pb2.Payload, position: int, name: str) -> str | None:
        match message.WhichOneof("content"):
            case "json":
                return message.json
            case "digest":
                field = f"{self._path}.nodes[{position}].{name}.digest"
                self._report(field, "a digest is output only; give the text itself in `json`")
                return None
            case _:
                return None

    def _join(self, message: graph_pb2.Join, position: int) -> Join:
        return Join(
            mode=(
                self._enum(message.mode, _JOIN_MODES, f"{self._path}.nodes[{position}].join.mode")
                or JoinMode.ALL
            ),
            count=message.count or None,
            rate=message.rate or None,
            cancel_losers=message.cancel_losers if message.HasField("cancel_losers") else True,
            min_success_rate=message.min_success_rate,
        )

    def _retry(self, message: graph_pb2.RetryPolicy, position: int) -> RetryPolicy:
        has = message.HasField
        field = f"{self._path}.nodes[{position}].retry"
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
        field = f"{self._path}.nodes[{position}].timeouts"
        return Timeouts(
            attempt_s=self._seconds(message.attempt, f"{field}.attempt"),
            node_s=self._seconds(message.node, f"{field}.node"),
            queue_s=self._seconds(message.queue, f"{field}.queue"),
            worker_s=self._seconds(message.worker, f"{field}.worker"),
            heartbeat_s=self._seconds(message.heartbeat, f"{field}.heartbeat"),
        )

    def policy(self, message: graph_pb2.Policy, field: str) -> Policy:
        """Read a policy that stands in a field."""
        on_failure = self._enum(message.on_failure, _ON_FAILURES, f"{field}.on_failure")
        return Policy(
            on_failure=on_failure or OnFailure.FAIL_FAST,
            min_success_rate=message.min_success_rate,
            collect_errors=message.collect_errors,
            timeout_s=self._seconds(message.timeout, f"{field}.timeout"),
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
