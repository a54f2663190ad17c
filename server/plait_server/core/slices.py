"""Long computations in slices: generators that stop now and then, so that others may go on between.

A graph of 100,000 nodes takes seconds to take over, and a server has one loop. What may take long is written
as a generator that yields after every `ITEMS_PER_SLICE` items or so and returns its value; the runtime lets
others run between its slices, and whoever does not care calls `finish`. What it builds belongs to it until it
returns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]
"""A computation in slices; its value is what the generator returns."""

ITEMS_PER_SLICE: Final = 1_000
"""Items that take 1 us to 3 us each make slices of some milliseconds."""


def finish(work: Slices[T]) -> T:
    """Do all of it at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: T = stop.value
            return value


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces of one slice each."""
    for begin in range(0, len(items), ITEMS_PER_SLICE):
        yield items[begin : begin + ITEMS_PER_SLICE]
