"""What is wrong with a graph, all of it at once (V1 to V6), and what is odd about it.

Rules:

1. A problem names the field by its path, the cause, and the remedy. The first 50 are kept, all are counted.
2. A problem hides no other, but for two: of a graph past the limits of size nothing else is said, and what is
   upstream of what is asked only where ids, edges and order are sound, for the answers would mislead.
3. Work is bounded by the size of the message. What takes long to put into words is so only for problems kept.
4. What the caller wrote is quoted cut, its unprintable characters escaped.

Expressions belong to an evaluator outside the core; `ExpressionCheck` asks it once for each distinct source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, assert_never

from plait_server.core import limits
from plait_server.core.definition.analysis import ERROR_HANDLE, Adjacency, analyze, connect, find_cycle
from plait_server.core.definition.graph import (
    Analysis,
    Condition,
    Delay,
    Edge,
    Graph,
    Node,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.definition.graph_warnings import find_warnings
from plait_server.core.definition.nearest import nearest, quote, quote_all
from plait_server.core.definition.node_rules import check_graph, check_node, handles_of
from plait_server.core.definition.problems import Problem, Report
from plait_server.core.definition.upstream import UpstreamQuestion, find_not_upstream
from plait_server.core.json_text import InvalidJson, check_json

__all__ = [
    "OUTPUT_VARIABLE",
    "VARIABLES",
    "ExpressionCheck",
    "ExpressionNames",
    "Problem",
    "Validation",
    "validate",
]

VARIABLES: Final = ("input", "execution", "nodes")
"""What every expression may name."""
OUTPUT_VARIABLE: Final = "output"
"""What the edge would carry; a `when` may name it, and nothing else."""

_CYCLE_NODES_SHOWN_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionNames:
    """What an expression, or all expressions of a template together, name."""

    roots: tuple[str, ...] = ()
    """The variables, each once."""
    node_ids: tuple[str, ...] = ()
    """The nodes, each once."""


class ExpressionCheck(Protocol):
    """Compiles an expression, or all expressions of a template, and says what they name."""

    def __call__(self, source: str, *, template: bool) -> ExpressionNames | str:
        """Check a source.

        Args:
            source: An expression of at most 4 KiB. Of a template the JSON text in whose strings expressions
                stand: it is JSON within its limits, but nobody has looked at its expressions, nor at how long
                    they are.
            template: Whether it is a template.

        Returns:
            What it names; or, as a string, what is wrong with it and what to do.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What `validate` found."""

    problems: tuple[Problem, ...] = ()
    """The first problems, at most 50 (V5)."""
    problem_count: int = 0
    """How many problems there are."""
    warnings: tuple[Problem, ...] = ()
    """The first warnings, at most 50; only a valid graph has any."""
    adjacency: Adjacency | None = None
    """The graph's edges by position; present if and only if the graph is valid."""
    analysis: Analysis | None = None
    """What follows from the graph; present if and only if the graph is valid."""

    @property
    def is_valid(self) -> bool:
        """Whether there is no problem."""
        return not self.problem_count


def validate(graph: Graph, check: ExpressionCheck, decoding_problems: Sequence[Problem] = ()) -> Validation:
    """Check a graph, and analyze it if it is valid.

    Args:
        graph: The graph; whatever its message can say is allowed here.
        check: Compiles expressions; asked once for each distinct source.
        decoding_problems: What the message said that the graph cannot. They count, they come first, and
            nothing more is said of their fields.
    """
    report = Report(decoding_problems)
    check_graph(graph, report)
    if len(graph.nodes) > limits.NODES_MAX or len(graph.edges) > limits.EDGES_MAX:
        return _invalid(report)
    structure = _Structure(graph, report)
    expressions = _Expressions(structure.index, check, report)
    for position, node in enumerate(graph.nodes):
        check_node(f"graph.nodes[{position}]", node, structure.incoming_counts[position], report)
        expressions.check_node(position, node)
    for position, edge in enumerate(graph.edges):
        structure.check_edge(position, edge)
        if edge.when:
            expressions.check_when(position, edge)
    if graph.output:
        expressions.check(graph.output, "graph.output", VARIABLES)
    adjacency = structure.adjacency()
    cycle = find_cycle(adjacency) if structure.has_unique_ids else None
    if cycle:
        report.add("graph.edges", partial(_cycle_message, graph, cycle))
    if cycle or not structure.is_sound:
        return _invalid(report)
    analysis = analyze(graph, adjacency)
    for question in find_not_upstream(adjacency, analysis.levels, expressions.questions):
        report.add(question.field, partial(_upstream_message, graph, question))
    if report.count:
        return _invalid(report)
    warnings = find_warnings(graph, adjacency, expressions.names_output)
    return Validation(warnings=warnings, adjacency=adjacency, analysis=analysis)


