"""The row of an execution, which the journal keeps beside its events."""

from __future__ import annotations

from plait_server.core.lists.listing import listing_of
from plait_server.core.run.execution import Execution
from plait_server.encoding.execution_codec import summarize
from plait_server.ports.journal import ExecutionRow


def row_of(namespace: str, execution: Execution, due_time_s: float | None = None) -> ExecutionRow:
    """Return the row of an execution as it stands; `due_time_s` is that of a sleeping one."""
    return ExecutionRow(
        summary=summarize(namespace, execution).SerializeToString(),
        is_open=not execution.is_ended,
        due_time_s=due_time_s,
        listing=listing_of(execution),
    )
