"""The node types that the executions' requests for capacity wait for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from plait_server.runtime.waiting import PermitRequest

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class WaitingTypes:
    """Counts the waiting requests of each execution by their type."""

    def __init__(self) -> None:
        self._counts: dict[Key, dict[str, int]] = {}

    def __repr__(self) -> str:
        return f"<WaitingTypes of {len(self._counts)} executions>"

    def add(self, request: PermitRequest) -> None:
        """Count a request that begins to wait."""
        counts = self._counts.setdefault((request.namespace, request.execution_id), {})
        counts[request.type] = counts.get(request.type, 0) + 1

    def remove(self, request: PermitRequest) -> None:
        """Take off a request that was granted or withdrawn."""
        key = request.namespace, request.execution_id
        counts = self._counts[key]
        counts[request.type] -= 1
        if not counts[request.type]:
            del counts[request.type]
            if not counts:
                del self._counts[key]

    def of(self, namespace: str, execution_id: str) -> Iterable[str]:
        """Return the types that an execution's requests wait for."""
        return self._counts.get((namespace, execution_id), ())
