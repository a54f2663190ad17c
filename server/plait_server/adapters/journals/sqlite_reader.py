"""Long reads of a SQLite store, off the loop: a second connection, read-only, in a thread.

- Both connections belong to one process and use the VFS `unix-excl`: the file's lock keeps other processes out as
  before, and the log's index stands in memory that the two share. A read sees the store as it was committed when it
  began. It never waits for a write, and holds up none; the log cannot be restarted while it lasts, so it is bounded.
- A thread beside a loop that is never idle waits up to 5 ms for the interpreter's lock each time, and SQLite's binding
  takes it for each row. So a read answers with one row of one value: a count, or the positions of a page, whose rows
  are then read on the loop, a few microseconds each.
- One read at a time; a few wait, the rest are refused.

Considered and rejected: the exclusive locking mode, in which a second connection sees nothing; shared-cache mode, whose
readers wait for writers; a process that reads, which other processes' locks would keep out.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Final, cast

import apsw
import trio

from plait_server.adapters.journals.sqlite_lists import Statement
from plait_server.adapters.journals.sqlite_rows import Value
from plait_server.errors import JournalUnavailable, Overloaded

READ_S_MAX: Final = 5.0
"""How long a read may take. One of a million executions takes a tenth of a second."""
WAITING_MAX: Final = 64
"""How many reads may wait; with a tenth of a second each the last of them waits for seconds."""
_STEPS: Final = 1_000_000
"""After so many steps of SQLite's machine, some 20 ms, a read looks whether it should go on."""


class _Read:
    """A read that waits or runs."""

    __slots__ = ("deadline", "is_left")

    def __init__(self) -> None:
        self.deadline = 0.0
        self.is_left = False
        """Whether its caller was cancelled."""


class Reader:
    """Reads in a thread. Create it, call it and close it in the loop's thread.

    Args:
        path: The database, which the writing connection has open.
        vfs: The VFS of the writing connection.
        read_s_max: How long a read may take.
    """

    def __init__(self, path: Path, *, vfs: str, read_s_max: float = READ_S_MAX) -> None:
        self._path = path
        self._read_s_max = read_s_max
        self._connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY, vfs)
        self._connection.pragma("query_only", 1)
        self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connection.set_progress_handler(self._should_stop, _STEPS)
        self._limiter = trio.CapacityLimiter(1)
        self._in_use = threading.Lock()
        self._current: _Read | None = None
        self._is_closed = False
        self._trusts_pages = True

    def __repr__(self) -> str:
        waiting = self._limiter.statistics().tasks_waiting
        return f"<Reader of {self._path}{', closed' * self._is_closed}, {waiting} waiting>"

    @property
    def is_reading(self) -> bool:
        """Whether a read is under way in the thread."""
        return self._current is not None

    async def read(self, statement: Statement, *, trusts_pages: bool) -> Value:
        """Return the one value that a statement answers with.

        If the caller is cancelled, the read is interrupted, and the next one begins when it has ended.

        Args:
            statement: Reads, and gives one row of one value.
            trusts_pages: Whether the checksums of pages are verified; False once one was found damaged.

        Raises:
            Overloaded: too many reads wait, or this one took too long.
            JournalUnavailable: the reader was closed.
            apsw.Error: SQLite failed.
        """
        if self._limiter.statistics().tasks_waiting >= WAITING_MAX:
            message = f"{WAITING_MAX} lists and counts wait already; try again later"
            raise Overloaded(message)
        read = _Read()
        try:
            return await trio.to_thread.run_sync(
                partial(self._run, read, statement, trusts_pages=trusts_pages),
                abandon_on_cancel=True,
                limiter=self._limiter,
            )
        except apsw.InterruptError as error:
            if self._is_closed:
                raise self._closed() from error
            message = (
                f"the list or count took longer than {self._read_s_max:g} s; narrow its filter by a state, a graph's "
                "name or a label, or try again later"
            )
            raise Overloaded(message) from error
        except trio.Cancelled:
            read.is_left = True
            if self._current is read and not self._is_closed:
                self._connection.interrupt()
            raise

    def close(self) -> None:
        """Interrupt what is being read, wait for its end, and close the connection. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.interrupt()
            with self._in_use:
                self._connection.close(force=True)

    # In the thread.

    def _run(self, read: _Read, statement: Statement, *, trusts_pages: bool) -> Value:
        with self._in_use:
            if self._is_closed:
                raise self._closed()
            self._current = read
            read.deadline = time.monotonic() + self._read_s_max
            try:
                if self._trusts_pages and not trusts_pages:
                    self._connection.pragma("checksum_verification", 0)
                    self._trusts_pages = False
                cursor = self._connection.execute(statement.sql, statement.values)
                [(value,)] = cast("list[tuple[Value]]", cursor.fetchall())
                return value
            finally:
                self._current = None

    def _should_stop(self) -> bool:
        read = self._current
        return self._is_closed or (read is not None and (read.is_left or time.monotonic() > read.deadline))

    def _closed(self) -> JournalUnavailable:
        return JournalUnavailable(f"the store {self._path} is closed", nothing_written=True)
