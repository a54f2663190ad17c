"""Reads executions back by a replay of their events, which evaluates nothing (A1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from plait_server.core.run.events import Event, ExecutionSubmitted, ScopeOpened
from plait_server.core.run.execution import Execution, execution_in_slices
from plait_server.core.run.machine import SEMANTICS_VERSION
from plait_server.encoding.event_codec import decode_event
from plait_server.errors import EventDamaged
from plait_server.ports.journal import NamespaceJournal
from plait_server.runtime.building import Definitions
from plait_server.runtime.slicing import in_slices

PAGE_EVENTS: Final = 1_000
PAGE_BYTES: Final = 1024 * 1024
"""The events read at a time; other executions step in between."""


async def load_execution(
    journal: NamespaceJournal, execution_id: str, definitions: Definitions | None = None
) -> Execution:
    """Read a whole execution back.

    Raises:
        ExecutionNotFound: No execution has this id in this namespace.
        EventDamaged: An event, the graph or its analysis is damaged, or of a newer version.
        JournalUnavailable: The store does not answer.
    """
    execution: Execution | None = None
    async for execution, _ in replay(journal, execution_id, definitions):  # noqa: B007 # the last one counts
        pass
    if execution is None:
        message = "this execution has no events; restore it from a backup"
        raise EventDamaged(message)
    return execution


async def replay(
    journal: NamespaceJournal, execution_id: str, definitions: Definitions | None = None
) -> AsyncGenerator[tuple[Execution, Event], None]:
    """Read an execution back event by event. A caller that stops before the end closes it (`contextlib.aclosing`).

    Yields:
        The execution right after the event, always the same object, and the event.

    Raises:
        ExecutionNotFound: No execution has this id in this namespace.
        EventDamaged: An event, the graph or its analysis is damaged, or of a newer version.
        JournalUnavailable: The store does not answer.
    """
    execution: Execution | None = None
    known = definitions or Definitions()
    after = 0
    while True:
        page = await journal.read(execution_id, after=after, events_max=PAGE_EVENTS, bytes_max=PAGE_BYTES)
        for content in page.events:
            event = decode_event(content)
            if execution is None:
                execution = await _begin(journal, event, known)
            opened = event.detail
            if isinstance(opened, ScopeOpened) and opened.graph_digest:
                definition = await known.read(journal, opened.graph_digest, opened.analysis_digest)
                execution.definitions[opened.graph_digest] = definition
            execution.apply(event)
            yield execution, event
            execution.forget_closed()
        if execution is not None:
            execution.scope_index.take()  # The journal has them.
        after += len(page.events)
        if after >= page.last_sequence or not page.events:
            return


async def _begin(journal: NamespaceJournal, first: Event, definitions: Definitions) -> Execution:
    submitted = first.detail
    if not isinstance(submitted, ExecutionSubmitted):
        message = "the first event of this execution is not its submission; restore it from a backup"
        raise EventDamaged(message)
    if submitted.semantics_version > SEMANTICS_VERSION:
        message = (
            f"this execution runs under semantics {submitted.semantics_version}; upgrade Plait to read it"
        )
        raise EventDamaged(message)
    definition = await definitions.read(journal, submitted.graph_digest, submitted.analysis_digest)
    return await in_slices(execution_in_slices(definition))
