"""Layers: which items stand in which column of a picture, in which order, and at which position.

The steps are those of K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical
system structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981):

1. `construction` gives each item a column, so that lines connect adjacent columns.
2. `Layers.order` reorders the columns by the mean position of their neighbors, back and forth, and keeps the
   order with the fewest crossings.
3. `Layers.place` finds positions: numbers across the columns, at which lines meet the items. Each item wants
   the median of its neighbors' positions, in turn of those before it, behind it, and both. A column is brought
   as near to its wishes as its order and the sizes allow, which is isotonic regression, done by pooling
   adjacent violators. The positions with the fewest bends and shortest lines are kept.

Whether a column becomes a column of text or a line of it is up to whoever draws.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

ORDER_SWEEPS: Final = 12
"""Back and forth together; more hardly ever find an order with fewer crossings."""
NO_NODE: Final = -1
_POSITION_SWEEPS: Final = 14
_BALANCING_SWEEPS: Final = 6
"""The last ones, which listen to both sides."""
_WAYPOINT_WEIGHT: Final = 3
"""A bend in a long line disturbs more than one at its end."""
_BEND_COST: Final = 2
_CORNER_COST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What stands in a column: a node, the label of lines, or a waypoint of a line over several columns."""

    column: int
    node: int = NO_NODE
    """The number of the node; NO_NODE if it is none."""
    label: str = ""
    """The label; empty if it is none."""

    @property
    def is_waypoint(self) -> bool:
        """Whether lines pass through it without meeting anything."""
        return self.node == NO_NODE and not self.label


@dataclass(slots=True, kw_only=True)
class Layers:
    """The items of a picture by number, and the lines between them."""

    items: list[Item] = field(default_factory=list[Item])
    columns: list[list[int]] = field(default_factory=list[list[int]])
    """For each column its items in the order in which they stand."""
    next: list[list[int]] = field(default_factory=list[list[int]])
    """For each item those in later columns to which a line leads, ascending."""
    previous: list[list[int]] = field(default_factory=list[list[int]])
    """For each item those in earlier columns from which a line leads, ascending."""
    positions: list[int] = field(default_factory=list[int])
    """For each item where lines meet it."""

    def add(self, item: Item) -> int:
        """Add an item at the end of its column and return its number."""
        while len(self.columns) <= item.column:
            self.columns.append([])
        number = len(self.items)
        self.items.append(item)
        self.columns[item.column].append(number)
        self.next.append([])
        self.previous.append([])
        return number

    def connect(self, first: int, second: int) -> None:
        """Add a line from an item to one in a later column, to which none leads from it yet."""
        insort(self.next[first], second)
        insort(self.previous[second], first)

    def sources_by_targets(self, column: int) -> dict[tuple[int, ...], list[int]]:
        """Group the items of a column by the items to which they lead, if they lead to any."""
        sources: dict[tuple[int, ...], list[int]] = {}
        for item in self.columns[column]:
            if self.next[item]:
                sources.setdefault(tuple(self.next[item]), []).append(item)
        return sources

    def order(self, *, given: Sequence[int] | None = None, sweeps: int = ORDER_SWEEPS) -> None:
        """Order the columns so that few lines cross.

        Lines over several columns count in the means, but not in the crossings.

        Args:
            given: For each node its place among the nodes of its column, which is then kept: only labels and
                waypoints are moved.
            sweeps: How often to pass over the columns, forwards and backwards in turn.
        """
        places = [0] * len(self.items)
        for column in self.columns:
            self._settle(column, places, given)
        best = [list(column) for column in self.columns]
        fewest = self._crossings(places)
        for sweep in range(sweeps):
            if not fewest:
                break
            forward = sweep % 2 == 0
            neighbors = self.previous if forward else self.next
            for column in self.columns if forward else self.columns[::-1]:
                means = {item: _mean(item, neighbors, places) for item in column}
                column.sort(key=means.__getitem__)
                self._settle(column, places, given)
            crossings = self._crossings(places)
            if crossings < fewest:
                best, fewest = [list(column) for column in self.columns], crossings
        self.columns = best

    def place(self, sizes: Sequence[int], gap: int) -> None:
        """Give every item its position, the lowest so that all fit from 0 on.

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

    def _settle(self, column: list[int], places: list[int], given: Sequence[int] | None) -> None:
        """Put the nodes of a column into the given order, if there is one, and note the place of each item."""
        if given is not None:
            slots = [slot for slot, item in enumerate(column) if self.items[item].node != NO_NODE]
            nodes = sorted([column[slot] for slot in slots], key=lambda item: given[self.items[item].node])
            for slot, item in zip(slots, nodes, strict=True):
                column[slot] = item
        for place, item in enumerate(column):
            places[item] = place

    def _crossings(self, places: Sequence[int]) -> int:
        count = 0
        for number, (column, following) in enumerate(zip(self.columns, self.columns[1:], strict=False), 1):
            ends: list[int] = []
            for item in column:
                ends += sorted(
                    [places[other] for other in self.next[item] if self.items[other].column == number]
                )
            count += _inversions(ends, len(following))
        return count

    def _place_column(
        self, column: Sequence[int], offsets: Sequence[int], sides: Sequence[Sequence[Sequence[int]]]
    ) -> None:
        wishes = [
            (self._wish(item, sides) - offset, _WAYPOINT_WEIGHT if self.items[item].is_waypoint else 1)
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
        """Return how far lines lead astray: their lengths across, and more for every bend."""
        disorder = 0
        for item, following in enumerate(self.next):
            for other in following:
                if distance := abs(self.positions[item] - self.positions[other]):
                    is_corner = self.items[item].is_waypoint or self.items[other].is_waypoint
                    disorder += distance + (_CORNER_COST if is_corner else _BEND_COST)
        return disorder


def _mean(item: int, neighbors: Sequence[Sequence[int]], places: Sequence[int]) -> float:
    """Return the mean place of an item's neighbors; without any its own."""
    around = neighbors[item]
    return sum([places[other] for other in around]) / len(around) if around else places[item]


def _inversions(ends: Sequence[int], size: int) -> int:
    """Count the pairs of numbers below `size` of which the larger comes first.

    Source: W. Barth, M. Jünger, P. Mutzel, "Simple and efficient bilayer cross counting" (2002).
    """
    if all(first <= second for first, second in pairwise(ends)):
        return 0
    leaves = 1 << (size - 1).bit_length()
    counts = [0] * (2 * leaves)
    inversions = 0
    for end in ends:
        index = end + leaves
        counts[index] += 1
        while index > 1:
            if not index & 1:
                inversions += counts[index + 1]
            index >>= 1
            counts[index] += 1
    return inversions


def _offsets(column: Sequence[int], sizes: Sequence[int], gap: int) -> list[int]:
    """Return where the items of a column are if they stand as close as they may."""
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
