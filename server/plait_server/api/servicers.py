"""The objects that serve the methods of all services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait_server.api.audit import AuditServicer
from plait_server.api.controls import ExecutionControls
from plait_server.api.executions import ExecutionServicer
from plait_server.api.graphs import GraphServicer
from plait_server.api.insight import InsightServicer
from plait_server.api.limits import LimitServicer
from plait_server.api.logs import LogServicer
from plait_server.api.namespaces import NamespaceServicer
from plait_server.api.system import SystemServicer
from plait_server.api.workers import WorkerHubServicer


@dataclass(frozen=True, slots=True, kw_only=True)
class Servicers:
    """The objects that serve the methods."""

    graphs: GraphServicer
    executions: ExecutionServicer
    controls: ExecutionControls
    logs: LogServicer
    insight: InsightServicer
    limits: LimitServicer
    namespaces: NamespaceServicer
    audit: AuditServicer
    worker_hub: WorkerHubServicer
    system: SystemServicer

    def by_service(self) -> Mapping[str, Sequence[object]]:
        """Return those that serve each service together."""
        return {
            "graph": [self.graphs],
            "execution": [self.executions, self.controls, self.logs],
            "insight": [self.insight],
            "limit": [self.limits],
            "namespace": [self.namespaces],
            "audit": [self.audit],
            "worker_hub": [self.worker_hub],
            "system": [self.system],
        }
