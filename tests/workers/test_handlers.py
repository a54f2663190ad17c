"""Tests of how handlers are told apart and called, and of their threads."""

import asyncio
import functools
import threading
import types
from collections.abc import Generator
from concurrent.futures import Future

import pytest

from plait_worker import Context
from plait_worker.failures import FailureReport
from plait_worker.handlers import Handler, HandlerFunction
from plait_worker.threads import DaemonThreads
from tests.workers.contexts import make_context


async def coroutine(context: Context, input: object) -> object:
    return input


def plain(context: Context, input: object) -> object:
    return input


class AsyncCallable:
    async def __call__(self, context: Context, input: object) -> object:
        return input


def handler(function: HandlerFunction) -> Handler:
    return Handler(type="t", function=function, max_concurrency=0)


@pytest.mark.parametrize(
    ("function", "is_async"),
    [(coroutine, True), (plain, False), (AsyncCallable(), True), (functools.partial(coroutine), True)],
    ids=["coroutine", "plain", "callable", "partial"],
)
def test_coroutine_functions_are_told_from_plain_ones(function: HandlerFunction, is_async: bool) -> None:
    assert handler(function).is_async is is_async


def test_input_that_cannot_be_read_fails_the_attempt() -> None:
    outcome = handler(plain).call_in_thread(make_context(), "1" * 5000, 100)
    assert isinstance(outcome, FailureReport)
    assert (outcome.code, outcome.retryable) == ("INVALID_INPUT", False)


def test_absent_input_is_none() -> None:
    assert asyncio.run(handler(coroutine).call(make_context(), None, 100)) == "null"


def test_coroutine_that_a_plain_function_returns_is_no_result() -> None:
    def forgot_async(context: Context, input: object) -> object:
        return coroutine(context, input)

    outcome = handler(forgot_async).call_in_thread(make_context(), "1", 100)
    assert isinstance(outcome, FailureReport)
    assert outcome.code == "INVALID_RESULT"
    assert "async def" in outcome.message


class OfItsOwn(BaseException):
    """As trio.Cancelled and others are: no `Exception`."""


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), OfItsOwn("x")], ids=repr
)
def test_what_is_no_exception_fails_the_attempt(error: BaseException, is_async: bool) -> None:
    def plain_stop(context: Context, input: object) -> None:
        raise error

    async def coroutine_stop(context: Context, input: object) -> None:
        await asyncio.sleep(0)
        raise error

    outcome = (
        asyncio.run(handler(coroutine_stop).call(make_context(), "1", 100))
        if is_async
        else handler(plain_stop).call_in_thread(make_context(), "1", 100)
    )
    assert isinstance(outcome, FailureReport)
    assert outcome.code == "UNKNOWN"
    assert type(error).__name__ in outcome.message
    assert "a handler ends its attempt, not its worker" in outcome.message


def test_coroutine_that_is_thrown_away_with_its_loop_ends() -> None:
    @types.coroutine
    def wait_for_ever() -> Generator[None, None, None]:
        yield

    async def wait(context: Context, input: object) -> None:
        await wait_for_ever()

    call = handler(wait).call(make_context(), "1", 100)
    call.send(None)
    with pytest.raises(GeneratorExit):
        call.throw(GeneratorExit)


def test_stop_iteration_of_a_plain_function_is_a_failure() -> None:
    """A future cannot carry it: the attempt would hang."""

    def stop(context: Context, input: object) -> None:
        next(iter(()))

    outcome = handler(stop).call_in_thread(make_context(), "1", 100)
    assert isinstance(outcome, FailureReport)
    assert outcome.message == "StopIteration"


# Threads.


def test_threads_are_daemons_kept_and_bounded() -> None:
    threads = DaemonThreads(2)
    barrier = threading.Barrier(2)

    def meet() -> tuple[str, bool]:
        barrier.wait()
        current = threading.current_thread()
        return current.name, current.daemon

    names: set[str] = set()
    for _ in range(3):
        pair: list[Future[tuple[str, bool]]] = [threads.submit(meet) for _ in range(2)]
        for future in pair:
            name, is_daemon = future.result()
            names.add(name)
            assert is_daemon
    assert len(names) == 2
    threads.shutdown()


def test_thread_that_has_nothing_to_do_takes_what_comes_next() -> None:
    threads = DaemonThreads(1000)
    names = {threads.submit(lambda: threading.current_thread().name).result() for _ in range(100)}
    # Not one alone: a thread is free a moment after its result is there.
    assert len(names) < 50
    threads.shutdown()


def test_exception_in_a_thread_is_the_futures() -> None:
    threads = DaemonThreads(1)
    error = ValueError("no")

    def fail() -> None:
        raise error

    assert threads.submit(fail).exception() is error
    assert threads.submit(lambda: 1).result() == 1
    threads.shutdown()
