"""A server's runtime without doors: the memory journal behind a gate, scripted workers, virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, TypeAlias

import trio

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.inline import InlineOffload
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.requests.inline import InlineGraphRequests
from plait_server.adapters.requests.reading import checked_graph
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import Graph
from plait_server.core.namespace_settings import NamespaceSettings
from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.core.run.trace import TraceContext
from plait_server.encoding.event_codec import decode_event
from plait_server.encoding.graph_codec import graph_to_proto
from plait_server.errors import JournalUnavailable
from plait_server.ports.evaluator import Offload
from plait_server.ports.journal import RequestRecord
from plait_server.ports.sampler import FollowCaller
from plait_server.ports.workers import Assignment, AttemptKey, AttemptListener
from plait_server.runtime import controls
from plait_server.runtime.admission import Admission
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.committer import Committer
from plait_server.runtime.environment import Environment
from plait_server.runtime.intake import Submission
from plait_server.runtime.namespace_registry import ALL, NONE_GIVEN, NamespaceRegistry
from plait_server.runtime.pending_call import InputMaker
from plait_server.runtime.recovery import load_execution
from plait_server.runtime.snapshotting import SnapshotSettings, Snapshotting
from plait_server.runtime.supervisor import Supervisor
from plait_server.telemetry.observers import Observers
from plait_server.telemetry.span_observer import SpanObserver
from tests.core.graph_text import build
from tests.runtime.gated_journal import Gate, GatedJournal

NAMESPACE: Final = "default"
EPOCH_S: Final = 1_700_000_000.0
GRACE_S: Final = 10.0

Script: TypeAlias = Callable[[Assignment], Awaitable[AttemptResult]]


class Seams:
    """Wall time that goes with virtual time, ids in order, and a die that always falls the same way."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.dice = 0.5
        self._ids = 0

    def now_s(self) -> float:
        return EPOCH_S + trio.current_time() + self.offset_s

    def new_id(self) -> str:
        self._ids += 1
        return f"id-{self._ids}"

    def random(self) -> float:
        return self.dice


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self.said: list[tuple[AttemptKey, str, str]] = []
        self.on_events: Callable[[Sequence[Event]], None] = lambda _: None

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        self.events += [(execution.execution_id, event) for event in events]
        self.on_events(events)

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        self.said.append((assignment.key, kind, text))


def result_of(
    key: AttemptKey,
    outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED,
    output_json: str = "null",
    *,
    failure: Failure | None = None,
    retry_after_s: float | None = None,
    worker_id: str = "",
) -> AttemptResult:
    """Make the result of an attempt, whose worker waits to be told what became of it."""
    return AttemptResult(
        key.node_path,
        key.attempt,
        outcome,
        Payload(output_json) if outcome is AttemptOutcome.SUCCEEDED else None,
        failure,
        retry_after_s=retry_after_s,
        worker_id=worker_id,
        from_worker=True,
    )


async def succeed(assignment: Assignment) -> AttemptResult:
    """End at once with the input as output."""
    await trio.lowlevel.checkpoint()
    return result_of(assignment.key, output_json=assignment.input_json or "null")


def returns(output_json: str, after_s: float = 0.0) -> Script:
    """Succeed with an output after some time."""

    async def run(assignment: Assignment) -> AttemptResult:
        await trio.sleep(after_s)
        return result_of(assignment.key, output_json=output_json)

    return run


def fails(
    code: str = "UNKNOWN",
    *,
    after_s: float = 0.0,
    retry_after_s: float | None = None,
    details_json: str = "",
) -> Script:
    """Fail after some time."""

    async def run(assignment: Assignment) -> AttemptResult:
        await trio.sleep(after_s)
        failure = Failure(
            code=code,
            message=f"{code} of {assignment.key.node_path}",
            details=Payload(details_json) if details_json else None,
            node_path=assignment.key.node_path,
            attempt=assignment.key.attempt,
        )
        return result_of(assignment.key, AttemptOutcome.FAILED, failure=failure, retry_after_s=retry_after_s)

    return run


def ends_as(outcome: AttemptOutcome) -> Script:
    """End LOST or RETURNED."""

    async def run(assignment: Assignment) -> AttemptResult:
        await trio.lowlevel.checkpoint()
        return result_of(assignment.key, outcome, failure=Failure(code=outcome.name))._replace(
            from_worker=False
        )

    return run


