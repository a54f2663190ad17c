"""Pages of executions and of their changes, as the journal port returns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plait_server.ports.journal import DamagedRow, ListedExecution


class ListCursor(NamedTuple):
    """A place in a list: that of an execution when the page was read."""

    position: int
    end_time_s: float = 0.0
    """Only lists by end time use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPage:
    """A stretch of a list."""

    rows: Sequence[ListedExecution | DamagedRow]
    """In the order of the list. Rows that ceased to match while the page was read are left out."""
    cursors: Sequence[ListCursor]
    """The place of each row; the list goes on behind it."""
    end: ListCursor | None
    """Where the next page begins; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is left of an execution that was deleted."""

    change: int
    """The change number of the deletion."""
    execution_id: str
    time_s: float
    """Wall time of the deletion, seconds since 1970."""


class Change(NamedTuple):
    """The newest change of an execution."""

    number: int
    row: ListedExecution | DamagedRow | Tombstone


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePage:
    """A stretch of the changes of a namespace."""

    changes: Sequence[Change]
    """By number, each execution once; an execution changed again is at its newest change."""
    last_change: int
    """The newest change in the store when the page was read. If the page is not full, nothing before it is missing."""
    floor: int
    """Of deletions up to this change no tombstone may be left, so that they are missing in a page from before it."""
