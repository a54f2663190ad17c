"""The SQLite store against the journal in memory: whatever is done to both, both answer the same."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.core.lists.listing import Listing
from plait_server.core.run.scope_index import ScopeEntry
from plait_server.ports.audit import ActionRecord, AuditRecord
from plait_server.ports.deletions import REQUESTS_KEPT_S, DeletionBegun
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow, Journal, RequestRecord

T = TypeVar("T")

NAMESPACES = ("n", "m")
EXECUTIONS = ("x", "y", "z")
REQUESTS = ("r1", "r2")
SCOPES = ("a", "a/b")
CONTENTS = (b"", b"content", b"\x00" * 5000)
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]

rows = st.builds(
    ExecutionRow,
    summary=st.binary(max_size=20),
    is_open=st.booleans(),
    due_time_s=st.none() | st.sampled_from((1.0, 2.5, 3.0)),
    listing=st.builds(Listing, end_time_s=st.sampled_from((0.0, 1.0, 2.0)), labels=st.just({"a": "b"})),
)
records = st.builds(
    RequestRecord,
    method=st.sampled_from(("A", "B")),
    request_id=st.sampled_from(REQUESTS),
    fingerprint=st.binary(max_size=4),
    execution_id=st.sampled_from(EXECUTIONS),
)
audits = st.builds(
    AuditRecord,
    time_s=st.floats(0, 9),
    kind=st.just("K"),
    node_path=st.text("ab/", max_size=3),
    attempt=st.integers(1, 3),
    worker_id=st.just("w"),
    detail=st.just("{}"),
)
intents = st.fixed_dictionaries(
    {
        # What is added to the sequence and the epoch that are right: mostly nothing.
        "sequence_off": st.sampled_from((0, 0, 0, 0, 1, -1)),
        "epoch_off": st.sampled_from((0, 0, 0, 0, 1, -1)),
        "events": st.lists(st.binary(max_size=30), min_size=1, max_size=3).map(tuple),
        "row": rows,
        "keeps_row": st.booleans(),
        "contents": st.lists(st.sampled_from(CONTENTS), max_size=2),
        "request": st.none() | records,
        "audit": st.lists(audits, max_size=2),
        "scopes": st.sets(st.sampled_from(SCOPES)),
    }
)
batches = st.dictionaries(
    st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(EXECUTIONS)), intents, max_size=4
)


def action_of(execution_id: str) -> ActionRecord:
    return ActionRecord(
        time_s=1.0,
        principal="p",
        is_verified=False,
        method="A",
        execution_id=execution_id,
        target="",
        detail="{}",
    )


class TwoStores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = MemoryStore(key=b"k" * 32)
        self.used: dict[tuple[str, str], set[str]] = {}
        """Namespace and id of each execution -> digests of the contents that it was given."""
        self.openings = 0
        self.open()

    def open(self) -> None:
        self.openings += 1
        owner = f"owner-{self.openings}"
        self.memory = MemoryJournal(self.store, owner=owner)
        self.sqlite = SqliteJournal.open(
            self.folder / "store.db", owner=owner, key=b"k" * 32, checkpoint_pages=10
        )

    def both(self, call: Callable[[Journal], Awaitable[T]]) -> T:
        """Call both, and give what both answered."""

        async def run() -> T:
            first, second = await call(self.memory), await call(self.sqlite)
            assert first == second
            return first

        return trio.run(run)

    @rule(batch=batches)
    def append(self, batch: dict[tuple[str, str], dict[str, object]]) -> None:
        items = [self.make(namespace, name, **intent) for (namespace, name), intent in batch.items()]  # type: ignore[arg-type] # The strategy fits.

        async def append(journal: Journal) -> list[object]:
            return list(await journal.append_many(items))

        for item, result in zip(items, self.both(append), strict=True):
            if isinstance(result, Appended):
                used = self.used.setdefault((item.namespace, item.execution_id), set())
                used.update(item.contents)

    def make(
        self,
        namespace: str,
        name: str,
        *,
        sequence_off: int,
        epoch_off: int,
        events: tuple[bytes, ...],
        row: ExecutionRow,
        keeps_row: bool,
        contents: list[bytes],
        request: RequestRecord | None,
        audit: list[AuditRecord],
        scopes: set[str],
    ) -> AppendItem:
        listed = trio.run(self.memory.namespace(namespace).read_row, name)
        expected = max(0, (listed.last_sequence if listed else 0) + sequence_off)
        return AppendItem(
            namespace=namespace,
            execution_id=name,
            expected_sequence=expected,
            owner_epoch=(listed.owner_epoch if listed else 1) + epoch_off,
            events=events,
            row=None if keeps_row and expected else row,
            contents={hashlib.sha256(content).hexdigest(): content for content in contents},
            request=request,
            audit=audit,
            action=action_of(name) if events and events[0] else None,
            scope_entries=[
                ScopeEntry(path, range(expected + 1, expected + 1 + len(events))) for path in sorted(scopes)
            ],
        )

    @rule(limit=st.integers(1, 4))
    def claim(self, limit: int) -> None:
        async def claim(journal: Journal) -> list[object]:
            return list(await journal.claim(limit=limit))

        self.both(claim)

    @rule(is_clean=st.booleans())
    def restart(self, is_clean: bool) -> None:
        if is_clean:
            trio.run(self.sqlite.aclose)
        else:
            self.sqlite.crash()
        self.memory.crash()
        self.open()

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        name=st.sampled_from(EXECUTIONS),
        is_corrupt=st.booleans(),
        request=st.none() | records,
        has_action=st.booleans(),
    )
    def delete(
        self, namespace: str, name: str, is_corrupt: bool, request: RequestRecord | None, has_action: bool
    ) -> None:
        action = action_of(name) if has_action else None

        async def delete(journal: Journal) -> object:
            return await journal.deletions.begin(
                namespace, name, now_s=4.0, is_corrupt=is_corrupt, action=action, request=request
            )

        if self.both(delete) == DeletionBegun():
            del self.used[namespace, name]

    @rule(
        namespace=st.sampled_from(NAMESPACES), before_s=st.sampled_from((1.5, 3.0)), limit=st.integers(1, 2)
    )
    def expire(self, namespace: str, before_s: float, limit: int) -> None:
        async def expire(journal: Journal) -> list[str]:
            deletions = journal.deletions
            expired = await deletions.begin_expired(
                namespace, ended_before_s=before_s, now_s=4.0, limit=limit, is_busy="z".__eq__
            )
            return list(expired)

        for name in self.both(expire):
            del self.used[namespace, name]

    @rule(rows_max=st.integers(1, 9), bytes_max=st.sampled_from((1, 1_000_000)))
    def finish_deletions(self, rows_max: int, bytes_max: int) -> None:
        """K1: afterwards exactly the contents are kept that an execution uses."""

        async def finish(journal: Journal) -> list[bool]:
            deletions = journal.deletions
            while not await deletions.delete_some(rows_max=rows_max, bytes_max=bytes_max):
                pass
            return [
                await journal.namespace(namespace).read_content(digest) is not None
                for namespace in NAMESPACES
                for digest in DIGESTS
            ]

        used = {(namespace, digest) for (namespace, _), digests in self.used.items() for digest in digests}
        assert self.both(finish) == [
            (namespace, digest) in used for namespace in NAMESPACES for digest in DIGESTS
        ]

    @rule(now_s=st.sampled_from((4.0, 5.0 + REQUESTS_KEPT_S)), before_s=st.sampled_from((0.5, 1.5)))
    def forget(self, now_s: float, before_s: float) -> None:
        async def forget(journal: Journal) -> None:
            while not await journal.deletions.forget_some(now_s=now_s, actions_before_s=before_s, limit=3):
                pass

        self.both(forget)

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        name=st.sampled_from(REQUESTS),
        value=st.none() | st.binary(max_size=3),
        request=st.none() | records,
    )
    def write_setting(
        self, namespace: str, name: str, value: bytes | None, request: RequestRecord | None
    ) -> None:
        async def write(journal: Journal) -> object:
            return await journal.write_setting(namespace, name, value, action_of(name), request)

        self.both(write)

    @rule(namespace=st.sampled_from(NAMESPACES), name=st.sampled_from(EXECUTIONS))
    def write_action(self, namespace: str, name: str) -> None:
        async def write(journal: Journal) -> None:
            await journal.write_actions([(namespace, action_of(name))])

        self.both(write)

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        name=st.sampled_from(EXECUTIONS),
        after=st.integers(0, 5),
        events_max=st.integers(1, 4),
        bytes_max=st.integers(1, 60),
    )
    def read(self, namespace: str, name: str, after: int, events_max: int, bytes_max: int) -> None:
        async def read(journal: Journal) -> object:
            handle = journal.namespace(namespace)
            if await handle.read_row(name) is None:
                return None
            return await handle.read(name, after=after, events_max=events_max, bytes_max=bytes_max)

        self.both(read)

    @rule(
        namespace=st.sampled_from(NAMESPACES),
        name=st.sampled_from(EXECUTIONS),
        scope_path=st.sampled_from(SCOPES),
        after=st.integers(0, 5),
        events_max=st.integers(1, 4),
        bytes_max=st.integers(1, 60),
    )
    def read_scope(
        self, namespace: str, name: str, scope_path: str, after: int, events_max: int, bytes_max: int
    ) -> None:
        async def read(journal: Journal) -> object:
            handle = journal.namespace(namespace)
            if await handle.read_row(name) is None:
                return None
            return await handle.read_scope(
                name, scope_path, after=after, events_max=events_max, bytes_max=bytes_max
            )

        self.both(read)

    @rule(now_s=st.sampled_from((0.0, 2.0, 9.0)), limit=st.integers(1, 4))
    def list_due(self, now_s: float, limit: int) -> None:
        async def list_due(journal: Journal) -> list[object]:
            return list(await journal.list_due(now_s=now_s, limit=limit))

        self.both(list_due)

    @invariant()
    def everything_is_equal(self) -> None:
        async def read(journal: Journal) -> list[object]:
            found: list[object] = [await journal.key(), await journal.renew(), await journal.read_settings()]
            for namespace in NAMESPACES:
                handle = journal.namespace(namespace)
                listed = (await handle.list_rows(limit=100)).rows
                found += listed
                for entry in listed:
                    found.append(
                        await handle.read(entry.execution_id, after=0, events_max=1000, bytes_max=1 << 20)
                    )
                    found.append(list(await handle.read_audit(entry.execution_id, limit=100)))
                found += await handle.list_audit(execution_id=None, before=None, limit=1000)
                found += await handle.list_audit(execution_id="x", before=5, limit=2)
                found += [await handle.find_request("A", request_id) for request_id in REQUESTS]
                found += [
                    await handle.read_content(hashlib.sha256(content).hexdigest()) for content in CONTENTS
                ]
            return found

        self.both(read)
        if self.openings == 1:
            assert self.memory.statistics() == self.sqlite.statistics()

    def teardown(self) -> None:
        self.sqlite.crash()
        shutil.rmtree(self.folder)


TwoStores.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
test_both_stores_answer_the_same = TwoStores.TestCase
