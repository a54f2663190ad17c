"""Validates a graph: reports all of its problems at once (V1 to V6), and warnings.

Rules:

1. A problem names the field by its path, the cause, and the remedy. The first 50 are kept, all are counted.
2. A problem hides no other, with two exceptions: a graph over the size limits is not examined further, and whether
   nodes are upstream is checked only if ids, edges and order are valid, because the answers would mislead.
3. Work is bounded by the size of the message. Messages that are slow to build are built only if kept.
4. Quoted text of the caller is shortened, and its unprintable characters are escaped.
5. A graph in a sub-graph node is checked as it would be alone (N1), the problems of its nodes after those of its
   node. The size limits apply to all graphs together. Graphs nested deeper than the limit are not examined, so
   that recursion is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from plait_server.core import limits
from plait_server.core.definition.analysis import (
    ERROR_HANDLE,
    Adjacency,
    analyze,
    connect,
    find_cycle,
    inner_graphs,
)
from plait_server.core.definition.expression_rules import (
    OUTPUT_VARIABLE,
    VARIABLES,
    Answers,
    ExpressionCheck,
    ExpressionNames,
    GraphExpressions,
    Place,
    unknown_node,
)
from plait_server.core.definition.graph import Analysis, Edge, Graph, Node, Subgraph
from plait_server.core.definition.graph_warnings import add_warnings
from plait_server.core.definition.nearest import nearest, quote, quote_all
from plait_server.core.definition.node_rules import check_graph, check_node, handles_of, too_deep, too_many
from plait_server.core.definition.problems import Problem, Report
from plait_server.core.definition.upstream import UpstreamQuestion, find_not_upstream

__all__ = [
    "OUTPUT_VARIABLE",
    "VARIABLES",
    "ExpressionCheck",
    "ExpressionNames",
    "Problem",
    "Validation",
    "validate",
]

ROOT: Final = "graph"
"""The path of the outermost graph."""

_CYCLE_NODES_SHOWN_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What `validate` found."""

    problems: tuple[Problem, ...] = ()
    """The first problems, at most 50 (V5)."""
    problem_count: int = 0
    """How many problems there are."""
    warnings: tuple[Problem, ...] = ()
    """The first warnings, at most 50; only a valid graph has any."""
    analysis: Analysis | None = None
    """The analysis; present if and only if the graph is valid."""

    @property
    def is_valid(self) -> bool:
        """Whether there are no problems."""
        return not self.problem_count


def validate(graph: Graph, check: ExpressionCheck, decoding_problems: Sequence[Problem] = ()) -> Validation:
    """Check a graph, and analyze it if it is valid.

    Args:
        graph: The graph; anything that its message can express is accepted here.
        check: Compiles expressions; asked once for each distinct source.
        decoding_problems: Problems found while the message was decoded. They are counted, come first, and
            suppress further problems of the same fields.
    """
    report = Report(decoding_problems)
    if not _has_legal_size(graph, report):
        check_graph(ROOT, graph, report)
        return Validation(problems=report.problems, problem_count=report.count)
    validator = _Validator(check, report)
    analysis = validator.check(graph, ROOT)
    if report.count:
        return Validation(problems=report.problems, problem_count=report.count)
    return Validation(warnings=validator.warnings.problems, analysis=analysis)


def _has_legal_size(graph: Graph, report: Report) -> bool:
    """Count the nodes and edges of a graph and of those inside it, however deep."""
    node_count = edge_count = 0
    rest = [graph]
    while rest:
        each = rest.pop()
        node_count += len(each.nodes)
        edge_count += len(each.edges)
        rest += [inner for _, inner in inner_graphs(each)]
    is_flat = node_count == len(graph.nodes)
    where = "" if is_flat else " in all graphs together"
    if node_count > limits.NODES_MAX:
        report.add(f"{ROOT}.nodes", too_many(node_count, f"nodes{where}", limits.NODES_MAX))
    if edge_count > limits.EDGES_MAX:
        report.add(f"{ROOT}.edges", too_many(edge_count, f"edges{where}", limits.EDGES_MAX))
    return node_count <= limits.NODES_MAX and edge_count <= limits.EDGES_MAX


