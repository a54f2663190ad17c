"""What the slow model asks of whoever can evaluate expressions."""

from __future__ import annotations

from typing import Protocol

from plait_server.core.definition.graph import Graph, Node
from plait_server.core.json_text import JsonValue


class NoValue(Exception):
    """The expression cannot be evaluated."""


class Expressions(Protocol):
    """Evaluates what a graph's expressions say; every method raises NoValue where there is no value."""

    def when(self, source: str, carried: JsonValue) -> JsonValue:
        """Evaluate an edge's `when`, which is not empty, for what the edge would carry."""
        ...

    def value(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        """Evaluate the expression of a condition or a switch; `given` is what its join gives (J2)."""
        ...

    def input(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        """Render a node's `input`, which is not None; `given` is what its join gives (J2)."""
        ...

    def output(self, scope_path: str, graph: Graph) -> JsonValue:
        """Evaluate a graph's `output`, which is not empty."""
        ...

    def graph(self, path: str, output: JsonValue) -> Graph:
        """Read the graph that a node's output is; no value if it is no valid graph (N7)."""
        ...
