"""The journal in a SQLite file: the store of a server on one machine.

The rules, and why:

- One connection writes, in one thread: commits run in place, in the calling thread. A commit thread starves beside an
  event loop that is never idle. Every call is one short statement or transaction without an await in it, so reads
  never meet a write. What takes long, lists and counts with a filter, a second connection reads (`sqlite_reader`).
- One `append_many` is one transaction and one flush (write-ahead log, synchronous=FULL).
- The heads of executions are cached. That is safe for two reasons: no other process can open the database
  (the lock file, and SQLite's exclusive locking mode), and every update repeats the conditions in its WHERE;
  if a single row fails to match, the transaction is rolled back and the store counts as damaged.
- After a disk error in a writing transaction or in a checkpoint, the journal is fenced for good: it neither
  appends nor reads, because what the file holds is unknown until it is reopened. A flush that failed is never
  retried: the kernel may have dropped the pages and would report success.
  (https://wiki.postgresql.org/wiki/Fsync_Errors)
- A full disk rolls back the transaction and fences nothing.
- Each page has a checksum (SQLite's cksumvfs), so that a row that is not found does not exist; a damaged index could
  hide it otherwise. A row that is found has its own checksum. So when a page is damaged while the indexes and lookup
  tables are still intact, reading continues without the checksums of pages, and a damaged row quarantines its
  execution. Otherwise the store is damaged, and the server stops.
- Checkpoints run here, after a commit. SQLite's automatic ones drop their errors.

Designed and rejected: events clustered by execution (see the schema); SQLite's own checkpointing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar, cast

import apsw

from plait_server.adapters.journals.conditions import Head, find_conflict, require_small, require_well_formed
from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_batch import Batch
from plait_server.adapters.journals.sqlite_claims import claim_next
from plait_server.adapters.journals.sqlite_deletions import SqliteDeletions
from plait_server.adapters.journals.sqlite_errors import damaged, is_page_damage, translate_errors
from plait_server.adapters.journals.sqlite_file import checksum_vfs, has_whole_structure
from plait_server.adapters.journals.sqlite_finder import Finder
from plait_server.adapters.journals.sqlite_log_lines import SqliteLogLines
from plait_server.adapters.journals.sqlite_lookup import find_execution, find_record
from plait_server.adapters.journals.sqlite_namespace import SqliteNamespaceJournal
from plait_server.adapters.journals.sqlite_opening import OpenedStore, open_store
from plait_server.adapters.journals.sqlite_reader import Reader
from plait_server.adapters.journals.sqlite_rows import (
    Row,
    Stored,
    Value,
    fetch,
    stored_of,
)
from plait_server.adapters.journals.sqlite_settings import read_settings, write_setting
from plait_server.adapters.journals.sqlite_snapshots import SqliteSnapshots
from plait_server.adapters.journals.sqlite_verifier import Verifier
from plait_server.adapters.journals.verification import (
    damaged_row,
)
from plait_server.errors import (
    ExecutionNotFound,
    JournalFull,
    JournalUnavailable,
    PlaitError,
    StoreDamaged,
    StoreLocked,
    StoreLost,
)
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import (
    AppendItem,
    AppendResult,
    Claim,
    DamagedRow,
    ExecutionDamaged,
    JournalStatistics,
    RequestRecord,
    SettingResult,
    Verification,
)

T = TypeVar("T")

# A checkpoint of 1,000 pages blocks appends for 3 to 6 ms (measured with commits of 100 executions); with
# fewer it comes more often, and pages that change again and again are written that much more often too.
CHECKPOINT_PAGES: Final = 1000

# About 500 bytes each. Which heads are evicted affects only speed.
_HEADS_MAX: Final = 50_000


class SqliteJournal:
    """A `Journal` in a SQLite file, created by `open`. Use it only in the thread that opened it."""

    kind = "sqlite"

    def __init__(
        self,
        opened: OpenedStore,
        *,
        path: Path,
        owner: str,
        checkpoint_pages: int,
        reader: Reader | None,
    ) -> None:
        self._path = path
        self._connection = connection = opened.connection
        self._lock = opened.lock
        self._owner = owner
        self._generation = opened.holding.generation
        self._key = opened.holding.key
        self._last_position = opened.holding.last_position
        self._last_arrival = opened.holding.last_arrival
        self.last_change = opened.holding.last_change
        """The highest change number ever assigned."""
        self._is_doubted = opened.is_doubted
        self._checkpoint_pages = checkpoint_pages
        self._queries = load_queries("sqlite.sql")
        # Created by the opening and checked until the end: deleting or replacing one of them removes the store.
        self._files = [(file, file.stat()) for file in (path, path.with_name(path.name + "-wal"))]
        self._heads: dict[tuple[str, str], Head] = {}
        self._verifier = Verifier(connection)
        self.deletions: Final = SqliteDeletions(self)
        self.snapshots: Final = SqliteSnapshots(self)
        self.log_lines: Final = SqliteLogLines(self)
        self._fault: str | None = None
        self._is_closed = False
        self._claimed_position = self._log_pages = 0
        self._appends = self._items = self._events = self._event_bytes = 0
        connection.set_wal_hook(self._note_log_pages)
        self.finder = Finder(self, reader)
        """Lists and counts; for the namespaces' handles."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        owner: str,
        key: bytes | None = None,
        may_create: bool = True,
        vfs: str | None = None,
        checkpoint_pages: int = CHECKPOINT_PAGES,
        has_reader: bool = True,
    ) -> SqliteJournal:
        """Open a store; create it if it does not exist.

        Args:
            path: The database file. Its folder is created if it is missing; log and lock file lie beside it.
            owner: The name of this opening; unique to each start of a server.
            key: The secret of 32 bytes of a new store; random unless given.
            may_create: Whether a missing store is created.
            vfs: The name of a registered SQLite VFS to use, for tests; None selects the system's files.
            checkpoint_pages: The number of pages of 4 KiB at which the log is written into the database.
            has_reader: Whether lists with a filter are read in a thread; never with a `vfs`, which cannot share a log.

        Raises:
            StoreMissing: There is no store, and `may_create` is off.
            StoreLocked: Another process, or another journal of this one, has it open.
            StoreTooNew: a newer version of Plait wrote it.
            StoreTooOld: an older version of Plait wrote it.
            StoreDamaged: the file is no database, another program's, or its structure is damaged.
            JournalUnavailable: The operating system refuses access.
            JournalFull: the disk is full.
        """
        file = Path(path).absolute()
        opened = open_store(file, owner=owner, key=key, may_create=may_create, vfs=vfs)
        reader = Reader(file, vfs=checksum_vfs()) if has_reader and vfs is None else None
        return cls(opened, path=file, owner=owner, checkpoint_pages=checkpoint_pages, reader=reader)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._fault is None else "fenced"
        return f"<SqliteJournal {self._path} of {self._owner}: {state}, {len(self._heads)} heads cached>"

    @property
    def owner(self) -> str:
        """The name of the opening."""
        return self._owner

    @property
    def path(self) -> Path:
        """The database file."""
        return self._path

    @property
    def connection(self) -> apsw.Connection:
        """The one connection to the database, lent for a backup; the journal owns it."""
        return self._connection

    def namespace(self, name: str) -> SqliteNamespaceJournal:
        """Return the handle bound to a namespace."""
        return SqliteNamespaceJournal(self, name)

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        """Make the items durable together; see the port."""
        require_well_formed(items)
        return self.make_durable(lambda batch: self._append(items, batch))

    async def claim(self, *, limit: int) -> Sequence[Claim | DamagedRow]:
        """Claim open executions of earlier openings, oldest first."""
        taken, self._claimed_position = self._write(
            lambda: claim_next(
                self._connection, generation=self._generation, after=self._claimed_position, limit=limit
            )
        )
        for each in taken:
            self._heads.pop((each.namespace, each.execution_id), None)
        return taken

    async def verify(self, *, limit: int) -> Verification:
        """Verify the next rows of executions, then of requests, then the keys of contents."""
        return self.read(lambda: self._verifier.verify(limit))

    async def renew(self) -> bool:
        """Return whether the lock, the file and the store's row still belong to this journal."""
        if self._is_closed or not self._lock.is_held():
            return False
        self.require_usable()
        if not self._has_files():
            return False
        return self.read(lambda: self.execute("find_generation")) == [(self._generation,)]

    async def list_due(self, *, now_s: float, limit: int) -> Sequence[Claim]:
        """List sleeping executions of this owner whose due time has come, the earliest first."""
        rows = self.read(lambda: self.execute("list_due", self._generation, now_s, limit))
        with translate_errors(self._path):
            return [stored.claim() for stored in map(stored_of, rows) if isinstance(stored, Stored)]

    async def read_settings(self) -> Mapping[tuple[str, str], bytes]:
        """Read all settings, by namespace and name."""
        return self.read(lambda: read_settings(self))

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        """Set or remove a setting durably, together with its action and request record."""
        require_small(name, value)
        return self.make_durable(
            lambda batch: write_setting(self, batch, namespace, name, value, audit, request)
        )

    async def write_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        """Record actions that changed nothing, durably."""
        self.make_durable(lambda batch: batch.add_actions(actions))

    async def key(self) -> bytes:
        """Return the store's secret."""
        return self._key

    def statistics(self) -> JournalStatistics:
        """Take a snapshot of the counters."""
        return JournalStatistics(
            appends=self._appends, items=self._items, events=self._events, event_bytes=self._event_bytes
        )

    async def aclose(self) -> None:
        """Write the log into the database, unless the journal is fenced, and release the lock. Idempotent."""
        if not self._is_closed and self._fault is None:
            # First, because an empty log of a store in use counts as damage. If the log stays, it is only checked
            # less strictly.
            self.finder.close()
            with contextlib.suppress(OSError):
                self._lock.note_end()
            self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self.crash()

    def crash(self) -> None:
        """Drop the store as kill -9 would: the log stays as it is, and the lock is released. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._heads.clear()
            self.finder.close()
            try:
                # After a failed write SQLite may complain here; everything acknowledged is in the log.
                with contextlib.suppress(apsw.Error):
                    self._connection.close(force=True)
            finally:
                self._lock.release()

    # Used by the namespaces' handles.

    @property
    def is_doubted(self) -> bool:
        """Whether a page is damaged, so that a missing row may have been lost."""
        return self._is_doubted

    def read(self, act: Callable[[], T]) -> T:
        """Read by calling `act`, a second time if it met a damaged page. Translate SQLite's errors; damage fences.

        Raises:
            JournalUnavailable: the journal is closed or fenced, or the disk does not answer.
            StoreDamaged: the store's structure is damaged.
        """
        self.require_usable()
        try:
            with translate_errors(self._path):
                return act()
        except StoreDamaged as error:
            self.survive(error)
            return self.read(act)

    def execute(self, query: str, *values: Value) -> list[Row]:
        """Run a named query to its end, within `read` or a transaction."""
        return fetch(self._connection, self._queries[query], *values)

    @contextlib.contextmanager
    def rows(self, query: str, *values: Value) -> Generator[Iterable[Row]]:
        """Run a named query in `read`, for as many rows as the caller takes."""
        cursor = self._connection.execute(self._queries[query].sql, values)
        try:
            yield cast("Iterable[Row]", cursor)
        finally:
            # An unfinished statement keeps its read transaction open.
            cursor.close()

    def require_head(self, namespace: str, execution_id: str) -> Head:
        """Return the head of an execution, within `read`.

        Raises:
            ExecutionNotFound: there is no such execution in this namespace.
            EventDamaged: its row is damaged.
        """
        head = self._heads.get((namespace, execution_id))
        if head is None:
            match find_execution(self._connection, namespace, execution_id):
                case None:
                    raise ExecutionNotFound(execution_id=execution_id)
                case DamagedRow():
                    raise damaged_row(execution_id)
                case Stored(head=head):
                    pass
        return head

    def make_durable(self, act: Callable[[Batch], T]) -> T:
        """Call `act` in a transaction, which fills a batch, and write the batch."""
        result, batch = self._write(lambda: self._write_batch(act))
        if not self._has_files():
            # The data was written to files that have no name any more, so it must not be acknowledged.
            error = StoreLost(
                f"the store {self._path}, or its log beside it, was deleted, moved or replaced under the server; "
                "put the files back, or restore a backup, and start the server again"
            )
            self._fence(error)
            raise error
        self._remember(batch)
        if self._log_pages >= self._checkpoint_pages:
            self._checkpoint()
        return result

    # Appending.

    def _decide(self, item: AppendItem, batch: Batch) -> AppendResult:
        """Add the item's rows to the batch, or return the conflict for which it is refused."""
        key = (item.namespace, item.execution_id)
        head = self._heads.get(key)
        if head is None:
            stored = find_execution(self._connection, *key)
            if isinstance(stored, DamagedRow):
                return ExecutionDamaged()
            head = stored and stored.head
        request = item.request
        record = None
        if request is not None:
            request_key = (item.namespace, request.method, request.request_id)
            record = batch.records.get(request_key) or find_record(self._connection, *request_key)
        conflict = find_conflict(item, head=head, record=record, owner=self._generation)
        if conflict is not None:
            return conflict

        return batch.add(item, head, owner=self._generation)

    def _append(self, items: Sequence[AppendItem], batch: Batch) -> Sequence[AppendResult]:
        for item in items:
            batch.results.append(self._decide(item, batch))
        return batch.results

    def _write_batch(self, act: Callable[[Batch], T]) -> tuple[T, Batch]:
        batch = Batch(self._last_position, self._last_arrival, self.last_change)
        result = act(batch)
        if not batch.write(self._connection):
            raise damaged(
                self._path, "an execution does not end where this process, its only writer, left it"
            )
        return result, batch

    def _remember(self, batch: Batch) -> None:
        self._last_position, self._last_arrival = batch.last_position, batch.last_arrival
        self.last_change = batch.last_change
        for key in batch.forgotten:
            self._heads.pop(key, None)
        for key, head in batch.heads.items():
            if head.is_open:
                self._heads[key] = head
            else:
                self._heads.pop(key, None)
        while len(self._heads) > _HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        self._appends += bool(batch.results)
        self._items += len(batch.heads)
        self._events += len(batch.events)
        self._event_bytes += batch.event_bytes

    def _write(self, act: Callable[[], T]) -> T:
        """Write by calling `act`, a second time in a new transaction if it met a damaged page."""
        try:
            with self._transaction():
                result = act()
        except StoreDamaged as error:
            self.survive(error)
            return self._write(act)
        if self._log_pages:
            self._lock.note_log(self._log_pages)
        return result

    def survive(self, error: StoreDamaged) -> None:
        """After damage in a page, rely on the rows' own checksums from now on, if they suffice.

        Raises:
            StoreDamaged: they do not; the journal is fenced.
        """
        if not self._is_doubted and is_page_damage(error):
            self._is_doubted = has_whole_structure(self._connection, self._path)
            if self._is_doubted:
                return
        self._fence(error)
        raise error

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        """Run a writing transaction: all or nothing, durable at its end; a fault of the disk or structure fences."""
        self.require_usable()
        try:
            with translate_errors(self._path):
                self.execute("begin")
                yield
                self.execute("commit")
        except BaseException as error:
            self._roll_back(error)
            raise

    def _roll_back(self, error: BaseException) -> None:
        # After some errors SQLite has rolled back by itself; after others it must be told to.
        if self._connection.in_transaction:
            try:
                self.execute("rollback")
            except apsw.Error as second:
                self._fence(second)
        elif not isinstance(error, PlaitError):
            # An interrupt from outside, between the commit and the update of the cache.
            self._fence(error)
        if isinstance(error, (JournalUnavailable, StoreLocked)):
            self._fence(error)

    def _checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> None:
        """Write the log into the database. Appended data is durable either way, so nothing is raised."""
        try:
            with translate_errors(self._path):
                self._connection.wal_checkpoint(mode=mode)
        except JournalFull:
            # The log stays, and the next append retries.
            return
        except PlaitError as error:
            self._fence(error)

    def _has_files(self) -> bool:
        """Return whether the files are still those that were opened; takes 2 us."""
        try:
            return all(os.path.samestat(path.stat(), opened) for path, opened in self._files)
        except OSError:
            return False

    def _fence(self, error: BaseException) -> None:
        if self._fault is None:
            self._fault = str(error)

    def require_usable(self) -> None:
        """Check that the journal is open.

        Raises:
            JournalUnavailable: it is closed or fenced.
        """
        if self._is_closed:
            raise JournalUnavailable(f"the store {self._path} is closed", nothing_written=True)
        if self._fault is not None:
            raise JournalUnavailable(
                f"the store {self._path} has failed and accepts no more data; restart the server. "
                f"The error was: {self._fault}",
                nothing_written=True,
            )

    def _note_log_pages(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK
