"""The data of a journal in memory, which outlives the journals that open it."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from plait_server.adapters.journals.conditions import Head
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.journal import Claim, DamagedRow, ExecutionRow, ListedExecution, RequestRecord
from plait_server.ports.log_lines import LogLine


class AppendPoint(Enum):
    """A point at which an append may be interrupted."""

    BEFORE_COMMIT = "before commit"
    """Before the append takes effect."""
    AFTER_COMMIT = "after commit"
    """After the append took effect, and before it returns."""


@dataclass(slots=True)
class StoredExecution:
    """An execution in memory."""

    namespace: str
    execution_id: str
    head: Head
    row: ExecutionRow
    events: list[bytes] = field(default_factory=list[bytes])
    checksums: list[bytes] = field(default_factory=list[bytes])
    audit: list[AuditRecord] = field(default_factory=list[AuditRecord])
    scopes: dict[str, array[int]] = field(default_factory=dict[str, "array[int]"])
    """Scope path -> sequences of its events, ascending."""
    arrivals: list[int] = field(default_factory=list[int])
    """The positions of its audit records in lists."""
    log_lines: list[LogLine] = field(default_factory=list[LogLine])
    """What is kept of its log, in order."""
    snapshots: dict[tuple[int, int], tuple[bytes, bytes]] = field(
        default_factory=dict[tuple[int, int], tuple[bytes, bytes]]
    )
    """Sequence and number of the parts of its snapshots -> content and checksum."""
    uses: dict[str, None] = field(default_factory=dict[str, None])
    """The digests of the contents that it was given."""
    is_damaged: bool = False
    """Whether its row is damaged."""

    def damaged_row(self) -> DamagedRow:
        """Return what lists show if its row is damaged."""
        return DamagedRow(
            namespace=self.namespace, execution_id=self.execution_id, position=self.head.position
        )

    def listed(self) -> ListedExecution:
        """Return the form for lists."""
        return ListedExecution(
            execution_id=self.execution_id,
            position=self.head.position,
            last_sequence=self.head.last_sequence,
            owner_epoch=self.head.owner_epoch,
            row=self.row,
        )

    def claim(self) -> Claim:
        """Return the claim on the execution."""
        return Claim(
            namespace=self.namespace,
            execution_id=self.execution_id,
            owner_epoch=self.head.owner_epoch,
            last_sequence=self.head.last_sequence,
            row=self.row,
        )


class MemoryStore:
    """The data of a journal in memory.

    Args:
        key: The store's secret of 32 bytes; random unless given.
        on_append: Called in each append, before and after it takes effect; its exceptions propagate
            from `append_many`.
    """

    def __init__(
        self, *, key: bytes | None = None, on_append: Callable[[AppendPoint], None] | None = None
    ) -> None:
        self.key = secrets.token_bytes(32) if key is None else key
        self.on_append = on_append
        self.generation = 0
        self.last_change = self.last_position = self.last_arrival = 0
        self.executions: dict[tuple[str, str], StoredExecution] = {}
        self.requests: dict[tuple[str, str, str], RequestRecord] = {}
        self.forget_times_s: dict[tuple[str, str, str], float] = {}
        """When the record of a request may be forgotten, if what it made is deleted."""
        self.contents: dict[tuple[str, str], bytes] = {}
        self.uses: dict[tuple[str, str], dict[int, None]] = {}
        """Namespace and digest -> positions of the executions that use it."""
        self.doomed: dict[int, StoredExecution] = {}
        """Position -> an execution that was taken out, and is to be deleted."""
        self.tombstones: list[tuple[int, str, str, float]] = []
        """Change, namespace, execution id and wall time of each deletion."""
        self.floor = 0
        """The newest change whose tombstone was dropped."""
        self.settings: dict[tuple[str, str], bytes] = {}
        self.audit: dict[int, tuple[str, AuditEntry]] = {}
        """Position -> namespace and entry, in the order of the positions."""

    def __repr__(self) -> str:
        return f"<MemoryStore of {len(self.executions)} executions, opened {self.generation} times>"

    def add_entry(self, namespace: str, execution_id: str, record: ActionRecord | AuditRecord) -> int:
        """Add an entry to the audit; return its position."""
        self.last_arrival += 1
        entry = AuditEntry(position=self.last_arrival, execution_id=execution_id, record=record)
        self.audit[self.last_arrival] = (namespace, entry)
        return self.last_arrival

    def damage_event(self, namespace: str, execution_id: str, sequence: int) -> None:
        """Flip a bit of a stored event, for tests of the detection of damage."""
        events = self.executions[namespace, execution_id].events
        event = events[sequence - 1]
        events[sequence - 1] = bytes((event[0] ^ 1,)) + event[1:]

    def damage_row(self, namespace: str, execution_id: str) -> None:
        """Change an execution's row without its key, for tests of the detection of damage."""
        self.executions[namespace, execution_id].is_damaged = True
