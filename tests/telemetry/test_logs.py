"""The text of the log: one line a record, with its fields at the end, and nothing that steers a terminal."""

from __future__ import annotations

import logging

import pytest

from plait_server.telemetry.logs import LogFormatter


def formatted(message: str, *args: object, exc: BaseException | None = None, **fields: object) -> str:
    info = (type(exc), exc, exc.__traceback__) if exc is not None else None
    record = logging.LogRecord("plait", logging.INFO, __file__, 1, message, args, info)
    vars(record).update(fields)
    return LogFormatter().format(record)


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
