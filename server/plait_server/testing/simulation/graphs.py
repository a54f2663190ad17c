"""Random graphs that are valid, small, and reach every row of the tables.

`when`s come from a list of expressions whose values are known without CEL, so that the checks can work out
every edge by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from google.protobuf import json_format

from plait.v1 import graph_pb2
from plait_server.core.definition.graph import (
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
from plait_server.core.json_text import JsonValue
from plait_server.encoding.graph_codec import graph_from_proto, graph_to_proto

KEYS: Final = ("k1", "k2")
"""Concurrency keys, which all executions share."""
TYPES: Final = ("work.a", "work.b", "work.rare")
"""Node types; the last is served by nobody until everything is healed, if chance says so."""
NODES_MAX: Final = 9
"""Rows of the tables need few nodes; many seeds find more than large graphs."""
DEPTH_MAX: Final = 3
"""How deep scopes are nested; a sub-graph that an output is may lie one deeper."""
LONG_S: Final = 95.0
"""A wait above the minute after which an execution is put to sleep."""

MAKER: Final = "maker"
"""The id of nodes whose outputs are graphs."""
_RUNNER: Final = "runner"

EXECUTION_INPUT: Final = '{"flag":true,"pick":"a","list":[3,1,2]}'


def _has_ok(output: JsonValue) -> bool | None:
    return "ok" in output if isinstance(output, dict) else None


def _field(name: str) -> Callable[[JsonValue], bool | None]:
    def get(output: JsonValue) -> bool | None:
        value = output.get(name) if isinstance(output, dict) else None
        return value if isinstance(value, bool) else None

    return get


def _is_bad(output: JsonValue) -> bool | None:
    return output.get("code") == "BAD" if isinstance(output, dict) and "code" in output else None


WHENS: Final[Mapping[str, Callable[[JsonValue], bool | None]]] = {
    "": lambda _: True,
    "true": lambda _: True,
    "false": lambda _: False,
    "output == null": lambda output: output is None,
    "output": lambda output: output if isinstance(output, bool) else None,
    "has(output.ok)": _has_ok,
    "output.ok": _field("ok"),
    "output.missing": lambda _: None,
    "output.code == 'BAD'": _is_bad,
    "output.retryable": _field("retryable"),
}
"""Source of a `when` -> its value for what the edge would carry; None where it has none."""

INVALID_GRAPHS: Final[Sequence[JsonValue]] = (
    {},
    {"nodes": []},
    {"nodes": [{"id": "a"}]},
    {"nodes": [{"id": "a", "task": {"type": "work.a"}}], "edges": [{"source": "a", "target": "b"}]},
    {"nodes": [{"id": "a/b", "task": {"type": "work.a"}}]},
)
"""Objects that are no valid graphs, each for another reason."""

_PLAIN_WHENS: Final = (
    "true",
    "false",
    "output == null",
    "output",
    "has(output.ok)",
    "output.ok",
    "output.missing",
)
_ERROR_WHENS: Final = ("true", "false", "output.code == 'BAD'", "output.retryable", "output.missing")


def make_graph(chance: Random, *, is_long: bool) -> Graph:
    """Make a valid graph.

    Args:
        chance: Decides everything.
        is_long: Whether waits may be so long that the execution is put to sleep.
    """
    if is_long and chance.random() < 0.3:
        return _make_sleeper(chance)
    if chance.random() < 0.3:
        return make_nested(chance, is_long=is_long)
    if chance.random() < 0.35:
        return _make_wide(chance, is_long=is_long)
    count = 1 if chance.random() < 0.05 else chance.randint(2, NODES_MAX)
    kinds = [_kind(chance, index, is_long=is_long) for index in range(count)]
    edges = _edges(chance, kinds)
    upstream = _upstream(count, edges)
    nodes = tuple(
        _node(chance, index, kinds[index], _incoming(index, edges), sorted(upstream[index]), is_long=is_long)
        for index in range(count)
    )
    return Graph(
        name=f"random-{count}",
        nodes=nodes,
        edges=tuple(edges),
        policy=_policy(chance),
        scheduling=Scheduling.LEVELS if chance.random() < 0.2 else Scheduling.READY,
        output=_output(chance),
    )


def make_nested(chance: Random, *, is_long: bool, depth: int = 0) -> Graph:
    """Make a graph with sub-graphs, or what runs in one.

    Args:
        chance: Decides everything.
        is_long: As in `make_graph`.
        depth: How many scopes are around it.
    """
    if not depth and chance.random() < 0.45:
        return _make_race(chance, is_long=is_long) if chance.random() < 0.3 else _make_stop(chance)
    count = chance.randint(1, 3) if depth else chance.randint(2, 4)
    kinds: list[Kind] = []
    for index in range(count):
        is_subgraph = depth < DEPTH_MAX and chance.random() < (0.3 if depth else 0.5)
        inner = make_nested(chance, is_long=is_long, depth=depth + 1) if is_subgraph else None
        kinds.append(Subgraph(graph=inner) if inner is not None else _kind(chance, index, is_long=is_long))
    edges = _edges(chance, kinds)
    upstream = _upstream(count, edges)
    nodes = [
        _node(chance, index, kinds[index], _incoming(index, edges), sorted(upstream[index]), is_long=is_long)
        for index in range(count)
    ]
    if depth <= DEPTH_MAX and chance.random() < 0.45:
        nodes += _make_output_of(chance, is_long=is_long)
        # Of one that failed the output is absent (F3).
        edges.append(Edge(source=MAKER, target=_RUNNER, handle="error" if chance.random() < 0.5 else ""))
    policy = _policy(chance)
    if depth:
        timeout_s = chance.choice((1.0, 4.0, 12.0)) if chance.random() < 0.15 else 0.0
        policy = replace(policy, max_concurrency=chance.choice((0, 0, 1, 2)), timeout_s=timeout_s)
    return Graph(
        name=f"nested-{count}",
        nodes=tuple(nodes),
        edges=tuple(edges),
        policy=policy,
        scheduling=Scheduling.LEVELS if chance.random() < 0.3 else Scheduling.READY,
        output=_output(chance),
    )


def _make_race(chance: Random, *, is_long: bool) -> Graph:
    """Make sub-graphs and a task that race each other (J1)."""
    count = chance.randint(1, 2)
    racers = [Subgraph(graph=make_nested(chance, is_long=is_long, depth=2)) for _ in range(count)]
    kinds: list[Kind] = [*racers, Task(type=chance.choice(TYPES[:2])), Task(type=TYPES[0])]
    target = f"n{len(kinds) - 1}"
    joins = Join(mode=JoinMode.ANY), Join(mode=JoinMode.QUORUM, count=1)
    return Graph(
        name=f"race-{count}",
        nodes=tuple(
            Node(id=f"n{index}", kind=kind, join=chance.choice(joins) if f"n{index}" == target else None)
            for index, kind in enumerate(kinds)
        ),
        edges=tuple(Edge(source=f"n{index}", target=target) for index in range(len(kinds) - 1)),
        policy=_policy(chance),
    )


def _make_stop(chance: Random) -> Graph:
    """Make scopes side by side with tasks, each of which may stop what is around it and in it (E4, E7)."""

    def make_side(depth: int, policies: Sequence[OnFailure]) -> Graph:
        kinds: list[Kind] = [Task(type=chance.choice(TYPES[:2])) for _ in range(chance.randint(1, 2))]
        if depth < 2:
            inner = [make_side(depth + 1, tuple(OnFailure)) for _ in range(chance.randint(1, 2))]
            kinds += [Subgraph(graph=graph) for graph in inner]
        chance.shuffle(kinds)
        nodes = [
            Node(id=f"n{index}", kind=kind, on_error=OnError.FAIL, timeouts=make_timeouts(kind))
            for index, kind in enumerate(kinds)
        ]
        edges: tuple[Edge, ...] = ()
        if not depth and chance.random() < 0.5:  # It is stopped for certain, and soon.
            delay = Delay(duration_s=chance.choice((0.5, 2.0)))
            nodes += [
                Node(id="soon", kind=delay),
                Node(id="fails", kind=Condition(expression="input.missing")),
            ]
            edges = (Edge(source="soon", target="fails"),)
        policy = Policy(on_failure=chance.choice(policies), max_concurrency=0 if depth else 10)
        return Graph(name=f"stop-{len(kinds)}", nodes=tuple(nodes), edges=edges, policy=policy)

    def make_timeouts(kind: Kind) -> Timeouts | None:
        is_hurried = isinstance(kind, Task) and chance.random() < 0.5
        return Timeouts(attempt_s=chance.choice((1.0, 3.0))) if is_hurried else None

    return make_side(0, (OnFailure.FAIL_FAST, OnFailure.STOP_DISPATCH, OnFailure.STOP_DISPATCH))


def _make_output_of(chance: Random, *, is_long: bool) -> list[Node]:
    """Make a task that makes a graph, and a node that runs it."""
    maker, runner = Task(type=TYPES[0]), Subgraph(output_of=MAKER)
    return [
        replace(_node(chance, 0, maker, 0, (), is_long=is_long), id=MAKER, locked=False, timeouts=None),
        replace(_node(chance, 0, runner, 0, (), is_long=is_long), id=_RUNNER),
    ]


def make_output(chance: Random, depth: int) -> str:
    """Make the output of a task that makes graphs, as JSON text: now and then none that is valid (N7)."""
    if chance.random() < 0.3:
        return json.dumps(chance.choice((None, 3, *INVALID_GRAPHS)))
    graph = make_nested(chance, is_long=False, depth=max(depth, DEPTH_MAX - 1))
    return json.dumps(_each_value(json_format.MessageToDict(graph_to_proto(graph)), _out_of_payload))


def read_graph(output: JsonValue) -> Graph | None:
    """Return the graph that an output of a worker is; None if it is no valid graph (N7)."""
    if not isinstance(output, dict) or output in INVALID_GRAPHS:
        return None
    try:
        return graph_from_proto(json_format.ParseDict(_each_value(output, _into_payload), graph_pb2.Graph()))
    except json_format.ParseError:
        return None


def _each_value(graph: JsonValue, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    """Change the values in a graph, and in those inside it: an output is a graph as in a graph file."""
    if isinstance(graph, list):
        return [_each_value(each, change) for each in graph]
    if isinstance(graph, dict):
        values = "input", "lockedOutput"
        return {
            key: change(value) if key in values else _each_value(value, change)
            for key, value in graph.items()
        }
    return graph


def _out_of_payload(payload: JsonValue) -> JsonValue:
    assert isinstance(payload, dict)
    value: JsonValue = json.loads(str(payload["json"]))
    return value


def _into_payload(value: JsonValue) -> JsonValue:
    return {"json": json.dumps(value)}


def _make_sleeper(chance: Random) -> Graph:
    """Make an execution that is put to sleep between two tasks."""
    first, last = (Task(type=chance.choice(TYPES[:2])) for _ in range(2))
    kinds: Sequence[Kind] = (first, Delay(duration_s=LONG_S), last)
    return Graph(
        name="sleeper",
        nodes=tuple(Node(id=f"n{index}", kind=kind) for index, kind in enumerate(kinds)),
        edges=(Edge(source="n0", target="n1"), Edge(source="n1", target="n2")),
    )


def _make_wide(chance: Random, *, is_long: bool) -> Graph:
    """Make tasks and delays side by side, of which each may stop all others in whatever they are doing."""
    nodes = tuple(
        replace(
            _node(chance, index, kind, 0, (), is_long=is_long),
            on_error=OnError.FAIL,
            locked=False,
            retry=RetryPolicy(max_attempts=3, initial_backoff_s=30.0) if isinstance(kind, Task) else None,
        )
        for index in range(chance.randint(3, NODES_MAX))
        for kind in (
            Delay(duration_s=5.0) if chance.random() < 0.15 else Task(type=chance.choice(TYPES[:2])),
        )
    )
    policy = replace(
        _policy(chance), on_failure=chance.choice((OnFailure.FAIL_FAST, OnFailure.STOP_DISPATCH))
    )
    return Graph(name=f"wide-{len(nodes)}", nodes=nodes, policy=replace(policy, max_concurrency=10))


def _policy(chance: Random) -> Policy:
    return Policy(
        on_failure=chance.choice(list(OnFailure)),
        min_success_rate=chance.choice((0.0, 0.0, 0.5, 0.75, 1.0)),
        collect_errors=chance.random() < 0.15,
        timeout_s=chance.choice((4.0, 12.0, 40.0)) if chance.random() < 0.15 else 0.0,
        max_concurrency=chance.choice((1, 3, 10, 10)),
    )


def _output(chance: Random) -> str:
    if chance.random() < 0.85:
        return ""
    return chance.choice(("execution.input.pick", "nodes.n0.output", "input.list"))


def _kind(chance: Random, index: int, *, is_long: bool) -> Kind:
    roll = chance.random()
    if roll < 0.68 or (index == 0 and roll < 0.9):
        return Task(type=chance.choices(TYPES, (6, 5, 1))[0])
    if roll < 0.76:
        return Condition(
            expression=chance.choice(
                ("true", "false", "input == null", "execution.input.flag", "input.missing", "1 == 2")
            )
        )
    if roll < 0.84:
        return Switch(
            expression=chance.choice(("'a'", "'b'", "'other'", "execution.input.pick", "input.missing")),
            cases=("a", "b"),
        )
    if roll < 0.92:
        return Transform()
    if is_long and chance.random() < 0.3:
        return Delay(duration_s=LONG_S)
    return Delay(duration_s=chance.choice((0.5, 2.0, 5.0)))


def _handles(kind: Kind) -> Sequence[str]:
    match kind:
        case Condition():
            return "true", "false"
        case Switch():
            return "a", "b", "default"
        case _:
            return ("",)


def _edges(chance: Random, kinds: Sequence[Kind]) -> list[Edge]:
    edges: dict[tuple[int, int, str], Edge] = {}
    for target in range(1, len(kinds)):
        if chance.random() < 0.2:
            continue  # Another node without incoming edges (R5).
        for _ in range(chance.choice((1, 1, 2, 3, 3))):
            source = chance.randint(max(0, target - 4), target - 1)
            is_error = chance.random() < 0.16
            handle = "error" if is_error else chance.choice(_handles(kinds[source]))
            when = ""
            if chance.random() < 0.28:
                when = chance.choice(_ERROR_WHENS if is_error else _PLAIN_WHENS)
            edges.setdefault(
                (source, target, handle),
                Edge(
                    source=f"n{source}",
                    target=f"n{target}",
                    handle=handle,
                    when=when,
                    branch_name=chance.choice(("", "", "", "left", "right")),
                ),
            )
    return list(edges.values())


def _upstream(count: int, edges: Sequence[Edge]) -> list[set[int]]:
    upstream: list[set[int]] = [set() for _ in range(count)]
    for target in range(count):  # Edges lead from lower to higher numbers.
        for edge in edges:
            if edge.target == f"n{target}":
                source = int(edge.source[1:])
                upstream[target] |= {source, *upstream[source]}
    return upstream


def _incoming(index: int, edges: Sequence[Edge]) -> int:
    return sum(1 for edge in edges if edge.target == f"n{index}")


def _node(
    chance: Random, index: int, kind: Kind, incoming: int, upstream: Sequence[int], *, is_long: bool
) -> Node:
    is_task = isinstance(kind, Task)
    timeouts = _timeouts(chance) if is_task else None
    if isinstance(kind, Subgraph) and chance.random() < 0.15:
        timeouts = Timeouts(node_s=chance.choice((2.0, 6.0)))
    return Node(
        id=f"n{index}",
        kind=kind,
        input=None if isinstance(kind, Condition | Switch) else _input(chance, upstream),
        join=_join(chance, incoming) if incoming else None,
        retry=_retry(chance, is_long=is_long) if is_task and chance.random() < 0.7 else None,
        timeouts=timeouts,
        on_error=chance.choices(list(OnError), (6, 2, 2, 2))[0],
        on_timeout=chance.choice((None, *OnTimeout)) if timeouts is not None else None,
        priority=chance.choice((0, 0, 0, 1, -1)),
        locked=chance.random() < 0.07,
        locked_output=chance.choice((None, "true", '{"ok":true}', '"a"')) if chance.random() < 0.2 else None,
        concurrency_key=chance.choice((*(f"'{key}'" for key in KEYS), "execution.id"))
        if is_task and chance.random() < 0.08
        else "",
    )


def _input(chance: Random, upstream: Sequence[int]) -> str | None:
    roll = chance.random()
    if roll < 0.6:
        return None
    if roll < 0.7:
        return json.dumps({"k": chance.randint(0, 9)})
    if roll < 0.8:
        return '"{{ input }}"'
    if roll < 0.88:
        return '{"v":"{{ input }}","id":"{{ execution.id }}"}'
    if roll < 0.95 and upstream:
        return f'{{"of":"{{{{ nodes.n{chance.choice(upstream)}.output }}}}"}}'
    if roll < 0.97:
        return '"{{ input.missing.more }}"'
    return '{"list":"{{ execution.input.list.map(x, x * 2) }}"}'


def _join(chance: Random, incoming: int) -> Join | None:
    mode = chance.choice(
        (None, JoinMode.ALL, JoinMode.ANY, JoinMode.QUORUM, JoinMode.QUORUM, JoinMode.COLLECT)
    )
    match mode:
        case JoinMode.ANY:
            return Join(mode=mode, cancel_losers=chance.random() < 0.8)
        case JoinMode.QUORUM:
            by_count = chance.random() < 0.5
            return Join(
                mode=mode,
                count=chance.randint(1, incoming) if by_count else None,
                rate=None if by_count else chance.choice((0.1, 0.5, 0.6, 1.0)),
                cancel_losers=chance.random() < 0.8,
            )
        case JoinMode.COLLECT:
            return Join(mode=mode, min_success_rate=chance.choice((0.0, 0.5, 0.6, 1.0)))
        case JoinMode.ALL:
            return Join(mode=mode)
        case None:
            return None


def _retry(chance: Random, *, is_long: bool) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=chance.choice((1, 2, 3, 4)),
        initial_backoff_s=LONG_S
        if is_long and chance.random() < 0.2
        else chance.choice((0.0, 1.0, 8.0, 30.0)),
        multiplier=chance.choice((1.0, 2.0)),
        max_backoff_s=LONG_S,
        retryable_codes=chance.choice(
            (("UNAVAILABLE",), ("UNAVAILABLE", "DEADLINE_EXCEEDED", "BAD"), ("BAD",), ("NOT_FOUND",), ())
        ),
        max_lost_attempts=chance.choice((0, 0, 0, 1, 3)),
    )


def _timeouts(chance: Random) -> Timeouts | None:
    roll = chance.random()
    if roll < 0.5:
        return None
    attempt_s = chance.choice((1.0, 3.0)) if 0.6 <= roll < 0.82 else 0.0
    node_s = chance.choice((2.0, 6.0)) if roll >= 0.76 else 0.0
    waits = chance.random()
    return Timeouts(
        attempt_s=attempt_s,
        node_s=node_s,
        queue_s=chance.choice((0.3, 0.6, 0.6, 3.0)) if waits < 0.4 else 0.0,
        worker_s=chance.choice((0.05, 0.2, 3.0)) if 0.3 < waits < 0.65 else 0.0,
        heartbeat_s=chance.choice((0.5, 2.0)) if waits > 0.65 else 0.0,
    )
