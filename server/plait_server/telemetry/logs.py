"""Formats the server's log: each record is one line, as text for a terminal or as JSON, with the fields of its subject.

The code logs by `logging`, as its libraries do (grpc, asyncio), so all lines take the same way. `structlog` renders
them: its processors run in a formatter, without its `ProcessorFormatter`, which copies each record, at 5 us a line.
"""

from __future__ import annotations

import json
import logging
import os
import select
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor

from plait_server.ports.log_fields import LOG_FIELDS

MESSAGE_CHARS_MAX: Final = 4_096
"""A longer message is cut: it quotes what came from elsewhere."""
TRACEBACK_CHARS_MAX: Final = 16_384
"""Of a longer traceback the end is kept, where the error stands."""
WRITE_BYTES: Final = select.PIPE_BUF
"""A write of so much to a pipe that `poll` calls writable does not block."""
PATIENCE_S: Final = 0.1
"""How long the process waits at most for a reader of its log that has fallen behind."""
PATIENCE_SHARE: Final = 0.05
"""The share of its time that it waits for such a reader over and over."""

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

# Made once: json.dumps makes an encoder for each call that has a `default`.
_ENCODE: Final = json.JSONEncoder(default=repr).encode


class LogFormatter(logging.Formatter):
    """Formats records by structlog's processors.

    Args:
        processors: Each changes the fields in place; the last returns the line.
    """

    def __init__(self, processors: Sequence[Processor]) -> None:
        super().__init__()
        self._processors = tuple(processors)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        values = vars(record)
        event: EventDict = {
            "timestamp": record.created,
            "level": record.levelname,
            "logger": record.name,
            "event": _cut(record.getMessage()),
        }
        for name in LOG_FIELDS:
            if name in values:
                event[name] = values[name]
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for process in self._processors[:-1]:
            process(None, record.levelname, event)
        return str(self._processors[-1](None, record.levelname, event))


def console_formatter() -> LogFormatter:
    """Return a formatter for people: the message, and ` execution=... node=...` for each field that the record has.

    Messages quote workers and clients, so line breaks and terminal control characters are escaped. The fields come
    last, so that the last `execution=` of a line is the server's, whatever the message says. The lines of a traceback
    are indented, so that none looks like a record.
    """
    return LogFormatter([structlog.processors.format_exc_info, _render_text])


def json_formatter() -> LogFormatter:
    """Return a formatter for programs: a JSON object with timestamp, level, logger, event, the fields and exception.

    Everything beyond ASCII is escaped, so no line break or control character is left.
    """
    render = structlog.processors.JSONRenderer(serializer=_to_json)
    return LogFormatter([structlog.processors.format_exc_info, _for_json, render])


class LogHandler(logging.Handler):
    """Writes lines to a file descriptor, and drops them rather than stop the process for a reader that is too slow.

    A pipe holds 64 KiB. When it is full, the process waits for its reader, at most `PATIENCE_S`, and over and over at
    most `PATIENCE_SHARE` of its time. What does not fit is dropped, and the next line says how many lines were.

    Args:
        descriptor: Where to write; the caller closes it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._dropped = 0
        self._patience_s = PATIENCE_S
        self._waited_s = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or drop it."""
        try:
            line = self.format(record)
            if self._dropped and self._write(self._format_dropped()):
                self._dropped = 0
            if self._dropped or not self._write(line):
                self._dropped += 1
        except OSError:
            # The stream is closed, or its disk full: it cannot be told there.
            self._dropped += 1
        except Exception:  # noqa: BLE001 -- logging's rule: a log line must not fail the code that writes it.
            self.handleError(record)

    def _format_dropped(self) -> str:
        text = "%d lines of this log were dropped: whoever reads it was too slow"
        args = (self._dropped,)
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, args, None))

    def _write(self, line: str) -> bool:
        """Write a line; return whether there was room for its beginning."""
        content = f"{line}\n".encode(errors="backslashreplace")
        for start in range(0, len(content), WRITE_BYTES):
            if not self._wait():
                # A line that was begun is ended, so that the next one begins a line.
                return start > 0
            os.write(self._descriptor, content[start : start + WRITE_BYTES])
        return True

    def _wait(self) -> bool:
        if self._poll.poll(0):
            return True
        now_s = time.monotonic()
        regained_s = (now_s - self._waited_s) * PATIENCE_SHARE
        self._patience_s = min(PATIENCE_S, self._patience_s + regained_s)
        is_writable = bool(self._poll.poll(int(self._patience_s * 1_000)))
        self._waited_s = time.monotonic()
        self._patience_s = max(0.0, self._patience_s - (self._waited_s - now_s))
        return is_writable


def log_to(stream: TextIO, level: str, log_format: str) -> None:
    """Write the log of this process to a stream; does nothing if logging is configured already.

    Args:
        stream: A stream with a file descriptor.
        level: The least severe level that is written.
        log_format: The format; `auto` is `console` on a terminal and `json` elsewhere.
    """
    is_text = log_format == "console" or (log_format == "auto" and stream.isatty())
    handler = LogHandler(stream.fileno())
    handler.setFormatter(console_formatter() if is_text else json_formatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.captureWarnings(capture=True)
    # It logs each request at INFO, and so each batch of spans.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def one_line(text: str) -> str:
    """Escape line breaks and terminal control characters in a text from elsewhere."""
    return text.translate(_ESCAPES)


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else f"{text[: MESSAGE_CHARS_MAX - 1]}…"


def _cut_start(text: str) -> str:
    return text if len(text) <= TRACEBACK_CHARS_MAX else f"…{text[1 - TRACEBACK_CHARS_MAX :]}"


def _render_text(_: object, __: str, event: EventDict) -> str:
    created = event["timestamp"]
    time_text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(created))
    fields = "".join(f" {name}={event[name]}" for name in LOG_FIELDS if name in event)
    milliseconds = int(created * 1_000) % 1_000
    first = f"{time_text},{milliseconds:03} {event['level']:7} {event['event']}{fields}"
    if "exception" not in event:
        return one_line(first)
    others = _cut_start(event["exception"]).split("\n")
    return "\n".join([one_line(first), *(f"    {one_line(other)}" for other in others)])


def _for_json(_: object, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.fromtimestamp(event["timestamp"], UTC).isoformat(timespec="microseconds")
    event["level"] = event["level"].lower()
    if "exception" in event:
        event["exception"] = _cut_start(event["exception"])
    return event


def _to_json(event: EventDict, **_: object) -> str:
    # DEL is the one control character that JSON leaves as it is.
    return _ENCODE(event).replace("\x7f", "\\u007f")
