"""Graphs of a node or two, and what validation says of them; expressions are those of a toy language."""

import re
from collections.abc import Sequence

from plait_server.core.definition.graph import Edge, Graph, Kind, Node, Task
from plait_server.core.definition.validation import ExpressionNames, Problem, validate


def check(source: str, *, template: bool) -> ExpressionNames | str:
    """A toy: `nodes.x` names x, other words are variables, and what holds a `!` does not compile."""
    if "!" in source:
        return "unexpected `!`; remove it"
    if template:
        source = " ".join(re.findall(r"\{\{(.*?)\}\}", source))
    words = re.findall(r"(nodes)\.([A-Za-z0-9-]+)|([a-z]+)", source)
    return ExpressionNames(
        roots=tuple(dict.fromkeys(nodes or word for nodes, _, word in words)),
        node_ids=tuple(dict.fromkeys(id for _, id, _ in words if id)),
    )


def found(graph: Graph, decoding_problems: Sequence[Problem] = ()) -> dict[str, str]:
    validation = validate(graph, check, decoding_problems)
    assert validation.is_valid == (validation.analysis is not None)
    assert validation.problem_count >= len(validation.problems)
    assert not (validation.problems and validation.warnings)
    return {problem.field: problem.message for problem in validation.problems}


def warned(graph: Graph) -> dict[str, str]:
    validation = validate(graph, check)
    assert validation.is_valid, validation.problems
    return {warning.field: warning.message for warning in validation.warnings}


def one(node: Node) -> Graph:
    return Graph(nodes=(node,))


def task(id: str = "a", kind: Kind | None = None) -> Node:
    return Node(id=id, kind=kind or Task(type="t"))


def edge(source: str, target: str, handle: str = "", when: str = "") -> Edge:
    return Edge(source=source, target=target, handle=handle, when=when)
