"""Construction of layers: nodes and lines become items in columns.

1. Ranks are columns. A line that shows a label goes through it in a column of its own. A line over several
   columns goes through a waypoint in each; lines that leave the same node by the same label share theirs.
2. Where lines would run together and part again, a column of waypoints keeps them apart (`part_ways`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from plait_server.layering.layers import Item, Layers

Line: TypeAlias = "tuple[int, int, str]"
"""The source and the target by number, and a label, which is not shown if it is empty; no two are equal."""


def build_layers(ranks: Sequence[int], lines: Sequence[Line], items_max: int) -> Layers | None:
    """Build the layers of connected nodes.

    Args:
        ranks: The rank of each node; it rises along every line.
        lines: The lines between them.
        items_max: The number of lines, or of nodes, labels and waypoints, above which there are no layers.

    Returns:
        The layers, not yet ordered or placed; None if there would be too much in them.
    """
    if len(lines) > items_max:
        return None
    labelled = [False] * (max(ranks) + 1)
    for source, _, label in lines:
        if label:
            labelled[ranks[source]] = True
    column_of: list[int] = []
    column = 0
    for has_labels in labelled:
        column_of.append(column)
        column += 2 if has_labels else 1
    layers = Layers()
    for node, rank in enumerate(ranks):
        layers.add(Item(column=column_of[rank], node=node))
    targets_of: dict[tuple[int, str], list[int]] = {}
    for source, target, label in lines:
        targets_of.setdefault((source, label), []).append(target)
    for (source, label), targets in targets_of.items():
        origin = source
        if label:
            origin = layers.add(Item(column=column_of[ranks[source]] + 1, label=label))
            layers.connect(source, origin)
        _connect_all(layers, origin, targets)
        if len(layers.items) > items_max:
            return None
    return part_ways(layers)


def build_coarse_layers(ranks: Sequence[int], lines: Sequence[Line]) -> Layers:
    """Build layers of nodes alone, whose lines may lead over several columns; the time is linear."""
    layers = Layers()
    for node, rank in enumerate(ranks):
        layers.add(Item(column=rank, node=node))
    for source, target in sorted({(source, target) for source, target, _ in lines}):
        layers.next[source].append(target)
        layers.previous[target].append(source)
    return layers


def part_ways(layers: Layers) -> Layers:
    """Return layers in which no item is reached by two groups that lead to other items too.

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


def split_components(count: int, lines: Sequence[Line]) -> list[tuple[list[int], list[Line]]]:
    """Group the nodes that lines connect, whatever their direction.

    Returns:
        The nodes of each group, and the lines between them by place in that list. The groups, their nodes and
        their lines are in the order given.
    """
    leader = list(range(count))

    def find(node: int) -> int:
        while leader[node] != node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for source, target, _ in lines:
        first, second = sorted((find(source), find(target)))
        leader[second] = first
    numbers: dict[int, int] = {}
    group_of = [numbers.setdefault(find(node), len(numbers)) for node in range(count)]
    groups: list[tuple[list[int], list[Line]]] = [([], []) for _ in numbers]
    place_of: list[int] = []
    for node, group in enumerate(group_of):
        place_of.append(len(groups[group][0]))
        groups[group][0].append(node)
    for source, target, label in lines:
        groups[group_of[source]][1].append((place_of[source], place_of[target], label))
    return groups


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
