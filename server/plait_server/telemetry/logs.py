"""Formats the server's log: each record is one line, with the fields of its subject at the end."""

from __future__ import annotations

import logging
from typing import Final, TextIO

from plait_server.ports.log_fields import LOG_FIELDS

_UNPRINTED: Final = (
    *range(0x20),
    # DEL and the C1 control characters, some of which begin an escape sequence.
    *range(0x7F, 0xA0),
    # Line separators, and characters that change the direction of writing.
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = str.maketrans(
    {chr(code): chr(code).encode("unicode_escape").decode() for code in _UNPRINTED}
)


class LogFormatter(logging.Formatter):
    """Formats records as text: the message, and ` execution=... node=...` for each field that the record has.

    Messages quote workers and clients, so line breaks and terminal control characters are escaped. The fields come
    last, so that the last `execution=` of a line is the server's, whatever the message says. The lines of a traceback
    are indented, so that none looks like a record.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # logging's own name
        """Format the record's first line."""
        values = vars(record)
        fields = "".join(f" {name}={values[name]}" for name in LOG_FIELDS if name in values)
        return one_line(super().formatMessage(record) + fields)

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, and its traceback if it has one."""
        first, *others = super().format(record).split("\n")
        return "\n".join([first, *(f"    {one_line(other)}" for other in others)])


def log_to(stream: TextIO, level: str) -> None:
    """Write the log of this process to a stream; does nothing if logging is configured already."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    # It logs each request at INFO, and so each batch of spans.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def one_line(text: str) -> str:
    """Escape line breaks and terminal control characters in a text from elsewhere."""
    return text.translate(_ESCAPES)
