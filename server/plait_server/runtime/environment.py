"""What all executions of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field

from plait_server.ports.evaluator import Evaluator, Offload
from plait_server.ports.graph_requests import GraphRequests
from plait_server.ports.journal import Journal
from plait_server.ports.observer import Observer, Retelling
from plait_server.ports.sampler import Sampler
from plait_server.ports.seams import Seams
from plait_server.ports.workers import Workers
from plait_server.runtime.admission import Admission
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.building import Definitions
from plait_server.runtime.committer import Committer
from plait_server.runtime.namespace_registry import NamespaceRegistry
from plait_server.runtime.snapshotting import Snapshotting


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The shared parts that the runtime uses: the ports, and objects of its own."""

    journal: Journal
    workers: Workers
    evaluator: Evaluator
    offload: Offload
    graph_requests: GraphRequests
    seams: Seams
    observer: Observer
    sampler: Sampler
    retelling: Retelling | None
    """Receives the earlier events of executions that were open at the start; None if nothing needs them."""
    allocator: Allocator
    committer: Committer
    namespaces: NamespaceRegistry
    admission: Admission
    snapshots: Snapshotting
    definitions: Definitions = field(default_factory=Definitions)