def _invalid(report: Report) -> Validation:
    return Validation(problems=report.problems, problem_count=report.count)


class _Structure:
    """The ids of a graph and the ends of its edges, as far as they can be resolved."""

    __slots__ = (
        "_edge_sources",
        "_edge_targets",
        "_first_edges",
        "_handles",
        "_nodes",
        "_report",
        "has_unique_ids",
        "incoming_counts",
        "index",
        "is_sound",
    )

    def __init__(self, graph: Graph, report: Report) -> None:
        self._nodes = graph.nodes
        self._report = report
        self._edge_sources: list[int] = []
        self._edge_targets: list[int] = []
        self._first_edges: dict[str, dict[int, int]] = {}
        self._handles: dict[int, Mapping[str, None]] = {}
        self.index: dict[str, int] = {}
        """Position of each node by its id; where several have it, of the first."""
        for position, node in enumerate(graph.nodes):
            first = self.index.setdefault(node.id, position)
            if first != position:
                report.add(
                    f"graph.nodes[{position}].id",
                    f"{quote(node.id)} is already the id of graph.nodes[{first}]; choose another",
                )
        self.has_unique_ids = len(self.index) == len(graph.nodes)
        self.is_sound = self.has_unique_ids
        """Whether, so far, ids are unique and edges lead from one node to another."""
        self.incoming_counts = [0] * len(graph.nodes)
        """How many edges name each node as their target."""
        for edge in graph.edges:
            target = self.index.get(edge.target)
            if target is not None:
                self.incoming_counts[target] += 1

    def adjacency(self) -> Adjacency:
        """Build the adjacency of the edges that lead from one node to another: of all edges if `is_sound`."""
        return connect(self.index, len(self._nodes), self._edge_sources, self._edge_targets)

    def check_edge(self, position: int, edge: Edge) -> None:
        """Check the ends, the handle and the branch name of an edge (V2, V6)."""
        report = self._report
        source, target = self.index.get(edge.source), self.index.get(edge.target)
        if source is None:
            report.add(f"graph.edges[{position}].source", partial(_unknown_node, edge.source, self.index))
        else:
            self._check_handle(position, edge.handle, source)
        if target is None:
            report.add(f"graph.edges[{position}].target", partial(_unknown_node, edge.target, self.index))
        if len(edge.branch_name) > limits.BRANCH_NAME_CHARS_MAX:
            most = limits.BRANCH_NAME_CHARS_MAX
            message = f"has {len(edge.branch_name):,} characters; at most {most} are allowed"
            report.add(f"graph.edges[{position}].branch_name", message)
        if source is None or target is None:
            self.is_sound = False
        elif source == target:
            self.is_sound = False
            report.add(
                f"graph.edges[{position}].target",
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
                    f"graph.edges[{position}]",
                    f"graph.edges[{first}] has the same source, target and handle; remove one of the two",
                )

    def _check_handle(self, position: int, handle: str, source: int) -> None:
        node = self._nodes[source]
        if node.kind is None or handle == ERROR_HANDLE:
            return
        known = self._handles.get(source)
        if known is None:
            known = self._handles[source] = dict.fromkeys(handles_of(node.kind))
        if handle not in known:
            self._report.add(f"graph.edges[{position}].handle", partial(_handle_message, node, handle))


