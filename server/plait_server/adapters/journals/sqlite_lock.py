"""The lock that keeps a second process out of a store: a file beside it, held with flock.

The operating system frees it when its holder dies, however it dies. The file itself stays: removing it would
let two processes hold a lock on two files of the same name. It names its holder, for the
message to a second process. It also records, for the check of the log, whether the store was left in use, in which
boot of the machine, and how much of the log holds acknowledged transactions. None of that is flushed: it serves after a
kill, which leaves what was written; another boot makes it void.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from plait_server.adapters.journals.sqlite_log import Acknowledged
from plait_server.errors import StoreLocked

# The first line has three words, the second one, the third, which is only there while the store is in use, three.
_FILE_BYTES_MAX = 1024

# The place of the two salts in a log.
_SALTS_AT: Final = 16

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StoreLock:
    """The exclusive right to use a store, from `take` until `release` or the end of the process."""

    def __init__(
        self, path: Path, descriptor: int, *, holder: str, acknowledged: Acknowledged | None
    ) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._holder = holder
        self._log: int | None = None
        self._log_line_at = 0
        self.acknowledged: Final = acknowledged
        """What the log must hold; None unless the last user was killed, and the machine has not restarted since."""

    @classmethod
    def take(cls, store: Path, *, owner: str) -> StoreLock:
        """Take the lock of a store at once.

        Raises:
            StoreLocked: another opening holds it.
            OSError: the file cannot be made or opened.
        """
        path = store.with_name(store.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The other lines stay: an opening that fails leaves the log as it was.
            _, *others = _read(descriptor)
            holder = f"{os.getpid()} {owner} {socket.gethostname()}"
            _write(descriptor, holder, *others)
            lock = cls(path, descriptor, holder=holder, acknowledged=_acknowledged(*others))
        except BlockingIOError as error:
            words = _read(descriptor)[0].split()
            os.close(descriptor)
            process, holder, host = words if len(words) == 3 else ("unknown", "unknown", "unknown")
            raise StoreLocked(
                f"the store {store} is used by process {process} on {host} (owner {holder}); "
                "stop it, or name another store",
                process_id=process,
                owner=holder,
                host=host,
            ) from error
        except BaseException:
            os.close(descriptor)
            raise
        return lock

    def note_use(self, log: Path, frames: int) -> None:
        """Record that the log holds data that must not be lost, in its first frames.

        Raises:
            OSError: the file cannot be written, or the log not be opened.
        """
        if self._descriptor is not None:
            self._log = os.open(log, os.O_RDONLY)
            log_line = _log_line(self._log, frames)
            self._log_line_at = _write(self._descriptor, self._holder, _boot_id(), log_line)

    def note_log(self, frames: int) -> None:
        """Record that more frames of the log in use hold acknowledged transactions; takes 3 us.

        It is one small write, which a kill does not tear. If it fails, damage to what it was to record is not found at
        the next opening; the data is durable anyway, so nothing is raised.
        """
        if self._descriptor is not None and self._log is not None:
            with contextlib.suppress(OSError):
                os.pwrite(self._descriptor, _log_line(self._log, frames).encode(), self._log_line_at)

    def note_end(self) -> None:
        """Record that the log holds nothing that must not be lost.

        Raises:
            OSError: the file cannot be written.
        """
        if self._descriptor is not None:
            _write(self._descriptor, self._holder, "", "")

    def is_held(self) -> bool:
        """Return whether the lock is held on the file at its path; a removed file protects nothing."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._log is not None:
            os.close(self._log)
            self._log = None


def _read(descriptor: int) -> tuple[str, str, str]:
    """Read the holder, the boot in which the store was left in use, and the line on its log; each may be empty."""
    lines = os.pread(descriptor, _FILE_BYTES_MAX, 0).decode(errors="replace").splitlines()
    holder, used_in_boot, log_line, *_ = [*lines, "", "", ""]
    return holder, used_in_boot, log_line


def _write(descriptor: int, holder: str, used_in_boot: str, log_line: str) -> int:
    """Write the whole file, and return the place of the last line."""
    lines, last = f"{holder}\n{used_in_boot}\n".encode(), f"{log_line}\n".encode()
    # In this order, so that a kill in between loses nothing; what then follows the last line is not read.
    os.ftruncate(descriptor, os.pwrite(descriptor, lines + last, 0))
    return len(lines)


def _log_line(log: int, frames: int) -> str:
    """Return the line on a log; all are equally long, because each overwrites the one before.

    Raises:
        OSError: the log cannot be read, or is empty.
    """
    salts = os.pread(log, 8, _SALTS_AT)
    if len(salts) < 8:
        raise OSError(errno.ENODATA, "it has no header", "the log")
    salt_1, salt_2 = struct.unpack(">2I", salts)
    return f"{salt_1:010} {salt_2:010} {frames:010}"


def _acknowledged(used_in_boot: str, log_line: str) -> Acknowledged | None:
    if used_in_boot == "" or used_in_boot != _boot_id():
        return None
    match log_line.split():
        case [salt_1, salt_2, frames] if f"{salt_1}{salt_2}{frames}".isdecimal():
            return Acknowledged(int(salt_1), int(salt_2), int(frames))
        case _:
            return None


def _boot_id() -> str:
    """Return an id of this boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
