"""Reading executions back: replay of the events is the recovery, and it evaluates nothing (A1)."""

from __future__ import annotations

from typing import Final

from plait_server.core.events import ExecutionSubmitted
from plait_server.core.execution import Execution
from plait_server.core.machine import SEMANTICS_VERSION
from plait_server.encoding.event_codec import decode_event
from plait_server.errors import EventDamaged
from plait_server.ports.journal import NamespaceJournal
from plait_server.runtime.building import build_execution
from plait_server.runtime.slicing import in_slices

PAGE_EVENTS: Final = 1_000
PAGE_BYTES: Final = 1024 * 1024
"""Read in stretches, so that other executions step between them."""


async def load_execution(journal: NamespaceJournal, execution_id: str) -> Execution:
    """Read an execution back, whole.

    Raises:
        ExecutionNotFound: there is none of this id in this namespace.
        EventDamaged: an event, the graph or its analysis is damaged, or of a newer version.
        JournalUnavailable: the store does not answer.
    """
    execution: Execution | None = None
    after = 0
    while True:
        page = await journal.read(execution_id, after=after, events_max=PAGE_EVENTS, bytes_max=PAGE_BYTES)
        for content in page.events:
            event = decode_event(content)
            if execution is None:
                if not isinstance(event.detail, ExecutionSubmitted):
                    message = (
                        "the first event of this execution is not its submission; restore it from a backup"
                    )
                    raise EventDamaged(message)
                execution = await _begin(journal, event.detail)
            execution.apply(event)
        after += len(page.events)
        if after >= page.last_sequence or not page.events:
            break
    if execution is None:
        message = "this execution has no events; restore it from a backup"
        raise EventDamaged(message)
    return execution


async def _begin(journal: NamespaceJournal, submitted: ExecutionSubmitted) -> Execution:
    if submitted.semantics_version > SEMANTICS_VERSION:
        message = (
            f"this execution runs under semantics {submitted.semantics_version}; upgrade Plait to read it"
        )
        raise EventDamaged(message)
    graph = await journal.read_content(submitted.graph_digest)
    analysis = await journal.read_content(submitted.analysis_digest)
    if graph is None or analysis is None:
        message = "the graph of this execution is missing from the store; restore it from a backup"
        raise EventDamaged(message)
    return await in_slices(build_execution(graph, analysis))
