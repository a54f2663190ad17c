"""Assembles a server: the only module that imports all packages."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import logging
import sys
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import trio

from plait_server.adapters.access.tls_files import ServerTls, TlsFiles
from plait_server.adapters.access.tokens import FileAuthenticator
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.offload import ProcessOffload
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_backup import serve_backups
from plait_server.adapters.otlp.tracing import Tracing, open_tracing
from plait_server.adapters.requests.pool import PooledGraphRequests
from plait_server.adapters.stop_signals import StopSignals, receive_stop_signals
from plait_server.adapters.system_seams import SystemSeams
from plait_server.adapters.workers.attached import AttachedWorkers
from plait_server.adapters.workers.tokens import Tokens
from plait_server.api.access import AccessControl, Refusal, log_refusal
from plait_server.api.audit import Actions, AuditServicer
from plait_server.api.call import Call
from plait_server.api.controls import ExecutionControls
from plait_server.api.error_table import row_of
from plait_server.api.executions import ExecutionServicer
from plait_server.api.graphs import GraphServicer
from plait_server.api.grpc_server import OpenCalls, serve_grpc, standard_methods
from plait_server.api.health import HealthServicer
from plait_server.api.insight import InsightServicer
from plait_server.api.limits import LimitServicer
from plait_server.api.logs import LogServicer
from plait_server.api.methods import Method, methods_of
from plait_server.api.namespaces import SETTING_NAME, NamespaceServicer
from plait_server.api.pages import PageTokens
from plait_server.api.servicers import Servicers
from plait_server.api.system import ServerFacts, SystemServicer
from plait_server.api.workers import WorkerHubServicer
from plait_server.config import MEMORY_STORE, ServerConfig
from plait_server.encoding.limit_codec import SETTING_PREFIX, limit_from_bytes
from plait_server.encoding.namespace_codec import settings_from_bytes
from plait_server.errors import PlaitError, StoreLost, leaves_of
from plait_server.ports.evaluator import Evaluator, Offload
from plait_server.ports.graph_requests import GraphRequests
from plait_server.ports.journal import Journal
from plait_server.ports.observer import Observer, Retelling
from plait_server.ports.sampler import FollowCaller, Sampler
from plait_server.ports.seams import Seams
from plait_server.ports.span_sender import SpanLimits
from plait_server.runtime.admission import Admission
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.asyncio_bridge import callable_from_trio, open_loop
from plait_server.runtime.committer import Committer
from plait_server.runtime.environment import Environment
from plait_server.runtime.limit_registry import LimitRegistry
from plait_server.runtime.log_keeping import LogKeeping
from plait_server.runtime.namespace_registry import NamespaceRegistry
from plait_server.runtime.refused_calls import RefusedCalls
from plait_server.runtime.snapshotting import SnapshotSettings, Snapshotting
from plait_server.runtime.supervisor import Supervisor
from plait_server.telemetry.log_observer import LogObserver
from plait_server.telemetry.logs import log_to
from plait_server.telemetry.observers import Observers
from plait_server.telemetry.span_encoding import ResourceValue, SpanEncoder
from plait_server.telemetry.span_exporter import SpanExporter
from plait_server.telemetry.span_observer import SpanObserver

logger = logging.getLogger(__name__)

GC_THRESHOLDS: Final = (50_000, 5, 80)
"""The state of executions is many small, long-lived objects with few cycles. Python's default of 700 made the
collector take a quarter of the server's time on a fan-out of 1,000 nodes (4,700-5,700 nodes/s against
3,100-4,300). The middle generation is collected in parts of 250,000 objects, 0.03 s each."""


FLUSH_S: Final = 3.0
"""How long a stopping server may take to send its last spans, in seconds."""
TELL_S: Final = 0.5
"""How long a stopping server waits for watchers of its health to be told, in seconds."""
RENEW_S: Final = 1.0
"""How often an idle server checks that it still owns the store, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The environment that a server is assembled from; the simulator provides its own."""

    journal: Journal
    evaluator: Evaluator
    offload: Offload
    graph_requests: GraphRequests
    seams: Seams
    observer: Observer
    sampler: Sampler
    config: ServerConfig
    retelling: Retelling | None = None
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    resource: Mapping[str, ResourceValue] = field(default_factory=lambda: {"service.name": "plait"})
    """The attributes of the resource in exported spans."""
    span_limits: SpanLimits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server without network interfaces: its parts, and `run`."""

    journal: Journal
    allocator: Allocator
    committer: Committer
    refused_calls: RefusedCalls
    log_keeping: LogKeeping
    workers: AttachedWorkers
    supervisor: Supervisor
    servicers: Servicers
    methods: list[Method]

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; report `started` when the server is ready for calls.

        Raises:
            JournalUnavailable: The store failed for good.
            StoreLost: The store was deleted or replaced, or another server owns it.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self.workers.run)
            nursery.start_soon(self.committer.run)
            nursery.start_soon(self.refused_calls.run)
            nursery.start_soon(self.log_keeping.run)
            nursery.start_soon(self._keep_store)
            nursery.start_soon(self.supervisor.run)
            await self.supervisor.wait_ready()
            task_status.started()

    async def _keep_store(self) -> None:
        """Renew the ownership of the store, because an idle server would not notice otherwise that it is gone."""
        while await self.journal.renew():  # noqa: ASYNC110 -- There is no notification of a deleted file.
            await trio.sleep(RENEW_S)
        raise StoreLost


