"""The problems of a graph, and a report that counts all of them and keeps the first (V5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plait_server.core.limits import PROBLEMS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a graph, or one thing odd about it."""

    field: str
    """Path of the field, such as `graph.edges[3].target`."""
    message: str
    """What is wrong and what to do."""


class Report:
    """Counts problems and keeps the first 50, in the order in which they were added."""

    __slots__ = ("_count", "_problems", "_settled")

    def __init__(self, problems: Sequence[Problem] = ()) -> None:
        self._problems = list(problems[:PROBLEMS_MAX])
        self._count = len(problems)
        self._settled = frozenset([problem.field for problem in problems])

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems that were kept."""
        return tuple(self._problems)

    @property
    def count(self) -> int:
        """How many problems there are."""
        return self._count

    def add(self, field: str, message: str | Callable[[], str]) -> None:
        """Add a problem, unless its field has one among the decoding problems.

        Args:
            field: Path of the field.
            message: What is wrong and what to do, or a function that returns it: it is called only if the
                problem is kept, so it may be slow.
        """
        if field in self._settled:
            return
        self._count += 1
        if len(self._problems) < PROBLEMS_MAX:
            text = message if isinstance(message, str) else message()
            self._problems.append(Problem(field=field, message=text))