async def hangs(assignment: Assignment) -> AttemptResult:
    """Run until it is cancelled."""
    await trio.sleep_forever()
    raise AssertionError


def in_turn(*scripts: Script) -> Script:
    """Run another script each time."""
    left = list(scripts)

    async def run(assignment: Assignment) -> AttemptResult:
        return await left.pop(0)(assignment)

    return run


class ScriptedWorkers:
    """The workers' port: each node runs its script; what the runtime asks for is kept."""

    def __init__(self, scripts: Mapping[str, Script] | None = None) -> None:
        self.scripts = dict(scripts or {})
        self.assigned: list[Assignment] = []
        self.told: list[tuple[str, int, Disposition]] = []
        self.stopped: list[tuple[str, int, str]] = []
        self.exit_s: dict[str, float] = {}
        """Node -> how long its handler takes to end when it is cancelled; at once if not said."""
        self.exit_usage: dict[str, Mapping[str, str]] = {}
        """Node -> what its handler says to have used in all when it is cancelled."""
        self.listeners: dict[str, AttemptListener] = {}
        self.on_assign: Callable[[Assignment], None] = lambda _: None
        self.on_tell: Callable[[AttemptKey, Disposition], None] = lambda _, __: None

    @property
    def paths(self) -> list[str]:
        return [assignment.key.node_path for assignment in self.assigned]

    async def execute(self, assignment: Assignment, listener: AttemptListener) -> AttemptResult:
        self.assigned.append(assignment)
        self.listeners[assignment.key.node_path] = listener
        self.on_assign(assignment)
        try:
            return await self.scripts.get(assignment.key.node_path, succeed)(assignment)
        except trio.Cancelled:
            reason = listener.stop_reason()
            if reason:
                with trio.CancelScope(shield=True):
                    await self._stop(assignment.key, reason, listener)
            raise

    def acknowledge(self, key: AttemptKey, disposition: Disposition, worker_id: str) -> None:
        self.told.append((key.node_path, key.attempt, disposition))
        self.on_tell(key, disposition)

    async def _stop(self, key: AttemptKey, reason: str, listener: AttemptListener) -> None:
        self.stopped.append((key.node_path, key.attempt, reason))
        exit_s = self.exit_s.get(key.node_path, 0.0)
        listener.on_receipt(CancelStage.DELIVERED)
        listener.on_receipt(CancelStage.ACKNOWLEDGED)
        await trio.sleep(min(exit_s, GRACE_S))
        stage = CancelStage.EXITED if exit_s < GRACE_S else CancelStage.ABANDONED
        listener.on_receipt(stage, self.exit_usage.get(key.node_path))


