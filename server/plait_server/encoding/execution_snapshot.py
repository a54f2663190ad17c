"""Writes the state of an execution after an event as a snapshot: parts of bounded size (K2).

The execution continues while its nodes are written, some in each slice. So, as in `api.snapshots`:

1. `write_round` writes all nodes and scopes that have changed since the round before, in slices.
2. When few are left, `take_rest` writes these and copies everything else in one piece: no event comes in between, so
   all of it is the state after one event. Whatever it copies does not change later.
3. `finish` writes the copies, in slices.

A node or scope that stands in several parts counts as it stands in the last. A node without events so far stands in
none. Values are in columns, one an attribute, because that is smaller and three times as quick as one object a node;
columns are JSON, which Python reads in C and which cannot do anything but hold data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.closed_scope import ClosedScope, NodeAttempt
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import CancelStage
from plait_server.core.slices import Slices, batches
from plait_server.encoding.graph_codec import policy_to_proto
from plait_server.encoding.snapshot_fields import (
    ATTEMPT_FIELDS,
    EXECUTION_FIELDS,
    NODE_FIELDS,
    SCOPE_FIELDS,
    VERSION,
    Field,
    failure_to_json,
    payload_to_json,
)

PART_BYTES: Final = 128 * 1024
"""About the size of a part; reading or storing one takes 2 ms."""
_RECORDS: Final = 64
"""Nodes of one group of columns, and of one slice: half a millisecond."""

_WRITTEN_DIGITS: Final = bytes(48 + min(value, 9) for value in range(256))


class Snapshot(NamedTuple):
    """The state of an execution after an event, in a form for the store."""

    sequence: int
    head: bytes
    """Names the version, the number of parts and the hash of the state."""
    parts: Sequence[bytes]
    items: int
    """How many nodes stand in it, or attempts, whichever is more; and closed scopes."""


class _Rest(NamedTuple):
    """Copies of what is not written in rounds."""

    sequence: int
    execution: dict[str, object]
    open_scopes: list[int]
    graphs: dict[tuple[str, str], None]
    """The digests of the graphs of open scopes that were outputs, and of their analyses."""
    closed: list[ClosedScope]
    stopped: list[tuple[NodeAttempt, Mapping[str, str]]]
    failures: list[tuple[str, Failure]]
    receipts: list[tuple[tuple[str, int], CancelStage]]


class SnapshotWriter:
    """Writes one snapshot."""

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._since = -1
        """Everything is written as of this sequence or later."""
        self._is_again = False
        self._scopes: list[str] = []
        self._records: list[str] = []
        self._failures: list[Failure] = []
        self._failure_numbers: dict[int, int] = {}
        """id of a failure in `_failures` -> its position."""
        self._rest: _Rest | None = None
        self._node_count = self._attempt_count = 0
        self.size_bytes = 0
        """How much has been written."""

    def __repr__(self) -> str:
        return f"<SnapshotWriter of {self._execution!r}, {self.size_bytes} bytes>"

    def due_count(self) -> int:
        """Return how many nodes and scopes have changed since they were written."""
        return sum(1 + len(records) for _, records in self._due())

    def write_round(self) -> Slices[None]:
        """Write what has changed since the round before."""
        due = self._due()
        self._since = self._execution.sequence
        for scope, records in due:
            yield from self._write_scope(scope, records)
        self._is_again = True

    def take_rest(self) -> None:
        """Write what has changed since the last round, and copy all that is left. Call this once."""
        execution = self._execution
        for scope, records in self._due():
            for _ in self._write_scope(scope, records):
                pass
        totals = execution.totals
        self._rest = _Rest(
            sequence=execution.sequence,
            execution={
                "fields": _columns((execution,), EXECUTION_FIELDS),
                "failure": self._number(execution.failure),
                "node_count": totals.node_count,
                "state_counts": list(totals.state_counts.items()),
                "turns": execution.agenda.turns,
                "locks": [
                    (lock.node_path, lock.is_locked, payload_to_json(lock.output))
                    for lock in execution.locks.values()
                ],
            },
            open_scopes=[scope.first_sequence for scope in execution.scopes.values()],
            graphs={
                (scope.opened.graph_digest, scope.opened.analysis_digest): None
                for scope in execution.scopes.values()
                if scope.opened is not None and scope.opened.graph_digest
            },
            closed=list(execution.closed.values()),
            stopped=[(stopped, stopped.attempt.usage) for stopped in execution.stopped.values()],
            failures=totals.failures.copy(),
            receipts=list(execution.receipts.items()),
        )

    def finish(self) -> Slices[Snapshot]:
        """Write the copies, and return the snapshot."""
        rest = self._rest
        assert rest is not None  # `take_rest` was called
        others: list[str] = []
        for closed in batches(rest.closed):
            others.append(self._text("closed", [self._closed_to_json(each) for each in closed]))
            yield
        for stopped in batches(rest.stopped):
            attempts = _columns([each.attempt for each, _ in stopped], ATTEMPT_FIELDS)
            attempts["usage"] = [dict(usage) for _, usage in stopped]
            names = [(each.node_path, each.branch, self._number(each.attempt.failure)) for each, _ in stopped]
            others.append(self._text("stopped", [names, attempts]))
            yield
        numbers: list[tuple[str, int | None]] = []
        for failures in batches(rest.failures):
            numbers += [(path, self._number(failure)) for path, failure in failures]
            yield
        others += [self._text("failed", part) for part in batches(numbers)]
        others += [self._text("receipts", part) for part in batches(rest.receipts)]
        graphs = {
            **rest.graphs,
            **{each.graph_digests: None for each in rest.closed if each.graph_digests[0]},
        }
        yield
        # Read in this order: what the later ones refer to stands before them.
        texts = [self._text("execution", [rest.execution, rest.open_scopes, list(graphs)])]
        gathered: list[str] = []
        size = 0
        for failure in self._failures:
            gathered.append(_dumps(failure_to_json(failure)))
            size += len(gathered[-1])
            if size >= PART_BYTES:
                texts.append(f'["failures",[{",".join(gathered)}]]')
                gathered, size = [], 0
                yield
        texts.append(f'["failures",[{",".join(gathered)}]]')
        parts = yield from _join([*texts, *self._scopes, *others, *self._records])
        whole = hashlib.blake2b(digest_size=32)
        for part in parts:
            whole.update(part)
            yield
        head = _dumps(
            {"version": VERSION, "parts": len(parts), "hash": whole.hexdigest(), "sequence": rest.sequence}
        )
        items = max(self._node_count, self._attempt_count) + len(rest.closed)
        return Snapshot(rest.sequence, head.encode(), parts, items)

    # Inside.

    def _due(self) -> list[tuple[Scope, list[NodeRecord]]]:
        since = self._since
        due: list[tuple[Scope, list[NodeRecord]]] = []
        for scope in self._execution.scopes.values():
            if scope.sequence > since or scope.parent is None:
                # A record without events is as the restored scope makes it.
                after = max(since, 0)
                due.append((scope, [record for record in scope.records if record.changed > after]))
        return due

    def _write_scope(self, scope: Scope, records: list[NodeRecord]) -> Slices[None]:
        self._scopes.append(self._text("scope", self._scope_to_json(scope)))
        yield
        gathered: list[NodeRecord] = []
        size = 0
        for record in records:
            gathered.append(record)
            size += 100 + _size_of(record)
            if len(gathered) == _RECORDS or size >= PART_BYTES:
                self._records.append(self._text("nodes", self._records_to_json(scope, gathered)))
                gathered, size = [], 0
                yield
                if scope.is_dropped:
                    return
        if gathered:
            self._records.append(self._text("nodes", self._records_to_json(scope, gathered)))
            yield

    def _scope_to_json(self, scope: Scope) -> object:
        opened, parent = scope.opened, scope.parent
        origin: object = None
        if opened is not None and parent is not None:
            origin = [
                parent.scope.first_sequence,
                parent.index,
                opened.scope_path,
                payload_to_json(opened.input),
                opened.node_count,
                opened.branches_before,
                opened.graph_digest,
                opened.analysis_digest,
            ]
        waiting = self._execution.scope_index.waiting(scope.path)
        return [
            scope.first_sequence,
            origin,
            # All of them: the scope may stand in a part before, with other values.
            _columns((scope,), SCOPE_FIELDS, is_whole=True),
            self._number(scope.failure),
            _digits(scope.edge_states),
            _digits(scope.unwanted),
            _digits(scope.treatments),
            list(scope.losers),
            list(scope.branches.numbers_taken.items()),
            list(waiting) if waiting is not None else None,
            policy_to_proto(scope.policy).SerializeToString().decode("latin-1")
            if scope.policy is not scope.graph.policy
            else None,
        ]

    def _records_to_json(self, scope: Scope, records: Sequence[NodeRecord]) -> object:
        attempts = [attempt for record in records for attempt in record.attempts]
        self._node_count += len(records)
        self._attempt_count += len(attempts)
        return [
            scope.first_sequence,
            self._is_again,
            [record.index for record in records],
            _columns(records, NODE_FIELDS),
            [self._number(record.failure) for record in records],
            [record.plain_total - record.wanted for record in records],
            [len(record.attempts) for record in records],
            *self._attempts_to_json(attempts),
        ]

    def _attempts_to_json(self, attempts: Sequence[AttemptRecord]) -> list[object]:
        return [_columns(attempts, ATTEMPT_FIELDS), [self._number(each.failure) for each in attempts]]

    def _closed_to_json(self, closed: ClosedScope) -> object:
        return [
            closed.path,
            closed.graph_name,
            closed.node_count,
            closed.state,
            self._number(closed.failure),
            closed.first_sequence,
            closed.last_sequence,
            closed.graph_digests if closed.graph_digests[0] else None,
            closed.outcomes.decode("latin-1"),
        ]

    def _number(self, failure: Failure | None) -> int | None:
        """Return the number of a failure; the same object has one number, and is written once."""
        if failure is None:
            return None
        number = self._failure_numbers.get(id(failure))
        if number is None:
            number = self._failure_numbers[id(failure)] = len(self._failures)
            self._failures.append(failure)
        return number

    def _text(self, kind: str, content: object) -> str:
        text = _dumps([kind, content])
        self.size_bytes += len(text)
        return text


def _columns(
    objects: Sequence[object], fields: Sequence[Field], *, is_whole: bool = False
) -> dict[str, object]:
    """Return the values of each field that is not the default everywhere; with `is_whole`, those of all fields."""
    columns: dict[str, object] = {}
    for name, default, write, _ in fields:
        values: list[object] = list(map(attrgetter(name), objects))
        if is_whole or values.count(default) != len(values):
            columns[name] = values if write is None else list(map(write, values))
    return columns


def _digits(values: Sequence[int]) -> str:
    """Return small numbers as digits; empty if all of them are 0."""
    packed = bytes(values)
    return packed.translate(_WRITTEN_DIGITS).decode() if packed.strip(b"\0") else ""


def _size_of(record: NodeRecord) -> int:
    given, made = record.input, record.output
    size = 200 * len(record.attempts)
    if given is not None:
        size += len(given.json)
    if made is not None:
        size += len(made.json)
    return size


def _join(texts: Sequence[str]) -> Slices[list[bytes]]:
    """Join texts to parts of about `PART_BYTES`, in order."""
    parts: list[bytes] = []
    gathered: list[str] = []
    size = 0
    for text in texts:
        gathered.append(text)
        size += len(text)
        if size >= PART_BYTES:
            parts.append(f"[{','.join(gathered)}]".encode())
            gathered, size = [], 0
            yield
    if gathered:
        parts.append(f"[{','.join(gathered)}]".encode())
    return parts


def _dumps(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), check_circular=False)
