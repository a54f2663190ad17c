"""The durable state of an execution, as calls see it, and how to read its further events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait_server.core.run.execution import Execution
from plait_server.core.run.joins import Verdict
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import NodeState
from plait_server.runtime.executor import Executor
from plait_server.runtime.feed import Feed


@dataclass(frozen=True, slots=True)
class View:
    """The durable state of an execution and its feed. Do not keep it across an await."""

    execution: Execution
    feed: Feed | None
    """None if the execution is not live; then everything is in its journal."""
    executor: Executor | None
    queue_text: str = ""
    """Why the execution is QUEUED (Q6); empty if it waits for nothing."""

    def is_queued(self, record: NodeRecord) -> bool:
        """Whether a node is ready and waits (A1)."""
        if self.executor is None:
            return self._is_withheld(record)
        waits = record.state in (NodeState.IDLE, NodeState.BACKING_OFF)
        return waits and (self.executor.is_queued(record) or self._is_held(record))

    def queued_counts(self) -> Mapping[NodeState, int]:
        """Count the nodes that are ready and wait, by their recorded states."""
        if self.executor is not None:
            return self.executor.machine.queued_counts()
        return Counter(record.state for record in self.execution.agenda.decided if self._is_withheld(record))

    def queue_reason(self, record: NodeRecord) -> str:
        """Return why a queued node waits (Q6)."""
        if self.executor is not None:
            return self.executor.queue_reason(record)
        return "PAUSED" if self._is_withheld(record) else ""

    def unserved_types(self) -> Sequence[str]:
        """Return the types that queued nodes wait for and no worker serves, sorted (Q6)."""
        return self.executor.unserved_types() if self.executor is not None else ()

    def _is_withheld(self, record: NodeRecord) -> bool:
        """Return whether a node would wait if the execution, which sleeps, were not paused (C2)."""
        is_decided = record in self.execution.agenda.decided and record.verdict is Verdict.RUN
        return self.execution.is_paused and is_decided and not record.scope.is_closed

    def _is_held(self, record: NodeRecord) -> bool:
        assert self.executor is not None  # only called by is_queued
        scope = record.scope
        if self.execution.scopes.get(scope.path) is not scope:
            return False  # Read back from its events: it has ended.
        decided = record.verdict is Verdict.RUN and not scope.is_closed
        return decided and record.state is NodeState.IDLE and self.executor.machine.is_held(record)
