"""What is logged of executions and of what workers say, and with which fields (B3)."""

from __future__ import annotations

import pytest

from plait_server.ports.log_fields import LOG_FIELDS
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.telemetry.log_observer import LogObserver

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASSIGNMENT = Assignment(
    key=AttemptKey("default", "x", 1, "a", 2),
    worker_id="w",
    worker_instance_id="w.1",
    type="work",
    input_json="null",
    input_digest="",
    input_size_bytes=4,
    time_left_s=0.0,
    traceparent=f"00-{TRACE}-{SPAN}-01",
    tracestate="",
    branch="0-001",
    recovered=False,
)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, object]]]:
    """Return level, message and fields of each line."""
    return [
        (
            record.levelname,
            record.getMessage(),
            {name: vars(record)[name] for name in LOG_FIELDS if name in vars(record)},
        )
        for record in caplog.records
    ]


def test_what_a_worker_says_has_the_fields_of_its_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """B3."""
    caplog.set_level("INFO")
    LogObserver().worker_said(ASSIGNMENT, "WARNING", "half done")
    fields = {
        "namespace": "default",
        "execution": "x",
        "node": "a",
        "branch": "0-001",
        "attempt": 2,
        "trace": TRACE,
        "span": SPAN,
    }
    assert lines_of(caplog) == [("INFO", "worker w: WARNING: half done", fields)]


def test_nothing_is_logged_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    LogObserver().worker_said(ASSIGNMENT, "WARNING", "half done")
    assert caplog.records == []
