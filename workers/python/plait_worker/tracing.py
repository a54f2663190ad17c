"""What a worker shows of itself by OpenTelemetry, if that is installed: a span for each handler, and nothing else.

The span is `handle TYPE`, a child of the attempt's (B2). It is the current span where the handler runs, in its task or
its thread, so that whatever the handler calls nests below it. It is made by the TracerProvider of the program;
`exporting` sets one up for `python -m plait_worker`.

The worker's own calls (Attach, the fetching of inputs) make no spans: a stream lives as long as the worker, and belongs
to no execution. Instrumentation leaves them alone for the context in which they are made says so, and `worker` takes
gRPC's functions before instrumentation replaces them, where it can.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_worker.spans import HandlerTracer


def load_tracer(namespace: str, worker_id: str) -> HandlerTracer | None:
    """Return what makes the spans of handlers; None without OpenTelemetry.

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
    """Have OpenTelemetry's instrumentation leave alone what is called, and what tasks are started, in a context."""
    try:
        from plait_worker.spans import suppressed_instrumentation  # noqa: PLC0415 - as above.
    except ImportError:
        return nullcontext()
    return suppressed_instrumentation()
