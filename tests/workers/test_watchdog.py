"""Tests of the watch over the event loop."""

import asyncio
import logging
import threading
from collections.abc import Generator

import pytest

from plait_worker import watchdog
from plait_worker.event_loop import run_in_loop
from plait_worker.logs import enter_attempt
from tests.workers.contexts import make_assigned


@pytest.fixture(autouse=True)
def ended_watches() -> Generator[None]:
    """No watch of one test speaks in the next."""
    yield
    for thread in threading.enumerate():
        if thread.name == "plait-watchdog":
            thread.join()


def test_blocked_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_S", 0.0)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.0)
    told = threading.Event()
    records: list[logging.LogRecord] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # The loop may be slow to begin, too.
            if hasattr(record, "execution"):
                records.append(record)
                told.set()

    async def block() -> None:
        task = asyncio.current_task()
        assert task is not None
        enter_attempt(task, "default", make_assigned())
        told.wait()

    listener = Listener()
    watchdog.logger.addHandler(listener)
    try:
        run_in_loop(block())
    finally:
        watchdog.logger.removeHandler(listener)
    message = records[0].getMessage()
    assert message.startswith("the event loop is blocked ")
    assert "a handler that blocks is declared with def, not async def" in message
    fields = vars(records[0])
    assert (fields["execution"], fields["node"], fields["attempt"]) == ("e", "n", 1)


def test_place_is_the_handlers_own() -> None:
    places: list[str] = []

    async def block() -> None:
        loop_thread = threading.get_ident()
        looker = threading.Thread(target=lambda: places.append(watchdog.place_of(loop_thread)))
        looker.start()
        looker.join()

    run_in_loop(block())
    (place,) = places
    # Not that of join, in Python's library.
    assert place.startswith(f"at {__file__}, line ")
    assert place.endswith("in block")


def test_loop_that_is_blocked_too_long_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_S", 0.0)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.0)
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    async def block() -> None:
        ended.wait()

    monkeypatch.setattr("os._exit", end)
    run_in_loop(block(), lambda: 0.0)
    assert codes[0] == watchdog.EXIT_BLOCKED


def test_loop_that_answers_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    run_in_loop(asyncio.sleep(0))
    assert caplog.records == []
