"""The fields of an execution's state that a snapshot keeps, and how each is written as JSON.

A field that every value of a part leaves at its default takes no room, and restoring leaves it alone. To add a field to
the state, add one line here, or name it where it is derived: the tables of fields are checked against the classes by a
test.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple, TypeVar, cast

from plait_server.core.run.events import NO_USAGE
from plait_server.core.run.failures import Failure
from plait_server.core.run.joins import Verdict
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    EdgeState,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
)

VERSION: Final = 1
"""The version of the form below. A snapshot of any other version is not used: change it with the form."""

E = TypeVar("E", bound=enum.Enum)


class Field(NamedTuple):
    """One attribute."""

    name: str
    default: object = None
    write: Callable[[object], object] | None = None
    """Returns a value as JSON; None if it is JSON as it stands."""
    read: Callable[[object], object] | None = None
    """Returns what was written."""


def payload_to_json(payload: object) -> object:
    """Write a payload: its text, or its digest and size."""
    if payload is None:
        return None
    text, digest, size_bytes = cast("Payload", payload)
    return [digest, size_bytes] if digest else text


def payload_from_json(value: object) -> Payload | None:
    """Read what `payload_to_json` wrote."""
    match value:
        case None:
            return None
        case str():
            return Payload(value)
        case _:
            digest, size_bytes = cast("tuple[str, int]", value)
            return Payload("", digest, size_bytes)


def failure_to_json(failure: Failure) -> object:
    """Write a failure."""
    return [
        failure.code,
        failure.message,
        payload_to_json(failure.details),
        [failure_to_json(cause) for cause in failure.causes],
        failure.retryable,
        failure.node_path,
        failure.attempt,
        failure.causes_omitted,
        failure.details_omitted,
    ]


def failure_from_json(value: object) -> Failure:
    """Read what `failure_to_json` wrote."""
    code, message, details, causes, retryable, node_path, attempt, omitted, without_details = cast(
        "tuple[str, str, object, list[object], bool, str, int, int, bool]", value
    )
    return Failure(
        code=code,
        message=message,
        details=payload_from_json(details),
        causes=tuple(map(failure_from_json, causes)),
        retryable=retryable,
        node_path=node_path,
        attempt=attempt,
        causes_omitted=omitted,
        details_omitted=without_details,
    )


def _members(name: str, kind: type[enum.Enum], default: enum.Enum | None = None) -> Field:
    """Return the field of an enumeration."""
    written: dict[object, object] = {None: None}
    written.update((member, cast("object", member.value)) for member in kind)
    read = {value: member for member, value in written.items()}
    return Field(name, default, written.__getitem__, read.__getitem__)


def _payload(name: str, default: Payload | None = None) -> Field:
    return Field(name, default, payload_to_json, payload_from_json)


def _write_texts(texts: object) -> object:
    return dict(cast("Mapping[str, str]", texts))


def _octets(name: str) -> Field:
    def write(octets: object) -> object:
        return cast("bytes", octets).decode("latin-1")

    def read(text: object) -> object:
        return cast("str", text).encode("latin-1")

    return Field(name, b"", write, read)


def _numbers(name: str) -> Field:
    def write(numbers: object) -> object:
        return list(cast("tuple[int, ...]", numbers))

    def read(numbers: object) -> object:
        return tuple(cast("list[int]", numbers))

    return Field(name, (), write, read)


NODE_FIELDS: Final = (
    _members("state", NodeState, NodeState.IDLE),
    Field("reason", ""),
    Field("active", 0),
    Field("active_error", 0),
    Field("dead", 0),
    Field("broken", 0),
    _members("verdict", Verdict),
    _numbers("active_edges"),
    Field("used", 0),
    Field("lost", 0),
    _payload("input"),
    _payload("output"),
    _members("treatment", Treatment, Treatment.NONE),
    Field("origin", -1),
    Field("started_s", 0.0),
    Field("ended_s", 0.0),
    Field("due_s", 0.0),
    Field("idled_s", 0.0),
    Field("ready_s", 0.0),
    Field("ready_paused_s", 0.0),
    Field("sequence", 0),
    Field("changed", 0),
    Field("turn", 0),
    _octets("inside"),
)
NODE_FIELDS_OF_OTHER_FORM: Final = ("attempts", "failure", "wanted")
"""Fields of nodes that are written, too; `failure` by its number, `wanted` by what it lacks."""
NODE_FIELDS_DERIVED: Final = ("index", "node", "path", "plain_total", "scope", "total")

ATTEMPT_FIELDS: Final = (
    Field("number", 0),
    Field("run", 1),
    Field("worker_id", ""),
    Field("worker_instance_id", ""),
    Field("concurrency_key", ""),
    Field("queue_s", 0.0),
    Field("started_s", 0.0),
    Field("ended_s", 0.0),
    Field("deadline_s", 0.0),
    Field("extensions", 0),
    Field("retry_time_s", 0.0),
    _members("outcome", AttemptOutcome),
    Field("usage", NO_USAGE, _write_texts),
    _payload("heartbeat_details"),
)
ATTEMPT_FIELDS_OF_OTHER_FORM: Final = ("failure",)
ATTEMPT_FIELDS_DERIVED: Final = ("late_usage",)

SCOPE_FIELDS: Final = (
    Field("started_s", 0.0),
    Field("first_sequence", 0),
    Field("sequence", 0),
    _members("ended_as", ExecutionState),
    Field("open_count", 0),
    Field("running_count", 0),
    Field("in_flight_count", 0),
    Field("level_s", 0.0),
    Field("level_paused_s", 0.0),
    Field("_is_closed", default=False),
    _members("stopped_by", Treatment, Treatment.NONE),
)
SCOPE_FIELDS_OF_OTHER_FORM: Final = (
    "branches",
    "edge_states",
    "failure",
    "failures",
    "input",
    "losers",
    "opened",
    "parent",
    "path",
    "policy",
    "records",
    "treatments",
    "unwanted",
)
SCOPE_FIELDS_DERIVED: Final = (
    "_totals",
    "adjacency",
    "agenda",
    "analysis",
    "children",
    "definition",
    "depth",
    "graph",
    "held",
    "is_dropped",
    "is_looked_at",
    "level",
    "level_open",
    "limits",
    "locks",
    "places_around",
)


def _write_amounts(usage: object) -> object:
    return {unit: str(amount) for unit, amount in cast("dict[str, Decimal]", usage).items()}


def _read_amounts(value: object) -> object:
    return {unit: Decimal(amount) for unit, amount in cast("dict[str, str]", value).items()}


EXECUTION_FIELDS: Final = (
    _members("state", ExecutionState),
    Field("reason", ""),
    Field("run", 1),
    Field("sequence", 0),
    Field("execution_id", ""),
    Field("graph_digest", ""),
    Field("labels", {}, _write_texts),
    _payload("input", NULL),
    _payload("output"),
    Field("failure_count", 0),
    Field("traceparent", ""),
    Field("parent_span_id", ""),
    Field("tracestate", ""),
    Field("created_s", 0.0),
    Field("started_s", 0.0),
    Field("ended_s", 0.0),
    Field("is_started", default=False),
    Field("is_paused", default=False),
    Field("priority", 0),
    Field("settings_sequence", 0),
    _members("pause_mode", PauseMode, PauseMode.WAIT),
    _payload("resume_data", NULL),
    Field("_paused_from_s"),
    Field("_paused_s", 0.0),
    Field("attempts_running", 0),
    Field("open_receipts", 0),
    Field("usage", {}, _write_amounts, _read_amounts),
)
EXECUTION_FIELDS_OF_OTHER_FORM: Final = (
    "agenda",
    "closed",
    "failure",
    "locks",
    "receipts",
    "root",
    "scope_index",
    "scopes",
    "stopped",
    "totals",
)
EXECUTION_FIELDS_DERIVED: Final = ("definitions", "just_closed")

EDGE_STATES: Final = tuple(EdgeState)
TREATMENTS: Final = {member.value: member for member in Treatment}
EXECUTION_STATES: Final = {member.value: member for member in ExecutionState}
