"""The lock that keeps a second process out of a store: a file beside it, held with flock.

The operating system frees it when its holder dies, however it dies. The file itself stays: removing it would
let two processes hold a lock on two files of the same name. It says who holds it, for the message the second
one gets; and whether the store was left in use, and in which boot of the machine, for the one who looks at the log.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import Final

from plait_server.errors import StoreLocked

# The holder is a line of three words, what follows a line of one.
_FILE_BYTES_MAX = 1024

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class StoreLock:
    """The exclusive right to use a store, from `take` until `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int, *, holder: str, used_in_boot: str) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._holder = holder
        self.was_left_in_use: Final = used_in_boot != "" and used_in_boot == _boot_id()
        """Whether who used the store last was killed, and the machine has run on since."""

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
            lock._write(used_in_boot)  # Who looks and goes again leaves the log as it found it.
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
        """Note that from now on the log holds what must not be lost, or that it does not any more.

        Raises:
            OSError: the file cannot be written.
        """
        self._write(_boot_id() if is_used else "")

    def is_held(self) -> bool:
        """Say whether the lock is held, on the file that others would lock: a removed one guards nothing."""
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
        """Let others in. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _read(descriptor: int) -> tuple[str, str]:
    """Read the holder and the boot in which the store was left in use; each empty if there is none."""
    lines = os.pread(descriptor, _FILE_BYTES_MAX, 0).decode(errors="replace").splitlines()
    holder, used_in_boot, *_ = [*lines, "", ""]
    return holder, used_in_boot


def _boot_id() -> str:
    """Return what tells this run of the machine from others; empty where there is no such thing."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
