"""Layers of a drawing: which items stand in which column, in which order, and at which position.

The steps are those of K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical
system structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981):

1. Levels are columns. An edge that shows a handle goes through a label in a column of its own. An edge over
   several columns goes through a waypoint in each; edges that leave the same node by the same handle share
   theirs.
2. Where lines would run together and part again, a column of waypoints keeps them apart (`part_ways`).
3. Columns are reordered by the mean position of their neighbors, back and forth, and the order with the
   fewest crossings is kept.
4. Positions are numbers across the columns, at which lines meet the items. Each item wants the median of its
   neighbors', in turn of those before it, behind it, and both. A column is brought as near to its wishes
   as its order and the sizes allow, which is isotonic regression, done by pooling adjacent violators; of
   all that were tried, the positions with the fewest bends and shortest lines are kept.

Whether a column becomes a column of text or a line of it is not known here.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

_ORDER_SWEEPS: Final = 12
"""Back and forth together; more hardly ever find an order with fewer crossings."""
_POSITION_SWEEPS: Final = 14
_BALANCING_SWEEPS: Final = 6
"""The last ones, which listen to both sides."""
_WAYPOINT_WEIGHT: Final = 3
"""A bend in a long line disturbs more than one at its end."""
_BEND_COST: Final = 2
_CORNER_COST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What stands in a column."""

    column: int
    text: str = ""
    """A node, or a label in brackets; empty for a waypoint."""
    is_label: bool = False
    """Whether it is the label of an edge."""


