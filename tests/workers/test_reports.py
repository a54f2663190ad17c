"""Tests of how reports of handlers are brought to the session: in batches, bounded, and not too often."""

import asyncio

import pytest

from plait.v1 import log_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import reports
from plait_worker.reports import ReportBuffer, ReportBuffers
from tests.workers.scripted_hub import HANG_S
from tests.workers.session_driver import assign, attached, receive, said


class IdleRoom:
    def request_flush(self, buffer: ReportBuffer) -> None: ...


def log_lines(buffer: ReportBuffer) -> list[hub.LogLine]:
    session = attached()
    receive(session, assign("a"))
    buffer.flush_into(session)
    return [message.log for message in said(session) if message.HasField("log")]


def test_first_report_goes_at_once_and_a_flood_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPORT_INTERVAL_S", 3600.0)
    session = attached()
    receive(session, assign("a"))
    heard: list[hub.WorkerMessage] = []

    async def test() -> None:
        first = asyncio.Event()
        owner = ReportBuffers(session, first.set)
        buffer = owner.buffer("a")
        buffer.put_progress(0.1, "")
        await first.wait()
        heard.extend(said(session))
        first.clear()
        for number in range(1000):
            buffer.put_progress(number / 1000, "")
            buffer.put_log("INFO", str(number), 0)
            await asyncio.sleep(0)
        heard.extend(said(session))
        assert not first.is_set()
        # As at the end of an attempt: what waits goes ahead of its result.
        buffer.flush_into(session)

    asyncio.run(test())
    assert [message.progress.fraction for message in heard if message.HasField("progress")] == [0.1]
    rest = said(session)
    assert sum(message.HasField("log") for message in rest) == 1000
    assert [message.progress.fraction for message in rest if message.HasField("progress")] == [0.999]


def test_every_report_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "REPORT_INTERVAL_S", 0.0)
    session = attached()
    receive(session, assign("a"), assign("b"))

    async def test() -> list[str]:
        heard = asyncio.Event()
        owner = ReportBuffers(session, heard.set)
        buffers = {"a": owner.buffer("a"), "b": owner.buffer("b")}
        lines: list[str] = []
        for token in ("a", "a", "b", "a"):
            buffers[token].put_log("INFO", f"{token}{len(lines)}", 0)
            await heard.wait()
            heard.clear()
            lines += [message.log.message for message in said(session) if message.HasField("log")]
        return lines

    async def bounded() -> list[str]:
        async with asyncio.timeout(HANG_S):
            return await test()

    assert asyncio.run(bounded()) == ["a0", "a1", "b2", "a3"]


def test_flood_of_log_lines_keeps_the_last_and_says_how_many_were_dropped() -> None:
    buffer = ReportBuffer("a", IdleRoom())
    for number in range(1500):
        buffer.put_log("INFO", str(number), 1_000_000_000)
    lines = log_lines(buffer)
    # The session drops one for the line that says so.
    assert [line.message for line in lines[-999:]] == [str(number) for number in range(501, 1500)]
    buffer.put_log("INFO", "one", 0)
    assert [line.message for line in log_lines(buffer)] == ["one"]


def test_large_log_lines_are_bounded_in_bytes() -> None:
    buffer = ReportBuffer("a", IdleRoom())
    for _ in range(100):
        buffer.put_log("INFO", "x" * 8192, 1_000_000_000)
    lines = log_lines(buffer)
    assert lines[0].level == log_pb2.LOG_LEVEL_WARNING
    assert lines[0].message == "68 log lines were dropped here: they came faster than they can be sent"
    assert len(lines) == 33
