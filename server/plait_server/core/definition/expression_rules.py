"""Checks which names the expressions of a graph use (V6): variables, and the nodes of their own graph (N5).

Expressions belong to an evaluator outside the core; `Answers` asks it once for each distinct source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, assert_never

from plait_server.core import limits
from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Edge,
    Node,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.definition.nearest import nearest, quote
from plait_server.core.definition.problems import Report
from plait_server.core.definition.upstream import UpstreamQuestion
from plait_server.core.json_text import InvalidJson, check_json

VARIABLES: Final = ("input", "execution", "nodes", "resume")
"""What every expression may name."""
OUTPUT_VARIABLE: Final = "output"
"""The value that the edge would carry; a `when` may name it, no other expression may."""
_KEY_HINT: Final = "; a key that is always the same text is that text in quotes: 'gpu'"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionNames:
    """The names used by an expression, or by all expressions of a template together."""

    roots: tuple[str, ...] = ()
    """The variables, each once."""
    node_ids: tuple[str, ...] = ()
    """The nodes, each once."""


class ExpressionCheck(Protocol):
    """Compiles an expression, or all expressions of a template, and reports which names they use."""

    def __call__(self, source: str, *, template: bool) -> ExpressionNames | str:
        """Check a source.

        Args:
            source: An expression of at most 4 KiB. For a template, a JSON text with expressions in
                its strings. The JSON has been checked against its limits; the expressions and their lengths
                have not.
            template: Whether the source is a template.

        Returns:
            The names it uses; or, as a string, what is wrong with it and what to do.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A graph that is being checked, and the graphs it is nested in."""

    path: str
    """The path of the graph's field, such as `graph` or `graph.nodes[3].subgraph.graph`."""
    index: Mapping[str, int]
    """Position of each of its nodes by its id."""
    around: Place | None = None
    """The graph whose sub-graph node holds this one; None for the outermost."""
    holder: str = ""
    """The id of that sub-graph node."""
    depth: int = 0
    """How many graphs this one is nested in."""


class Answers:
    """Checks each distinct source once: whether it compiles, and which names it uses."""

    __slots__ = ("_answers", "_check")

    def __init__(self, check: ExpressionCheck) -> None:
        self._check = check
        self._answers: dict[tuple[str, bool], ExpressionNames | str] = {}

    def of(self, source: str, *, template: bool) -> ExpressionNames | str:
        """Return the names that a source uses, or what is wrong with it."""
        key = (source, template)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = self._ask(source, template=template)
        return answer

    def names_output(self, when: str) -> bool:
        """Return whether a `when` of a valid graph refers to the value that its edge would carry."""
        answer = self._answers.get((when, False))
        return isinstance(answer, ExpressionNames) and OUTPUT_VARIABLE in answer.roots

    def _ask(self, source: str, *, template: bool) -> ExpressionNames | str:
        if template:
            try:
                check_json(source, max_bytes=limits.PAYLOAD_BYTES_MAX)
            except InvalidJson as error:
                return str(error)
        elif (size := len(source.encode())) > limits.EXPRESSION_BYTES_MAX:
            return f"the expression has {size:,} bytes; at most {limits.EXPRESSION_BYTES_MAX:,} are allowed"
        return self._check(source, template=template)


class GraphExpressions:
    """Checks the expressions of one graph."""

    __slots__ = ("_answers", "_place", "_report", "questions")

    def __init__(self, place: Place, answers: Answers, report: Report) -> None:
        self._place = place
        self._answers = answers
        self._report = report
        self.questions: list[UpstreamQuestion] = []
        """Pairs of nodes where one has to be upstream of the other."""

    def check_node(self, field: str, position: int, node: Node) -> None:
        """Check the names that a node uses: in its expressions, and in `output_of`."""
        if node.concurrency_key:
            key_field = f"{field}.concurrency_key"
            self.check(node.concurrency_key, key_field, VARIABLES, position, hint=_KEY_HINT)
        match node.kind:
            case Condition(expression=expression):
                field, result = f"{field}.condition.expression", "a boolean"
            case Switch(expression=expression):
                field, result = f"{field}.switch.expression", "a string"
            case Task() | Transform() | Delay() | Subgraph() | None:
                if node.input is not None:
                    self.check(node.input, f"{field}.input", VARIABLES, position, template=True)
                if isinstance(node.kind, Subgraph) and node.kind.output_of:
                    self._check_named(node.kind.output_of, f"{field}.subgraph.output_of", position)
                return
            case _:
                assert_never(node.kind)
        if expression:
            self.check(expression, field, VARIABLES, position)
        else:
            self._report.add(field, f"the expression is missing; write CEL that gives {result}")

    def check_when(self, field: str, edge: Edge) -> None:
        """Check the `when` of an edge, which may name the edge's source too."""
        self.check(
            edge.when,
            f"{field}.when",
            (*VARIABLES, OUTPUT_VARIABLE),
            self._place.index.get(edge.source),
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
        hint: str = "",
    ) -> None:
        """Check one expression; it may name the ancestors of `node`, or all nodes if that is None.

        `hint` goes on to what is said of one that does not compile, or that names an unknown variable.
        """
        answer = self._answers.of(source, template=template)
        if isinstance(answer, str):
            self._report.add(field, f"{answer}{hint}")
            return
        for root in answer.roots:
            if root not in variables:
                self._report.add(field, partial(_unknown_variable, root, variables, hint))
        for id_ in answer.node_ids:
            self._check_named(id_, field, node, may_name_itself=may_name_itself)

    def _check_named(self, id_: str, field: str, node: int | None, *, may_name_itself: bool = False) -> None:
        named = self._place.index.get(id_)
        if named is None:
            self._report.add(field, partial(unknown_node, id_, self._place))
        elif node is not None:
            self.questions.append(UpstreamQuestion(node, named, may_name_itself, field))


def unknown_node(id_: str, place: Place) -> str:
    """Return the message that a graph has no node of this id, with the nearest id."""
    holder, around = place.holder, place.around
    while around is not None:
        if id_ in around.index:
            return (
                f"{quote(id_)} is a node of a graph around this one, and only nodes of the same graph can be named; "
                f"pass what it gives by the `input` of {quote(holder)}"
            )
        holder, around = around.holder, around.around
    meant = nearest(id_, place.index)
    remedy = f"did you mean {quote(meant)}?" if meant else "add it, or name another"
    return f"there is no node {quote(id_)}; {remedy}"


def _unknown_variable(root: str, variables: Sequence[str], hint: str) -> str:
    if root == OUTPUT_VARIABLE:
        return (
            "`output` is what an edge would carry, and only its `when` knows it; "
            "write nodes.<id>.output for the output of a node"
        )
    return f"there is no variable {quote(root)} here; there are {', '.join(variables)}{hint}"
