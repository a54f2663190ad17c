"""How the lines of the server's log are written: one line each, with the fields of what it is about at its end."""

from __future__ import annotations

import logging
from typing import Final, TextIO

from plait_server.ports.log_fields import LOG_FIELDS

_UNPRINTED: Final = (
    *range(0x20),
    *range(
        0x7F, 0xA0
    ),  # DEL, and the second set of control characters, some of which begin an escape sequence
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),  # line separators, and what turns the direction of writing
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = str.maketrans(
    {chr(code): chr(code).encode("unicode_escape").decode() for code in _UNPRINTED}
)


class LogFormatter(logging.Formatter):
    """Formats records as text: ` execution=... node=...` follows the message, for each field that the record has.

    A message quotes workers and clients: what would begin another line or steer a terminal is escaped. The fields
    come last, so the last `execution=` of a line is the server's own, whatever the message says. The lines of a
    traceback are indented, and so begin no record.
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
    # It has a line at INFO for each request, and so for each batch of spans.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def one_line(text: str) -> str:
    """Write a text that is not ours so that it stays one line of the log, and steers no terminal."""
    return text.translate(_ESCAPES)
