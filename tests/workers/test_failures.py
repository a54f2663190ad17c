"""Tests of how exceptions become failures."""

import json
from datetime import timedelta

import pytest

from plait_worker import NodeFailure
from plait_worker.failures import FailureReport, cut, report_of


def raised(error: Exception) -> FailureReport:
    try:
        raise error
    except type(error) as caught:
        return report_of(caught)


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
    assert report.details_json is not None
    assert len(json.loads(report.details_json)["traceback"].encode()) <= 8192 + len("...\n")


def test_traceback_keeps_its_final_lines() -> None:
    def dig(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        # Python shortens frames that repeat themselves; these differ.
        exec(compile(f"{chr(10) * depth}dig({depth - 1})", f"file{depth}.py", "exec"), {"dig": dig})

    with pytest.raises(ValueError, match="the bottom") as caught:
        dig(200)
    report = report_of(caught.value)
    assert report.details_json is not None
    lines = json.loads(report.details_json)["traceback"].splitlines()
    assert lines[0] == "..."
    assert lines[-1] == "ValueError: the bottom"


def test_exception_that_cannot_be_printed_does_no_harm() -> None:
    assert "Unprintable" in raised(Unprintable()).message


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
    )


def test_details_that_are_no_json_are_told_not_lost() -> None:
    report = raised(NodeFailure("BUSY", "later", {"a": {1}}))
    assert (report.code, report.message) == ("BUSY", "later")
    assert report.details_json is not None
    assert "$.a is a set" in json.loads(report.details_json)["problem"]


def test_failure_is_checked_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="code"):
        NodeFailure("not a code", "x")
    with pytest.raises(ValueError, match="retry_after"):
        NodeFailure("BUSY", "x", retry_after=timedelta(seconds=-1))
    assert str(NodeFailure("BUSY", "later")) == "BUSY: later"


@pytest.mark.parametrize(
    ("text", "expected"), [("abc", "abc"), ("abcdefghij", "abcde..."), ("üüüüüü", "üü...")], ids=str
)
def test_text_is_cut_between_characters(text: str, expected: str) -> None:
    assert cut(text, 8) == expected
