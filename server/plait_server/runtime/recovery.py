"""Reads executions back by a replay of their events, which evaluates nothing (A1)."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Final

from plait_server.core.definition.compiled import Definition
from plait_server.core.run.events import Event, ExecutionSubmitted, ScopeOpened
from plait_server.core.run.execution import Execution, execution_in_slices
from plait_server.core.run.machine import SEMANTICS_VERSION
from plait_server.encoding.event_codec import decode_event
from plait_server.encoding.snapshot_reading import SnapshotUnusable, graphs_of, read_head, restore_in_slices
from plait_server.errors import EventDamaged, InvariantViolated
from plait_server.ports.journal import Journal, NamespaceJournal
from plait_server.ports.log_fields import key_fields
from plait_server.ports.snapshots import SnapshotDamaged, Snapshots
from plait_server.runtime.building import Definitions
from plait_server.runtime.slicing import Pacing, in_slices

logger = logging.getLogger(__name__)

PAGE_EVENTS: Final = 1_000
PAGE_BYTES: Final = 1024 * 1024
"""The events read at a time; other executions step in between."""


async def read_execution(journal: Journal, key: tuple[str, str], definitions: Definitions) -> Execution:
    """Do what `load_execution` does, for a namespace and an execution id, with snapshots."""
    return await load_execution(journal.namespace(key[0]), key[1], definitions, journal.snapshots)


async def load_execution(
    journal: NamespaceJournal,
    execution_id: str,
    definitions: Definitions | None = None,
    snapshots: Snapshots | None = None,
) -> Execution:
    """Read a whole execution back: from its newest snapshot and the events after it, or else from all events.

    Args:
        journal: The journal.
        execution_id: The execution.
        definitions: The graphs that are in memory.
        snapshots: Where snapshots are found; None reads all events.

    Raises:
        ExecutionNotFound: No execution has this id in this namespace.
        EventDamaged: An event, the graph or its analysis is damaged, or of a newer version.
        JournalUnavailable: The store does not answer.
    """
    execution: Execution | None = None
    definitions = definitions or Definitions()
    if snapshots is not None:
        execution = await _load_from_snapshot(journal, execution_id, definitions, snapshots)
        if execution is not None:
            return execution
    async for execution, _ in replay(journal, execution_id, definitions):  # noqa: B007 # the last one counts
        pass
    if execution is None:
        message = "this execution has no events; restore it from a backup"
        raise EventDamaged(message)
    return execution


async def _load_from_snapshot(
    journal: NamespaceJournal, execution_id: str, definitions: Definitions, snapshots: Snapshots
) -> Execution | None:
    """Read an execution from its newest snapshot and the events after it; None if it has none that fits."""
    try:
        restored = await _restore(journal, execution_id, definitions, snapshots)
        if restored is not None:
            async for _ in replay(journal, execution_id, definitions, restored):
                pass
    except (SnapshotDamaged, SnapshotUnusable, InvariantViolated) as error:
        fields = key_fields((journal.namespace, execution_id))
        logger.warning("a snapshot is not used, all events are read instead: %s", error, extra=fields)
        return None
    return restored


async def _restore(
    journal: NamespaceJournal, execution_id: str, definitions: Definitions, snapshots: Snapshots
) -> Execution | None:
    namespace = journal.namespace
    found = await snapshots.find(namespace, execution_id)
    if found is None:
        return None
    head = read_head(found.head)
    parts: list[bytes] = []
    pacing = Pacing()
    for number in range(1, head.part_count + 1):
        part = await snapshots.read(namespace, execution_id, sequence=found.sequence, number=number)
        parts.append(part)
        await pacing.pause_if_due()
    page = await journal.read(execution_id, after=0, events_max=1, bytes_max=PAGE_BYTES)
    definition = await _read_definition(journal, decode_event(page.events[0]), definitions)
    inner = {
        digests: await definitions.read(journal, *digests)
        for digests in graphs_of(parts[0] if parts else b"")
    }
    return await in_slices(restore_in_slices(definition, inner, head, parts))


async def replay(
    journal: NamespaceJournal,
    execution_id: str,
    definitions: Definitions | None = None,
    execution: Execution | None = None,
) -> AsyncGenerator[tuple[Execution, Event], None]:
    """Read an execution back event by event. A caller that stops before the end closes it (`contextlib.aclosing`).

    Args:
        journal: The journal.
        execution_id: The execution.
        definitions: The graphs that are in memory.
        execution: The execution as it is after some of its events, which are not read again; None reads all.

    Yields:
        The execution right after the event, always the same object, and the event.

    Raises:
        ExecutionNotFound: No execution has this id in this namespace.
        EventDamaged: An event, the graph or its analysis is damaged, or of a newer version.
        JournalUnavailable: The store does not answer.
    """
    known = definitions or Definitions()
    after = execution.sequence if execution is not None else 0
    while True:
        page = await journal.read(execution_id, after=after, events_max=PAGE_EVENTS, bytes_max=PAGE_BYTES)
        for content in page.events:
            event = decode_event(content)
            if execution is None:
                definition = await _read_definition(journal, event, known)
                execution = await in_slices(execution_in_slices(definition))
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


async def _read_definition(journal: NamespaceJournal, first: Event, definitions: Definitions) -> Definition:
    """Return the graph that an execution runs."""
    submitted = first.detail
    if not isinstance(submitted, ExecutionSubmitted):
        message = "the first event of this execution is not its submission; restore it from a backup"
        raise EventDamaged(message)
    if submitted.semantics_version > SEMANTICS_VERSION:
        message = (
            f"this execution runs under semantics {submitted.semantics_version}; upgrade Plait to read it"
        )
        raise EventDamaged(message)
    return await definitions.read(journal, submitted.graph_digest, submitted.analysis_digest)
