"""Tests of how exceptions become failures."""

import json
from datetime import timedelta

import pytest

from plait_worker import NodeFailure
from plait_worker.failures import FailureReport, cut, report_of


def raised(error: BaseException) -> FailureReport:
    try:
        raise error
    except type(error) as caught:
        return report_of(caught)


def traceback_of(report: FailureReport) -> str:
    assert report.details_json is not None
    text: str = json.loads(report.details_json)["traceback"]
    return text


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def test_exception_is_unknown_and_says_its_type() -> None:
    report = raised(ValueError("no prompt"))
    assert (report.code, report.message, report.retryable) == ("UNKNOWN", "ValueError: no prompt", None)


def test_long_messages_and_tracebacks_are_cut() -> None:
    report = raised(ValueError("ü" * 100_000))
    assert len(report.message.encode()) <= 4096
    assert report.message.endswith("...")
    assert len(traceback_of(report).encode()) <= 8192
    # The message is cut, and the place where it was raised is still there.
    assert "in raised" in traceback_of(report)


def test_traceback_keeps_its_final_lines() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        # Python shortens frames that repeat themselves; these differ.
        exec(compile(f"{chr(10) * depth}dig({depth - 1})", f"file{depth}.py", "exec"), {"dig": dig})

    with pytest.raises(ValueError, match="the bottom") as caught:
        dig(200)
    lines = traceback_of(report_of(caught.value)).splitlines()
    assert lines[0] == "..."
    assert lines[-1] == "ValueError: the bottom"


def test_exception_that_cannot_be_printed_does_no_harm() -> None:
    assert "Unprintable" in raised(Unprintable()).message


class Shifty(NodeFailure):
    def __init__(self) -> None:
        """Leave out what NodeFailure sets."""


def test_failure_that_is_not_whole_does_no_harm() -> None:
    report = raised(Shifty())
    assert (report.code, report.message) == (
        "UNKNOWN",
        "Shifty, which cannot be shown: AttributeError: 'Shifty' object has no attribute 'details'",
    )


def test_failure_that_was_changed_does_no_harm() -> None:
    """A failure that cannot be sent would keep the attempt open for ever."""
    changed = NodeFailure("BUSY", "later", retryable="yes")  # type: ignore[arg-type] # the point of it
    assert raised(changed).retryable is True
    changed.code = "\ud800"
    assert raised(changed).code == "UNKNOWN"
    outer = ValueError("outer")
    outer.__cause__ = changed
    assert raised(outer).code == "UNKNOWN"


def test_long_chain_of_exceptions_is_cut() -> None:
    error = ValueError("first")
    for number in range(1000):
        later = ValueError(str(number))
        later.__context__ = error
        error = later
    report = raised(error)
    assert report.message == "ValueError: 999"
    assert traceback_of(report).count("ValueError: ") == 1


def test_group_of_exceptions_shows_each() -> None:
    report = raised(ExceptionGroup("both", [ValueError("one"), ValueError("two")]))
    assert "ValueError: one" in traceback_of(report)
    assert "ValueError: two" in traceback_of(report)
    many = raised(ExceptionGroup("all", [ValueError(str(number)) for number in range(1000)]))
    assert many.message == "ExceptionGroup: all (1000 sub-exceptions)"


def test_causes_are_listed_to_a_depth() -> None:
    error: Exception = NodeFailure("INNERMOST", "deep")
    for number in range(20):
        outer = ValueError(str(number))
        outer.__cause__ = error
        error = outer
    report = report_of(error)
    depth = 0
    causes = list(report.causes)
    while causes:
        depth += 1
        causes = list(causes[0].causes)
    assert depth == 8


def test_failure_of_its_own_keeps_what_it_says() -> None:
    report = raised(
        NodeFailure(
            "BUSY", "later\ud800", {"a": 1}, retryable=False, retry_after=timedelta(milliseconds=1500)
        )
    )
    assert report == FailureReport(
        code="BUSY",
        message="later\\ud800",
        details_json='{"a":1}',
        retryable=False,
        retry_after_s=1.5,
        exception="NodeFailure",
    )


def test_details_that_are_no_json_are_told_not_lost() -> None:
    report = raised(NodeFailure("BUSY", "later", {"a": {1}}))
    assert (report.code, report.message) == ("BUSY", "later")
    assert report.details_json is not None
    assert "$.a is a set" in json.loads(report.details_json)["problem"]


def test_details_that_are_too_large_are_dropped() -> None:
    report = raised(NodeFailure("BUSY", "later", "x" * 1_048_576))
    assert (report.code, report.message) == ("BUSY", "later")
    assert report.details_json is not None
    assert "1048578 bytes of JSON, and 1048576 is the limit" in json.loads(report.details_json)["problem"]


def test_failure_is_checked_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="code"):
        NodeFailure("not a code", "x")
    with pytest.raises(ValueError, match="retry_after"):
        NodeFailure("BUSY", "x", retry_after=timedelta(seconds=-1))
    with pytest.raises(ValueError, match="within 0 to 3660 days"):
        NodeFailure("BUSY", "x", retry_after=timedelta.max)
    with pytest.raises(TypeError, match="retry_after is a timedelta, not a float"):
        NodeFailure("BUSY", "x", retry_after=float("nan"))  # type: ignore[arg-type] # the point of it
    assert NodeFailure("BUSY", "x", retry_after=timedelta()).retry_after == timedelta()
    assert str(NodeFailure("BUSY", "later")) == "BUSY: later"


@pytest.mark.parametrize(
    ("text", "expected"), [("abc", "abc"), ("abcdefghij", "abcde..."), ("üüüüüü", "üü...")], ids=str
)
def test_text_is_cut_between_characters(text: str, expected: str) -> None:
    assert cut(text, 8) == expected