@dataclass(slots=True, kw_only=True)
class Layers:
    """The items of a drawing by number, and the lines between items of adjacent columns."""

    items: list[Item] = field(default_factory=list[Item])
    columns: list[list[int]] = field(default_factory=list[list[int]])
    """For each column its items in the order in which they stand."""
    next: list[list[int]] = field(default_factory=list[list[int]])
    """For each item those in the next column to which a line leads, ascending."""
    previous: list[list[int]] = field(default_factory=list[list[int]])
    """For each item those in the previous column from which a line leads, ascending."""
    positions: list[int] = field(default_factory=list[int])
    """For each item where lines meet it."""

    def add(self, item: Item) -> int:
        """Add an item at the end of its column and give its number."""
        while len(self.columns) <= item.column:
            self.columns.append([])
        number = len(self.items)
        self.items.append(item)
        self.columns[item.column].append(number)
        self.next.append([])
        self.previous.append([])
        return number

    def connect(self, first: int, second: int) -> None:
        """Draw a line between items of adjacent columns."""
        if second not in self.next[first]:
            insort(self.next[first], second)
            insort(self.previous[second], first)

    def sources_by_targets(self, column: int) -> dict[tuple[int, ...], list[int]]:
        """Group the items of a column by the items of the next to which they lead, if they lead to any."""
        sources: dict[tuple[int, ...], list[int]] = {}
        for item in self.columns[column]:
            if self.next[item]:
                sources.setdefault(tuple(self.next[item]), []).append(item)
        return sources

    def order(self) -> None:
        """Order the columns so that few lines cross."""
        best = [list(column) for column in self.columns]
        fewest = self._crossings()
        for sweep in range(_ORDER_SWEEPS):
            if not fewest:
                break
            forward = sweep % 2 == 0
            neighbors = self.previous if forward else self.next
            for column in self.columns if forward else self.columns[::-1]:
                self._order_column(column, neighbors)
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(column) for column in self.columns], crossings
        self.columns = best

    def place(self, sizes: Sequence[int], gap: int) -> None:
        """Return every item its position, the lowest so that all fit from 0 on.

        Args:
            sizes: How much room each item takes; its position is in the middle of it.
            gap: Room that is left between two items.
        """
        self.positions = [0] * len(self.items)
        for column in self.columns:
            for item, offset in zip(column, _offsets(column, sizes, gap), strict=True):
                self.positions[item] = offset
        best, least = self.positions, self._disorder()
        for sweep in range(_POSITION_SWEEPS):
            forward = sweep % 2 == 0
            sides = [self.previous] if forward else [self.next]
            if sweep >= _POSITION_SWEEPS - _BALANCING_SWEEPS:
                sides = [self.previous, self.next]
            self.positions = list(self.positions)
            for column in self.columns if forward else self.columns[::-1]:
                self._place_column(column, _offsets(column, sizes, gap), sides)
            disorder = self._disorder()
            if disorder < least:
                best, least = self.positions, disorder
        lowest = min(position - sizes[item] // 2 for item, position in enumerate(best))
        self.positions = [position - lowest for position in best]

    def part(self, column: int, position: int, step: int) -> None:
        """Make room so that what is at `position` in a column no longer faces what is there in the next.

        All that face one another elsewhere still do.
        """
        for item, place in enumerate(self.positions):
            if place > position or (place == position and self.items[item].column > column):
                self.positions[item] += step

    def _order_column(self, column: list[int], neighbors: Sequence[Sequence[int]]) -> None:
        rank = {item: place for members in self.columns for place, item in enumerate(members)}

        def mean(item: int) -> float:
            around = neighbors[item]
            return sum(rank[other] for other in around) / len(around) if around else float(rank[item])

        column.sort(key=mean)

    def _crossings(self) -> int:
        count = 0
        for column, following in zip(self.columns, self.columns[1:], strict=False):
            rank = {item: place for place, item in enumerate(following)}
            ends: list[int] = []
            for item in column:
                reached = sorted(rank[other] for other in self.next[item])
                count += sum(len(ends) - bisect_right(ends, end) for end in reached)
                for end in reached:
                    insort(ends, end)
        return count

    def _place_column(
        self, column: Sequence[int], offsets: Sequence[int], sides: Sequence[Sequence[Sequence[int]]]
    ) -> None:
        wishes = [
            (self._wish(item, sides) - offset, 1 if self.items[item].text else _WAYPOINT_WEIGHT)
            for item, offset in zip(column, offsets, strict=True)
        ]
        for item, offset, place in zip(column, offsets, _regress(wishes), strict=True):
            self.positions[item] = offset + place

    def _wish(self, item: int, sides: Sequence[Sequence[Sequence[int]]]) -> int:
        """Return the median position of an item's neighbors on the given sides."""
        places = sorted(self.positions[other] for neighbors in sides for other in neighbors[item])
        if not places:
            return self.positions[item]
        return (places[(len(places) - 1) // 2] + places[len(places) // 2]) // 2

    def _disorder(self) -> int:
        """Say how far lines lead astray: by their lengths across, and more by every bend."""
        disorder = 0
        for item, following in enumerate(self.next):
            for other in following:
                if distance := abs(self.positions[item] - self.positions[other]):
                    is_corner = not self.items[item].text or not self.items[other].text
                    disorder += distance + (_CORNER_COST if is_corner else _BEND_COST)
        return disorder


def _offsets(column: Sequence[int], sizes: Sequence[int], gap: int) -> list[int]:
    """Give where the items of a column are if they stand as close as they may."""
    offsets: list[int] = []
    end = 0
    for item in column:
        offsets.append(end + sizes[item] // 2)
        end += sizes[item] + gap
    return offsets


def _regress(wishes: Sequence[tuple[int, int]]) -> list[int]:
    """Return the ascending numbers that are nearest to the wishes, by weight: M. Ayer et al., 1955."""
    blocks: list[tuple[list[int], int, int]] = []
    for wish, weight in wishes:
        values, members, value = [wish] * weight, 1, wish
        while blocks and blocks[-1][2] > value:
            earlier, count, _ = blocks.pop()
            values = sorted(earlier + values)
            members += count
            value = values[len(values) // 2]
        blocks.append((values, members, value))
    return [value for _, members, value in blocks for _ in range(members)]


def layer_edges(
    texts: Sequence[str], levels: Sequence[int], edges: Sequence[tuple[int, int, str]], items_max: int
) -> Layers | None:
    """Build the layers of connected nodes.

    Args:
        texts: The text of each node.
        levels: The level of each node.
        edges: Source, target and label of each edge; an empty label is not shown.
        items_max: With how many items there is no drawing.

    Returns:
        The layers, not yet ordered or placed; None if they have too many items.
    """
    labelled = [False] * (max(levels) + 1)
    for source, _, label in edges:
        if label:
            labelled[levels[source]] = True
    column_of: list[int] = []
    column = 0
    for has_labels in labelled:
        column_of.append(column)
        column += 2 if has_labels else 1
    layers = Layers()
    nodes = [
        layers.add(Item(column=column_of[level], text=text))
        for text, level in zip(texts, levels, strict=True)
    ]
    targets_of: dict[tuple[int, str], list[int]] = {}
    for source, target, label in edges:
        targets_of.setdefault((source, label), []).append(target)
    for (source, label), targets in targets_of.items():
        origin = nodes[source]
        if label:
            origin = layers.add(Item(column=column_of[levels[source]] + 1, text=label, is_label=True))
            layers.connect(nodes[source], origin)
        _connect_all(layers, origin, [nodes[target] for target in targets])
        if len(layers.items) > items_max:
            return None
    return part_ways(layers)


def part_ways(layers: Layers) -> Layers:
    """Give layers in which no item is reached by two groups that lead to other items too.

    Groups are items that lead to the same items. Where two of them overlap, a column of waypoints between
    gives each group one way to the items that no group before it claimed, and one to each of the others.
    """
    parted = Layers()
    numbers: dict[int, int] = {}
    arriving: list[tuple[int, int]] = []
    """Lines whose ends have yet to be added: from an item of `parted` to one of `layers`."""
    column = 0
    for place, members in enumerate(layers.columns):
        for item in members:
            numbers[item] = parted.add(replace(layers.items[item], column=column))
        for source, target in arriving:
            parted.connect(source, numbers[target])
        arriving.clear()
        column += 1
        groups = layers.sources_by_targets(place)
        if not _overlap(groups):
            arriving += [(numbers[item], target) for item in members for target in layers.next[item]]
            continue
        claimed: set[int] = set()
        for targets, sources in groups.items():
            free = [target for target in targets if target not in claimed]
            ways = [[target] for target in targets if target in claimed] + ([free] if free else [])
            if len(targets) > 1:
                claimed.update(free)
            for way in ways:
                waypoint = parted.add(Item(column=column))
                for source in sources:
                    parted.connect(numbers[source], waypoint)
                arriving += [(waypoint, target) for target in way]
        column += 1
    return parted


def _overlap(groups: Iterable[tuple[int, ...]]) -> bool:
    reached = [target for targets in groups if len(targets) > 1 for target in targets]
    return len(set(reached)) < len(reached)


def _connect_all(layers: Layers, origin: int, targets: Sequence[int]) -> None:
    by_column: dict[int, list[int]] = {}
    for target in targets:
        by_column.setdefault(layers.items[target].column, []).append(target)
    last = max(by_column)
    for column in range(layers.items[origin].column + 1, last + 1):
        for target in by_column.get(column, ()):
            layers.connect(origin, target)
        if column < last:
            waypoint = layers.add(Item(column=column))
            layers.connect(origin, waypoint)
            origin = waypoint


def split_components(count: int, edges: Sequence[tuple[int, int, str]]) -> tuple[list[int], list[list[int]]]:
    """Group the nodes that edges connect, whatever their direction.

    Returns:
        The group of each node, and the nodes of each group; groups and their members in graph order.
    """
    leader = list(range(count))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for source, target, _ in edges:
        first, second = sorted((find(source), find(target)))
        leader[second] = first
    numbers: dict[int, int] = {}
    group_of = [numbers.setdefault(find(node), len(numbers)) for node in range(count)]
    groups: list[list[int]] = [[] for _ in numbers]
    for node, group in enumerate(group_of):
        groups[group].append(node)
    return group_of, groups
