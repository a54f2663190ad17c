"""A graph as text for the terminal: drawn if that can be read, else as a table of its levels.

A drawing runs from left to right, a column a level, as long as the width allows; else from top to bottom. A
join other than ALL stands behind its node's id, as `graph` does behind that of a sub-graph, a handle in brackets on
its edge, and `if` where the edge has a `when`. Where two lines cross without touching, the one from left to right
gives way: `─│─`.

    plan ─┬─ draw-1 ─┬─ sheet (collect)
          ├─ draw-2 ─┤
          └─ draw-3 ─┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from plait.v1 import graph_service_pb2
from plait_server.core.definition.graph import Edge, Graph, JoinMode, Node, Subgraph
from plait_server.layering.construction import build_layers, split_components
from plait_server.layering.layers import NO_NODE, Layers
from plait_server.layering.routes import Net, route

DRAWN_NODES_MAX: Final = 60
"""With more, lines outweigh names, and a table says more."""
WIDTH_MIN: Final = 60
"""The smallest width; a smaller one is raised to it."""

# What a drawing may hold beside its nodes: beyond it nobody follows a line, and the work grows with the
# square.
_DRAWN_EDGES_MAX: Final = 120
_ITEMS_MAX: Final = 250
_SHORT_TEXT_CHARS: Final = 24
_TABLE_LEVELS_MAX: Final = 40
_TABLE_LAST_LEVELS: Final = 5

# The directions in which lines leave a cell; their sum is the place of its character in _LINES.
_UP: Final = 1
_RIGHT: Final = 2
_DOWN: Final = 4
_LEFT: Final = 8
_LINES: Final = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
_CROSSING: Final = "│"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How layers become text. "Along" is the way from column to column, "across" the way within one."""

    is_down: bool
    """Whether along means from top to bottom."""
    track: int
    """From one bar to the next."""
    lead: int
    """The least length of a line before its first bar and behind its last."""
    gap: int
    """Between the items of a column."""
    step: int
    """By how much lines are parted that would run into each other."""


