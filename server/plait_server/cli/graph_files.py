"""Graph files on the command line: reading them, and reporting their problems."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plait.v1 import graph_pb2
from plait_client import load_graph, parse_graph
from plait_server.cli.text import complain, count, one_line


def read_graph_file(file: str) -> graph_pb2.Graph:
    """Read a graph file; `-` is stdin.

    Raises:
        GraphFileError: it cannot be read as a graph.
    """
    if file == "-":
        return parse_graph(sys.stdin.read(), name="stdin")
    return load_graph(file)


def complain_of(file: str, problems: Sequence[str], problem_count: int = 0) -> None:
    """Write the problems of a file to stderr, each with the file's name, so that editors find it."""
    for problem in problems:
        complain(f"{file}: {one_line(problem)}")
    problem_count = max(problem_count, len(problems))
    if problem_count > len(problems):
        complain(f"{file}: and {count(problem_count - len(problems), 'problem')} more")
