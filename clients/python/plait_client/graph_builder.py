"""Builds graphs in Python: nodes are added in order, each after those it follows.

    graph = GraphBuilder("contact-sheet")
    images = []
    for number in range(3):
        prompt = graph.task(f"prompt-{number}", "llm.prompt", input={"topic": cel("input.topic")})
        image = graph.task(f"image-{number}", "image.generate", after=prompt)
        images.append(image)
    graph.task("sheet", "image.sheet", after=images, join=collect(min_success_rate=0.5))
    message = graph.build()

Duplicate ids and edges from unknown nodes are refused here, on the line that adds them; everything else is
checked by the server.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from google.protobuf.duration_pb2 import Duration

from plait.v1 import graph_pb2, payload_pb2

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
Seconds: TypeAlias = float | timedelta
"""A duration; a number is seconds."""
OnError: TypeAlias = Literal["FAIL", "TOLERATE", "IGNORE"]
OnTimeout: TypeAlias = Literal["ERROR", "CONTINUE", "CANCEL"]
OnFailure: TypeAlias = Literal["FAIL_FAST", "STOP_DISPATCH", "CONTINUE"]

# Ids that CEL accepts after a dot; all others are written in brackets.
_CEL_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CEL_RESERVED: Final = frozenset(
    {
        *(
            "as",
            "break",
            "const",
            "continue",
            "else",
            "false",
            "for",
            "function",
            "if",
            "import",
            "in",
            "let",
        ),
        *("loop", "namespace", "null", "package", "return", "true", "var", "void", "while"),
    }
)


class _NotGiven:
    """Marks an input that is not given, as opposed to null."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()


@dataclass(frozen=True, slots=True)
class NodeRef:
    """A node and how an edge leaves it: its handle, condition and branch name. What `after` takes."""

    id: str
    """The node's id."""
    handle: str = ""
    """The handle by which the edge leaves."""
    when: str = ""
    """CEL that has to be true for the edge to be taken."""
    branch_name: str = ""
    """A display name for the branch that the edge opens."""

    def on(self, handle: str | bool) -> NodeRef:  # noqa: FBT001 -- A condition's handles are booleans.
        """Leave by a handle: a case of a switch, or True or False of a condition."""
        return replace(self, handle=handle if isinstance(handle, str) else str(handle).lower())

    @property
    def error(self) -> NodeRef:
        """Leave by the handle `error`, which carries the failure."""
        return self.on("error")

    def if_(self, when: str) -> NodeRef:
        """Leave only if a CEL expression is true."""
        return replace(self, when=when)

    def named(self, branch_name: str) -> NodeRef:
        """Name the branch that the edge opens, for display."""
        return replace(self, branch_name=branch_name)

    @property
    def output(self) -> str:
        """CEL for the node's output: `nodes.a.output`, or `nodes["a-b"].output`."""
        return f"{self._variable}.output"

    @property
    def failure(self) -> str:
        """CEL for the node's failure."""
        return f"{self._variable}.failure"

    @property
    def _variable(self) -> str:
        if _CEL_IDENTIFIER.fullmatch(self.id) and self.id not in _CEL_RESERVED:
            return f"nodes.{self.id}"
        return f"nodes[{json.dumps(self.id)}]"


After: TypeAlias = NodeRef | str | Iterable[NodeRef | str]
"""What a node comes after: one node or several, by their handles or ids."""


