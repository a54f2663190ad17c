"""InsightService: exports the traces of executions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Final

import trio

from plait.v1 import insight_service_pb2
from plait_server.api.call import Call, Send, send_in_time
from plait_server.api.checks import target_of
from plait_server.core.limits import KIB
from plait_server.errors import ExecutionNotFound, Overloaded
from plait_server.ports.journal import Journal
from plait_server.runtime.recovery import replay
from plait_server.runtime.slicing import Pacing
from plait_server.runtime.supervisor import Supervisor
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.span_observer import nested_scopes
from plait_server.telemetry.spans import SpanFold

EXPORTS_MAX: Final = 4
"""Traces exported at once; each holds an execution in memory, up to 300 MB."""
TURN_S: Final = 10.0
"""Seconds that an export waits for its turn; callers before it may read slowly."""
PART_BYTES: Final = 256 * KIB
"""A part ends with the span that reaches this size; a span may have 600 KiB (128 retries with long messages)."""

Pb = insight_service_pb2


class InsightServicer:
    """Serves InsightService.

    Args:
        supervisor: Knows which executions are quarantined.
        journal: The source of the events.
        new_encoder: Creates an encoder with the same resource as that of live spans.
    """

    def __init__(
        self, supervisor: Supervisor, journal: Journal, new_encoder: Callable[[], SpanEncoder]
    ) -> None:
        self._supervisor = supervisor
        self._journal = journal
        self._new_encoder = new_encoder
        self._turns = trio.CapacityLimiter(EXPORTS_MAX)

    async def export_trace(self, request: Pb.ExportTraceRequest, call: Call, send: Send) -> None:
        """Stream the trace of an execution, built from its journal."""
        del call
        namespace, execution_id = target_of(request.namespace, request.execution_id)
        self._supervisor.quarantine.require_whole((namespace, execution_id))
        journal = self._journal.namespace(namespace)
        row = await journal.read_row(execution_id)
        if row is None:
            raise ExecutionNotFound(execution_id=execution_id)
        encoder, fold, pacing = self._new_encoder(), SpanFold(), Pacing()
        size = 0
        async with self._turn(), aclosing(replay(journal, execution_id)) as history:
            async for execution, event in history:
                for span in fold.after(namespace, execution, event, nested_scopes(execution, [event])):
                    size += encoder.add(span) if span is not None else 0
                    if size >= PART_BYTES:
                        await send_in_time(send, Pb.ExportTraceResponse(traces_data=encoder.take()))
                        size = 0
                    await pacing.pause_if_due()
                await pacing.pause_if_due()
                if event.sequence >= row.last_sequence:
                    break  # An open execution may get new events faster than they are read here.
            if size:
                await send_in_time(send, Pb.ExportTraceResponse(traces_data=encoder.take()))

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None]:
        with trio.move_on_after(TURN_S) as waited:
            await self._turns.acquire()
        if waited.cancelled_caught:
            raise Overloaded(f"{EXPORTS_MAX} traces are being exported, the most at a time; try again later")
        try:
            yield
        finally:
            self._turns.release()
