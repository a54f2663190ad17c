"""Tests of the watch over the event loop."""

import asyncio
import logging
import threading

import pytest

from plait_worker import watchdog
from plait_worker.event_loop import run_in_loop


def test_blocked_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_S", 0.0)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.0)
    told = threading.Event()
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            told.set()

    async def block() -> None:
        told.wait()

    listener = Listener()
    watchdog.logger.addHandler(listener)
    try:
        run_in_loop(block())
    finally:
        watchdog.logger.removeHandler(listener)
    assert messages[0].startswith("the event loop is blocked ")
    assert "a handler that blocks is declared with def, not async def" in messages[0]


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
