"""Events as lines: when, which node, what happened, and what there is to say of it.

0.000            submitted   7 nodes, contact-sheet-1
0.006  prompt_1  running     at demo-1
0.021  prompt_1  succeeded   15 ms
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from plait.v1 import event_pb2, failure_pb2, graph_pb2, payload_pb2, state_pb2
from plait_server.cli.summary import payload_line
from plait_server.cli.text import between, color_of, colored, count, dim, duration, name_of, one_line

NODE_CHARS_MIN: Final = 8
NODE_CHARS_MAX: Final = 32
_TIME_CHARS: Final = 9
_WHAT_CHARS: Final = 11
_MESSAGE_CHARS_MAX: Final = 300
_QUEUE_SHOWN_S: Final = 0.05
"""A wait for capacity below this is of no interest to the eye."""

_TREATMENTS: Final[Mapping[int, str]] = {
    event_pb2.FAILURE_TREATMENT_HANDLED: "handled by an error edge",
    event_pb2.FAILURE_TREATMENT_IGNORED: "ignored",
    event_pb2.FAILURE_TREATMENT_TOLERATED: "tolerated",
}
# What a node's new state means at the end of an attempt.
_AFTER_ATTEMPT: Final[Mapping[int, str]] = {
    state_pb2.NODE_STATE_BACKING_OFF: "retries",
    state_pb2.NODE_STATE_QUEUED: "again",
    state_pb2.NODE_STATE_IDLE: "aborted",
}


class Timeline:
    """Writes the events of one execution as lines, in order.

    Args:
        node_chars: how wide the column of the nodes is.
    """

    def __init__(self, node_chars: int) -> None:
        self._node_chars = min(max(node_chars, NODE_CHARS_MIN), NODE_CHARS_MAX)
        self._start: Timestamp | None = None
        self._attempts: dict[str, tuple[Timestamp, str]] = {}

    def begin(self, start: Timestamp) -> None:
        """Set when the execution began; without it, it began with the first event."""
        self._start = start

    def line(self, event: event_pb2.Event) -> str:
        """Write an event."""
        if self._start is None:
            self._start = event.time
        what, notes = self._told(event)
        state = _state_name(event)
        time = f"{between(self._start, event.time):.3f}".rjust(_TIME_CHARS)
        node = _cut(event.node_path, self._node_chars).ljust(self._node_chars)
        text = "  ".join(one_line(note, _MESSAGE_CHARS_MAX) for note in notes if note)
        return f"{dim(time)}  {node}  {colored(what.ljust(_WHAT_CHARS), color_of(state))} {text}".rstrip()

    def _told(self, event: event_pb2.Event) -> tuple[str, list[str]]:
        kind = event_pb2.EventType
        match event.type:
            case kind.EVENT_TYPE_EXECUTION_SUBMITTED:
                submitted = event.execution_submitted
                return "submitted", [submitted.execution_id, count(submitted.node_count, "node")]
            case kind.EVENT_TYPE_EXECUTION_STARTED:
                return "started", []
            case kind.EVENT_TYPE_ATTEMPT_STARTED:
                return "running", self._attempt_started(event)
            case kind.EVENT_TYPE_ATTEMPT_EXTENDED:
                left_s = between(event.time, event.attempt_extended.deadline_time)
                return "extended", [f"{duration(left_s)} left"]
            case kind.EVENT_TYPE_ATTEMPT_ENDED:
                what = _AFTER_ATTEMPT.get(event.node_state, _words(_state_name(event)))
                return what or _words(_outcome_name(event)), self._attempt_ended(event)
            case kind.EVENT_TYPE_NODE_ENDED:
                ended = event.node_ended
                reason = "" if ended.HasField("failure") else event.reason
                return _words(_state_name(event)), [reason, *_failure_notes(ended.failure, ended.treatment)]
            case kind.EVENT_TYPE_NODE_WAITING:
                left_s = between(event.time, event.node_waiting.due_time)
                return "waiting", [f"for {duration(left_s)}"]
            case kind.EVENT_TYPE_NODE_IDLED:
                return "put back", [event.reason]
            case kind.EVENT_TYPE_CANCEL_REQUESTED:
                return "cancelling", [event.cancel_requested.reason]
            case kind.EVENT_TYPE_CANCEL_RECEIPT:
                receipt = event.cancel_receipt
                stage = name_of(event_pb2.CancelStage, receipt.stage, "CANCEL_STAGE_")
                return "cancel", [stage.lower(), f"at {receipt.worker_id}" if receipt.worker_id else ""]
            case kind.EVENT_TYPE_USAGE_REPORTED:
                used = (f"{amount} {unit}" for unit, amount in sorted(event.usage_reported.usage.items()))
                return "used", [", ".join(used)]
            case kind.EVENT_TYPE_SCOPE_OPENED:
                return "opened", [count(event.scope_opened.node_count, "node")]
            case kind.EVENT_TYPE_SCOPE_ENDED:
                name = name_of(state_pb2.ExecutionState, event.scope_ended.state, "EXECUTION_STATE_")
                return "graph ended", [_words(name)]
            case kind.EVENT_TYPE_EXECUTION_PAUSE_REQUESTED:
                is_abort = event.pause_requested.mode == event_pb2.PAUSE_MODE_ABORT
                return "pausing", ["what runs is stopped" if is_abort else "", event.pause_requested.reason]
            case kind.EVENT_TYPE_EXECUTION_PAUSED:
                return "paused", [event.reason]
            case kind.EVENT_TYPE_EXECUTION_RESUMED:
                return "resumed", [event.execution_resumed.reason]
            case kind.EVENT_TYPE_EXECUTION_UPDATED:
                return "updated", _settings_notes(event.execution_updated)
            case kind.EVENT_TYPE_EXECUTION_ENDED:
                return _state_name(event), self._execution_ended(event)
            case _:
                return f"event {event.type}", ["this client is older than the server"]

    def _attempt_started(self, event: event_pb2.Event) -> list[str]:
        started = event.attempt_started
        self._attempts[event.node_path] = (event.time, started.worker_id)
        queued_s = started.queue_time.ToTimedelta().total_seconds()
        return [
            f"at {started.worker_id}",
            f"attempt {event.attempt}" if event.attempt > 1 else "",
            f"queued {duration(queued_s)}" if queued_s >= _QUEUE_SHOWN_S else "",
        ]

    def _attempt_ended(self, event: event_pb2.Event) -> list[str]:
        ended = event.attempt_ended
        start, worker_id = self._attempts.pop(event.node_path, (None, ""))
        notes = [f"{duration(between(start, event.time))} at {worker_id}" if start is not None else ""]
        if event.node_state == state_pb2.NODE_STATE_QUEUED:
            notes.append(_words(_outcome_name(event)))
        if event.node_state in (state_pb2.NODE_STATE_IDLE, state_pb2.NODE_STATE_CANCELLED):
            notes.append(event.reason)
        notes += _failure_notes(ended.failure, ended.treatment)
        if ended.HasField("retry_time"):
            notes.append(f"next attempt in {duration(between(event.time, ended.retry_time))}")
        return notes

    def _execution_ended(self, event: event_pb2.Event) -> list[str]:
        ended = event.execution_ended
        took = f"{duration(between(self._start, event.time))}" if self._start is not None else ""
        where = f"({ended.failure.node_path})" if ended.failure.node_path else ""
        return [took, *_failure_notes(ended.failure, 0), where, _output_note(ended.output)]


def _settings_notes(updated: event_pb2.ExecutionUpdated) -> list[str]:
    locked = [lock.node_path for lock in updated.locks if lock.locked]
    unlocked = [lock.node_path for lock in updated.locks if not lock.locked]
    return [
        f"priority {updated.priority}" if updated.HasField("priority") else "",
        f"policy {_policy_note(updated.policy)}" if updated.HasField("policy") else "",
        f"locked {', '.join(locked)}" if locked else "",
        f"unlocked {', '.join(unlocked)}" if unlocked else "",
    ]


def _policy_note(policy: graph_pb2.Policy) -> str:
    timeout_s = policy.timeout.ToTimedelta().total_seconds()
    on_failure = name_of(
        graph_pb2.OnFailure, policy.on_failure or graph_pb2.ON_FAILURE_FAIL_FAST, "ON_FAILURE_"
    )
    parts = [
        f"on_failure {on_failure}",
        f"max_concurrency {policy.max_concurrency or 'default'}",
        f"timeout {duration(timeout_s) if timeout_s else 'none'}",
        f"min_success_rate {policy.min_success_rate:g}" if policy.min_success_rate else "",
        "collect_errors" if policy.collect_errors else "",
    ]
    return ", ".join(part for part in parts if part)


def _output_note(output: payload_pb2.Payload) -> str:
    return payload_line(output) if output.WhichOneof("content") else ""


def _failure_notes(failure: failure_pb2.Failure, treatment: int) -> list[str]:
    if not failure.code:
        return []
    treated = _TREATMENTS.get(treatment)
    return [f"{failure.code}: {failure.message}", f"({treated})" if treated else ""]


def _state_name(event: event_pb2.Event) -> str:
    if event.node_path:
        name = name_of(state_pb2.NodeState, event.node_state, "NODE_STATE_")
    else:
        name = name_of(state_pb2.ExecutionState, event.execution_state, "EXECUTION_STATE_")
    return "" if name == "UNSPECIFIED" else name


def _outcome_name(event: event_pb2.Event) -> str:
    return name_of(state_pb2.AttemptOutcome, event.attempt_ended.outcome, "ATTEMPT_OUTCOME_")


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 8]}…{text[-7:]}"