class GraphBuilder:
    """Collects nodes and edges; `build` returns the graph, and may be called again after more were added."""

    def __init__(
        self,
        name: str = "",
        *,
        output: str = "",
        labels: Mapping[str, str] | None = None,
        scheduling: Literal["READY", "LEVELS"] = "READY",
        policy: graph_pb2.Policy | None = None,
    ) -> None:
        """Begin an empty graph.

        Args:
            name: The graph's name.
            output: CEL whose value is the execution's output.
            labels: Free labels.
            scheduling: When ready nodes may start.
            policy: What a failure does to the execution; see `policy`.
        """
        self._graph = graph_pb2.Graph(
            name=name, output=output, labels=labels, scheduling=f"SCHEDULING_{scheduling}", policy=policy
        )
        self._ids: dict[str, None] = {}

    def __repr__(self) -> str:
        graph = self._graph
        return f"<GraphBuilder {graph.name!r} {len(graph.nodes)} nodes, {len(graph.edges)} edges>"

    def task(  # noqa: PLR0913 -- A task may say many things; all but two are keywords.
        self,
        id: str,
        type: str,
        *,
        input: JsonValue | _NotGiven = NOT_GIVEN,
        after: After = (),
        join: graph_pb2.Join | None = None,
        retry: graph_pb2.RetryPolicy | None = None,
        attempt_timeout: Seconds | None = None,
        node_timeout: Seconds | None = None,
        queue_timeout: Seconds | None = None,
        worker_timeout: Seconds | None = None,
        heartbeat_timeout: Seconds | None = None,
        on_error: OnError | None = None,
        on_timeout: OnTimeout | None = None,
        priority: int = 0,
        concurrency_key: str = "",
    ) -> NodeRef:
        """Add a node that runs at a worker.

        Args:
            id: The node's id.
            type: The node type, such as `image.generate`.
            input: A JSON value whose strings may hold `{{ CEL }}`. Not given: the object of its join.
            after: What leads to it.
            join: When it runs; see `any_of`, `quorum` and `collect`.
            retry: How failed attempts are repeated; see `retry`.
            attempt_timeout: Bounds each attempt.
            node_timeout: Bounds all attempts together.
            queue_timeout: Bounds each wait for capacity.
            worker_timeout: Bounds each wait for a worker that serves the type.
            heartbeat_timeout: Bounds the silence of each attempt.
            on_error: What its failure does.
            on_timeout: What its timing out does.
            priority: Orders nodes that wait for capacity, higher first.
            concurrency_key: CEL that gives a string; of nodes with the same one only so many run at once.

        Raises:
            ValueError: The id is taken, a node in `after` is unknown, or the input is no JSON.
        """
        bounds = {
            "attempt": attempt_timeout,
            "node": node_timeout,
            "queue": queue_timeout,
            "worker": worker_timeout,
            "heartbeat": heartbeat_timeout,
        }
        node = graph_pb2.Node(
            id=id,
            task=graph_pb2.Task(type=type),
            input=_payload(input),
            join=join,
            retry=retry,
            timeouts=_timeouts(bounds),
            on_error=f"ON_ERROR_{on_error}" if on_error else None,
            on_timeout=f"ON_TIMEOUT_{on_timeout}" if on_timeout else None,
            priority=priority,
            concurrency_key=concurrency_key,
        )
        return self._add(node, after)

    def condition(
        self, id: str, expression: str, *, after: After = (), join: graph_pb2.Join | None = None
    ) -> NodeRef:
        """Add a node that chooses between its handles True and False: `after=check.on(True)`."""
        condition = graph_pb2.Condition(expression=expression)
        return self._add(graph_pb2.Node(id=id, condition=condition, join=join), after)

    def switch(
        self,
        id: str,
        expression: str,
        cases: Iterable[str],
        *,
        after: After = (),
        join: graph_pb2.Join | None = None,
    ) -> NodeRef:
        """Add a node that chooses among its cases and `default`: `after=kind.on("image")`."""
        switch = graph_pb2.Switch(expression=expression, cases=cases)
        return self._add(graph_pb2.Node(id=id, switch=switch, join=join), after)

    def transform(
        self,
        id: str,
        *,
        input: JsonValue | _NotGiven = NOT_GIVEN,
        after: After = (),
        join: graph_pb2.Join | None = None,
    ) -> NodeRef:
        """Add a node whose output is its input."""
        node = graph_pb2.Node(id=id, transform=graph_pb2.Transform(), input=_payload(input), join=join)
        return self._add(node, after)

    def delay(
        self,
        id: str,
        duration: Seconds,
        *,
        input: JsonValue | _NotGiven = NOT_GIVEN,
        after: After = (),
        join: graph_pb2.Join | None = None,
    ) -> NodeRef:
        """Add a node that waits, then outputs its input."""
        delay = graph_pb2.Delay(duration=_duration(duration))
        return self._add(graph_pb2.Node(id=id, delay=delay, input=_payload(input), join=join), after)

    def subgraph(  # noqa: PLR0913 -- As a task; all but two are keywords.
        self,
        id: str,
        graph: GraphBuilder | graph_pb2.Graph | None = None,
        *,
        output_of: NodeRef | str | None = None,
        input: JsonValue | _NotGiven = NOT_GIVEN,
        after: After = (),
        join: graph_pb2.Join | None = None,
        timeout: Seconds | None = None,
        on_error: OnError | None = None,
        on_timeout: OnTimeout | None = None,
        priority: int = 0,
    ) -> NodeRef:
        """Add a node that runs a graph of its own, and whose output is that graph's output.

        Args:
            id: The node's id.
            graph: The graph, as it is now.
            output_of: The node whose output is the graph, instead; it returns `graph_value` of one.
            input: The input of the graph. Not given: the object of its join.
            after: What leads to it.
            join: When it runs; see `any_of`, `quorum` and `collect`.
            timeout: Bounds the run of the graph.
            on_error: What its failure does.
            on_timeout: What its timing out does.
            priority: Orders what runs in it among nodes that wait for capacity, higher first.

        Raises:
            ValueError: The id is taken, a node is unknown, the input is no JSON, or not exactly one of `graph` and
                `output_of` is given.
        """
        if (graph is None) == (output_of is None):
            raise ValueError(
                "a sub-graph runs either `graph` or the graph that `output_of` returns; give one of them"
            )
        subgraph = graph_pb2.Subgraph()
        if graph is not None:
            subgraph.graph.CopyFrom(graph.build() if isinstance(graph, GraphBuilder) else graph)
        elif output_of is not None:
            subgraph.output_of = output_of.id if isinstance(output_of, NodeRef) else output_of
            self._require(subgraph.output_of)
        node = graph_pb2.Node(
            id=id,
            subgraph=subgraph,
            input=_payload(input),
            join=join,
            timeouts=graph_pb2.Timeouts(node=_duration(timeout)) if timeout is not None else None,
            on_error=f"ON_ERROR_{on_error}" if on_error else None,
            on_timeout=f"ON_TIMEOUT_{on_timeout}" if on_timeout else None,
            priority=priority,
        )
        return self._add(node, after)

    def edge(
        self,
        source: NodeRef | str,
        target: NodeRef | str,
        *,
        handle: str = "",
        when: str = "",
        branch_name: str = "",
    ) -> None:
        """Add an edge between two nodes that were added before.

        Arguments override the handle, condition and branch name of `source`.

        Raises:
            ValueError: A node is unknown.
        """
        leaving = source if isinstance(source, NodeRef) else NodeRef(source)
        target_id = target.id if isinstance(target, NodeRef) else target
        self._require(leaving.id)
        self._require(target_id)
        self._graph.edges.add(
            source=leaving.id,
            target=target_id,
            handle=handle or leaving.handle,
            when=when or leaving.when,
            branch_name=branch_name or leaving.branch_name,
        )

    def build(self) -> graph_pb2.Graph:
        """Return a copy of the graph as it is now."""
        graph = graph_pb2.Graph()
        graph.CopyFrom(self._graph)
        return graph

    def _require(self, id: str) -> None:
        if id not in self._ids:
            raise ValueError(f"there is no node {id!r} yet; add it before what comes after it")

    def _add(self, node: graph_pb2.Node, after: After) -> NodeRef:
        if node.id in self._ids:
            raise ValueError(f"there is already a node {node.id!r}; choose another id")
        sources = [after] if isinstance(after, NodeRef | str) else list(after)
        for source in sources:
            self._require(source.id if isinstance(source, NodeRef) else source)
        self._ids[node.id] = None
        self._graph.nodes.append(node)
        for source in sources:
            self.edge(source, node.id)
        return NodeRef(node.id)


