"""What is checked when a seed is over: every execution's events against the laws, and what clients were promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

from plait_server.core.namespace_settings import NamespaceSettings
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    CancelReceipt,
    Event,
    ExecutionEnded,
    ExecutionSubmitted,
    NodeEnded,
    NodeWaiting,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.execution import Execution
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import AttemptOutcome, CancelStage, NodeState
from plait_server.encoding.event_codec import decode_event, encode_event
from plait_server.testing.simulation.admission_law import admission_problem
from plait_server.testing.simulation.attempt_law import attempt_problem
from plait_server.testing.simulation.clients import Client
from plait_server.testing.simulation.collector import Collector
from plait_server.testing.simulation.judge import Judge, LawBroken
from plait_server.testing.simulation.span_checks import missing_span
from plait_server.testing.simulation.span_compare import problem_of
from plait_server.testing.simulation.span_law import Pb, SpanLaw
from plait_server.testing.simulation.store import Durable, Records
from plait_server.testing.simulation.world import SimulationFailure, World
from plait_server.testing.slow_model import SlowModel
from plait_server.testing.slow_model.nodes import ModelScope


class Checks:
    """Checks what a seed left behind; `rows` counts the rows of the tables that were seen.

    Args:
        records: What is durable.
        collector: What came to the collector of traces.
        spent: (execution, node path, attempt) -> tokens that its handler used.
        settings: The configuration of the namespace.
        world: The seed, and what handlers said and were given.
    """

    def __init__(
        self,
        records: Records,
        collector: Collector,
        spent: Mapping[tuple[str, str, int], str],
        settings: NamespaceSettings,
        world: World,
    ) -> None:
        self._world = world
        self._records = records
        self._settings = settings
        self._collector = collector
        self._spent = spent
        self.rows: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Checks of {self._records!r}>"

    def check(self, clients: Sequence[Client]) -> SimulationFailure | None:
        """Check everything; gives the first failure."""
        try:
            by_execution = {client.execution_id: client for client in clients}
            unexplained = dict.fromkeys(self._collector.spans)
            for durable in self._records.executions.values():
                client = by_execution.get(durable.execution_id)
                law = (
                    SpanLaw(durable.graph, durable.execution_id, client.caller)
                    if client is not None
                    else None
                )
                self._check_execution(durable, law)
                if client is not None and law is not None and not client.has_exported:
                    # It was deleted before; a server that starts after that cannot tell its spans again.
                    for span_id in law.spans():
                        unexplained.pop(span_id, None)
                elif client is not None and law is not None:
                    for span_id in self._check_spans(durable, law, client):
                        unexplained.pop(span_id, None)
            self._check_promises(clients)
            if (problem := admission_problem(self._records, self._settings)) is not None:
                return problem
            if (problem := attempt_problem(self._records.executions.values(), self._world)) is not None:
                return problem
            for span_id in unexplained:
                raise SimulationFailure(
                    "B2", f"a span that no execution explains arrived: {self._collector.spans[span_id]!r}"
                )
        except SimulationFailure as failure:
            return failure
        return None

    def _read(self, payload: Payload) -> str:
        return payload.json if not payload.digest else self._records.contents[payload.digest].decode()

    def _check_promises(self, clients: Sequence[Client]) -> None:
        """A4, K3: what was acknowledged is there, once; nothing else is."""
        executions = self._records.executions
        for client in clients:
            record = self._records.requests.get(("SubmitGraph", client.name))
            if client.execution_id not in executions or record is None:
                raise SimulationFailure("A4", f"the acknowledged submission of {client.name} is lost")
            if record.execution_id != client.execution_id:
                raise SimulationFailure(
                    "K3",
                    f"{client.name} was told {client.execution_id}, and the record says {record.execution_id}",
                )
        if len(executions) != len(clients):
            raise SimulationFailure("K3", f"{len(clients)} submissions made {len(executions)} executions")

    def _check_execution(self, durable: Durable, law: SpanLaw | None) -> None:
        def fail(check: str, message: str) -> SimulationFailure:
            return SimulationFailure(check, message, durable.execution_id)

        judge = Judge(durable.graph, durable.events, self._read)
        replayed = Execution(durable.graph, durable.replayed.root.analysis)
        for number, content in enumerate(durable.contents, 1):
            event = decode_event(content)
            if event.sequence != number:
                raise fail("A1", f"event {event.sequence} is number {number}")
            if (number == 1) != isinstance(event.detail, ExecutionSubmitted):
                raise fail("A1", f"event {number} is {type(event.detail).__name__}")
            if replayed.is_ended:
                raise fail("A5", f"event {number} follows the end")
            if not all(digest in self._records.contents for digest in _digests(event)):
                raise fail("A2", f"event {number} names a content that is not durable")
            if encode_event(event) != content:
                raise fail("A1", f"event {number} is not the same when it is written again")
            try:
                judge.follow(event)
            except LawBroken as broken:
                raise fail(broken.args[0], f"event {number}: {broken.args[1]}") from broken
            if law is not None:
                law.follow(event, judge.model)
            self._records.replay(replayed, event)
            problem = _compare(judge.model, replayed) if judge.is_caught_up else ""
            if problem:
                raise fail("5, 6", f"after event {number}: {problem}")
        self.rows.update(judge.rows())
        if replayed.digest() != durable.replayed.digest():
            raise fail("A1", "a second replay ends in another state")
        problem = self._usage_problem(durable)
        if problem:
            raise fail("U1", problem)
        if not isinstance(durable.events[-1].detail, ExecutionEnded):
            raise fail("E5", "it has not ended")
        problem = _receipt_problem(durable)
        if problem:
            raise fail("C1", problem)
        problem = _index_problem(durable)
        if problem:
            raise fail("N2", problem)

    def _check_spans(self, durable: Durable, law: SpanLaw, client: Client) -> Iterable[bytes]:
        """Check the trace of an execution; return the ids of the spans that may have arrived."""
        expected = law.spans()
        self.rows.update(law.rows)
        exported = {span_id: Pb.FromString(content) for span_id, content in client.exported.items()}
        problem = problem_of(expected, exported, durable.execution_id, client.caller)
        if problem:
            raise SimulationFailure("B2", problem, durable.execution_id)
        first = durable.events[0].detail
        assert isinstance(first, ExecutionSubmitted)  # A1, which was checked
        if first.traceparent != client.caller.traceparent(durable.execution_id):
            raise SimulationFailure("B2", f"its span is {first.traceparent}", durable.execution_id)
        if not client.caller.is_sampled:
            return ()
        is_told_again = durable.written[0].start < durable.written[-1].start
        self.rows["span: an execution told again after a crash"] += is_told_again
        for span_id, content in client.exported.items():
            came = self._collector.spans.get(span_id, content)
            if came != content:
                raise SimulationFailure(
                    "B2",
                    f"a span was sent as {Pb.FromString(came)} and exported as {exported[span_id]}",
                    durable.execution_id,
                )
        problem = missing_span(durable, expected, self._collector)
        if problem:
            raise SimulationFailure("B2.1", problem, durable.execution_id)
        return expected

    def _usage_problem(self, durable: Durable) -> str:
        """U1: each attempt counts once, with all that it used if its own report ended it; totals are the sum."""
        used: dict[tuple[str, int], Mapping[str, str]] = {}
        for event in durable.events:
            if isinstance(event.detail, AttemptEnded | UsageReported):
                used[event.node_path, event.attempt] = event.detail.usage
        total = Decimal(0)
        for (path, attempt), usage in used.items():
            spent = self._spent.get((durable.execution_id, path, attempt))
            whole = {} if spent is None else {"tokens": spent}
            is_whole = durable.outcome(path, attempt) is AttemptOutcome.SUCCEEDED
            if usage != whole and (is_whole or usage):
                return f"{path} attempt {attempt} counts {usage}, and used {whole}"
            total += Decimal(usage.get("tokens", "0"))
        if total != durable.replayed.usage.get("tokens", 0):
            return f"the total is {durable.replayed.usage}, and the sum of all attempts {total}"
        return ""


def _digests(event: Event) -> Iterator[str]:
    """Find the contents that an event names in its payloads."""
    detail = event.detail
    payloads: list[Payload | None] = []
    if isinstance(detail, ExecutionSubmitted | AttemptStarted | NodeWaiting | ScopeOpened):
        payloads.append(detail.input)
    if isinstance(detail, ScopeOpened):
        yield from filter(None, (detail.graph_digest, detail.analysis_digest))
    elif isinstance(detail, AttemptEnded | NodeEnded | ExecutionEnded | ScopeEnded):
        payloads.append(None if isinstance(detail, ScopeEnded) else detail.output)
        failures = [detail.failure] if detail.failure is not None else []
        for failure in failures:
            payloads.append(failure.details)
            failures.extend(failure.causes)
    yield from (payload.digest for payload in payloads if payload is not None and payload.digest)


def _index_problem(durable: Durable) -> str:
    """N2: the index names the events of each scope that has ended, and those of no other."""
    expected: dict[str, list[int]] = {}
    for event in durable.events:
        if isinstance(event.detail, ScopeOpened):
            expected.setdefault(event.detail.scope_path, []).append(event.sequence)
        around = event.node_path.rpartition("/")[0]
        if around:
            expected[around].append(event.sequence)
    for path in {**durable.scopes, **durable.replayed.closed}:
        found = durable.scopes.get(path, [])
        # One that was stopped with the execution may have events that are not indexed: it stays in memory.
        if found != expected.get(path, [])[: len(found)]:
            return f"the index names the events {found} for {path}, which has {expected.get(path)}"
        if path in durable.replayed.closed and len(found) != len(expected[path]):
            return f"the index of {path}, which has ended, lacks {expected[path][len(found) :]}"
    return ""


def _receipt_problem(durable: Durable) -> str:
    """C1: the receipts of each cancelled attempt grow, and end with EXITED or ABANDONED."""
    newest: dict[tuple[str, int], CancelStage] = {}
    for event in durable.events:
        if isinstance(event.detail, CancelReceipt):
            key = event.node_path, event.attempt
            if newest.get(key, 0) >= event.detail.stage:
                return (
                    f"the receipt {event.detail.stage.name} of {event.node_path} follows {newest[key].name}"
                )
            newest[key] = event.detail.stage
    for (node_path, _), stage in newest.items():
        if not stage.is_final:
            return f"the last receipt of {node_path} is {stage.name}"
    return ""


def _compare(model: SlowModel, replayed: Execution) -> str:
    """Return where a replayed execution differs from the model; empty if nowhere."""
    for path, scope in replayed.scopes.items():
        problem = _compare_scope(model.scopes[path], scope)
        if problem:
            return problem
    for path, closed in replayed.closed.items():
        outcome = model.scopes[path].outcome
        kept = closed.state, closed.failure and closed.failure.code
        if outcome is not None and kept != (outcome.state, outcome.failure and outcome.failure.code):
            return f"the scope {path} is kept as {closed!r}, not as {outcome.state.name}"
    return ""


def _compare_scope(mine: ModelScope, scope: Scope) -> str:
    """Return where a replayed scope differs from the model; empty if nowhere."""
    for place, (wanted, got) in enumerate(zip(mine.edges, scope.edge_states, strict=True)):
        if wanted is not got:
            edge = scope.edge(place)
            return f"the edge {edge.source}.{edge.handle} -> {edge.target} is {got.name}, not {wanted.name}"
    for record in scope.records:
        node = mine.nodes[record.node.id]
        if record.state is not node.state:
            return f"{record.path} is {record.state.name}, not {node.state.name}"
        if node.state is NodeState.CANCELLED or not record.total:
            continue  # Nobody asks for its join any more, or it has none.
        told = record.verdict.value if record.verdict is not None else "open"
        needed = "open" if node.verdict is None else node.verdict.reason or "RUN"
        if told != needed:
            return f"the join of {record.path} is {told}, not {needed}"
        if needed == "RUN" and record.active_edges != node.active:
            return f"the join of {record.path} took the edges {record.active_edges}"
    return ""
