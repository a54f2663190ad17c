"""Long computations in slices: generators that pause regularly, so that other work can run in between.

A graph of 100,000 nodes takes seconds to accept, and a server has one event loop. A computation that may take
long is therefore a generator that yields after about every `ITEMS_PER_SLICE` items and returns its value. The
runtime lets other tasks run between its slices; callers that may block call `finish`. Whatever the generator
builds is not to be used until it returns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

Slices: TypeAlias = Generator[None, None, T]
"""A computation in slices; its value is what the generator returns."""

ITEMS_PER_SLICE: Final = 1_000
"""At 1 us to 3 us an item, a slice takes some milliseconds."""


def finish(work: Slices[T]) -> T:
    """Run all slices at once, and return the value."""
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