def cel(expression: str) -> str:
    """Return the text that stands for an expression's value in an input: `{{ expression }}`."""
    return f"{{{{ {expression} }}}}"


def any_of(*, cancel_losers: bool = True) -> graph_pb2.Join:
    """Run at the first active edge."""
    return graph_pb2.Join(mode="JOIN_MODE_ANY", cancel_losers=cancel_losers)


def quorum(
    count: int | None = None, *, rate: float | None = None, cancel_losers: bool = True
) -> graph_pb2.Join:
    """Run as soon as `count` edges are active, or the share `rate` of those that are not dead."""
    return graph_pb2.Join(mode="JOIN_MODE_QUORUM", count=count, rate=rate, cancel_losers=cancel_losers)


def collect(*, min_success_rate: float = 0.0) -> graph_pb2.Join:
    """Run when every edge is settled, with successes and failures together."""
    return graph_pb2.Join(mode="JOIN_MODE_COLLECT", min_success_rate=min_success_rate)


def retry(
    max_attempts: int,
    *,
    initial_backoff: Seconds | None = None,
    multiplier: float | None = None,
    max_backoff: Seconds | None = None,
    codes: Iterable[str] = (),
    max_lost_attempts: int | None = None,
) -> graph_pb2.RetryPolicy:
    """Repeat failed attempts; arguments that are not given have the server's defaults.

    Args:
        max_attempts: How many attempts there are, the first included.
        initial_backoff: The upper bound of the first delay.
        multiplier: Multiplies the bound for each further attempt.
        max_backoff: The highest bound.
        codes: The failure codes that are retried, and no others; empty: all that another attempt may help.
        max_lost_attempts: How many attempts that were lost with their worker are done again.
    """
    return graph_pb2.RetryPolicy(
        max_attempts=max_attempts,
        initial_backoff=_duration(initial_backoff),
        multiplier=multiplier,
        max_backoff=_duration(max_backoff),
        retryable_codes=codes,
        max_lost_attempts=max_lost_attempts,
    )


