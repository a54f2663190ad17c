"""Stores that hold many executions: one is recorded from a server, and its copies are appended.

To run 100,000 executions would take minutes; to append them takes seconds, and leaves the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from plait.v1 import event_pb2, execution_pb2
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.bench.client import Client, call
from plait_server.bench.site import BenchFailed, Site, run_server, run_worker
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow

NAMESPACE: Final = "default"
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Recording:
    """An execution as a store holds it."""

    events: Sequence[event_pb2.Event]
    row: ExecutionRow
    contents: dict[str, bytes]

    def copy(self, execution_id: str) -> AppendItem:
        """Make what appends a copy under another id."""
        first = event_pb2.Event()
        first.CopyFrom(self.events[0])
        first.execution_submitted.execution_id = execution_id
        summary = execution_pb2.Execution.FromString(self.row.summary)
        summary.execution_id = execution_id
        return AppendItem(
            namespace=NAMESPACE,
            execution_id=execution_id,
            expected_sequence=0,
            owner_epoch=1,
            events=[first.SerializeToString(), *(event.SerializeToString() for event in self.events[1:])],
            row=replace(self.row, summary=summary.SerializeToString()),
            contents=self.contents,
        )


def record(site: Site, name: str, act: Callable[[Client], Coroutine[None, None, str]]) -> Recording:
    """Record an execution: what a server has in its store when it is killed.

    Args:
        site: Where the server runs.
        name: Names its store; no other of the site has it.
        act: Makes the execution, brings it to where it is to be recorded, and returns its id.
    """
    path = site.store(name)
    with run_server(site, path) as server, run_worker(site, server, name="patient"):
        execution_id = call(server.address, act)
        server.kill()
    return trio.run(_read, path, execution_id)


def fill(path: Path, recordings: Sequence[Recording], count: int) -> None:
    """Make a store with so many copies of the recordings, in turn; open ones are left as after a kill -9."""
    trio.run(_fill, path, recordings, count)


async def _read(path: Path, execution_id: str) -> Recording:
    journal = SqliteJournal.open(path, owner="bench")
    try:
        handle = journal.namespace(NAMESPACE)
        listed = await handle.read_row(execution_id)
        page = await handle.read(execution_id, after=0, events_max=1_000, bytes_max=1 << 30)
        events = [event_pb2.Event.FromString(content) for content in page.events]
        submitted = events[0].execution_submitted
        digests = (submitted.graph_digest, submitted.analysis_digest)
        contents = {digest: await handle.read_content(digest) for digest in digests}
        if listed is None:
            raise BenchFailed("the recorded execution is not in its store")
        return Recording(
            events=events,
            row=listed.row,
            contents={digest: content for digest, content in contents.items() if content is not None},
        )
    finally:
        await journal.aclose()


async def _fill(path: Path, recordings: Sequence[Recording], count: int) -> None:
    journal = SqliteJournal.open(path, owner="bench")
    for first in range(0, count, _BATCH):
        results = await journal.append_many(
            [
                recordings[number % len(recordings)].copy(f"kept-{number}")
                for number in range(first, min(count, first + _BATCH))
            ]
        )
        if not all(isinstance(result, Appended) for result in results):
            raise BenchFailed("a store that is being filled refused an execution")
    journal.crash()
