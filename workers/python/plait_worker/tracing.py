"""Tracing of a worker by OpenTelemetry, if that is installed: a span for each handler, and no others.

The span is `handle TYPE`, a child of the attempt's span (B2). It is the current span in the task or thread in which the
handler runs, so the spans of whatever the handler calls nest below it. It is made by the program's TracerProvider;
`exporting` sets one for `python -m plait_worker`.

The worker's own calls (Attach, fetching inputs) have no spans: the stream lives as long as the worker and belongs to no
execution. They are made in a context in which instrumentation is suppressed; and `worker` imports gRPC's functions
by name, so that instrumentation that is set up later does not replace them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_worker.spans import HandlerTracer


def load_tracer(namespace: str, worker_id: str) -> HandlerTracer | None:
    """Return what makes the spans of handlers; None if OpenTelemetry is not installed.

    Args:
        namespace: the namespace served.
        worker_id: the worker's id.
    """
    try:
        from plait_worker.spans import HandlerTracer  # noqa: PLC0415 - OpenTelemetry may be missing.
    except ImportError:
        return None
    return HandlerTracer(namespace, worker_id)


def untraced() -> AbstractContextManager[None]:
    """Suppress OpenTelemetry's instrumentation for calls made, and tasks started, in this context."""
    try:
        from plait_worker.spans import suppressed_instrumentation  # noqa: PLC0415 - as above.
    except ImportError:
        return nullcontext()
    return suppressed_instrumentation()
