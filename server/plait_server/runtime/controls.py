"""What callers ask of an open execution, as inputs made from the state that the request meets (C1, C2, C10).

The state is checked and the input decided in one step of the executor, so nothing happens in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from plait_server.core.definition.compiled import Definition
from plait_server.core.definition.graph import Policy, Subgraph
from plait_server.core.run.commands import Cancel, Input, Pause, Resume, Update
from plait_server.core.run.events import NodeLock
from plait_server.core.run.execution import Execution
from plait_server.core.run.states import PauseMode
from plait_server.encoding.execution_codec import etag_of
from plait_server.errors import (
    EtagMismatch,
    ExecutionNotPaused,
    ExecutionOver,
    FieldViolation,
    InvalidRequest,
)
from plait_server.runtime.pending_call import InputMaker, Keep


class WantedLock(NamedTuple):
    """A lock as a request has it."""

    node_path: str
    is_locked: bool
    output_json: str | None


class WantedSettings(NamedTuple):
    """The changes of a request to update an execution."""

    priority: int | None
    """None if it stays."""
    policy: Policy
    policy_fields: Sequence[str]
    """The fields of the policy that change, by the names of `Policy`."""
    locks: Sequence[WantedLock]
    etag: str
    """Empty if it is not compared."""


def cancel(message: str) -> InputMaker:
    """Return the request to cancel; of an execution that has ended, it asks nothing."""

    def make(_: Execution, __: Keep) -> Input:
        return Cancel(message)

    return make


def pause(mode: PauseMode, message: str) -> InputMaker:
    """Return the request to pause.

    When it is made, ExecutionOver is raised unless the execution is open.
    """

    def make(execution: Execution, _: Keep) -> Input:
        _require_open(execution)
        return Pause(mode, message)

    return make


def resume(data_json: str, message: str) -> InputMaker:
    """Return the request to resume.

    When it is made, ExecutionOver or ExecutionNotPaused is raised unless the execution is paused.
    """

    def make(execution: Execution, keep: Keep) -> Input:
        _require_open(execution)
        if not execution.is_paused:
            raise ExecutionNotPaused(state=execution.state.name if execution.state else "")
        return Resume(keep(data_json), message)

    return make


def update(wanted: WantedSettings) -> InputMaker:
    """Return the request to change settings.

    When it is made, ExecutionOver, EtagMismatch or InvalidRequest is raised if it does not fit the execution.
    """

    def make(execution: Execution, keep: Keep) -> Input:
        _require_open(execution)
        etag = etag_of(execution)
        if wanted.etag not in ("", etag):
            raise EtagMismatch(etag=etag)
        violations = [
            FieldViolation(
                field=f"settings.locks[{position}].node_path",
                message=f"the execution has no node {lock.node_path!r}; `plait nodes ID` (ListNodes) lists them",
            )
            for position, lock in enumerate(wanted.locks)
            if not _may_exist(execution, lock.node_path)
        ]
        if violations:
            raise InvalidRequest(violations)
        changes = {name: getattr(wanted.policy, name) for name in wanted.policy_fields}
        policy = replace(execution.root.policy, **changes) if changes else None
        locks = tuple(
            NodeLock(
                lock.node_path,
                lock.is_locked,
                keep(lock.output_json) if lock.output_json is not None else None,
            )
            for lock in wanted.locks
        )
        return Update(wanted.priority, policy, locks)

    return make


def _require_open(execution: Execution) -> None:
    if execution.is_ended or execution.is_cancelling:
        raise ExecutionOver(state=execution.state.name if execution.state else "")


def _may_exist(execution: Execution, node_path: str) -> bool:
    """Return whether a path names a node, or may name one of a graph that an output will be."""
    definition: Definition | None = execution.root.definition
    for depth, node_id in enumerate(node_path.split("/")):
        scope = execution.scopes.get("/".join(node_path.split("/")[:depth]))
        definition = scope.definition if scope is not None else definition
        if definition is None:
            return True
        index = definition.adjacency.index.get(node_id)
        if index is None:
            return False
        is_subgraph = isinstance(definition.graph.nodes[index].kind, Subgraph)
        definition = definition.inner.get(index)
        if not is_subgraph and depth < node_path.count("/"):
            return False
    return True
