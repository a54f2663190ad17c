"""Distinguishes a damaged SQLite log from one that a kill or a power cut left unfinished.

SQLite uses the frames of a log up to the last transaction whose checksums fit, and silently ignores the rest. After a
crash the rest is a transaction that was never acknowledged; after a flipped bit it is everything acknowledged since.

After a kill the log alone does not distinguish the two. SQLite writes a frame in two steps, first its header, and Linux
may stop a write between two pages of the file. So a kill may leave the header of the last frame before a page, or the
end of one, of an earlier use of the file. That is often the same page of the database, and may differ in a single word,
as if a bit had flipped: page 1 does, in the size of the database. What was written is not lost, though, flushed or
not. So after each commit, before it is acknowledged, the lock file is told how many frames there are (`Acknowledged`):
it is damage if SQLite accepts fewer, and no damage otherwise, whatever follows.

After a power cut that number is worth nothing, because it is not flushed. The headers of the frames must do then:

- Each restart of a log draws new salts, and each frame carries them, so frames of earlier uses are recognized. A frame
  with only one matching salt belongs to this use too, and is damaged.
- A transaction is flushed before it is acknowledged, and before the next one is written. So if a later transaction
  follows rejected frames, their transaction was acknowledged: damage.
- The last transaction may not have been flushed, so its frames may be torn. Damage in it is taken for that.

Format: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import enum
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

PAGE_BYTES: Final = 4096
"""The size of a page in every store."""
HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
FRAME_BYTES: Final = FRAME_HEADER_BYTES + PAGE_BYTES

# The lowest bit selects the byte order in which the checksums' words are read.
_MAGIC: Final = 0x377F0682
_VERSION: Final = 3_007_000
_WORD: Final = 1 << 32

# A frame's checksum covers the first two words of its header, then its page.
_WORDS: Final = 2 + PAGE_BYTES // 4


class LogState(enum.Enum):
    """What follows the frames that SQLite accepted."""

    WHOLE = "whole"
    """Nothing, or a transaction that was never acknowledged."""
    TORN = "torn"
    """A transaction that a power cut tore before it was flushed, and so before it was acknowledged."""
    DAMAGED = "damaged"
    """A transaction that was acknowledged."""


class Acknowledged(NamedTuple):
    """How much of a log holds acknowledged transactions."""

    salt_1: int
    salt_2: int
    """Those of the log's use."""
    frames: int
    """The number of its first frames."""


class Frame(NamedTuple):
    """The header of a frame."""

    number: int
    """0 for the first."""
    page: int
    commit: int
    """Pages of the database after the transaction that the frame ends; 0 if it does not end one."""
    salt_1: int
    salt_2: int
    sum_1: int
    sum_2: int