class _Expressions:
    """Asks of every expression of a graph whether it compiles and what it names."""

    __slots__ = ("_answers", "_check", "_index", "_report", "questions")

    def __init__(self, index: Mapping[str, int], check: ExpressionCheck, report: Report) -> None:
        self._index = index
        self._check = check
        self._report = report
        self._answers: dict[tuple[str, bool], ExpressionNames | str] = {}
        self.questions: list[UpstreamQuestion] = []
        """Which nodes have to be upstream of which."""

    def check_node(self, position: int, node: Node) -> None:
        """Check the expressions of a node."""
        match node.kind:
            case Condition(expression=expression):
                field, result = f"graph.nodes[{position}].condition.expression", "a boolean"
            case Switch(expression=expression):
                field, result = f"graph.nodes[{position}].switch.expression", "a string"
            case Task() | Transform() | Delay() | Subgraph() | None:
                if node.input is not None:
                    field = f"graph.nodes[{position}].input"
                    self.check(node.input, field, VARIABLES, position, template=True)
                return
            case _:
                assert_never(node.kind)
        if expression:
            self.check(expression, field, VARIABLES, position)
        else:
            self._report.add(field, f"the expression is missing; write CEL that gives {result}")

    def check_when(self, position: int, edge: Edge) -> None:
        """Check the `when` of an edge, which may name the edge's source too."""
        field = f"graph.edges[{position}].when"
        self.check(
            edge.when,
            field,
            (*VARIABLES, OUTPUT_VARIABLE),
            self._index.get(edge.source),
            may_name_itself=True,
        )

    def check(
        self,
        source: str,
        field: str,
        variables: Sequence[str],
        node: int | None = None,
        *,
        template: bool = False,
        may_name_itself: bool = False,
    ) -> None:
        """Check one expression; `node` is the node whose ancestors it may name, None if it may name all."""
        answer = self._answer(source, template=template)
        if isinstance(answer, str):
            self._report.add(field, answer)
            return
        for root in answer.roots:
            if root not in variables:
                self._report.add(field, partial(_unknown_variable, root, variables))
        for id_ in answer.node_ids:
            named = self._index.get(id_)
            if named is None:
                self._report.add(field, partial(_unknown_node, id_, self._index))
            elif node is not None:
                self.questions.append(UpstreamQuestion(node, named, may_name_itself, field))

    def names_output(self, when: str) -> bool:
        """Tell whether a `when` of a valid graph looks at what its edge would carry."""
        answer = self._answers.get((when, False))
        return isinstance(answer, ExpressionNames) and OUTPUT_VARIABLE in answer.roots

    def _answer(self, source: str, *, template: bool) -> ExpressionNames | str:
        key = (source, template)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._ask(source, template=template)
        return answer

    def _ask(self, source: str, *, template: bool) -> ExpressionNames | str:
        if template:
            try:
                check_json(source, max_bytes=limits.PAYLOAD_BYTES_MAX)
            except InvalidJson as error:
                return str(error)
        elif (size := len(source.encode())) > limits.EXPRESSION_BYTES_MAX:
            return f"the expression has {size:,} bytes; at most {limits.EXPRESSION_BYTES_MAX:,} are allowed"
        return self._check(source, template=template)


def _unknown_node(id_: str, index: Mapping[str, int]) -> str:
    meant = nearest(id_, index)
    remedy = f"did you mean {quote(meant)}?" if meant else "add it, or name another"
    return f"there is no node {quote(id_)}; {remedy}"


def _unknown_variable(root: str, variables: Sequence[str]) -> str:
    if root == OUTPUT_VARIABLE:
        return (
            "`output` is what an edge would carry, and only its `when` knows it; "
            "write nodes.<id>.output for the output of a node"
        )
    return f"there is no variable {quote(root)} here; there are {', '.join(variables)}"


def _handle_message(node: Node, handle: str) -> str:
    """Say which handles there are, the one that was probably meant first if it is far back."""
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
