"""Reads back what `execution_snapshot` wrote: the state of an execution after an event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from plait.v1 import graph_pb2
from plait_server.core.definition.compiled import Definition
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.closed_scope import ClosedScope, NodeAttempt
from plait_server.core.run.events import NO_USAGE, NodeLock, ScopeOpened
from plait_server.core.run.execution import Execution, execution_in_slices, open_inside
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import NULL
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import CancelStage, NodeState
from plait_server.core.slices import Slices
from plait_server.encoding.graph_reading import policy_from_proto
from plait_server.encoding.snapshot_fields import (
    ATTEMPT_FIELDS,
    EDGE_STATES,
    EXECUTION_FIELDS,
    EXECUTION_STATES,
    NODE_FIELDS,
    SCOPE_FIELDS,
    TREATMENTS,
    VERSION,
    Field,
    failure_from_json,
    payload_from_json,
)

_ATTEMPT_DEFAULTS: Final = tuple((field.name, field.default) for field in ATTEMPT_FIELDS)
_UNSET: Final = tuple((field.name, field.default) for field in NODE_FIELDS)

_Json = Any  # What is read was written by this module's twin, and its hash was compared.


class SnapshotUnusable(Exception):
    """A snapshot is damaged, or of another version; the events hold everything."""


class SnapshotHead(NamedTuple):
    """What the head of a snapshot says."""

    sequence: int
    part_count: int
    hash: str


def read_head(content: bytes) -> SnapshotHead:
    """Read the head of a snapshot.

    Raises:
        SnapshotUnusable: It is of another version.
    """
    try:
        head = json.loads(content)
        if head["version"] != VERSION:
            message = f"it is of version {head['version']}, and this server reads {VERSION}"
            raise SnapshotUnusable(message)
        return SnapshotHead(head["sequence"], head["parts"], head["hash"])
    except (LookupError, TypeError, ValueError) as error:
        message = f"its head cannot be read: {error}"
        raise SnapshotUnusable(message) from error


def graphs_of(first_part: bytes) -> list[tuple[str, str]]:
    """Return the digests of the graphs, and of their analyses, that restoring needs besides the execution's own.

    Raises:
        SnapshotUnusable: The part cannot be read.
    """
    try:
        return [(graph, analysis) for graph, analysis in json.loads(first_part)[0][1][2]]
    except (LookupError, TypeError, ValueError) as error:
        message = f"its first part cannot be read: {error}"
        raise SnapshotUnusable(message) from error


def restore_in_slices(
    definition: Definition,
    definitions: Mapping[tuple[str, str], Definition],
    head: SnapshotHead,
    parts: Sequence[bytes],
) -> Slices[Execution]:
    """Restore an execution.

    Args:
        definition: The execution's graph.
        definitions: Those that `graphs_of` named.
        head: The head.
        parts: All parts, in order.

    Raises:
        SnapshotUnusable: The parts do not have the hash in the head, or do not fit the graph.
    """
    whole = hashlib.blake2b(digest_size=32)
    for part in parts:
        whole.update(part)
        yield
    if whole.hexdigest() != head.hash:
        message = "its hash does not fit"
        raise SnapshotUnusable(message)
    try:
        execution = yield from execution_in_slices(definition)
        restoring = _Restoring(execution, definitions)
        for part in parts:
            for kind, content in json.loads(part):
                yield from restoring.take(kind, content)
                yield
        yield from restoring.finish()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        message = f"it does not fit: {error!r}"
        raise SnapshotUnusable(message) from error
    if execution.sequence != head.sequence:
        message = "its head names another event"
        raise SnapshotUnusable(message)
    return execution


class _Restoring:
    """An execution that is being restored."""

    def __init__(self, execution: Execution, definitions: Mapping[tuple[str, str], Definition]) -> None:
        self._execution = execution
        self._definitions = definitions
        self._failures: list[Failure] = []
        self._open: dict[int, None] = {}
        self._scopes: dict[int, Scope] = {0: execution.root}
        """First sequence -> scope; the root's is 0."""
        self._head: dict[str, _Json] = {}
        self._treatments: dict[int, str] = {}
        self._texts: dict[str, str] = {}
        """Each text once: the names of workers come with every attempt."""

    def take(self, kind: str, content: _Json) -> Slices[None]:
        """Take what stands in a part."""
        match kind:
            case "execution":
                self._head, numbers, _ = content
                self._open = dict.fromkeys(numbers)
            case "failures":
                self._failures += map(failure_from_json, content)
            case "scope":
                if content[0] in self._open:
                    yield from self._take_scope(content)
            case "nodes":
                if content[0] in self._open:
                    self._take_nodes(content)
            case "closed":
                for values in content:
                    closed = self._closed(values)
                    self._execution.closed[closed.path] = closed
            case "stopped":
                self._take_stopped(content)
            case "failed":
                failures: list[tuple[str, Failure]] = [
                    (path, self._failures[number]) for path, number in content
                ]
                self._execution.totals.failures += failures
            case "receipts":
                stages = [((path, attempt), CancelStage(stage)) for (path, attempt), stage in content]
                self._execution.receipts.update(stages)
            case _:
                message = f"an unknown kind of part: {kind}"
                raise ValueError(message)

    def finish(self) -> Slices[None]:
        """Set what follows from the whole, and what opening the scopes has changed."""
        execution, head = self._execution, self._head
        _set_fields((execution,), EXECUTION_FIELDS, head["fields"], {})
        execution.failure = self._failure(head["failure"])
        for path, is_locked, output in head["locks"]:
            execution.locks[path] = NodeLock(path, is_locked, payload_from_json(output))
        execution.totals.node_count = head["node_count"]
        execution.totals.state_counts.update(
            {NodeState(state): count for state, count in head["state_counts"]}
        )
        for path, failure in execution.totals.failures:
            scope = execution.scopes.get(path)
            if scope is not None:
                scope.failures.append(failure)
        yield
        pending: list[NodeRecord] = []
        for number in self._open:
            scope = self._scopes[number]
            scope.treatments = [TREATMENTS[int(digit)] for digit in self._treatments[number]]
            scope.treatments += [TREATMENTS[0]] * (len(scope.failures) - len(scope.treatments))
            pending += yield from _set_levels(scope)
            if scope.losers:
                execution.agenda.racing[scope] = None
            if scope.stopped_by is TREATMENTS[4]:
                execution.agenda.sweeping[scope] = None
        agenda = execution.agenda
        for record in sorted(pending, key=lambda record: record.turn):
            is_skip = record.verdict is not None and record.verdict.is_skip
            (agenda.skips if is_skip else agenda.decided)[record] = None
        agenda.turns = head["turns"]

    def _failure(self, number: int | None) -> Failure | None:
        return self._failures[number] if number is not None else None

    def _take_scope(self, content: _Json) -> Slices[None]:
        number, origin, fields, failure, edges, unwanted, treatments, losers, taken, waiting, policy = content
        scope = self._scopes.get(number)
        if scope is None:
            scope = yield from self._open_scope(origin)
            self._scopes[number] = scope
        _set_fields((scope,), SCOPE_FIELDS, fields, self._texts)
        scope.failure = self._failure(failure)
        if edges:
            scope.edge_states = [EDGE_STATES[digit - 48] for digit in edges.encode()]
        if unwanted:
            scope.unwanted = bytearray(digit - 48 for digit in unwanted.encode())
        self._treatments[number] = treatments
        scope.losers = dict.fromkeys(losers)
        for branch, count in taken:
            scope.branches.take_numbers(branch, count - scope.branches.numbers_taken.get(branch, 0))
        if waiting is not None:
            self._execution.scope_index.restore(scope.path, waiting)
        if policy is not None:
            message = graph_pb2.Policy.FromString(policy.encode("latin-1"))
            scope.policy = policy_from_proto(message, "policy", [])

    def _open_scope(self, origin: _Json) -> Slices[Scope]:
        outer_number, index, path, given, node_count, before, graph_digest, analysis_digest = origin
        outer = self._scopes[outer_number]
        record = outer.records[int(index)]
        detail = ScopeOpened(
            path, payload_from_json(given) or NULL, node_count, before, graph_digest, analysis_digest
        )
        definition = (
            self._definitions[graph_digest, analysis_digest]
            if graph_digest
            else outer.definition.inner[index]
        )
        scope = open_inside(self._execution, record, definition, detail, outer.branch(index))
        yield from scope.fill_in_slices()
        outer.children[index] = self._execution.scopes[path] = scope
        return scope

    def _take_nodes(self, content: _Json) -> None:
        number, is_again, indexes, columns, failures, lacking, counts, attempt_columns, attempt_failures = (
            content
        )
        all_records = self._scopes[number].records
        records: list[NodeRecord] = [all_records[index] for index in indexes]
        if is_again:
            for name, default in _UNSET:
                if name not in columns:
                    for record in records:
                        setattr(record, name, default)
        _set_fields(records, NODE_FIELDS, columns, self._texts)
        attempts = self._attempts(attempt_columns, attempt_failures)
        for record, failure, lack, count in zip(records, failures, lacking, counts, strict=True):
            record.failure = self._failure(failure)
            record.wanted = record.plain_total - lack
            record.attempts = tuple(next(attempts) for _ in range(count)) if count else ()

    def _attempts(self, columns: _Json, failures: Sequence[int | None]) -> Iterator[AttemptRecord]:
        attempts = [AttemptRecord.__new__(AttemptRecord) for _ in failures]
        for attempt, failure in zip(attempts, failures, strict=True):
            for name, default in _ATTEMPT_DEFAULTS:
                setattr(attempt, name, default)
            attempt.failure = self._failure(failure)
            attempt.late_usage = NO_USAGE
        _set_fields(attempts, ATTEMPT_FIELDS, columns, self._texts)
        return iter(attempts)

    def _closed(self, values: _Json) -> ClosedScope:
        path, graph_name, node_count, state, failure, first, last, digests, outcomes = values
        closed = ClosedScope.__new__(ClosedScope)
        closed.path, closed.graph_name, closed.node_count = path, graph_name, node_count
        closed.state, closed.failure = EXECUTION_STATES[state], self._failure(failure)
        closed.first_sequence, closed.last_sequence = first, last
        closed.graph_digests = tuple(digests) if digests is not None else ("", "")
        closed.outcomes = outcomes.encode("latin-1")
        return closed

    def _take_stopped(self, content: _Json) -> None:
        names, columns = content
        attempts = self._attempts(columns, [failure for _, _, failure in names])
        for (node_path, branch, _), attempt in zip(names, attempts, strict=True):
            scope_path, _, node_id = node_path.rpartition("/")
            definition = self._definition(scope_path)
            node = definition.graph.nodes[definition.adjacency.index[node_id]]
            self._execution.stopped[node_path, attempt.number] = NodeAttempt(node_path, node, branch, attempt)

    def _definition(self, scope_path: str) -> Definition:
        """Return the graph of a scope, open or closed."""
        scope = self._execution.scopes.get(scope_path)
        if scope is not None:
            return scope.definition
        digests = self._execution.closed[scope_path].graph_digests
        if digests[0]:
            return self._definitions[digests]
        outer_path, _, node_id = scope_path.rpartition("/")
        outer = self._definition(outer_path)
        return outer.inner[outer.adjacency.index[node_id]]


def _set_fields(
    objects: Sequence[object], fields: Sequence[Field], columns: _Json, texts: dict[str, str]
) -> None:
    for name, _, _, read in fields:
        values = columns.get(name)
        if values is None:
            continue
        if read is not None:
            values = map(read, values)
        elif isinstance(values[0], str):
            values = [texts.setdefault(value, value) for value in values]
        for each, value in zip(objects, values, strict=True):
            setattr(each, name, value)


def _set_levels(scope: Scope) -> Slices[list[NodeRecord]]:
    """Count the open nodes of each level; return the nodes that wait for their turn."""
    levels, open_of_level = scope.analysis.levels, [0] * len(scope.level_open)
    pending: list[NodeRecord] = []
    for done, record in enumerate(scope.records, 1):
        if not record.state.is_ended:
            open_of_level[levels[record.index]] += 1
        if record.turn:
            pending.append(record)
        if done % 1_000 == 0:
            yield
    scope.level_open = open_of_level
    scope.level = next((level for level, count in enumerate(open_of_level) if count), len(open_of_level))
    return pending
