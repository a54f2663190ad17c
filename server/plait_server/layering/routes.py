"""Routes of a picture: the lines between two adjacent columns.

Items of a column that lead to the same items of the next share a net: a line out of each source, a bar
across, and a line into each target. Bars lie on tracks, one behind the other. A net whose one source faces
its one target is a straight line and needs no bar. Whoever follows lines, never turning back, must come to
the targets and to no other item. Three rules see to it:

1. A target is in at most one net of several targets; `construction.part_ways` arranged that.
2. Lines into one target merge before it. The bar of its net of several targets comes first, for a line that
   meets this bar from before would seem to lead to all of them.
3. The line of a source must end before anything comes in on its row to the target that faces it: its bar
   comes before all bars that lead to that target.

Where no order of the bars agrees with 2 and 3, or a straight line would meet the bar of a net of several
targets, a target is moved away from the source that it faces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from plait_server.layering.layers import Layers

NO_TRACK: Final = -1


@dataclass(slots=True)
class Net:
    """Lines that belong together, by the positions of their ends."""

    sources: frozenset[int]
    targets: frozenset[int]
    track: int = NO_TRACK
    """Where the bar lies, from 0; -1 if there is none."""

    @property
    def first(self) -> int:
        """The lowest position that it reaches."""
        return min(self.sources | self.targets)

    @property
    def last(self) -> int:
        """The highest position that it reaches."""
        return max(self.sources | self.targets)

    @property
    def has_bar(self) -> bool:
        """Whether it is more than a straight line."""
        return self.first != self.last


def route(layers: Layers, column: int, step: int) -> list[Net]:
    """Find the nets between a column and the next, each with its track.

    Where it must, it parts the positions of `layers` by `step`. So route all columns before any is drawn;
    when that is done, routing again parts nothing and gives the nets as they are to be drawn.
    """
    while True:
        nets = _nets(layers, column)
        contested = _straight_into_bar(nets)
        if contested is None:
            later = [list(_later(nets, number)) for number in range(len(nets))]
            order = _sort(nets, later)
            contested = _contested(nets, order)
            if contested is None:
                _lay(nets, order, later)
                return nets
        layers.part(column, contested, step)


def _nets(layers: Layers, column: int) -> list[Net]:
    return [
        Net(
            frozenset([layers.positions[source] for source in sources]),
            frozenset([layers.positions[target] for target in targets]),
        )
        for targets, sources in layers.sources_by_targets(column).items()
    ]


def _straight_into_bar(nets: Sequence[Net]) -> int | None:
    """Return where a straight line would meet the bar of a net of several targets, if anywhere."""
    shared = [net for net in nets if len(net.targets) > 1]
    meeting = [
        net.first for net in nets if not net.has_bar and any(net.targets <= other.targets for other in shared)
    ]
    return min(meeting, default=None)


def _later(nets: Sequence[Net], number: int) -> Iterator[int]:
    """Yield the nets whose bars must come after that of one net (rules 2 and 3)."""
    net = nets[number]
    for other, follower in enumerate(nets):
        if net.has_bar and follower.has_bar and other != number:
            merges = len(net.targets) > 1 and not net.targets.isdisjoint(follower.targets)
            if merges or not net.sources.isdisjoint(follower.targets):
                yield other


def _sort(nets: Sequence[Net], later: Sequence[Sequence[int]]) -> list[int]:
    """Order the nets with bars as the rules demand, few crossings first; those in a circle are left out."""
    demands = [0] * len(nets)
    for followers in later:
        for number in followers:
            demands[number] += 1
    left = [number for number, net in enumerate(nets) if net.has_bar]
    order: list[int] = []
    while ready := [number for number in left if not demands[number]]:
        chosen = min(ready, key=lambda number: _cost_of_first(nets, number, left))
        left.remove(chosen)
        order.append(chosen)
        for number in later[chosen]:
            demands[number] -= 1
    return order


def _cost_of_first(nets: Sequence[Net], number: int, others: Sequence[int]) -> int:
    """Count the crossings if a net lies before the others, less those if it lies behind them."""
    net = nets[number]
    return sum(
        _crossings(net, nets[other]) - _crossings(nets[other], net) for other in others if other != number
    )


def _crossings(earlier: Net, later: Net) -> int:
    out = sum(later.first <= end <= later.last for end in sorted(earlier.targets - later.targets))
    into = sum(earlier.first <= end <= earlier.last for end in sorted(later.sources - earlier.sources))
    return out + into


def _contested(nets: Sequence[Net], order: Sequence[int]) -> int | None:
    """Return where a source and a target keep bars waiting for each other; None if all are in the order.

    Every circle of demands has one: rule 3 leads from a net of several targets to one of a single target, and
    from there only rule 4 leads on.
    """
    waiting = [net for number, net in enumerate(nets) if net.has_bar and number not in order]
    return min(
        [
            position
            for net in waiting
            for other in waiting
            if net is not other
            for position in sorted(net.sources & other.targets)
        ],
        default=None,
    )


def _lay(nets: Sequence[Net], order: Sequence[int], later: Sequence[Sequence[int]]) -> None:
    """Put each bar on the first track that the rules leave to it and where it touches no other."""
    earliest = [0] * len(nets)
    for number in order:
        net = nets[number]
        track = earliest[number]
        while any(
            other.track == track and other.first <= net.last and net.first <= other.last for other in nets
        ):
            track += 1
        net.track = track
        for follower in later[number]:
            earliest[follower] = max(earliest[follower], track + 1)