def policy(
    on_failure: OnFailure = "FAIL_FAST",
    *,
    min_success_rate: float = 0.0,
    collect_errors: bool = False,
    timeout: Seconds | None = None,
    max_concurrency: int | None = None,
) -> graph_pb2.Policy:
    """Return a policy: what an unhandled failure does to the execution, and its bounds.

    Args:
        on_failure: What an unhandled failure does.
        min_success_rate: The share of counted sinks that a partial success needs.
        collect_errors: Whether the output is `{output, errors}`.
        timeout: Bounds the execution.
        max_concurrency: How many attempts may run at once.
    """
    return graph_pb2.Policy(
        on_failure=f"ON_FAILURE_{on_failure}",
        min_success_rate=min_success_rate,
        collect_errors=collect_errors,
        timeout=_duration(timeout),
        max_concurrency=max_concurrency,
    )


def _payload(value: JsonValue | _NotGiven) -> payload_pb2.Payload | None:
    if isinstance(value, _NotGiven):
        return None
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return payload_pb2.Payload(json=text)


def _timeouts(bounds: Mapping[str, Seconds | None]) -> graph_pb2.Timeouts | None:
    """Return the bounds that are given, by the names of the fields; None if none is."""
    given = {name: _duration(bound) for name, bound in bounds.items() if bound is not None}
    return graph_pb2.Timeouts(**given) if given else None


def _duration(seconds: Seconds | None) -> Duration | None:
    if seconds is None:
        return None
    message = Duration()
    if isinstance(seconds, timedelta):
        message.FromTimedelta(seconds)
    elif math.isfinite(seconds):
        message.FromNanoseconds(round(seconds * 1_000_000_000))
    else:
        raise ValueError(f"{seconds} is no duration; write a number of seconds")
    return message