class _Validator:
    """Checks a graph and the graphs inside it."""

    __slots__ = ("_answers", "_report", "warnings")

    def __init__(self, check: ExpressionCheck, report: Report) -> None:
        self._answers = Answers(check)
        self._report = report
        self.warnings = Report()
        """The questions of the graphs checked before the first problem; those of inner graphs come first."""

    def check(
        self, graph: Graph, path: str, around: Place | None = None, holder: str = ""
    ) -> Analysis | None:
        """Check a graph; return its analysis if ids, edges and order are sound, else None."""
        report = self._report
        check_graph(path, graph, report)
        structure = _Structure(graph, path, report)
        place = Place(
            path=path,
            index=structure.index,
            around=around,
            holder=holder,
            depth=around.depth + 1 if around is not None else 0,
        )
        expressions = GraphExpressions(place, self._answers, report)
        inner: dict[int, Analysis] = {}
        for position, node in enumerate(graph.nodes):
            field = f"{path}.nodes[{position}]"
            check_node(field, node, structure.incoming_counts[position], report)
            expressions.check_node(field, position, node)
            if isinstance(node.kind, Subgraph) and node.kind.graph is not None:
                analysis = self._check_inner(node.kind.graph, field, place, node.id)
                if analysis is not None:
                    inner[position] = analysis
        for position, edge in enumerate(graph.edges):
            structure.check_edge(position, edge, place)
            if edge.when:
                expressions.check_when(f"{path}.edges[{position}]", edge)
        if graph.output:
            expressions.check(graph.output, f"{path}.output", VARIABLES)
        adjacency = structure.adjacency()
        cycle = find_cycle(adjacency) if structure.has_unique_ids else None
        if cycle:
            report.add(f"{path}.edges", partial(_cycle_message, graph, cycle))
        if cycle or not structure.is_sound:
            return None
        analysis = analyze(graph, adjacency, inner)
        for question in find_not_upstream(adjacency, analysis.levels, expressions.questions):
            report.add(question.field, partial(_upstream_message, graph, question))
        if not report.count:
            add_warnings(path, graph, adjacency, self._answers.names_output, self.warnings)
        return analysis

    def _check_inner(self, graph: Graph, field: str, place: Place, holder: str) -> Analysis | None:
        if place.depth == limits.SCOPES_DEEP_MAX:
            self._report.add(f"{field}.subgraph", too_deep())
            return None
        return self.check(graph, f"{field}.subgraph.graph", place, holder)


