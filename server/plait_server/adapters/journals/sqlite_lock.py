"""The lock that keeps a second process out of a store: a file beside it, held with flock.

The operating system frees it when its holder dies, however it dies. The file itself stays: removing it would
let two processes hold a lock on two files of the same name. It says who holds it, for the message the second
one gets.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from plait_server.errors import StoreLocked

# A holder is one line of three words.
_HOLDER_BYTES_MAX = 1024


class StoreLock:
    """The exclusive right to use a store, from `take` until `release` or the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

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
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {owner} {socket.gethostname()}\n".encode(), 0)
        except BlockingIOError as error:
            words = os.pread(descriptor, _HOLDER_BYTES_MAX, 0).decode(errors="replace").split()
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
        return cls(path, descriptor)

    def is_held(self) -> bool:
        """Say whether the lock is held, on the file that others would lock: a removed one guards nothing."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def release(self) -> None:
        """Let others in. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
