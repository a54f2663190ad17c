"""The durable state of an execution, as calls see it, and how to read on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plait_server.core.run.execution import Execution
from plait_server.core.run.joins import Verdict
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import NodeState
from plait_server.runtime.executor import Executor
from plait_server.runtime.feed import Feed


@dataclass(frozen=True, slots=True)
class View:
    """The durable state of an execution and how to read on. Not to be kept across an await."""

    execution: Execution
    feed: Feed | None
    """None when it is not live: its journal is all there is."""
    executor: Executor | None

    def is_queued(self, record: NodeRecord) -> bool:
        """Whether a node is ready and waits (A1)."""
        if self.executor is None:
            return False
        waits = record.state in (NodeState.IDLE, NodeState.BACKING_OFF)
        return waits and (self.executor.is_queued(record) or self._is_held(record))

    def queued_counts(self) -> Mapping[NodeState, int]:
        """Count the nodes that are ready and wait, by the states that events say they are in."""
        return self.executor.machine.queued_counts() if self.executor is not None else {}

    def queue_reason(self, record: NodeRecord) -> str:
        """Say why a queued node waits (Q6)."""
        return self.executor.queue_reason(record) if self.executor is not None else ""

    def _is_held(self, record: NodeRecord) -> bool:
        assert self.executor is not None  # asked by is_queued alone
        decided = record.verdict is Verdict.RUN and not record.scope.is_closed
        return decided and record.state is NodeState.IDLE and self.executor.machine.is_held(record)
