"""Checks of what leaves the server for its workers: nothing does before the event that caused it is durable (A2)."""

from __future__ import annotations

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.core.run.commands import Disposition
from plait_server.core.run.events import ExecutionSubmitted
from plait_server.core.run.states import AttemptOutcome, NodeState
from plait_server.core.run.trace import SpanIds
from plait_server.testing.simulation.store import NAMESPACE, Durable, Records
from plait_server.testing.simulation.world import World

_BY_WORKER = (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.RETURNED)


class FrameChecks:
    """Checks each frame at the moment in which it leaves."""

    def __init__(self, world: World, records: Records) -> None:
        self._world = world
        self._records = records

    def check(self, frame: hub.AttachResponse) -> None:
        """Check the messages of a frame."""
        for message in frame.messages:
            match message.WhichOneof("message"):
                case "assign":
                    self._check_assign(message.assign)
                case "recorded":
                    self._check_recorded(message.recorded)
                case "cancel":
                    self._check_cancel(message.cancel)
                case _:
                    pass

    def _find(self, token: str, what: str) -> tuple[Durable, str, int] | None:
        # A token reads mac/namespace/execution/run/attempt/path; its maker is tested elsewhere.
        _, _, execution_id, _, attempt, node_path = token.split("/", 5)
        durable = self._records.executions.get(execution_id)
        if durable is None:
            self._world.fail("A2", f"{what} for an execution that is not durable", execution_id)
            return None
        return durable, node_path, int(attempt)

    def _check_assign(self, assign: hub.Assign) -> None:
        found = self._find(assign.token, "assign")
        if found is None:
            return
        durable, node_path, attempt = found
        where = f"assign of {node_path} attempt {attempt}"
        if (node_path, attempt) not in durable.started:
            self._fail(durable, f"{where} left before its AttemptStarted was durable")
        elif (assign.node_path, assign.attempt, assign.execution_id) != (
            node_path,
            attempt,
            durable.execution_id,
        ):
            self._fail(durable, f"{where} has another attempt's token")
        elif (assign.traceparent, assign.tracestate) != _trace_of(durable, node_path, attempt):
            self._world.fail("B2", f"{where} names the span {assign.traceparent}", durable.execution_id)

    def _check_recorded(self, recorded: hub.Recorded) -> None:
        found = self._find(recorded.token, "recorded")
        if found is None:
            return
        durable, node_path, attempt = found
        outcome = durable.outcome(node_path, attempt)
        where = f"recorded({Disposition(recorded.result).name}) of {node_path} attempt {attempt}"
        if Disposition(recorded.result) is Disposition.STALE:
            if (node_path, attempt) in durable.started and outcome is None and not durable.is_ended:
                self._fail(durable, f"{where} left, but the attempt is the current one")
        elif outcome not in _BY_WORKER:
            self._fail(durable, f"{where} left, and the attempt's durable outcome is {outcome!r}")

    def _check_cancel(self, cancel: hub.Cancel) -> None:
        found = self._find(cancel.token, "cancel")
        if found is None:
            return
        durable, node_path, attempt = found
        if durable.outcome(node_path, attempt) is None and (
            durable.states.get(node_path) is NodeState.RUNNING and not durable.is_ended
        ):
            self._fail(
                durable,
                f"cancel ({cancel.reason}) of {node_path} attempt {attempt} left before its AttemptEnded was durable",
            )

    def _fail(self, durable: Durable, message: str) -> None:
        self._world.fail("A2", message, durable.execution_id)


def _trace_of(durable: Durable, node_path: str, attempt: int) -> tuple[str, str]:
    """Return what the worker of an attempt is told of the trace: its span is a child of the attempt's (B2)."""
    first = durable.events[0].detail
    assert isinstance(first, ExecutionSubmitted)
    version, trace_id, _, flags = first.traceparent.split("-")
    span_id = SpanIds(NAMESPACE, durable.execution_id, 1).attempt(node_path, attempt).hex()
    return f"{version}-{trace_id}-{span_id}-{flags}", first.tracestate
