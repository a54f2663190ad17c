"""Intake: builds an execution from a submitted graph, and the journal item of its submission.

Nothing here is durable and nothing runs yet: the supervisor appends the item and starts the execution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from plait_server.core.run.events import Event, ExecutionSubmitted
from plait_server.core.run.execution import ROOT_BRANCH, Execution, execution_in_slices
from plait_server.core.run.machine import SEMANTICS_VERSION
from plait_server.core.run.states import ExecutionState
from plait_server.core.run.trace import SpanIds, TraceContext, own_trace_id
from plait_server.encoding.event_codec import encode_event
from plait_server.errors import RequestIdReused
from plait_server.ports.audit import ActionRecord
from plait_server.ports.graph_requests import CheckedGraph
from plait_server.ports.journal import AppendItem, NamespaceJournal, RequestRecord
from plait_server.runtime.content_store import ContentStore
from plait_server.runtime.environment import Environment
from plait_server.runtime.rows import row_of
from plait_server.runtime.slicing import in_slices


class Submission(NamedTuple):
    """A valid graph with the options of its submission."""

    namespace: str
    execution_id: str
    """If empty, an id is generated."""
    graph: CheckedGraph
    input_json: str
    labels: Mapping[str, str]
    caller: TraceContext | None
    """The caller's trace context, the parent of the execution's span; None if the caller sent none."""
    request: RequestRecord | None
    action: ActionRecord | None = None
    """Who submits; the execution and the graph are filled in."""
    priority: int = 0


async def prepare(environment: Environment, submission: Submission) -> tuple[Execution, AppendItem]:
    """Build the execution of a submission and the item that makes it durable.

    Returns:
        The execution after its first event, and the item with that event.
    """
    execution_id = submission.execution_id or environment.seams.new_id()
    checked = submission.graph
    execution = await in_slices(execution_in_slices(await environment.definitions.of(checked)))
    graph = execution.root.graph
    contents = ContentStore(environment.journal.namespace(submission.namespace))
    trace = _begin_trace(environment, submission, execution_id, graph.name)
    detail = ExecutionSubmitted(
        execution_id,
        graph.name,
        checked.digest,
        checked.analysis_digest,
        contents.keep(submission.input_json),
        submission.labels,
        SEMANTICS_VERSION,
        trace.traceparent,
        len(graph.nodes),
        submission.caller.span_id if submission.caller is not None else "",
        trace.tracestate,
        submission.priority,
    )
    now_s = round(environment.seams.now_s(), 6)
    event = Event(1, now_s, 1, "", 0, ROOT_BRANCH, None, ExecutionState.QUEUED, "", detail)
    execution.apply(event)
    request = submission.request
    item = AppendItem(
        namespace=submission.namespace,
        execution_id=execution_id,
        expected_sequence=0,
        owner_epoch=1,
        events=[encode_event(event)],
        row=row_of(submission.namespace, execution),
        contents={
            detail.graph_digest: checked.content,
            detail.analysis_digest: checked.analysis_content,
            **contents.unsaved,
        },
        request=request
        and RequestRecord(
            method=request.method,
            request_id=request.request_id,
            fingerprint=request.fingerprint,
            execution_id=execution_id,
        ),
        action=submission.action
        and dataclasses.replace(submission.action, execution_id=execution_id, target=graph.name),
    )
    return execution, item


async def find_request(journal: NamespaceJournal, request: RequestRecord) -> RequestRecord | None:
    """Return the record of a request that was accepted before; None if there is none.

    Raises:
        RequestIdReused: The request id was used with other content.
    """
    known = await journal.find_request(request.method, request.request_id)
    if known is not None:
        check_fingerprint(known, request)
    return known


def check_fingerprint(known: RequestRecord, request: RequestRecord | None) -> None:
    """Check that a request has the same content as the earlier one with its id.

    Raises:
        RequestIdReused: The request id was used with other content.
    """
    if request is None or known.fingerprint != request.fingerprint:
        raise RequestIdReused(request_id=known.request_id)


def _begin_trace(
    environment: Environment, submission: Submission, execution_id: str, graph_name: str
) -> TraceContext:
    """Return the trace context of a new execution's span, in the caller's trace if there is one (B2)."""
    namespace, caller = submission.namespace, submission.caller
    trace = caller or TraceContext(own_trace_id(namespace, execution_id), "", 0)
    attributes = {"plait.namespace": namespace, "plait.graph.name": graph_name}
    sampling = environment.sampler.sample(trace.trace_id, caller, attributes)
    span_id = SpanIds(namespace, execution_id, 1).execution().hex()
    return trace.child(span_id, is_sampled=sampling.is_sampled, tracestate=sampling.tracestate)
