"""A context whose reports nobody hears."""

from plait_worker import Context
from plait_worker.reports import ReportBuffer
from plait_worker.session_events import Assigned


class NeverFlushed:
    def request_flush(self, buffer: ReportBuffer) -> None: ...


def make_assigned() -> Assigned:
    return Assigned(
        token="a",
        execution_id="e",
        node_path="n",
        attempt=1,
        run=1,
        type="t",
        input_json=None,
        input_digest=None,
        time_left_s=None,
        traceparent="",
        tracestate="",
        branch="0",
        idempotency_key="k",
    )


def make_context() -> Context:
    return Context(
        make_assigned(), worker_id="w", buffer=ReportBuffer("a", NeverFlushed()), clock=lambda: 0.0
    )
