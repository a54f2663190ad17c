"""Progress, log lines and heartbeats are passed on within a quota per worker and one for all."""

from __future__ import annotations

import pytest
import trio
from google.protobuf.duration_pb2 import Duration
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.adapters.workers import holding
from plait_server.adapters.workers.attempt_reports import (
    ALL_TIMES,
    BYTES_A_SECOND,
    BYTES_AT_ONCE,
    LINES_A_SECOND,
    LINES_AT_ONCE,
    AttemptReports,
    Quota,
)
from plait_server.core.limits import DURATION_S_MAX, HEARTBEAT_DETAILS_BYTES_MAX
from plait_server.ports.workers import Assignment, AttemptKey
from tests.adapters.workers_streams import Recorder, a_hub

KEY = AttemptKey("default", "x", 1, "a", 1)
ASSIGNMENT = Assignment(KEY, "w", "w.1", "t", "null", "", 0, 0.0, "", "", "0", recovered=False)


def say(reports: AttemptReports, quota: Quota, lines: int, text: str = "line") -> None:
    for _ in range(lines):
        reports.pass_on(quota, ASSIGNMENT, "INFO", text)


async def test_lines_over_the_quota_are_dropped_and_counted(autojump_clock: MockClock) -> None:
    recorder, quota = Recorder(), Quota()
    reports = AttemptReports(recorder)
    say(reports, quota, LINES_AT_ONCE + 7)
    assert len(recorder.said) == LINES_AT_ONCE
    await trio.sleep(1)
    say(reports, quota, LINES_AT_ONCE)
    assert len(recorder.said) == LINES_AT_ONCE + LINES_A_SECOND
    assert recorder.said[LINES_AT_ONCE][2].startswith("line (7 lines of this worker")
    assert recorder.said[LINES_AT_ONCE + 1][2] == "line"
    await trio.sleep(10_000)
    say(reports, quota, 2 * LINES_AT_ONCE)
    assert len(recorder.said) == 2 * LINES_AT_ONCE + LINES_A_SECOND


async def test_bytes_count_as_well(autojump_clock: MockClock) -> None:
    recorder, quota = Recorder(), Quota()
    reports = AttemptReports(recorder)
    long = "x" * 8_192
    say(reports, quota, LINES_AT_ONCE, long)
    assert len(recorder.said) == BYTES_AT_ONCE // len(long)
    await trio.sleep(1)
    say(reports, quota, LINES_AT_ONCE, long)
    assert len(recorder.said) == (BYTES_AT_ONCE + BYTES_A_SECOND) // len(long)


async def test_all_workers_together_have_a_quota(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    reports = AttemptReports(recorder)
    quotas = [Quota() for _ in range(ALL_TIMES + 5)]
    for quota in quotas:
        say(reports, quota, LINES_AT_ONCE)
    assert len(recorder.said) == ALL_TIMES * LINES_AT_ONCE
    assert quotas[-1].dropped == LINES_AT_ONCE


async def test_a_worker_that_floods_slows_no_result(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        line = pb.WorkerMessage(log=pb.LogLine(token=attempt.token, message="x" * 10_000))
        for _ in range(10):
            await stream.tell(*[line] * 100)
        assert {(kind, len(text)) for _, kind, text in hub.observer.said} == {("INFO", 8_192)}
        assert len(hub.observer.said) == BYTES_AT_ONCE // 8_192
        # A new stream is no new quota.
        await stream.cut()
        again = await hub.dial(running=[attempt])
        await again.tell(line)
        assert len(hub.observer.said) == BYTES_AT_ONCE // 8_192
        await again.complete(attempt)
        assert attempt.result is not None


def heartbeat(token: str, details_json: str) -> pb.WorkerMessage:
    details = payload_pb2.Payload(json=details_json)
    return pb.WorkerMessage(heartbeat=pb.AttemptHeartbeat(token=token, details=details))


async def test_details_of_heartbeats_are_json_and_bounded(autojump_clock: MockClock) -> None:
    """FAILURES 46, 51: what is no JSON, or too large, is dropped, and the attempt is alive nonetheless."""
    largest = '"' + "x" * (HEARTBEAT_DETAILS_BYTES_MAX - 2) + '"'
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        for details in ("[1]", "{", '{"a":1,"a":2}', "NaN", largest, largest[:-1] + 'x"'):
            await stream.tell(heartbeat(attempt.token, details))
        assert attempt.heard == ["[1]", "", "", "", largest, ""]
        await stream.complete(attempt)


async def test_details_of_one_worker_take_bounded_memory(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAILURES 25: beyond the bound older details stay; the room of an attempt that ends is free again."""
    monkeypatch.setattr(holding, "DETAILS_BYTES_MAX", 10)
    async with a_hub() as hub:
        stream = await hub.dial()
        first, second = hub.execute("a"), hub.execute("b")
        await wait_all_tasks_blocked()
        await stream.tell(heartbeat(first.token, "12345678"), heartbeat(second.token, "12345"))
        assert (first.heard, second.heard) == (["12345678"], [""])
        await stream.tell(heartbeat(first.token, "1234567890"))
        assert first.heard[-1] == "1234567890"
        await stream.complete(first)
        await stream.tell(heartbeat(second.token, "12345"))
        assert second.heard[-1] == "12345"
        await stream.complete(second)


def more_time(token: str, seconds: int) -> pb.WorkerMessage:
    return pb.WorkerMessage(extend=pb.Extend(token=token, duration=Duration(seconds=seconds)))


async def test_requests_for_more_time_are_bounded(autojump_clock: MockClock) -> None:
    """FAILURES 53: what is no time is ignored; the longest is ten years."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        for seconds in (60, 0, -5, 2**62):
            await stream.tell(more_time(attempt.token, seconds))
        await stream.tell(more_time("unknown", 60))
        assert attempt.extensions == [60, DURATION_S_MAX]
        await stream.complete(attempt)
