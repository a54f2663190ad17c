"""Usage that attempts reported too late to count (U1): kept in the audit, shown beside the totals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, cast

from plait.v1 import execution_pb2
from plait_server.core.limits import MIB
from plait_server.core.run.commands import LATE_USAGE
from plait_server.core.run.usage import add_usage
from plait_server.encoding.execution_codec import shown_usage
from plait_server.ports.journal import NamespaceJournal

AUDIT_READ_MAX: Final = 10_000
"""The most records read, which takes 50 ms. An execution usually has a few."""
SHOWN_BYTES_MAX: Final = MIB
"""The most late usage in the answer about one node, which is at most 4 MiB."""
_ENTRY_OVERHEAD: Final = 8


class LateUsage:
    """The late usage of one execution, created by `read`."""

    def __init__(self, attempts: Mapping[tuple[str, int], Mapping[str, str]]) -> None:
        self._attempts = attempts

    @classmethod
    async def read(cls, journal: NamespaceJournal, execution_id: str) -> LateUsage:
        """Read late usage from the audit; of several records of an attempt, the newest is complete.

        Raises:
            EventDamaged: The audit is damaged.
            JournalUnavailable: The store does not answer.
        """
        attempts: dict[tuple[str, int], Mapping[str, str]] = {}
        for record in await journal.read_audit(execution_id, limit=AUDIT_READ_MAX):
            if record.kind == LATE_USAGE:
                attempts[record.node_path, record.attempt] = cast("dict[str, str]", json.loads(record.detail))
        return cls(attempts)

    def show_execution(self, execution: execution_pb2.Execution) -> None:
        """Add the sum over all attempts to an execution."""
        totals: dict[str, Decimal] = {}
        for usage in self._attempts.values():
            add_usage(totals, usage)
        execution.late_usage.update(shown_usage(totals))

    def show_node(self, node: execution_pb2.ExecutionNode) -> None:
        """Add the late usage of each attempt of a node; if too many have some, that of the newest, up to 1 MiB."""
        room = SHOWN_BYTES_MAX
        for attempt in reversed(node.attempts):
            usage = self._attempts.get((node.path, attempt.number), {})
            room -= sum(len(unit) + len(amount) + _ENTRY_OVERHEAD for unit, amount in usage.items())
            if room < 0:
                break
            attempt.late_usage.update(usage)
