"""ExecutionService: submits, shows, lists, watches and cancels executions."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Final

import trio

from plait.v1 import execution_pb2, execution_service_pb2, state_pb2
from plait_server.api.audit import Actions
from plait_server.api.call import Call, Send, send_in_time
from plait_server.api.checks import Checks, target_of
from plait_server.api.describing import UnservedTypes, describe_view, show_unserved
from plait_server.api.graphs import require_valid
from plait_server.api.late_usage import LateUsage
from plait_server.api.list_watching import ExecutionsWatching
from plait_server.api.lists import ExecutionLists
from plait_server.api.nodes import Cursor, Nodes
from plait_server.api.pages import ANSWER_BYTES_MAX, PageTokens
from plait_server.api.snapshots import write_snapshot
from plait_server.api.watching import FRAME_BYTES_MAX, cut_frame, join_events, join_frame
from plait_server.core.limits import WATCHERS_MAX
from plait_server.core.run.trace import read_trace_context
from plait_server.encoding.execution_codec import describe_corrupt
from plait_server.errors import (
    EventDamaged,
    Overloaded,
    PayloadNotFound,
    SequenceOutOfRange,
)
from plait_server.ports.graph_requests import GraphRequests, Want
from plait_server.ports.journal import DamagedRow, Journal, ListedExecution, RequestRecord
from plait_server.runtime.changes import Changes
from plait_server.runtime.closed_scopes import ClosedScopes
from plait_server.runtime.intake import Submission
from plait_server.runtime.pacing import Gate
from plait_server.runtime.supervisor import Supervisor
from plait_server.runtime.view import View

WAIT_S: Final = 60.0
WAIT_S_MAX: Final = 3_600.0
POLL_S_MAX: Final = 60.0
HEARTBEAT_S: Final = 15.0
"""Proxies commonly drop a stream that is silent for 60 s."""
PAGE_EVENTS: Final = 1_000
CHUNK_BYTES: Final = 64 * 1024

Pb = execution_service_pb2


class ExecutionServicer:
    """Serves ExecutionService."""

    def __init__(
        self,
        supervisor: Supervisor,
        journal: Journal,
        graph_requests: GraphRequests,
        tokens: PageTokens,
        actions: Actions,
        unserved_types: UnservedTypes,
        changes: Changes,
    ) -> None:
        self._supervisor = supervisor
        self._journal = journal
        self._graph_requests = graph_requests
        self._tokens = tokens
        self._actions = actions
        self._lists = ExecutionLists(journal, tokens, self._describe_row)
        self._unserved_types = unserved_types
        self._watching = ExecutionsWatching(journal, changes, tokens, self._describe_row)
        self._closed_scopes = ClosedScopes(journal)
        self._watchers = 0
        self._gate = Gate()

    async def submit_graph(
        self, submitted: Pb.SubmitGraphRequest | bytes, call: Call
    ) -> Pb.SubmitGraphResponse:
        """Accept a graph for execution, and wait for its end if asked to."""
        read = await self._graph_requests.read(Want.SUBMIT, submitted)
        request = read.head
        assert isinstance(request, Pb.SubmitGraphRequest)
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id, optional=True)
        request_id = checks.request_id(request.request_id)
        labels = checks.labels(request.labels)
        input_json = checks.input(
            request.input, is_given=request.HasField("input"), problem=read.input_problem
        )
        priority = checks.priority("priority", request.priority)
        wait_s = checks.wait_s(
            request.wait, default_s=0.0, max_s=WAIT_S_MAX, is_given=request.HasField("wait")
        )
        if not read.has_graph:
            checks.add("graph", "is missing; give the graph")
        checks.finish()
        require_valid(read)
        assert read.graph is not None  # a valid graph has one
        record = None
        if request_id:
            record = RequestRecord(
                method="SubmitGraph",
                request_id=request_id,
                fingerprint=read.fingerprint,
                execution_id=execution_id,
            )
        execution = await self._supervisor.submit(
            Submission(
                namespace=namespace,
                execution_id=execution_id,
                graph=read.graph,
                input_json=input_json,
                labels=labels,
                caller=read_trace_context(
                    call.metadata.get("traceparent", ""), call.metadata.get("tracestate", "")
                ),
                request=record,
                action=self._actions.accepted(call),
                priority=priority,
            )
        )
        view = await self._view_at_end(namespace, execution.execution_id, wait_s)
        return Pb.SubmitGraphResponse(execution=describe_view(namespace, view))

    async def get_execution(self, request: Pb.GetExecutionRequest, call: Call) -> Pb.GetExecutionResponse:
        """Return one execution."""
        del call
        namespace, execution_id = target_of(request.namespace, request.execution_id)
        try:
            late_usage = await LateUsage.read(self._journal.namespace(namespace), execution_id)
            view = await self._supervisor.view(namespace, execution_id)
        except EventDamaged as error:
            return Pb.GetExecutionResponse(execution=describe_corrupt(namespace, execution_id, error.message))
        execution = describe_view(namespace, view)
        late_usage.show_execution(execution)
        return Pb.GetExecutionResponse(execution=execution)

    async def list_executions(
        self, request: Pb.ListExecutionsRequest, call: Call
    ) -> Pb.ListExecutionsResponse:
        """List executions."""
        del call
        return await self._lists.list(request)

    async def count_executions(
        self, request: Pb.CountExecutionsRequest, call: Call
    ) -> Pb.CountExecutionsResponse:
        """Count executions."""
        del call
        return await self._lists.count(request)

    async def list_nodes(self, request: Pb.ListNodesRequest, call: Call) -> Pb.ListNodesResponse:
        """List the nodes of an execution; nodes of a nested scope come after those of the scope around it."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id)
        size = checks.page_size(request.page_size)
        checks.finish()
        in_scope = request.HasField("scope_path")
        of_list = ["ListNodes", namespace, execution_id, *([request.scope_path] if in_scope else [])]
        position = self._tokens.read(request.page_token, *of_list)
        begin = Cursor(request.scope_path, 0) if position is None else Cursor.of_text(position)
        nodes = self._nodes(namespace, execution_id)
        page = await nodes.list(begin, nodes_max=size, bytes_max=ANSWER_BYTES_MAX, in_scope=in_scope)
        response = Pb.ListNodesResponse(nodes=page.nodes)
        if page.next is not None:
            response.next_page_token = self._tokens.make(page.next.text(), *of_list)
        return response

    async def get_node(self, request: Pb.GetNodeRequest, call: Call) -> Pb.GetNodeResponse:
        """Return one node of an execution."""
        del call
        namespace, execution_id = target_of(request.namespace, request.execution_id)
        late_usage = await LateUsage.read(self._journal.namespace(namespace), execution_id)
        node = await self._nodes(namespace, execution_id).get(request.node_path)
        late_usage.show_node(node)
        return Pb.GetNodeResponse(node=node)

    async def get_payload(self, request: Pb.GetPayloadRequest, call: Call, send: Send) -> None:
        """Stream the content of a payload."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        digest = checks.digest(request.digest)
        checks.finish()
        content = await self._journal.namespace(namespace).read_content(digest)
        if content is None:
            raise PayloadNotFound(digest=digest)
        for begin in range(0, len(content), CHUNK_BYTES):
            # A reader that stalls would keep up to 16 MiB in memory.
            await send_in_time(send, Pb.GetPayloadResponse(chunk=content[begin : begin + CHUNK_BYTES]))

    async def wait_execution(self, request: Pb.WaitExecutionRequest, call: Call) -> Pb.WaitExecutionResponse:
        """Wait for the end of an execution and return it."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id)
        wait_s = checks.wait_s(
            request.wait, default_s=WAIT_S, max_s=WAIT_S_MAX, is_given=request.HasField("wait")
        )
        checks.finish()
        view = await self._view_at_end(namespace, execution_id, wait_s)
        return Pb.WaitExecutionResponse(execution=describe_view(namespace, view))

    async def list_events(self, request: Pb.ListEventsRequest, call: Call) -> bytes:
        """List the events of an execution by sequence; return an encoded ListEventsResponse of the stored bytes."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id)
        size = checks.page_size(request.page_size)
        wait_s = checks.wait_s(
            request.wait, default_s=0.0, max_s=POLL_S_MAX, is_given=request.HasField("wait")
        )
        if request.after_sequence < 0:
            checks.add("after_sequence", "must be at least 0")
        checks.finish()
        view = await self._view_after(namespace, execution_id, request.after_sequence)
        with trio.move_on_after(wait_s):
            while view.execution.sequence <= request.after_sequence and not view.execution.is_ended:
                await self._wait_changed(namespace, view)
                view = await self._supervisor.view(namespace, execution_id)
        view = await self._supervisor.view(namespace, execution_id)
        # Before `_read` awaits, because later decisions of the execution may not be durable yet (A2).
        tail = Pb.ListEventsResponse(last_sequence=view.execution.sequence, ended=view.execution.is_ended)
        events = await self._read(namespace, view, request.after_sequence, size)
        return join_events(events) + tail.SerializeToString()

    async def watch_execution(self, request: Pb.WatchExecutionRequest, call: Call, send: Send) -> None:
        """Stream the events of an execution to a final frame (A3)."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id)
        after = request.after_sequence
        if after < -1:
            checks.add("after_sequence", "must be at least -1; 0 is the beginning, -1 the end")
        if request.include_snapshot and after > 0:
            checks.add("include_snapshot", "goes with after_sequence 0 or -1 only")
        checks.finish()
        with self._counted_watcher():
            view = await self._view_after(namespace, execution_id, after)
            if request.include_snapshot:
                view_of = partial(self._supervisor.view, namespace, execution_id)
                after, frames = await write_snapshot(namespace, view_of, self._closed_scopes)
                async with aclosing(frames):
                    async for frame in frames:
                        await send_in_time(send, frame)
            elif after < 0:
                after = view.execution.sequence
            await self._follow(namespace, execution_id, after, send)

    async def watch_executions(self, request: Pb.WatchExecutionsRequest, call: Call, send: Send) -> None:
        """Stream the changes of a namespace's executions (A3)."""
        del call
        with self._counted_watcher():
            await self._watching.watch(request, send)

    # Inside.

    @contextmanager
    def _counted_watcher(self) -> Generator[None]:
        if self._watchers >= WATCHERS_MAX:
            message = f"{self._watchers} watchers are over the limit; try again later"
            raise Overloaded(message)
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    def _nodes(self, namespace: str, execution_id: str) -> Nodes:
        view_of = partial(self._supervisor.view, namespace, execution_id)
        return Nodes(namespace, view_of, self._closed_scopes)

    def _describe_row(self, namespace: str, listed: ListedExecution | DamagedRow) -> execution_pb2.Execution:
        if isinstance(listed, DamagedRow):
            return describe_corrupt(listed.namespace, listed.execution_id)
        execution = execution_pb2.Execution.FromString(listed.row.summary)
        execution.last_sequence = listed.last_sequence
        if (namespace, listed.execution_id) in self._supervisor.quarantine:
            execution.state = state_pb2.EXECUTION_STATE_CORRUPT
        show_unserved(execution, self._unserved_types(namespace, listed.execution_id))
        return execution

    async def _view_after(self, namespace: str, execution_id: str, after: int) -> View:
        view = await self._supervisor.view(namespace, execution_id)
        last = view.execution.sequence
        if after > last:
            message = (
                f"sequence {after} lies beyond the newest event, {last}; resume after one that was received"
            )
            raise SequenceOutOfRange(message, last_sequence=last)
        return view

    async def _view_at_end(self, namespace: str, execution_id: str, wait_s: float) -> View:
        """Return an execution at its end, or when the wait is over."""
        with trio.move_on_after(wait_s):
            while not (view := await self._supervisor.view(namespace, execution_id)).execution.is_ended:
                await self._wait_changed(namespace, view)
        # Again, because its decisions since the last check may not be durable.
        return await self._supervisor.view(namespace, execution_id)

    async def _wait_changed(self, namespace: str, view: View) -> None:
        """Wait for a change of an execution; the caller bounds the wait."""
        if view.feed is not None:
            await view.feed.wait_changed()
        else:
            await self._supervisor.wait_moved(namespace, view.execution.execution_id)

    async def _read(self, namespace: str, view: View, after: int, events_max: int) -> Sequence[bytes]:
        events = view.feed.read(after) if view.feed is not None else None
        if events is None:
            journal = self._journal.namespace(namespace)
            page = await journal.read(
                view.execution.execution_id, after=after, events_max=events_max, bytes_max=FRAME_BYTES_MAX
            )
            events = page.events
        return cut_frame(events, events_max)

    async def _follow(self, namespace: str, execution_id: str, after: int, send: Send) -> None:
        is_caught_up = False
        while True:
            # An event wakes all watchers of its execution; a few continue at a time.
            async with self._gate.passing():
                view = await self._supervisor.view(namespace, execution_id)
                events = await self._read(namespace, view, after, PAGE_EVENTS)
                if events:
                    after += len(events)
                    await send_in_time(send, join_frame(events))
                    continue
                if not is_caught_up:
                    is_caught_up = True
                    caught_up = Pb.CaughtUp(sequence=after)
                    await send_in_time(send, Pb.WatchExecutionResponse(caught_up=caught_up))
                    continue
                if view.execution.is_ended:
                    end = Pb.WatchEnd(sequence=after, run=view.execution.run)
                    await send_in_time(send, Pb.WatchExecutionResponse(end=end))
                    return
            with trio.move_on_after(HEARTBEAT_S) as waited:
                await self._wait_changed(namespace, view)
            if waited.cancelled_caught:
                await send_in_time(send, Pb.WatchExecutionResponse(heartbeat=Pb.Heartbeat(sequence=after)))