class Log:
    """A log file on the disk."""

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self._content = content
        fields: tuple[int, ...] = struct.unpack_from(">6I", content)
        magic, version, page_bytes, _, *self.salts = fields
        self._order = ">" if magic & 1 else "<"
        self._header_sums: tuple[int, int] = struct.unpack_from(">2I", content, 24)
        self.has_header: bool = (magic & ~1, version, page_bytes) == (
            _MAGIC,
            _VERSION,
            PAGE_BYTES,
        ) and _add(content[:24], self._order, (0, 0)) == self._header_sums
        self.frame_count = (len(content) - HEADER_BYTES) // FRAME_BYTES

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Read headers of frames, including those of earlier uses of the file."""
        for number in range(first, self.frame_count):
            yield self.frame(number)

    def frame(self, number: int) -> Frame:
        """Read the header of a frame."""
        return Frame(number, *struct.unpack_from(">6I", self._content, self._offset(number)))

    def page(self, number: int) -> bytes:
        """Read the page of a frame."""
        begin = self._offset(number) + FRAME_HEADER_BYTES
        return bytes(self._content[begin : begin + PAGE_BYTES])

    def is_of_this_use(self, frame: Frame) -> bool:
        """Return whether a frame was written since the log was restarted; one damaged salt is tolerated."""
        return frame.salt_1 == self.salts[0] or frame.salt_2 == self.salts[1]

    def has_salts_of(self, frame: Frame) -> bool:
        """Return whether a frame has the log's salts, or those that the checksum of the log's header was made of."""
        if [frame.salt_1, frame.salt_2] == self.salts:
            return True
        header = bytes(self._content[:16]) + struct.pack(">2I", frame.salt_1, frame.salt_2)
        return _add(header, self._order, (0, 0)) == self._header_sums

    def pages(self) -> Iterator[tuple[int, bytes]]:
        """Yield number and content of the pages of all completely written transactions.

        This is for a salvage. A frame with one wrong word is repaired; one with more damage is left out, but the
        frames after it are not.
        """
        if not self.has_header:
            self.salts = [self.frame(0).salt_1, self.frame(0).salt_2]
        rest = [frame for frame in self.frames() if self.is_of_this_use(frame)]
        ends = [frame.number for frame in rest if frame.commit]
        sums = self._header_sums if self.has_header else None
        for frame in rest:
            if not ends or frame.number > ends[-1]:
                return
            begin = self._offset(frame.number)
            content = self._content[begin : begin + 8] + self.page(frame.number)
            stored = frame.sum_1, frame.sum_2
            # A damaged header does not have the value with which the first frame's checksum begins.
            found = stored if sums is None else _add(content, self._order, sums)
            wrong = None if found == stored else _find_wrong_word(found, stored)
            sums = found if wrong is not None and wrong.place is None else stored
            if found != stored and wrong is None:
                continue
            if wrong is not None and wrong.place is not None:
                words = list(struct.unpack(f"{self._order}{_WORDS}I", content))
                words[wrong.place] = (words[wrong.place] - wrong.change) % _WORD
                content = struct.pack(f"{self._order}{_WORDS}I", *words)
            yield int.from_bytes(content[:4]), content[8:]

    def _offset(self, number: int) -> int:
        return HEADER_BYTES + number * FRAME_BYTES


def read_log(database: Path) -> Log | None:
    """Read the log of a database; None if it has none, or none with a frame in it."""
    path = database.with_name(database.name + "-wal")
    try:
        with path.open("rb") as file:
            if path.stat().st_size < HEADER_BYTES + FRAME_BYTES:
                return None
            return Log(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        return None


def judge_log(log: Log, *, frames_taken: int, acknowledged: Acknowledged | None) -> LogState:
    """Return what follows the frames that SQLite accepted.

    Args:
        log: The log, before anything is written to it.
        frames_taken: The number of frames that SQLite reports after its recovery.
        acknowledged: What the lock file says; None if the machine has restarted since.
    """
    if not log.has_header:
        # SQLite accepts nothing then. A header is flushed before the first frame after it is written.
        is_damaged = acknowledged is not None or log.has_salts_of(log.frame(0))
        return LogState.DAMAGED if is_damaged else LogState.TORN
    if acknowledged is not None:
        return LogState.WHOLE if _has_acknowledged(log, frames_taken, acknowledged) else LogState.DAMAGED
    rest = [frame for frame in log.frames(frames_taken) if log.is_of_this_use(frame)]
    ends = [frame.number for frame in rest if frame.commit]
    if ends and ends[0] != rest[-1].number:
        return LogState.DAMAGED
    return LogState.TORN if ends else LogState.WHOLE


def _has_acknowledged(log: Log, frames_taken: int, acknowledged: Acknowledged) -> bool:
    """Return whether SQLite accepted everything acknowledged."""
    if log.salts == [acknowledged.salt_1, acknowledged.salt_2]:
        return frames_taken >= acknowledged.frames
    # Only a log that is wholly in the database is restarted. That adds one to the first salt, so a lower one is that of
    # an earlier use, whose header has come back.
    return 0 < (log.salts[0] - acknowledged.salt_1) % _WORD < _WORD // 2


class WrongWord(NamedTuple):
    """The one word of a frame that, if changed, explains a wrong checksum."""

    place: int | None
    """0 for the first of the frame's header, 2 for the first of its page; None for the stored checksum."""
    change: int
    """The difference of the word, modulo 2**32."""


def _find_wrong_word(sums: tuple[int, int], stored: tuple[int, int]) -> WrongWord | None:
    """Find the word that, if changed, explains a frame's wrong checksum; None if no single word does."""
    wrong_1, wrong_2 = (sums[0] - stored[0]) % _WORD, (sums[1] - stored[1]) % _WORD
    if not wrong_1 or not wrong_2:
        return WrongWord(None, 0)
    # How much a change by one in the first and in the second word of a pair adds to the sums, from the last pair on.
    first, second = (1, 1), (0, 1)
    for even in range(_WORDS - 2, -1, -2):
        for index, (factor_1, factor_2) in ((even, first), (even + 1, second)):
            # Neighbors in Fibonacci's sequence are never both even, and an odd factor has an inverse.
            if factor_1 % 2:
                change = wrong_1 * pow(factor_1, -1, _WORD) % _WORD
            else:
                change = wrong_2 * pow(factor_2, -1, _WORD) % _WORD
            if (factor_1 * change - wrong_1) % _WORD == 0 == (factor_2 * change - wrong_2) % _WORD:
                return WrongWord(index, change)
        first, second = _next(first), _next(second)
    return None


def _next(factors: tuple[int, int]) -> tuple[int, int]:
    total = (factors[0] + factors[1]) % _WORD
    return total, (factors[1] + total) % _WORD


def _add(content: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    sum_1, sum_2 = sums
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        sum_1 = (sum_1 + even + sum_2) % _WORD
        sum_2 = (sum_2 + odd + sum_1) % _WORD
    return sum_1, sum_2