async def assemble(platform: Platform) -> Server:
    """Assemble the parts of a server."""
    config = platform.config
    version, instance_id = version_of_plait(), platform.seams.new_id()
    key = await platform.journal.key()
    allocator = Allocator(server_limit=config.server_limit, limits=config.limits)
    committer = Committer(platform.journal)
    log_keeping = LogKeeping(platform.journal, platform.seams.now_s)
    workers = AttachedWorkers(
        capacity=allocator,
        tokens=Tokens(key),
        seams=platform.seams,
        observer=Observers(platform.observer, log_keeping),
        server_version=version,
        server_instance_id=instance_id,
        ping_s=config.ping_s,
        grace_s=config.grace_s,
    )
    limits = LimitRegistry(allocator, config.server_limit, config.limits)
    environment = await _environment(platform, allocator, committer, workers, limits)
    supervisor = Supervisor(environment)
    workers.deliver = supervisor.deliver
    workers.is_current = supervisor.is_current
    facts = ServerFacts(
        version=version,
        instance_id=instance_id,
        start_time_s=platform.seams.now_s(),
        store=platform.journal.kind,
        insecure=not platform.config.is_protected,
    )
    servicers = _servicers(
        platform, environment, limits, supervisor, workers, log_keeping, PageTokens(key), facts
    )
    return Server(
        journal=platform.journal,
        allocator=allocator,
        committer=committer,
        refused_calls=RefusedCalls(platform.journal),
        log_keeping=log_keeping,
        workers=workers,
        supervisor=supervisor,
        servicers=servicers,
        methods=methods_of(servicers.by_service()),
    )


def _servicers(
    platform: Platform,
    environment: Environment,
    limits: LimitRegistry,
    supervisor: Supervisor,
    workers: AttachedWorkers,
    log_keeping: LogKeeping,
    page_tokens: PageTokens,
    facts: ServerFacts,
) -> Servicers:
    journal = platform.journal
    actions = Actions(platform.seams.now_s)
    return Servicers(
        graphs=GraphServicer(platform.graph_requests),
        executions=ExecutionServicer(
            supervisor,
            journal,
            platform.graph_requests,
            page_tokens,
            actions,
            environment.allocator.unserved_types,
            environment.committer.changes,
        ),
        controls=ExecutionControls(supervisor, actions),
        logs=LogServicer(supervisor, journal, log_keeping),
        insight=InsightServicer(
            supervisor, journal, lambda: SpanEncoder(platform.resource, facts.version, platform.span_limits)
        ),
        limits=LimitServicer(
            limits, environment.allocator, journal, page_tokens, actions, platform.seams.now_s
        ),
        namespaces=NamespaceServicer(
            environment.namespaces, environment.admission, journal, page_tokens, actions
        ),
        audit=AuditServicer(journal, page_tokens),
        worker_hub=WorkerHubServicer(workers, page_tokens),
        system=SystemServicer(facts, lambda: environment.allocator.statistics().server_limit),
    )


async def _environment(
    platform: Platform,
    allocator: Allocator,
    committer: Committer,
    workers: AttachedWorkers,
    limits: LimitRegistry,
) -> Environment:
    namespaces = NamespaceRegistry(platform.config.namespace_settings)
    for (namespace, name), content in (await platform.journal.read_settings()).items():
        if name == SETTING_NAME:
            namespaces.set(namespace, settings_from_bytes(content))
        elif name.startswith(SETTING_PREFIX):
            limits.set(*limit_from_bytes(content))
    allocator.share_by(lambda name: namespaces.of(name).weight)
    return Environment(
        journal=platform.journal,
        workers=workers,
        evaluator=platform.evaluator,
        offload=platform.offload,
        graph_requests=platform.graph_requests,
        seams=platform.seams,
        observer=platform.observer,
        sampler=platform.sampler,
        retelling=platform.retelling,
        allocator=allocator,
        committer=committer,
        namespaces=namespaces,
        admission=Admission(namespaces),
        snapshots=Snapshotting(platform.journal, platform.snapshots),
    )


