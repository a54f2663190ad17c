"""The log: what workers say stays one line each, and steers no terminal."""

from __future__ import annotations

import pytest

from plait_server.ports.workers import AttemptKey
from plait_server.telemetry.log_observer import LogObserver

KEY = AttemptKey("default", "x", 1, "a", 1)


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
def test_what_a_worker_says_is_one_line_without_escape_sequences(
    text: str, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    LogObserver().worker_said(KEY, "INFO", text)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"default/x a attempt 1: INFO: {written}"
