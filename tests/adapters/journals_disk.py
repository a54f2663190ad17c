"""A disk that fails on command, as a SQLite VFS over the real files."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import apsw

# What a disk writes whole.
SECTOR = 512


class Fault(Enum):
    NONE = "none"
    FULL = "full"
    """Files cannot grow."""
    SYNC_FAILS = "sync fails"
    DATABASE_SYNC_FAILS = "sync of the database fails, of the log not"
    READ_FAILS = "read fails"


@dataclass
class Medium:
    """The parts of a file that survive a power cut, and those that may."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list[tuple[int, bytes | None]])
    """Writes since the last flush: offset and sector, or new size and None."""

    def flush(self) -> None:
        for change in self.pending:
            apply_change(self.durable, change)
        self.pending.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        """Return what a power cut leaves: all that was flushed, and any part of the rest."""
        image = bytearray(self.durable)
        for change in self.pending:
            if rng.random() < 0.5:
                apply_change(image, change)
        return bytes(image)


def apply_change(image: bytearray, change: tuple[int, bytes | None]) -> None:
    offset, data = change
    if data is None:
        del image[offset:]
        return
    image.extend(bytes(max(0, offset - len(image))))
    image[offset : offset + len(data)] = data


class Disk(apsw.VFS):
    """Register with `Disk(name)`, pass the name as `vfs`, and call `unregister` at the end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fault = Fault.NONE
        self.writes_left: int | None = None
        """Writes that succeed before the disk is full; None: as many as you like."""
        self.syncs = 0
        self.on_operation: Callable[[], None] | None = None
        """Called before each write, flush and truncation."""
        self.media: dict[str, Medium] = {}
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.media.pop(Path(filename).name, None)
        super().xDelete(filename, syncdir)

    def save_after_cut(self, folder: Path, rng: random.Random) -> None:
        """Write what a power cut now would leave."""
        folder.mkdir()
        for name, medium in self.media.items():
            (folder / name).write_bytes(medium.after_cut(rng))


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        assert name is not None
        path = Path(name if isinstance(name, str) else name.filename())
        self._disk = disk
        self._name = path.name
        self._medium = disk.media.setdefault(path.name, Medium())
        super().__init__("", name, flags)

    def xWrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        disk = self._disk
        if disk.on_operation is not None:
            disk.on_operation()
        if disk.writes_left is not None:
            disk.writes_left -= 1
            if disk.writes_left < 0:
                disk.fault = Fault.FULL
        if disk.fault is Fault.FULL and offset + len(data) > super().xFileSize():
            raise apsw.FullError
        written = bytes(data)
        for start in range(0, len(written), SECTOR):
            self._medium.pending.append((offset + start, written[start : start + SECTOR]))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if self._disk.on_operation is not None:
            self._disk.on_operation()
        self._medium.pending.append((newsize, None))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        disk = self._disk
        if disk.on_operation is not None:
            disk.on_operation()
        disk.syncs += 1
        if disk.fault is Fault.SYNC_FAILS or (
            disk.fault is Fault.DATABASE_SYNC_FAILS and not self._name.endswith("-wal")
        ):
            # As Linux does it: the pages count as written, later flushes succeed, and the data is in no place
            # that survives.
            self._medium.pending.clear()
            raise apsw.IOError
        self._medium.flush()
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk.fault is Fault.READ_FAILS:
            raise apsw.IOError
        return super().xRead(amount, offset)