def version_of_plait() -> str:
    """Return the version of the distribution; `0+unknown` when run from a tree that is not installed."""
    try:
        return importlib.metadata.version("plait")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def serve(config: ServerConfig, announce: Callable[[str], None] = print) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Args:
        config: The configuration.
        announce: Called with each line for the user.
    """
    log_to(sys.stderr, config.log_level, config.log_format)
    gc.freeze()  # Imported modules stay for good.
    gc.set_threshold(*GC_THRESHOLDS)
    failures: list[BaseException] = []
    try:
        config.check_tls()
        config.check_address()
        tls = _tls(config)
        # Before the event loop starts, because the SDK uses threads.
        tracing = open_tracing(version_of_plait())
        trio.run(_serve, config, tls, tracing, announce)
    except* PlaitError as group:
        failures = leaves_of(group)
    # Every task that waited for the store raises the same error.
    for message in dict.fromkeys(map(str, failures)):
        sys.stderr.write(f"plait serve: {message}\n")
    return 1 if failures else 0


async def _serve(
    config: ServerConfig,
    tls: ServerTls | None,
    tracing: Tracing | None,
    announce: Callable[[str], None],
) -> None:
    is_local = config.is_local  # Resolves a name, so it runs before calls are served.
    _warn_if_insecure(config, is_local=is_local)
    seams = SystemSeams()
    authenticator = FileAuthenticator(Path(config.tokens_file), seams.now_s) if config.tokens_file else None
    async with AsyncExitStack() as stack:
        # From here on, for process 1 of a container does not even hear a signal without a handler.
        signals = stack.enter_context(receive_stop_signals())
        journal = _open_journal(config, seams.new_id())
        stack.push_async_callback(journal.aclose)
        await stack.enter_async_context(open_loop())
        evaluator = CelEvaluator()
        graph_requests = PooledGraphRequests(evaluator)
        platform = Platform(
            journal=journal,
            evaluator=evaluator,
            offload=ProcessOffload(evaluator),
            graph_requests=graph_requests,
            seams=seams,
            observer=LogObserver(),
            sampler=FollowCaller(),
            config=config,
        )
        if tracing is not None:
            platform = await stack.enter_async_context(_traced(platform, tracing))
        server = await assemble(platform)
        health = HealthServicer()
        async with trio.open_nursery() as nursery:
            starting = trio.CancelScope()
            nursery.start_soon(_stop_early, signals, starting, nursery.cancel_scope)
            nursery.start_soon(graph_requests.run)
            nursery.start_soon(_collect_no_garbage_until_whole, server.supervisor)
            await nursery.start(server.run)
            if isinstance(journal, SqliteJournal):
                nursery.start_soon(serve_backups, journal)
            methods = [*server.methods, *standard_methods(health)]
            calls = OpenCalls()
            access = AccessControl(authenticator, partial(_on_refusal, server, Actions(seams.now_s)))
            credentials = tls.credentials() if tls is not None else None
            port = await nursery.start(
                partial(serve_grpc, config.listen, methods, access, credentials, seams.new_id, calls)
            )
            starting.cancel()
            health.set_serving(is_serving=True)
            _warn_if_insecure(config, is_local=is_local)
            address = f"{'https://' if tls is not None else ''}{config.listen.rpartition(':')[0]}:{port}"
            announce(f"Plait {version_of_plait()} listens on {address}")
            announce(_access(config, address, is_local=is_local))
            if tracing is not None:
                announce(f"  traces  go to {tracing.describe()}")
            await signals.wait()
            calls.refuse_starts()
            await _let_go(health, config, announce)
            nursery.cancel_scope.cancel()
        done = server.committer.statistics()
        if done.appends:
            logger.info(
                "made %d steps durable in %d commits; waited p50 %.6f s, p99 %.6f s",
                done.items,
                done.appends,
                done.wait_p50_s,
                done.wait_p99_s,
            )


async def _stop_early(signals: StopSignals, starting: trio.CancelScope, server: trio.CancelScope) -> None:
    """Stop a server that is told to before it serves; end when it does."""
    with starting:
        await signals.wait()
        server.cancel()


async def _let_go(health: HealthServicer, config: ServerConfig, announce: Callable[[str], None]) -> None:
    """Tell who watches the health that the server stops, and give them time to send calls elsewhere."""
    health.set_serving(is_serving=False)
    if config.stop_delay_s:
        announce(f"Plait stops in {config.stop_delay_s:g} s, and refuses new executions meanwhile.")
    await trio.sleep(config.stop_delay_s)
    with trio.move_on_after(TELL_S):
        await health.wait_told()
    is_lost = config.store == MEMORY_STORE
    announce(
        "Plait stops; its store was in memory, and all executions are gone."
        if is_lost
        else "Plait stops; executions go on when it is started again."
    )


@asynccontextmanager
async def _traced(platform: Platform, tracing: Tracing) -> AsyncGenerator[Platform]:
    """Add the export of spans to a platform. It runs until the server has ended, and then flushes for up to FLUSH_S."""
    settings = tracing.settings
    # The same after a restart: collectors recognize a span sent twice only if the resource is equal, too.
    instance_id = hashlib.sha256(b"service.instance.id\0" + await platform.journal.key()).digest()
    resource = {"service.instance.id": str(uuid.UUID(bytes=instance_id[:16], version=5)), **tracing.resource}
    exporter = SpanExporter(
        tracing.open_sender(callable_from_trio),
        platform.seams.random,
        spans_max=settings.queue_spans_max,
        bytes_max=settings.queue_bytes_max,
        timeout_s=settings.timeout_s,
    )
    spans = SpanObserver(
        SpanEncoder(resource, version_of_plait(), settings.limits),
        exporter,
        batch_spans_max=settings.batch_spans_max,
        batch_wait_s=settings.delay_s,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(exporter.run)
        nursery.start_soon(spans.run)
        yield replace(
            platform,
            observer=Observers(platform.observer, spans),
            retelling=spans,
            sampler=tracing.sampler,
            resource=resource,
            span_limits=settings.limits,
        )
        with trio.CancelScope(shield=True, deadline=trio.current_time() + FLUSH_S):
            await spans.finish()
            await exporter.flush(FLUSH_S)
        nursery.cancel_scope.cancel()


async def _collect_no_garbage_until_whole(supervisor: Supervisor) -> None:
    """Disable the garbage collector while open executions are recovered: it finds nothing, and blocks the event loop.

    With 10,000 executions a single collection took a second. Afterwards all objects, imported modules included, are
    moved to the oldest generation; the two calls do that without examining them.
    """
    gc.disable()
    try:
        await supervisor.wait_whole()
    finally:
        gc.freeze()
        gc.unfreeze()
        gc.enable()


def _tls(config: ServerConfig) -> ServerTls | None:
    if not config.tls_cert:
        return None
    client_ca = Path(config.tls_client_ca) if config.tls_client_ca else None
    files = TlsFiles(certificate=Path(config.tls_cert), key=Path(config.tls_key), client_ca=client_ca)
    return ServerTls(files)


def _on_refusal(server: Server, actions: Actions, refusal: Refusal) -> None:
    """Record a refused call in the log and in the audit."""
    log_refusal(refusal)
    call = Call(method=refusal.method, peer=refusal.peer, principal=refusal.principal)
    detail = {"reason": row_of(refusal.error).reason, "peer": refusal.peer}
    server.refused_calls.note(refusal.namespace, actions.refused(call, detail=detail))


def _warn_if_insecure(config: ServerConfig, *, is_local: bool) -> None:
    """Log that others can reach a server without protection: at the start and when it is ready."""
    if not config.is_protected and not is_local:
        text = "INSECURE: other machines can reach %s, which lacks %s"
        logger.warning(text, config.listen, _lacking(config))


def _lacking(config: ServerConfig) -> str:
    """Return what a server lacks to be protected."""
    return " and ".join(
        [*([] if config.tls_cert else ["TLS"]), *([] if config.tokens_file else ["authentication"])]
    )


def _access(config: ServerConfig, address: str, *, is_local: bool) -> str:
    """Return the line about who may use a server."""
    if config.tokens_file:
        whom = "tokens and client certificates" if config.tls_client_ca else "tokens"
        lacking = "" if config.tls_cert else ", without TLS"
        return f"  access  by the {whom} of {config.tokens_file}{lacking}"
    lacking = "without authentication" if config.tls_cert else "with neither TLS nor authentication"
    if is_local:
        return f"  access  insecure, {lacking}: any user of this machine may do everything"
    return f"  access  INSECURE, {lacking}: whoever reaches {address} may do everything"


def _open_journal(config: ServerConfig, owner: str) -> Journal:
    if config.store == MEMORY_STORE:
        return MemoryJournal(MemoryStore(), owner=owner)
    return SqliteJournal.open(config.store, owner=owner, may_create=config.may_create)
