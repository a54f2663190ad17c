"""The span exporter in virtual time: bounds, retries, and what it says."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.ports.span_sender import SendFailed, Sent
from plait_server.telemetry.span_exporter import (
    GIVE_UP_S,
    PAUSE_MAX_S,
    QUIET_S,
    REQUESTS_MAX,
    SpanExporter,
)
from tests.telemetry.scripted_sender import AWAY, REFUSED, ScriptedSender, fails, never_answers, says, takes


def exporter(
    sender: ScriptedSender, *, spans_max: int = 100, bytes_max: int = 10_000, timeout_s: float = 10.0
) -> SpanExporter:
    return SpanExporter(sender, lambda: 1.0, spans_max=spans_max, bytes_max=bytes_max, timeout_s=timeout_s)


@asynccontextmanager
async def running(made: SpanExporter) -> AsyncGenerator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        yield
        nursery.cancel_scope.cancel()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_batches_go_out_in_the_order_in_which_they_were_put(autojump_clock: MockClock) -> None:
    sender = ScriptedSender()
    made = exporter(sender)
    async with running(made):
        for request in (b"one", b"two", b"three"):
            made.put_nowait(request, 2)
        await made.flush(1)
    assert [request for _, request in sender.asked] == [b"one", b"two", b"three"]
    done = made.statistics()
    assert (done.sent, done.dropped, done.rejected, done.queued, done.queued_bytes) == (6, 0, 0, 0, 0)
    assert sender.is_closed


async def test_few_requests_are_in_flight_at_once(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(never_answers)
    made = exporter(sender)
    async with running(made):
        for _ in range(50):
            made.put_nowait(b"", 1)
        await wait_all_tasks_blocked()
        assert sender.under_way_max == REQUESTS_MAX


@pytest.mark.parametrize(("request_bytes", "kept"), [(1, 50), (1_000, 10)], ids=["spans", "bytes"])
async def test_batch_without_room_is_dropped_and_counted(
    autojump_clock: MockClock, request_bytes: int, kept: int
) -> None:
    """Batches that are being sent count as queued."""
    made = exporter(ScriptedSender(never_answers))
    async with running(made):
        for _ in range(60):
            made.put_nowait(b"x" * request_bytes, 2)
            await wait_all_tasks_blocked()
        done = made.statistics()
        assert (done.queued, done.queued_bytes) == (2 * kept, kept * request_bytes)
        assert done.dropped == 2 * (60 - kept)


async def test_room_is_waited_for_until_half_of_it_is_free(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(never_answers)
    made = exporter(sender, timeout_s=1)
    await made.wait_room()
    async with running(made):
        for _ in range(10):
            made.put_nowait(b"", 10)
        await wait_all_tasks_blocked()
        with trio.move_on_after(5) as waited:
            await made.wait_room()
        assert waited.cancelled_caught
        sender.answer = takes
        await made.wait_room()
        assert made.statistics().queued <= 50


async def test_pauses_double_up_to_the_longest(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(AWAY))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(18.5)
    assert sender.times == pytest.approx([0, 1, 3, 7, 12, 17])


async def test_jitter_takes_at_most_half_of_a_pause(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(AWAY))
    made = SpanExporter(sender, lambda: 0.0)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(3)
    assert sender.times == pytest.approx([0, 0.5, 1.5])


async def test_pauses_begin_anew_after_a_success(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(AWAY))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(6.5)
        sender.answer = takes
        await trio.sleep(1)  # The fourth request succeeds at 7 s.
        sender.answer = fails(AWAY)
        for _ in range(REQUESTS_MAX):  # Each of the tasks gets one.
            made.put_nowait(b"", 1)
        await trio.sleep(1.1)
    assert sender.times[:4] == pytest.approx([0, 1, 3, 7])
    assert sender.times[4:] == pytest.approx([7.5] * REQUESTS_MAX + [8.5] * REQUESTS_MAX)


async def test_pause_is_as_long_as_the_collector_asks_for(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(SendFailed("429", is_retryable=True, retry_after_s=30)))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(61)
    assert sender.times == pytest.approx([0, 30, 60])


async def test_pause_that_a_collector_asks_for_is_bounded(
    autojump_clock: MockClock,
) -> None:
    """Its batch is given up; the next one is sent after GIVE_UP_S."""
    sender = ScriptedSender(fails(SendFailed("429", is_retryable=True, retry_after_s=1e9)))
    made = exporter(sender)
    async with running(made):
        for _ in range(REQUESTS_MAX + 1):
            made.put_nowait(b"", 1)
        await wait_all_tasks_blocked()
        assert made.statistics().dropped == REQUESTS_MAX
        await trio.sleep(GIVE_UP_S + 1)
    assert sender.times == pytest.approx([0] * REQUESTS_MAX + [GIVE_UP_S])


async def test_a_batch_is_given_up_after_a_bounded_time(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(AWAY))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"x", 7)
        await trio.sleep(GIVE_UP_S - 2 * PAUSE_MAX_S)
        assert (made.statistics().queued, made.statistics().dropped) == (7, 0)
        await trio.sleep(3 * PAUSE_MAX_S)
        assert (made.statistics().queued, made.statistics().dropped) == (0, 7)
        assert sender.times[-1] < GIVE_UP_S


async def test_waiting_for_room_ends_though_the_collector_is_away(autojump_clock: MockClock) -> None:
    """Waiting for room ends when batches are given up, even if the collector stays away."""
    made = exporter(ScriptedSender(fails(AWAY)))
    async with running(made):
        for _ in range(100):
            made.put_nowait(b"", 1)
        await made.wait_room()
        assert trio.current_time() < GIVE_UP_S + 50 / REQUESTS_MAX * PAUSE_MAX_S


async def test_a_batch_that_waited_for_long_is_tried_once(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(never_answers)
    made = exporter(sender, timeout_s=GIVE_UP_S + 1)
    async with running(made):
        for number in range(REQUESTS_MAX + 1):
            made.put_nowait(b"%d" % number, 1)
        await trio.sleep(GIVE_UP_S)
        sender.answer = takes
        await trio.sleep(10)
    assert [request for _, request in sender.asked][REQUESTS_MAX:] == [b"%d" % REQUESTS_MAX]
    assert (made.statistics().sent, made.statistics().dropped) == (1, REQUESTS_MAX)


async def test_refused_batch_is_not_retried_and_the_next_one_waits(autojump_clock: MockClock) -> None:
    """A collector that refuses everything gets requests at a bounded rate."""
    sender = ScriptedSender(fails(REFUSED))
    made = exporter(sender)
    async with running(made):
        for number in range(10):
            made.put_nowait(b"%d" % number, 1)
        await trio.sleep(0.5)
        assert len(sender.asked) == made.statistics().dropped == REQUESTS_MAX
        await trio.sleep(60)
        assert made.statistics().dropped == 10
    assert sorted(request for _, request in sender.asked) == [b"%d" % number for number in range(10)]


async def test_request_that_is_never_answered_times_out_and_is_retried(
    autojump_clock: MockClock,
) -> None:
    sender = ScriptedSender(never_answers)
    made = exporter(sender, timeout_s=2)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(4.5)
        assert sender.times == pytest.approx([0, 3])
        sender.answer = takes
        await trio.sleep(3)
        assert made.statistics().sent == 1


async def test_bug_of_a_sender_costs_only_the_batch(autojump_clock: MockClock) -> None:
    sender = ScriptedSender(fails(RuntimeError("a bug")))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"", 1)
        await trio.sleep(1)
        sender.answer = takes
        made.put_nowait(b"", 1)
        await trio.sleep(1)
        assert (made.statistics().dropped, made.statistics().sent) == (1, 1)


@pytest.mark.parametrize(("said", "rejected"), [(3, 3), (1_000_000, 10), (-5, 0)])
async def test_rejected_spans_are_counted_whatever_the_collector_says(
    autojump_clock: MockClock, said: int, rejected: int
) -> None:
    made = exporter(ScriptedSender(says(Sent(rejected=said, message="too old"))))
    async with running(made):
        made.put_nowait(b"", 10)
        await made.flush(1)
        assert (made.statistics().rejected, made.statistics().sent) == (rejected, 10 - rejected)


# The graceful end.


async def test_a_flush_sends_what_is_queued(autojump_clock: MockClock) -> None:
    async def slowly(_: bytes) -> Sent:
        await trio.sleep(1)
        return Sent()

    made = exporter(ScriptedSender(slowly))
    async with running(made):
        for _ in range(2 * REQUESTS_MAX):
            made.put_nowait(b"", 1)
        await made.flush(5)
        assert trio.current_time() == pytest.approx(2)
        assert made.statistics().sent == 2 * REQUESTS_MAX


async def test_a_flush_to_a_collector_that_is_away_ends_at_once(autojump_clock: MockClock) -> None:
    """Each batch is tried once more, those in a pause included."""
    sender = ScriptedSender(fails(AWAY))
    made = exporter(sender)
    async with running(made):
        for _ in range(20):
            made.put_nowait(b"", 1)
        await trio.sleep(3.5)
        before = len(sender.asked)
        await made.flush(60)
        assert trio.current_time() == pytest.approx(3.5)
        assert len(sender.asked) - before == 20
        assert made.statistics().dropped == 20


async def test_a_flush_to_a_collector_that_hangs_ends_in_time(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = exporter(ScriptedSender(never_answers))
    async with running(made):
        made.put_nowait(b"", 3)
        await made.flush(2)
        assert trio.current_time() == pytest.approx(2)
    assert lines(caplog) == [
        "3 spans were not sent before the end; 0 were dropped and 0 rejected since the start"
    ]


async def test_what_was_lost_is_told_at_the_end(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = exporter(ScriptedSender(fails(AWAY)))
    async with running(made):
        made.put_nowait(b"", 3)
        await trio.sleep(0.5)
        await made.flush(2)
    assert lines(caplog)[1:] == [
        "0 spans were not sent before the end; 3 were dropped and 0 rejected since the start"
    ]


# What it says.


async def test_trouble_is_logged_when_it_begins_and_when_it_is_over(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sender = ScriptedSender(fails(AWAY))
    made = exporter(sender)
    async with running(made):
        assert not made.statistics().is_failing
        for _ in range(110):
            made.put_nowait(b"", 1)
            await trio.sleep(0.1)
        assert lines(caplog) == [
            "spans do not reach the collector; executions are not affected, spans may be lost: the collector is away"
        ]
        assert made.statistics().is_failing
        sender.answer = takes
        await trio.sleep(QUIET_S - 1)
        assert made.statistics().is_failing
        await trio.sleep(PAUSE_MAX_S + 2)
        assert lines(caplog)[1:] == ["spans reach the collector again; 10 were dropped and 0 rejected"]
        assert not made.statistics().is_failing


async def test_trouble_that_comes_and_goes_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Every other batch is refused, for a minute."""
    sender = ScriptedSender()
    made = exporter(sender)
    async with running(made):
        for number in range(60):
            sender.answer = takes if number % 2 else fails(REFUSED)
            made.put_nowait(b"", 1)
            await trio.sleep(1)
        assert len(lines(caplog)) == 1
        await trio.sleep(2 * QUIET_S)
        made.put_nowait(b"", 1)
        await trio.sleep(1)
        assert lines(caplog)[1:] == ["spans reach the collector again; 30 were dropped and 0 rejected"]


