"""The fields of a log line: the execution, node, branch, attempt, trace and span that it is about (B3).

Each line passes the fields that it has as `extra`, so they are attributes of the record, under the names in
`LOG_FIELDS`. They are passed explicitly: one trio task (the committer's, a worker's stream, the allocator's
callbacks) acts for many executions in turn, so a context variable would name the wrong one.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.core.run.trace import SpanIds
from plait_server.ports.workers import Assignment, AttemptKey

LOG_FIELDS: Final = ("namespace", "execution", "node", "branch", "attempt", "trace", "span")
"""The names of the fields, in the order in which they are written."""

LogFields: TypeAlias = dict[str, str | int]
"""Name -> value; no value is empty."""


def execution_fields(namespace: str, execution: Execution) -> LogFields:
    """Return the fields of a line about an execution; the span is the execution's."""
    return key_fields((namespace, execution.execution_id)) | _trace_fields(execution.traceparent)


def event_fields(namespace: str, execution: Execution, event: Event) -> LogFields:
    """Return the fields of a line about an event; the span is the attempt's, else the node's, else the execution's."""
    path, attempt = event.node_path, event.attempt
    if not path:
        return execution_fields(namespace, execution)
    spans = SpanIds(namespace, execution.execution_id, event.run)
    fields = execution_fields(namespace, execution) | {"node": path, "branch": event.branch}
    if attempt:
        fields["attempt"] = attempt
    return fields | {"span": (spans.attempt(path, attempt) if attempt else spans.node(path)).hex()}


def key_fields(key: tuple[str, str]) -> LogFields:
    """Return the fields of a line about an execution of which only the key is known: namespace and id."""
    return {"namespace": key[0], "execution": key[1]}


def attempt_fields(key: AttemptKey) -> LogFields:
    """Return the fields of a line about an attempt of which only the key is known."""
    return key_fields((key.namespace, key.execution_id)) | {"node": key.node_path, "attempt": key.attempt}


def assignment_fields(assignment: Assignment) -> LogFields:
    """Return the fields of a line about an attempt at a worker; the span is the attempt's."""
    branch: LogFields = {"branch": assignment.branch} if assignment.branch else {}
    return attempt_fields(assignment.key) | branch | _trace_fields(assignment.traceparent)


def _trace_fields(traceparent: str) -> LogFields:
    if not traceparent:
        return {}
    _, trace_id, span_id, _ = traceparent.split("-", 3)
    return {"trace": trace_id, "span": span_id}
