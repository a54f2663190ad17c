"""Graphs as a few lines of text, for tests and transcripts.

    scheduling LEVELS                    policy CONTINUE min=0.5 collect_errors timeout=9 limit=2
    output "done"                        a, b -> c when=false
    node c join=QUORUM:2 on_error=IGNORE retry=3 codes=ABORTED
    node d kind=switch:"x":x,y           d -x-> e
    sub s { a -> b; policy CONTINUE }    node t kind=output_of:a

`sub` is a sub-graph node with its graph between braces; a line `node` says more of it. Nodes that only edges name
or that stand alone are tasks, in the order of their first appearance. Values hold no spaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

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

_SUB = re.compile(r"sub (?P<id>\S+) \{(?P<lines>.*)\}", re.DOTALL)
_EDGE = re.compile(r"(?P<sources>\S.*?) -(?:(?P<handle>[^\s>]+)-)?> (?P<targets>.*)")


@dataclass
class _Draft:
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    edges: list[Edge] = field(default_factory=list[Edge])
    policy: Policy = field(default_factory=Policy)
    scheduling: Scheduling = Scheduling.READY
    output: str = ""

    def node(self, id: str) -> Node:
        return self.nodes.setdefault(id, Node(id=id, kind=Task(type="t")))


def build(*lines: str) -> Graph:
    """Build a graph from lines; a line may hold several, parted by `;`."""
    draft = _Draft()
    for line in _split("\n".join(lines)):
        word, _, rest = line.partition(" ")
        sub = _SUB.fullmatch(line)
        edge = _EDGE.fullmatch(line)
        if sub is not None:
            inner = build(sub["lines"])
            draft.nodes[sub["id"]] = replace(draft.node(sub["id"]), kind=Subgraph(graph=inner))
        elif edge is not None:
            _edge(draft, edge["sources"], edge["handle"] or "", edge["targets"])
        elif word == "node":
            id, *settings = rest.split()
            draft.nodes[id] = _node(draft.node(id), settings)
        elif word == "policy":
            draft.policy = _policy(draft.policy, rest.split())
        elif word == "scheduling":
            draft.scheduling = Scheduling[rest]
        elif word == "output":
            draft.output = rest
        elif not rest:
            draft.node(word)
        else:
            raise ValueError(line)
    return Graph(
        nodes=tuple(draft.nodes.values()),
        edges=tuple(draft.edges),
        policy=draft.policy,
        scheduling=draft.scheduling,
        output=draft.output,
    )


def _split(text: str) -> list[str]:
    """Part lines at `;` and ends of lines, but not between braces."""
    parts, depth = [""], 0
    for char in text:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char in ";\n" and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts if part.strip()]


def _edge(draft: _Draft, sources: str, handle: str, targets: str) -> None:
    *names, last = targets.split(",")
    last, *settings = last.split()
    when = ""
    for setting in settings:
        key, _, value = setting.partition("=")
        if key != "when":
            raise ValueError(setting)
        when = value
    for source in sources.split(","):
        for target in (*names, last):
            draft.node(source.strip())
            draft.node(target.strip())
            draft.edges.append(Edge(source=source.strip(), target=target.strip(), handle=handle, when=when))


def _node(node: Node, settings: list[str]) -> Node:
    retry = node.retry or RetryPolicy()
    timeouts = node.timeouts or Timeouts()
    join = node.join or Join()
    for setting in settings:
        key, _, value = setting.partition("=")
        match key:
            case "kind":
                node = replace(node, kind=_kind(value))
            case "join":
                join = _join(value)
            case "keep_losers":
                join = replace(join, cancel_losers=False)
            case "on_error":
                node = replace(node, on_error=OnError[value])
            case "on_timeout":
                node = replace(node, on_timeout=OnTimeout[value])
            case "locked":
                node = replace(node, locked=True, locked_output=value or None)
            case "input":
                node = replace(node, input='"broken"' if value == "broken" else value)
            case "key":
                node = replace(node, concurrency_key=value)
            case "priority":
                node = replace(node, priority=int(value))
            case "retry":
                retry = replace(retry, max_attempts=int(value))
            case "backoff":
                retry = replace(retry, initial_backoff_s=float(value))
            case "multiplier":
                retry = replace(retry, multiplier=float(value))
            case "max_backoff":
                retry = replace(retry, max_backoff_s=float(value))
            case "codes":
                retry = replace(retry, retryable_codes=tuple(value.split(",")))
            case "lost":
                retry = replace(retry, max_lost_attempts=int(value))
            case "attempt_timeout":
                timeouts = replace(timeouts, attempt_s=float(value))
            case "node_timeout":
                timeouts = replace(timeouts, node_s=float(value))
            case "queue":
                timeouts = replace(timeouts, queue_s=float(value))
            case "worker":
                timeouts = replace(timeouts, worker_s=float(value))
            case "heartbeat":
                timeouts = replace(timeouts, heartbeat_s=float(value))
            case _:
                raise ValueError(setting)
    return replace(
        node,
        retry=retry if retry != RetryPolicy() else node.retry,
        timeouts=timeouts if timeouts != Timeouts() else node.timeouts,
        join=join if join != Join() else node.join,
    )


def _kind(text: str) -> Kind:
    name, _, rest = text.partition(":")
    match name:
        case "condition":
            return Condition(expression=rest)
        case "switch":
            expression, _, cases = rest.rpartition(":")
            return Switch(expression=expression, cases=tuple(cases.split(",")))
        case "transform":
            return Transform()
        case "delay":
            return Delay(duration_s=float(rest))
        case "output_of":
            return Subgraph(output_of=rest)
        case _:
            raise ValueError(text)


def _join(text: str) -> Join:
    mode, _, number = text.partition(":")
    if mode == "QUORUM" and "." in number:
        return Join(mode=JoinMode.QUORUM, rate=float(number))
    if mode == "QUORUM":
        return Join(mode=JoinMode.QUORUM, count=int(number))
    return Join(mode=JoinMode[mode], min_success_rate=float(number or 0))


def _policy(policy: Policy, settings: list[str]) -> Policy:
    for setting in settings:
        key, _, value = setting.partition("=")
        match key:
            case "min":
                policy = replace(policy, min_success_rate=float(value))
            case "collect_errors":
                policy = replace(policy, collect_errors=True)
            case "limit":
                policy = replace(policy, max_concurrency=int(value))
            case "timeout":
                policy = replace(policy, timeout_s=float(value))
            case _:
                policy = replace(policy, on_failure=OnFailure[key])
    return policy