async def test_a_full_queue_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def slowly(_: bytes) -> Sent:
        await trio.sleep(9)
        return Sent()

    made = exporter(ScriptedSender(slowly))
    async with running(made):
        for _ in range(200):
            made.put_nowait(b"x", 1)
            made.put_nowait(b"x", 1)
            await trio.sleep(0.5)
        assert lines(caplog) == [
            (
                "spans do not reach the collector; executions are not affected, spans may be lost:"
                " the queue is full: 100 spans, 100 bytes"
            )
        ]
        await trio.sleep(300)
        assert lines(caplog)[1:] == [
            f"spans reach the collector again; {made.statistics().dropped} were dropped and 0 rejected"
        ]


async def test_message_of_a_collector_is_logged_as_one_short_line(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    sender = ScriptedSender(fails(SendFailed("a\nb\x1b[2J" + "x" * 10_000, is_retryable=False)))
    made = exporter(sender)
    async with running(made):
        made.put_nowait(b"", 1)
        await wait_all_tasks_blocked()
    line, _ = lines(caplog)
    assert "a\\nb\\x1b[2J" in line
    assert len(line) < 1_000


async def test_a_warning_of_the_collector_is_logged_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """OTLP: a message without rejected spans is a warning."""
    made = exporter(ScriptedSender(says(Sent(message="use the other port"))))
    async with running(made):
        made.put_nowait(b"", 1)
        made.put_nowait(b"", 1)
        await made.flush(1)
        assert not made.statistics().is_failing
    assert lines(caplog) == ["the collector accepted the spans, with a warning: use the other port"]


def test_the_same_chance_gives_the_same_times() -> None:
    """The simulator depends on it."""

    async def times() -> list[float]:
        sender = ScriptedSender(fails(AWAY))
        chances = iter([0.1, 0.9, 0.4, 0.7] * 10)
        made = SpanExporter(sender, lambda: next(chances))
        async with running(made):
            for _ in range(3):
                made.put_nowait(b"", 1)
            await trio.sleep(20)
        return sender.times

    first = trio.run(times, clock=MockClock(autojump_threshold=0))
    assert first == trio.run(times, clock=MockClock(autojump_threshold=0))
