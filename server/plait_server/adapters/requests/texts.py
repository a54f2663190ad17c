"""Reads an output as a graph: the JSON of a graph file, with the reader of graph files."""

from __future__ import annotations

from typing import Final

from plait_client.graph_file import GraphFileError, parse_graph
from plait_server.adapters.requests.reading import check_graph, checked_graph, violations_of
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, PROBLEMS_MAX
from plait_server.errors import FieldViolation
from plait_server.ports.evaluator import Evaluator
from plait_server.ports.graph_requests import GraphText

_ROOT: Final = "graph"


def read_text(text: str, evaluator: Evaluator) -> GraphText:
    """Read a text; see the port."""
    if len(text) > GRAPH_MESSAGE_BYTES_MAX:
        return refused(f"has {len(text):,} characters; at most {GRAPH_MESSAGE_BYTES_MAX:,} are allowed")
    try:
        message = parse_graph(text, file_format="json")
    except GraphFileError as error:
        violations = [
            FieldViolation(field=f"{_ROOT}.{each.path}" if each.path else _ROOT, message=each.message)
            for each in error.problems[:PROBLEMS_MAX]
        ]
        return GraphText(violations=tuple(violations), violation_count=len(error.problems))
    graph, validation = check_graph(message, evaluator)
    if validation.analysis is None:
        return GraphText(violations=violations_of(validation), violation_count=validation.problem_count)
    checked = checked_graph(message, graph, validation.analysis)
    if (size := len(checked.content)) > GRAPH_MESSAGE_BYTES_MAX:
        return refused(f"has {size:,} bytes as a message; at most {GRAPH_MESSAGE_BYTES_MAX:,} are allowed")
    return GraphText(graph=checked)


def refused(message: str) -> GraphText:
    """Return the problem of a text as a whole."""
    return GraphText(violations=(FieldViolation(field=_ROOT, message=message),), violation_count=1)