class Runtime:
    """A server's runtime and its world. `running` starts one."""

    def __init__(
        self,
        store: MemoryStore,
        workers: ScriptedWorkers,
        seams: Seams,
        offload: Offload,
        spans: SpanObserver | None,
        settings: NamespaceSettings,
        snapshots: SnapshotSettings,
    ) -> None:
        self.store = store
        self.gate = Gate()
        self.journal = GatedJournal(store, self.gate)
        self.workers = workers
        self.seams = seams
        self.observer = Recorder()
        self.spans = spans
        self.allocator = Allocator(server_limit=1_000)
        self.committer = Committer(self.journal)
        self.namespaces = NamespaceRegistry({ALL: settings})
        self.admission = Admission(self.namespaces)
        evaluator = CelEvaluator()
        self.environment = Environment(
            journal=self.journal,
            workers=workers,
            evaluator=evaluator,
            offload=offload,
            graph_requests=InlineGraphRequests(evaluator),
            seams=seams,
            observer=self.observer if spans is None else Observers(self.observer, spans),
            sampler=FollowCaller(),
            retelling=spans,
            allocator=self.allocator,
            committer=self.committer,
            namespaces=self.namespaces,
            admission=self.admission,
            snapshots=Snapshotting(self.journal, snapshots),
        )
        self.supervisor = Supervisor(self.environment)
        self.scope = trio.CancelScope()
        self.has_crashed = False

    def attach_worker(self, slots: int = 100, types: Mapping[str, int] | None = None) -> None:
        self.allocator.attach_worker(NAMESPACE, "w", "w.1", slots, types or {"t": 0})

    async def submit(
        self,
        graph: Graph | str,
        *,
        id: str = "x",
        input: str = "null",
        caller: TraceContext | None = None,
        request: RequestRecord | None = None,
        priority: int = 0,
    ) -> Execution:
        graph = build(graph) if isinstance(graph, str) else graph
        analysis = analyze(graph, build_adjacency(graph))
        return await self.supervisor.submit(
            Submission(
                namespace=NAMESPACE,
                execution_id=id,
                graph=checked_graph(graph_to_proto(graph), graph, analysis),
                input_json=input,
                labels={},
                caller=caller,
                request=request,
                priority=priority,
            )
        )

    async def cancel(self, id: str = "x", *, request: RequestRecord | None = None) -> None:
        await self.supervisor.control(NAMESPACE, id, controls.cancel("no more"), request)

    async def control(self, make: InputMaker, id: str = "x", *, request: RequestRecord | None = None) -> None:
        await self.supervisor.control(NAMESPACE, id, make, request)

    async def wait_ended(self, id: str = "x", within_s: float = 1_000_000.0) -> Execution:
        """Wait for the end; the execution is what its events say, read back."""
        with trio.fail_after(within_s):
            while True:
                view = await self.supervisor.view(NAMESPACE, id)
                if view.execution.is_ended:
                    return await self.replay(id)
                if view.feed is not None:
                    await view.feed.wait_changed()
                else:
                    await trio.sleep(1)

    async def replay(self, id: str = "x") -> Execution:
        return await load_execution(self.journal.inner.namespace(NAMESPACE), id)

    def events(self, id: str = "x") -> list[Event]:
        """Return the durable events."""
        return [decode_event(content) for content in self.store.executions[NAMESPACE, id].events]

    def names(self, id: str = "x") -> list[str]:
        return [type(event.detail).__name__ for event in self.events(id)]

    def audit(self, id: str = "x") -> list[tuple[str, str, int]]:
        records = self.store.executions[NAMESPACE, id].audit
        return [(record.kind, record.node_path, record.attempt) for record in records]

    def assert_nothing_is_held(self) -> None:
        """Q1: however attempts end, their permits come back."""
        statistics = self.allocator.statistics()
        assert (statistics.running, statistics.waiting) == (0, 0)
        assert self.allocator.slots_in_use(NAMESPACE, "w.1") == 0

    def crash(self) -> None:
        """Die as by kill -9: what is in memory is gone, the store stays."""
        self.has_crashed = True
        self.journal.inner.crash()
        self.scope.cancel()


@asynccontextmanager
async def running(
    store: MemoryStore | None = None,
    *,
    scripts: Mapping[str, Script] | None = None,
    seams: Seams | None = None,
    offload: Offload | None = None,
    slots: int = 100,
    reads_yield: bool = False,
    spans: SpanObserver | None = None,
    settings: NamespaceSettings = NONE_GIVEN,
    snapshots: SnapshotSettings | None = None,
) -> AsyncGenerator[Runtime]:
    """Run a runtime with a worker of type `t`; it ends with the block, or by `crash`."""
    runtime = Runtime(
        store or MemoryStore(),
        ScriptedWorkers(scripts),
        seams or Seams(),
        offload or InlineOffload(),
        spans,
        settings,
        snapshots or SnapshotSettings(),
    )
    runtime.gate.reads_yield = reads_yield
    if slots:
        runtime.attach_worker(slots)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run, runtime)
        await runtime.supervisor.wait_ready()
        try:
            yield runtime
        finally:
            # A committer finishes the append under way even if cancelled: a test that fails would hang.
            runtime.gate.open()
        runtime.scope.cancel()


async def _run(runtime: Runtime) -> None:
    try:
        with runtime.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.committer.run)
                nursery.start_soon(runtime.supervisor.run)
                if runtime.spans is not None:
                    nursery.start_soon(runtime.spans.run)
    except* JournalUnavailable:
        if not runtime.has_crashed:
            raise


def with_limit(graph: Graph | str, max_concurrency: int) -> Graph:
    """Return the execution a limit."""
    graph = build(graph) if isinstance(graph, str) else graph
    return replace(graph, policy=replace(graph.policy, max_concurrency=max_concurrency))
