"""The conditions under which an item may be appended: rules 2 and 3 of the journal port, for every store.

Nothing here reads or writes. A store reads the execution's head and the request's record in the transaction
in which it will write, calls `find_conflict`, and writes only if that returns None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from plait_server.errors import InvariantViolated
from plait_server.ports.journal import (
    SETTING_BYTES_MAX,
    AppendItem,
    EpochConflict,
    RequestConflict,
    RequestRecord,
    SequenceConflict,
)


class Head(NamedTuple):
    """The end of an execution, and who may append to it. A NamedTuple, because every item of an append makes one."""

    position: int
    last_sequence: int
    last_checksum: bytes
    owner_epoch: int
    owner: int
    """The number of the opening that owns it."""
    is_open: bool
    audit_count: int
    """How many audit records it has."""
    identity: bytes
    """The `chain_start` of the execution."""
    row_digest: bytes
    """The digest of the execution's row, by `verification.digest_of_row`."""
    listing_digest: bytes
    """The digest of the row's listing, by `verification.digest_of_listing`."""
    change: int
    """The number of the newest change of its listing."""


def require_well_formed(items: Sequence[AppendItem]) -> None:
    """Check the caller's obligations.

    Raises:
        InvariantViolated: an execution stands twice in the items, one is made without a row or an event, or an entry
            of the index names events that its execution has not.
    """
    if len({(item.namespace, item.execution_id) for item in items}) != len(items):
        raise InvariantViolated("an execution occurs twice in one append; please report it")
    for item in items:
        if item.expected_sequence == 0 and (item.row is None or not item.events):
            raise InvariantViolated(
                f"execution {item.execution_id} is created without a row or an event; please report it",
                execution_id=item.execution_id,
            )
        last = item.expected_sequence + len(item.events)
        for entry in item.scope_entries:
            if not (0 < entry.sequences[0] <= entry.sequences[-1] <= last):
                raise InvariantViolated(
                    f"scope {entry.scope_path} of execution {item.execution_id} has events that are not there; please "
                    "report it",
                    execution_id=item.execution_id,
                )


def require_small(name: str, value: bytes | None) -> None:
    """Check the size of a setting.

    Raises:
        InvariantViolated: it is too large.
    """
    if value is not None and len(value) > SETTING_BYTES_MAX:
        raise InvariantViolated(f"the setting {name} has {len(value)} bytes; please report it")


def find_conflict(
    item: AppendItem, *, head: Head | None, record: RequestRecord | None, owner: int
) -> RequestConflict | SequenceConflict | EpochConflict | None:
    """Return the conflict for which an item must be refused; None if it may be appended.

    A request that was answered before comes first, because its answer holds whoever owns the execution now. Ownership
    comes next, because a writer that lost it cannot know the sequence either.

    Args:
        item: The item to append.
        head: The execution's head; None if the execution does not exist.
        record: The record that the item's request id has already; None if it is free.
        owner: The number of the opening that appends.
    """
    if record is not None:
        return RequestConflict(record=record)
    if head is None:
        return None if item.expected_sequence == 0 else SequenceConflict(last_sequence=0)
    if item.expected_sequence == 0:
        return SequenceConflict(last_sequence=head.last_sequence)
    if item.owner_epoch != head.owner_epoch or (head.is_open and head.owner != owner):
        return EpochConflict(owner_epoch=head.owner_epoch)
    if item.expected_sequence != head.last_sequence:
        return SequenceConflict(last_sequence=head.last_sequence)
    return None
