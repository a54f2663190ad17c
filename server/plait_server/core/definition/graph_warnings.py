"""Warnings about settings that are allowed but rarely intended (V5). There are few, so that they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from plait_server.core.definition.analysis import ERROR_HANDLE, Adjacency
from plait_server.core.definition.graph import (
    DEFAULT_JOIN,
    DEFAULT_RETRY,
    Condition,
    Delay,
    Edge,
    Graph,
    JoinMode,
    Node,
    OnError,
    OnTimeout,
    RetryPolicy,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.definition.nearest import quote
from plait_server.core.definition.node_rules import DEFAULT_HANDLE, FALSE_HANDLE
from plait_server.core.definition.problems import Report

_RACES: Final = (JoinMode.ANY, JoinMode.QUORUM)


def add_warnings(
    path: str, graph: Graph, adjacency: Adjacency, names_output: Callable[[str], bool], report: Report
) -> None:
    """Add the warnings of a valid graph: those of nodes, then those of edges, in graph order.

    Args:
        path: The path of the graph's field.
        graph: The graph; graphs inside it are not examined.
        adjacency: Its edges.
        names_output: Returns whether a `when` refers to the value that its edge would carry, and so may reject a null.
        report: Collects the warnings.
    """
    for position, node in enumerate(graph.nodes):
        if node.retry is not None and _repeats_nothing(node.retry):
            report.add(
                f"{path}.nodes[{position}].retry",
                "nothing is repeated, for `max_attempts` is 1; raise it, or remove the rest",
            )
        if isinstance(node.kind, Subgraph) and node.timeouts is not None and node.timeouts.attempt_s:
            report.add(
                f"{path}.nodes[{position}].timeouts.attempt",
                "it has no effect, for a sub-graph has no attempts; set `timeouts.node` instead",
            )
    for position, edge in enumerate(graph.edges):
        source = graph.nodes[adjacency.edge_sources[position]]
        target = graph.nodes[adjacency.edge_targets[position]]
        if edge.branch_name and len(adjacency.outgoing[adjacency.edge_sources[position]]) == 1:
            report.add(
                f"{path}.edges[{position}].branch_name",
                f"the name is never shown: an edge opens a branch only if {quote(source.id)} has several",
            )
        setting = _passes_null(source, edge)
        if setting and not (edge.when and names_output(edge.when)):
            _warn_of_null(f"{path}.edges[{position}]", setting, source, target, report)


def _repeats_nothing(retry: RetryPolicy) -> bool:
    return retry.max_attempts == 1 and (
        retry.initial_backoff_s != DEFAULT_RETRY.initial_backoff_s
        or retry.multiplier != DEFAULT_RETRY.multiplier
        or retry.max_backoff_s != DEFAULT_RETRY.max_backoff_s
        or bool(retry.retryable_codes)
    )


def _passes_null(source: Node, edge: Edge) -> str:
    """Return the setting by which the edge carries null after a failure of its source, or an empty text."""
    match source.kind:
        case Condition():
            handle = FALSE_HANDLE
        case Switch():
            handle = DEFAULT_HANDLE
        case Task() | Transform() | Delay() | Subgraph() | None:
            handle = ""
        case _:
            assert_never(source.kind)
    if edge.handle != handle or edge.handle == ERROR_HANDLE:
        return ""
    if source.on_error is OnError.IGNORE:
        return "on_error: IGNORE"
    return "on_timeout: CONTINUE" if source.on_timeout is OnTimeout.CONTINUE else ""


def _warn_of_null(field: str, setting: str, source: Node, target: Node, report: Report) -> None:
    join = target.join or DEFAULT_JOIN
    remedy = "let it fail, or add a `when` that looks at `output`"
    cause = f"{quote(source.id)} has `{setting}`, so its null"
    if join.mode in _RACES:
        report.add(field, f"{cause} can win the {join.mode.name} join of {quote(target.id)}; {remedy}")
    elif join.mode is JoinMode.COLLECT and join.min_success_rate > 0:
        report.add(field, f"{cause} counts as a success in the COLLECT join of {quote(target.id)}; {remedy}")
