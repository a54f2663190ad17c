"""The lock that keeps a second process out of a store: a file beside it, held with flock.

The operating system frees it when its holder dies, however it dies. The file itself stays: removing it would
let two processes hold a lock on two files of the same name. It names its holder, for the
message to a second process. It also records whether the store was left in use, and in which boot of the machine, for
the check of the log.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from plait_server.errors import StoreLocked

# The first line has three words, the second line one.
_FILE_BYTES_MAX = 1024

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StoreLock:
    """The exclusive right to use a store, from `take` until `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int, *, holder: str, used_in_boot: str) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._holder = holder
        self.was_left_in_use: Final = used_in_boot != "" and used_in_boot == _boot_id()
        """Whether the last user of the store was killed, and the machine has not restarted since."""

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
            _, used_in_boot = _read(descriptor)
            holder = f"{os.getpid()} {owner} {socket.gethostname()}"
            lock = cls(path, descriptor, holder=holder, used_in_boot=used_in_boot)
            lock._write(used_in_boot)  # An opening that fails leaves the log as it was.
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

    def note_use(self, *, is_used: bool) -> None:
        """Record whether the log holds data that must not be lost.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(_boot_id() if is_used else "")

    def is_held(self) -> bool:
        """Return whether the lock is held on the file at its path; a removed file protects nothing."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def _write(self, used_in_boot: str) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{self._holder}\n{used_in_boot}\n".encode(), 0)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read(descriptor: int) -> tuple[str, str]:
    """Read the holder and the boot in which the store was left in use; each empty if there is none."""
    lines = os.pread(descriptor, _FILE_BYTES_MAX, 0).decode(errors="replace").splitlines()
    holder, used_in_boot, *_ = [*lines, "", ""]
    return holder, used_in_boot


def _boot_id() -> str:
    """Return an id of this boot of the machine; empty where the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
