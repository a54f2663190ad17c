"""The methods that cancel, pause, resume, update and delete an execution (C1, C2, C10, K1)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from plait.v1 import event_pb2, execution_pb2, execution_service_pb2, graph_pb2, payload_pb2
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.checks import DEFAULT_NAMESPACE, Checks, request_record
from plait_server.api.describing import describe_view
from plait_server.core.definition.graph import OnFailure, Policy
from plait_server.core.definition.node_rules import check_policy
from plait_server.core.definition.problems import Problem, Report
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import KIB
from plait_server.core.run.states import PauseMode
from plait_server.encoding.graph_reading import policy_from_proto
from plait_server.runtime import controls
from plait_server.runtime.pending_call import InputMaker
from plait_server.runtime.supervisor import Supervisor
from plait_server.runtime.view import View

Pb = execution_service_pb2

LOCKS_MAX: Final = 1_000
"""Locks that one request may set or remove: an event of 256 KiB holds them all."""
TEXTS_BYTES_MAX: Final = 64 * KIB
"""The most bytes of JSON and paths that one request may hold: they are checked on the event loop."""

_POLICY_FIELDS: Final = {
    "on_failure": "on_failure",
    "min_success_rate": "min_success_rate",
    "collect_errors": "collect_errors",
    "timeout": "timeout_s",
    "max_concurrency": "max_concurrency",
}
"""Field of the message -> that of the core's value."""
_PATHS: Final = ("priority", "locks", "policy", *(f"policy.{name}" for name in _POLICY_FIELDS))


ControlRequest: TypeAlias = (
    Pb.CancelExecutionRequest
    | Pb.PauseExecutionRequest
    | Pb.ResumeExecutionRequest
    | Pb.UpdateExecutionRequest
)


class ExecutionControls:
    """Serves the methods by which callers control executions."""

    def __init__(self, supervisor: Supervisor, actions: Actions) -> None:
        self._supervisor = supervisor
        self._actions = actions

    async def cancel_execution(
        self, request: Pb.CancelExecutionRequest, call: Call
    ) -> Pb.CancelExecutionResponse:
        """Cancel an execution and answer at once (C1)."""
        make = controls.cancel(request.reason)
        view = await self._control(call, request, make, _checks_of(request), _reason_of(request))
        return Pb.CancelExecutionResponse(execution=_describe(request, view))

    async def pause_execution(
        self, request: Pb.PauseExecutionRequest, call: Call
    ) -> Pb.PauseExecutionResponse:
        """Pause an execution and answer at once (C2)."""
        checks = _checks_of(request)
        mode = PauseMode.WAIT
        if request.mode == event_pb2.PAUSE_MODE_ABORT:
            mode = PauseMode.ABORT
        elif request.mode not in (event_pb2.PAUSE_MODE_UNSPECIFIED, event_pb2.PAUSE_MODE_WAIT):
            checks.add("mode", "must be PAUSE_MODE_WAIT (1) or PAUSE_MODE_ABORT (2)")
        detail = {"mode": mode.name, **_reason_of(request)}
        view = await self._control(call, request, controls.pause(mode, request.reason), checks, detail)
        return Pb.PauseExecutionResponse(execution=_describe(request, view))

    async def resume_execution(
        self, request: Pb.ResumeExecutionRequest, call: Call
    ) -> Pb.ResumeExecutionResponse:
        """Resume a paused execution (C2)."""
        checks = _checks_of(request)
        data = _json_of(checks, "data", request.data) or "null"
        make = controls.resume(data, request.reason)
        view = await self._control(call, request, make, checks, _reason_of(request))
        return Pb.ResumeExecutionResponse(execution=_describe(request, view))

    async def update_execution(
        self, request: Pb.UpdateExecutionRequest, call: Call
    ) -> Pb.UpdateExecutionResponse:
        """Change the settings of an execution (C10)."""
        checks = _checks_of(request)
        wanted = _read_settings(request, checks)
        view = await self._control(call, request, controls.update(wanted), checks, _changes_of(wanted))
        return Pb.UpdateExecutionResponse(execution=_describe(request, view))

    async def delete_execution(
        self, request: Pb.DeleteExecutionRequest, call: Call
    ) -> Pb.DeleteExecutionResponse:
        """Delete an ended execution (K1)."""
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id)
        request_id = checks.request_id(request.request_id)
        checks.finish()
        action = self._actions.accepted(call, execution_id=execution_id)
        record = request_record(action.method, request_id, request, execution_id)
        await self._supervisor.keeping.delete(namespace, execution_id, record, action)
        return Pb.DeleteExecutionResponse()

    async def _control(
        self,
        call: Call,
        request: ControlRequest,
        make: InputMaker,
        checks: Checks,
        detail: Mapping[str, str],
    ) -> View:
        namespace = checks.namespace(request.namespace)
        checks.finish()
        action = self._actions.accepted(call, execution_id=request.execution_id, detail=detail)
        record = request_record(action.method, request.request_id, request, request.execution_id)
        await self._supervisor.control(namespace, request.execution_id, make, record, action)
        return await self._supervisor.view(namespace, request.execution_id)