class _Structure:
    """The ids of a graph and the endpoints of its edges, as far as they can be resolved."""

    __slots__ = (
        "_edge_sources",
        "_edge_targets",
        "_first_edges",
        "_handles",
        "_nodes",
        "_path",
        "_report",
        "has_unique_ids",
        "incoming_counts",
        "index",
        "is_sound",
    )

    def __init__(self, graph: Graph, path: str, report: Report) -> None:
        self._nodes = graph.nodes
        self._path = path
        self._report = report
        self._edge_sources: list[int] = []
        self._edge_targets: list[int] = []
        self._first_edges: dict[str, dict[int, int]] = {}
        self._handles: dict[int, Mapping[str, None]] = {}
        self.index: dict[str, int] = {}
        """Position of each node by its id; of the first one if several share it."""
        for position, node in enumerate(graph.nodes):
            first = self.index.setdefault(node.id, position)
            if first != position:
                report.add(
                    f"{path}.nodes[{position}].id",
                    f"{quote(node.id)} is already the id of {path}.nodes[{first}]; choose another",
                )
        self.has_unique_ids = len(self.index) == len(graph.nodes)
        self.is_sound = self.has_unique_ids
        """Whether all ids so far are unique and all edges so far connect two different nodes."""
        self.incoming_counts = [0] * len(graph.nodes)
        """How many edges name each node as their target."""
        for edge in graph.edges:
            target = self.index.get(edge.target)
            if target is not None:
                self.incoming_counts[target] += 1

    def adjacency(self) -> Adjacency:
        """Build the adjacency of the edges that connect two different nodes: all of them if `is_sound`."""
        return connect(self.index, len(self._nodes), self._edge_sources, self._edge_targets)

    def check_edge(self, position: int, edge: Edge, place: Place) -> None:
        """Check the ends, the handle and the branch name of an edge (V2, V6)."""
        report = self._report
        source, target = self.index.get(edge.source), self.index.get(edge.target)
        if source is None:
            report.add(f"{self._path}.edges[{position}].source", partial(unknown_node, edge.source, place))
        else:
            self._check_handle(position, edge.handle, source)
        if target is None:
            report.add(f"{self._path}.edges[{position}].target", partial(unknown_node, edge.target, place))
        if len(edge.branch_name) > limits.BRANCH_NAME_CHARS_MAX:
            most = limits.BRANCH_NAME_CHARS_MAX
            message = f"has {len(edge.branch_name):,} characters; at most {most} are allowed"
            report.add(f"{self._path}.edges[{position}].branch_name", message)
        if source is None or target is None:
            self.is_sound = False
        elif source == target:
            self.is_sound = False
            report.add(
                f"{self._path}.edges[{position}].target",
                f"the edge leads from {quote(edge.source)} to itself; name another node, or remove the edge",
            )
        else:
            self._edge_sources.append(source)
            self._edge_targets.append(target)
            # One number for both ends: half a million tuples would take 60 MB.
            ends = source * len(self._nodes) + target
            first = self._first_edges.setdefault(edge.handle, {}).setdefault(ends, position)
            if first != position:
                report.add(
                    f"{self._path}.edges[{position}]",
                    f"{self._path}.edges[{first}] has the same source, target and handle; remove one of the two",
                )

    def _check_handle(self, position: int, handle: str, source: int) -> None:
        node = self._nodes[source]
        if node.kind is None or handle == ERROR_HANDLE:
            return
        known = self._handles.get(source)
        if known is None:
            known = self._handles[source] = dict.fromkeys(handles_of(node.kind))
        if handle not in known:
            self._report.add(f"{self._path}.edges[{position}].handle", partial(_handle_message, node, handle))


def _handle_message(node: Node, handle: str) -> str:
    """Return the message for an unknown handle, with the nearest name and the list of handles."""
    handles = handles_of(node.kind)
    if handles == ("", ERROR_HANDLE):
        return (
            f"{quote(node.id)} has no handle {quote(handle)}; leave it empty, or write {quote(ERROR_HANDLE)}"
        )
    meant = nearest(handle, handles)
    question = f" did you mean {quote(meant)}?" if meant else ""
    return f"{quote(node.id)} has no handle {quote(handle)};{question} its handles are {quote_all(handles)}"


def _cycle_message(graph: Graph, cycle: Sequence[int]) -> str:
    ids = [quote(graph.nodes[node].id) for node in (*cycle, cycle[0])]
    if len(ids) > _CYCLE_NODES_SHOWN_MAX:
        half = _CYCLE_NODES_SHOWN_MAX // 2
        ids = [*ids[:half], f"({len(ids) - 2 * half:,} more)", *ids[-half:]]
    return f"the edges lead in a circle: {' -> '.join(ids)}; remove one of them"


def _upstream_message(graph: Graph, question: UpstreamQuestion) -> str:
    named, asking = quote(graph.nodes[question.named].id), quote(graph.nodes[question.asking].id)
    if question.named == question.asking:
        return f"{asking} names its own output, which is not there yet; name a node upstream of it"
    return f"{named} is not upstream of {asking}: no path leads from it there; add an edge, or name another"