_ACROSS: Final = _Style(is_down=False, track=2, lead=1, gap=0, step=1)
_ACROSS_TIGHTLY: Final = _Style(is_down=False, track=1, lead=1, gap=0, step=1)
_DOWNWARDS: Final = _Style(is_down=True, track=1, lead=0, gap=2, step=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Component:
    """A group of connected nodes."""

    nodes: Sequence[int]
    """Their positions in the graph."""
    layers: Layers
    """Their layers, ordered."""


def draw(graph: Graph, plan: graph_service_pb2.GraphPlan, width: int = 100) -> str:
    """Draw a graph by its plan in lines of at most `width` characters, without color or a last line feed."""
    width = max(width, WIDTH_MIN)
    if len(graph.nodes) <= DRAWN_NODES_MAX and len(graph.edges) <= _DRAWN_EDGES_MAX:
        components = _components(graph, plan)
        for text_chars_max in (width, _SHORT_TEXT_CHARS) if components is not None else ():
            texts = [_cut(_node_text(node), text_chars_max) for node in graph.nodes]
            for style in (_ACROSS, _ACROSS_TIGHTLY, _DOWNWARDS):
                drawings = [_draw_component(component, texts, style) for component in components or ()]
                if all(len(line) <= width for drawing in drawings for line in drawing):
                    return _stack(drawings)
    return "\n".join(_table(graph, plan, width))


def _components(graph: Graph, plan: graph_service_pb2.GraphPlan) -> list[_Component] | None:
    """Build the layers of each group of connected nodes; None if there are too many items."""
    index = {node.id: position for position, node in enumerate(graph.nodes)}
    lines = [(index[edge.source], index[edge.target], _edge_text(edge)) for edge in graph.edges]
    components: list[_Component] = []
    for nodes, own_lines in split_components(len(graph.nodes), lines):
        layers = build_layers([plan.nodes[node].rank for node in nodes], own_lines, _ITEMS_MAX)
        if layers is None:
            return None
        layers.order(given=[plan.nodes[node].order for node in nodes])
        components.append(_Component(nodes=nodes, layers=layers))
    return components


def _node_text(node: Node) -> str:
    notes: list[str] = []
    join = node.join
    if join is not None and join.mode is not JoinMode.ALL:
        if join.mode is JoinMode.QUORUM:
            notes.append(f"quorum {join.count}" if join.count is not None else f"quorum {join.rate:.0%}")
        else:
            notes.append(join.mode.name.lower())
    if isinstance(node.kind, Subgraph):
        notes.append(f"graph of {node.kind.output_of}" if node.kind.output_of else "graph")
    if node.locked:
        notes.append("locked")
    return f"{node.id} ({', '.join(notes)})" if notes else node.id


def _edge_text(edge: Edge) -> str:
    words = [*([edge.handle] if edge.handle else []), *(["if"] if edge.when else [])]
    return f"[{' '.join(words)}]" if words else ""


def _cut(text: str, chars_max: int) -> str:
    """Cut a text in its middle: names often begin alike, and end alike."""
    if len(text) <= chars_max:
        return text
    head = chars_max // 2
    return f"{text[:head]}…{text[len(text) - (chars_max - head - 1) :]}"


def _stack(drawings: Sequence[Sequence[str]]) -> str:
    """Put drawings below each other, an empty line around those of several lines."""
    lines: list[str] = []
    for position, drawing in enumerate(drawings):
        if position and (len(drawing) > 1 or len(drawings[position - 1]) > 1):
            lines.append("")
        lines.extend(drawing)
    return "\n".join(lines)


def _draw_component(component: _Component, node_texts: Sequence[str], style: _Style) -> list[str]:
    layers = component.layers
    texts = [
        item.label if item.node == NO_NODE else node_texts[component.nodes[item.node]]
        for item in layers.items
    ]
    layers.place([len(text) if style.is_down and text else 1 for text in texts], style.gap)
    for column in range(len(layers.columns)):
        route(layers, column, style.step)
    grid = _Grid(is_down=style.is_down)
    start = 0
    for column, members in enumerate(layers.columns):
        nets = route(layers, column, style.step)
        end = start + 1
        for item in members:
            end = max(end, start + _write_item(grid, layers, item, texts[item], start, style))
        tracks = 1 + max([net.track for net in nets], default=-1)
        bars = (tracks - 1) * style.track + 1 if tracks else 1
        following = end + style.lead + bars + (style.lead if tracks else 0)
        for net in nets:
            _draw_net(grid, net, start, end + style.lead + net.track * style.track, following)
        start = following
    return grid.text()


def _write_item(grid: _Grid, layers: Layers, item: int, text: str, start: int, style: _Style) -> int:
    """Write an item's text, if it has one, and return how much room it takes along."""
    position = layers.positions[item]
    if not text:
        return 1
    if style.is_down:
        grid.write(start, position - len(text) // 2, text)
        return 1
    if layers.items[item].node != NO_NODE:
        # Lines end a space before a name and begin a space behind it.
        text = f"{' ' if start else ''}{text}{' ' if layers.next[item] else ''}"
    grid.write(position, start, text)
    return len(text)


def _draw_net(grid: _Grid, net: Net, start: int, bar: int, end: int) -> None:
    if not net.has_bar:
        for position in sorted(net.sources):
            grid.line(position, start, end)
        return
    for position in sorted(net.sources):
        grid.line(position, start, bar)
    for position in sorted(net.targets):
        grid.line(position, bar, end)
    grid.bar(bar, net.first, net.last, touched=net.sources | net.targets)


class _Grid:
    """Characters in lines of text; what is drawn is given by where it is along and across."""

    __slots__ = ("_crossable", "_is_down", "_lines", "_texts")

    def __init__(self, *, is_down: bool) -> None:
        self._is_down = is_down
        self._lines: dict[tuple[int, int], int] = {}
        self._texts: dict[tuple[int, int], str] = {}
        self._crossable: list[tuple[int, int]] = []
        """Cells in which a bar touches nothing, so that a line in them must be shown to pass."""

    def write(self, row: int, place: int, text: str) -> None:
        """Write a text over whatever lines there are."""
        for offset, character in enumerate(text):
            self._texts[row, place + offset] = character

    def line(self, across: int, first: int, last: int) -> None:
        """Draw a line along."""
        if self._is_down:
            self._down(across, first, last)
        else:
            self._right(across, first, last)

    def bar(self, along: int, first: int, last: int, touched: frozenset[int]) -> None:
        """Draw a line across that touches lines along at some positions, and passes all others."""
        if self._is_down:
            self._right(along, first, last)
        else:
            self._down(along, first, last)
        for across in range(first, last + 1):
            if across not in touched:
                self._crossable.append((along, across) if self._is_down else (across, along))

    def text(self) -> list[str]:
        """Return the lines of text, without spaces at their ends."""
        cells = {cell: _LINES[directions] for cell, directions in self._lines.items()}
        for cell in self._crossable:
            if self._lines[cell] == _UP + _RIGHT + _DOWN + _LEFT:
                cells[cell] = _CROSSING
        cells |= self._texts
        rows: list[dict[int, str]] = [{} for _ in range(1 + max([row for row, _ in cells]))]
        for (row, place), character in cells.items():
            rows[row][place] = character
        return [
            "".join([row.get(place, " ") for place in range(1 + max(row, default=0))]).rstrip()
            for row in rows
        ]

    def _right(self, row: int, first: int, last: int) -> None:
        for place in range(first, last):
            self._add(row, place, _RIGHT)
            self._add(row, place + 1, _LEFT)

    def _down(self, place: int, first: int, last: int) -> None:
        for row in range(first, last):
            self._add(row, place, _DOWN)
            self._add(row + 1, place, _UP)

    def _add(self, row: int, place: int, direction: int) -> None:
        self._lines[row, place] = self._lines.get((row, place), 0) | direction


def _table(graph: Graph, plan: graph_service_pb2.GraphPlan, width: int) -> list[str]:
    """List the levels, how many nodes each has, and as many of their names as fit."""
    members: list[list[int]] = [[] for _ in range(plan.level_count)]
    for position, node in enumerate(plan.nodes):
        members[node.level].append(position)
    widest = max([len(nodes) for nodes in members])
    lines = [
        f"{_count(len(graph.nodes), 'node')}, {_count(len(graph.edges), 'edge')}",
        f"{_count(len(members), 'level')}, at most {_count(widest, 'node')} in one",
        "level    nodes",
    ]
    left_out = range(_TABLE_LEVELS_MAX - _TABLE_LAST_LEVELS, len(members) - _TABLE_LAST_LEVELS)
    for level, nodes in enumerate(members):
        if len(members) <= _TABLE_LEVELS_MAX or level not in left_out:
            lines.append(_table_row(graph, level, nodes, width))
        elif level == left_out.start:
            lines.append(f"    … {len(left_out):,} more levels …")
    return lines


def _table_row(graph: Graph, level: int, nodes: Sequence[int], width: int) -> str:
    row = f"{level:>5,} {len(nodes):>8,}  "
    names: list[str] = []
    room = width - len(row)
    for shown, node in enumerate(nodes):
        name = _cut(_node_text(graph.nodes[node]), _SHORT_TEXT_CHARS)
        more = len(nodes) - shown - 1
        rest = f", … {more:,} more" if more else ""
        if names and len(", ".join([*names, name])) + len(rest) > room:
            return f"{row}{', '.join(names)}, … {more + 1:,} more"
        names.append(name)
    return row + ", ".join(names)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
