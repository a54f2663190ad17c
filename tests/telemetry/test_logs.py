"""The log: one line a record, with its fields, nothing that steers a terminal, and no wait for its reader."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Generator
from typing import cast

import pytest

from plait_server.telemetry import logs
from plait_server.telemetry.logs import MESSAGE_CHARS_MAX, LogHandler, console_formatter, json_formatter


def record_of(
    message: str, *args: object, exc: BaseException | None = None, **fields: object
) -> logging.LogRecord:
    info = (type(exc), exc, exc.__traceback__) if exc is not None else None
    record = logging.LogRecord("plait", logging.INFO, __file__, 1, message, args, info)
    vars(record).update(fields)
    return record


def formatted(message: str, *args: object, exc: BaseException | None = None, **fields: object) -> str:
    return console_formatter().format(record_of(message, *args, exc=exc, **fields))


def as_json(
    message: str, *args: object, exc: BaseException | None = None, **fields: object
) -> dict[str, object]:
    line = json_formatter().format(record_of(message, *args, exc=exc, **fields))
    assert line.isascii()
    assert line.isprintable()
    return cast("dict[str, object]", json.loads(line))


def test_fields_follow_the_message_in_one_order() -> None:
    """B3."""
    line = formatted(
        "node failed",
        span="b7ad6b7169203331",
        trace="0af7651916cd43dd8448eb211c80319c",
        attempt=2,
        branch="0-001",
        node="a",
        execution="x",
        namespace="default",
        other="not a field",
    )
    assert line.endswith(
        " INFO    node failed namespace=default execution=x node=a branch=0-001 attempt=2"
        " trace=0af7651916cd43dd8448eb211c80319c span=b7ad6b7169203331"
    )


def test_a_line_without_fields_is_the_message() -> None:
    assert formatted("made %d steps durable", 3).endswith(" INFO    made 3 steps durable")


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("half done", "half done"),
        ("prêt à 100 % ✓", "prêt à 100 % ✓"),
        ("a\n2026-01-01 INFO forged", "a\\n2026-01-01 INFO forged"),
        ("a\r\x0b\x0c\x00", "a\\r\\x0b\\x0c\\x00"),
        ("\x1b[2J\x9b31m\x7f", "\\x1b[2J\\x9b31m\\x7f"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),
    ],
    ids=["plain", "other scripts", "newline", "controls", "escapes", "separators", "direction"],
)
def test_line_breaks_and_control_characters_are_escaped(text: str, written: str) -> None:
    assert formatted("worker w: INFO: %s", text, execution="x").endswith(
        f" worker w: INFO: {written} execution=x"
    )
    # A field may hold what a client sent, too.
    assert formatted("ended", node=text).endswith(f" ended node={written}")


def test_a_message_that_forges_fields_stands_before_the_real_ones() -> None:
    line = formatted("worker w: INFO: %s", "done execution=other", execution="x")
    assert line.rpartition("execution=")[2] == "x"


def test_lines_of_a_traceback_are_indented_and_escaped() -> None:
    try:
        raise ValueError("bad\n2026-01-01 INFO forged \x1b[2J")
    except ValueError as error:
        first, *others = formatted("a bug", exc=error, execution="x").splitlines()
    assert first.endswith("a bug execution=x")
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-1] == "    2026-01-01 INFO forged \\x1b[2J"
    assert all(line.startswith("    ") for line in others)


def test_a_line_of_json_has_the_same_fields() -> None:
    """B3."""
    line = as_json("node %s failed", "a", attempt=2, node="a", execution="x", other="not a field")
    assert str(line.pop("timestamp")).endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "plait",
        "event": "node a failed",
        "execution": "x",
        "node": "a",
        "attempt": 2,
    }


@pytest.mark.parametrize(
    "text", ["a\nb", "\x1b[2J\x9b31m\x7f", "\u2028\u2029\x85", "\u202egnp.exe\u2066", "\ud800"]
)
def test_a_line_of_json_holds_ascii_alone(text: str) -> None:
    assert as_json("%s", text, node=text)["event"] == text


def test_a_traceback_is_a_field_of_json() -> None:
    try:
        raise ValueError("bad\nworse")
    except ValueError as error:
        line = as_json("a bug", exc=error)
    assert str(line["exception"]).startswith("Traceback (most recent call last):\n")
    assert str(line["exception"]).endswith("\nValueError: bad\nworse")


def test_lines_are_bounded() -> None:
    assert len(str(as_json("%s", "x" * 100_000)["event"])) == MESSAGE_CHARS_MAX
    assert len(formatted("%s", "x" * 100_000)) < MESSAGE_CHARS_MAX + 100
    assert len(formatted("a bug", exc=ValueError("x" * 100_000))) < 20_000
    assert str(as_json("a bug", exc=ValueError("x" * 100_000 + "end"))["exception"]).endswith("end")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Generator[tuple[int, int]]:
    """The ends of a pipe of 64 KiB, for which nobody waits long."""
    monkeypatch.setattr(logs, "PATIENCE_S", 0.001)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 65_536)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read(descriptor: int) -> list[str]:
    content = b""
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except BlockingIOError:
            return content.decode().splitlines()
        content += part


def test_a_reader_that_does_not_read_costs_lines_and_stops_nobody(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = LogHandler(writer)
    handler.setFormatter(console_formatter())
    for number in range(2_000):
        handler.emit(record_of("line %d %s", number, "x" * 100))
    lines = read(reader)
    assert [line.split()[4] for line in lines] == [str(number) for number in range(len(lines))]
    handler.emit(record_of("there again"))
    told, again = read(reader)
    assert told.endswith(
        f" {2_000 - len(lines)} lines of this log were dropped: whoever reads it was too slow"
    )
    assert again.endswith(" there again")


def test_a_line_longer_than_a_write_is_written_whole() -> None:
    with tempfile.TemporaryFile() as file:
        handler = LogHandler(file.fileno())
        handler.setFormatter(json_formatter())
        handler.emit(record_of("%s", "é" * MESSAGE_CHARS_MAX))
        file.seek(0)
        assert json.loads(file.read())["event"] == "é" * MESSAGE_CHARS_MAX


def test_a_stderr_that_is_gone_stops_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    handler = LogHandler(writer)
    handler.setFormatter(console_formatter())
    handler.emit(record_of("into nothing"))
    os.close(writer)
    handler.emit(record_of("into nothing"))
