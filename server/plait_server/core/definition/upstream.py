"""Whether the nodes that expressions name are upstream of the nodes that name them (V6).

Reachability between all pairs takes n^2 bits. Far fewer questions are asked, and most are about
neighbors:

1. A node whose level is not lower is not upstream.
2. A direct predecessor is upstream. Nearly every question ends here.
3. The rest is answered for 4,096 named nodes at a time: each gets one bit, and one sweep over the graph in
   the order of levels passes the bits along the edges. A sweep begins at the first of its named nodes and
   ends at the last node that asks; a node's bits are dropped once they have been passed on.

So the work is linear for every 4,096 distant nodes that are named: at most 25 sweeps over a graph of the
largest size. That is some seconds and 60 MB for a hostile graph, and negligible otherwise. A search from
each named node would be quadratic; interval labels answer most questions in constant time, but leave the same
worst case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from plait_server.core.definition.analysis import Adjacency

NODES_PER_SWEEP: Final = 4_096
"""Bits of 512 bytes a node: wider ones mean fewer sweeps, but the same total time and more memory."""


class UpstreamQuestion(NamedTuple):
    """Asks whether a node may be named. A tuple, because a graph may need a million of them."""

    asking: int
    """Position of the node whose ancestors may be named."""
    named: int
    """Position of the node that is named."""
    may_be_itself: bool
    """Whether the asking node itself may be named, as in the `when` of its edges."""
    field: str
    """Path of the field that names it."""


def find_not_upstream(
    adjacency: Adjacency, levels: Sequence[int], questions: Sequence[UpstreamQuestion]
) -> list[UpstreamQuestion]:
    """Return the questions whose answer is no, in their order. The graph must be acyclic; error edges count."""
    answers = [True] * len(questions)
    far: list[int] = []
    direct_of: dict[int, frozenset[int]] = {}
    for number, question in enumerate(questions):
        asking, named = question.asking, question.named
        if asking == named:
            answers[number] = question.may_be_itself
        elif levels[named] >= levels[asking]:
            answers[number] = False
        else:
            direct = direct_of.get(asking)
            if direct is None:
                sources = adjacency.edge_sources
                direct = frozenset([sources[edge] for edge in adjacency.incoming[asking]])
                direct_of[asking] = direct
            if named not in direct:
                far.append(number)
    if far:
        _answer_far(adjacency, levels, questions, far, answers)
    return [question for question, answer in zip(questions, answers, strict=True) if not answer]


def _answer_far(
    adjacency: Adjacency,
    levels: Sequence[int],
    questions: Sequence[UpstreamQuestion],
    far: Sequence[int],
    answers: list[bool],
) -> None:
    order = sorted(range(len(levels)), key=levels.__getitem__)
    rank = [0] * len(order)
    for position, node in enumerate(order):
        rank[node] = position
    by_named: dict[int, list[int]] = {}
    for number in far:
        by_named.setdefault(questions[number].named, []).append(number)
    named = sorted(by_named, key=rank.__getitem__)
    for start in range(0, len(named), NODES_PER_SWEEP):
        bit_of = {node: bit for bit, node in enumerate(named[start : start + NODES_PER_SWEEP])}
        asked: dict[int, list[int]] = {}
        for node in bit_of:
            for number in by_named[node]:
                asked.setdefault(questions[number].asking, []).append(number)
        last = max([rank[node] for node in asked])
        _sweep(adjacency, order[rank[named[start]] : last + 1], bit_of, asked, questions, answers)


def _sweep(
    adjacency: Adjacency,
    order: Sequence[int],
    bit_of: dict[int, int],
    asked: dict[int, list[int]],
    questions: Sequence[UpstreamQuestion],
    answers: list[bool],
) -> None:
    outgoing, targets = adjacency.outgoing, adjacency.edge_targets
    masks: dict[int, int] = {}
    for node in order:
        mask = masks.pop(node, 0)
        for number in asked.get(node, ()):
            answers[number] = bool(mask >> bit_of[questions[number].named] & 1)
        if node in bit_of:
            mask |= 1 << bit_of[node]
        if mask:
            for edge in outgoing[node]:
                target = targets[edge]
                masks[target] = masks.get(target, 0) | mask