def _checks_of(request: ControlRequest) -> Checks:
    """Check the fields that all of these requests have."""
    checks = Checks()
    checks.namespace(request.namespace)
    checks.execution_id(request.execution_id)
    checks.request_id(request.request_id)
    if not isinstance(request, Pb.UpdateExecutionRequest):
        checks.reason(request.reason)
    return checks


def _reason_of(
    request: Pb.CancelExecutionRequest | Pb.PauseExecutionRequest | Pb.ResumeExecutionRequest,
) -> Mapping[str, str]:
    """Return what the audit says of a request with a reason."""
    return {"reason": request.reason} if request.reason else {}


def _changes_of(wanted: controls.WantedSettings) -> Mapping[str, str]:
    """Return what the audit says of an update: the new values, and the paths of the locks without their outputs."""
    detail = {} if wanted.priority is None else {"priority": str(wanted.priority)}
    for field, name in _POLICY_FIELDS.items():
        if name in wanted.policy_fields:
            value = getattr(wanted.policy, name)
            detail[f"policy.{field}"] = value.name if isinstance(value, OnFailure) else json.dumps(value)
    for what, is_locked in (("locked", True), ("unlocked", False)):
        if paths := [lock.node_path for lock in wanted.locks if lock.is_locked is is_locked]:
            detail[what] = ", ".join(paths)
    return detail


def _read_settings(request: Pb.UpdateExecutionRequest, checks: Checks) -> controls.WantedSettings:
    settings = request.settings
    paths = checks.update_mask(request.update_mask.paths, _PATHS)
    if not request.update_mask.paths:
        # All that the settings have; a number of 0 cannot be told from an absent one.
        paths = [name for name in ("priority", "locks") if getattr(settings, name)]
        paths += [f"policy.{field.name}" for field, _ in settings.policy.ListFields()]
        if not paths:
            checks.add(
                "settings", "change nothing; give a priority, a policy or locks, or name them in update_mask"
            )
    if "policy" in paths:
        paths += [f"policy.{name}" for name in _POLICY_FIELDS]
    fields = [name for field, name in _POLICY_FIELDS.items() if f"policy.{field}" in paths]
    return controls.WantedSettings(
        checks.priority("settings.priority", settings.priority) if "priority" in paths else None,
        _read_policy(settings.policy, checks) if fields else Policy(),
        fields,
        _read_locks(settings.locks, checks) if "locks" in paths else (),
        request.etag,
    )


def _read_policy(message: graph_pb2.Policy, checks: Checks) -> Policy:
    problems: list[Problem] = []
    policy = policy_from_proto(message, "settings.policy", problems)
    report = Report(problems)
    check_policy("settings.policy", policy, report)
    for problem in report.problems:
        checks.add(problem.field, problem.message)
    return policy


def _read_locks(messages: Sequence[graph_pb2.NodeLock], checks: Checks) -> Sequence[controls.WantedLock]:
    if len(messages) > LOCKS_MAX:
        checks.add(
            "settings.locks", f"{len(messages):,} locks exceed the limit of {LOCKS_MAX:,}; send fewer at once"
        )
        return ()
    size = sum(len(lock.node_path) + len(lock.locked_output.json) for lock in messages)
    if size > TEXTS_BYTES_MAX:
        checks.add(
            "settings.locks", f"have {size:,} characters, over the limit of {TEXTS_BYTES_MAX:,}; send fewer"
        )
        return ()
    wanted: list[controls.WantedLock] = []
    for position, lock in enumerate(messages):
        field = f"settings.locks[{position}]"
        output = _json_of(checks, f"{field}.locked_output", lock.locked_output)
        if output is not None and not lock.locked:
            checks.add(f"{field}.locked_output", "goes with `locked`; remove it, or lock the node")
        wanted.append(controls.WantedLock(lock.node_path, lock.locked, output))
    return wanted


def _json_of(checks: Checks, field: str, payload: payload_pb2.Payload) -> str | None:
    """Check a small payload; None if it is absent."""
    match payload.WhichOneof("content"):
        case None:
            return None
        case "json":
            try:
                check_json(payload.json, max_bytes=TEXTS_BYTES_MAX)
            except InvalidJson as error:
                checks.add(f"{field}.json", str(error))
            return payload.json
        case _:
            checks.add(field, f"is given as JSON text in `{field}.json`")
            return None


def _describe(request: ControlRequest, view: View) -> execution_pb2.Execution:
    return describe_view(request.namespace or DEFAULT_NAMESPACE, view)
