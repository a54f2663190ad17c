"""Executions as calls show them: the durable state, and why ready nodes wait, which has no event (A1, Q6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from plait.v1 import execution_pb2, state_pb2
from plait_server.core.run.states import Reason
from plait_server.encoding.execution_codec import describe
from plait_server.runtime.view import View

UnservedTypes: TypeAlias = Callable[[str, str], Sequence[str]]
"""Returns the types without a worker that an execution waits for, by its namespace and id."""

UNSERVED_TYPES_SHOWN_MAX: Final = 100
"""Types without a worker: more than anyone reads, in 13 KiB."""


def describe_view(namespace: str, view: View) -> execution_pb2.Execution:
    """Build the full form of an execution."""
    execution = describe(namespace, view.execution, view.queued_counts())
    execution.reason = view.queue_text or execution.reason
    show_unserved(execution, view.unserved_types())
    return execution


def show_unserved(execution: execution_pb2.Execution, types: Sequence[str]) -> None:
    """Show the types that nodes of an execution wait for and no worker serves."""
    execution.unserved_types.extend(types[:UNSERVED_TYPES_SHOWN_MAX])
    if types and execution.state == state_pb2.EXECUTION_STATE_RUNNING:
        execution.reason = execution.reason or Reason.NO_WORKER
