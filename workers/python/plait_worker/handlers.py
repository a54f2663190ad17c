"""The functions that do the work of nodes, and how one is called."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Never, TypeAlias, TypeVar, cast

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.context import Context
from plait_worker.failures import FailureReport, NodeFailure, report_of
from plait_worker.values import JSONValue, OversizeValue, UnfitValue, decode_value, encode_value

HandlerFunction: TypeAlias = Callable[[Context, Never], object]
"""Takes the context and the input, whichever type it declares for that; returns a JSON value, or is async."""

HandlerT = TypeVar("HandlerT", bound=HandlerFunction)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """What a worker does for nodes of one type."""

    type: str
    """The node type."""
    function: HandlerFunction
    """Does the work."""
    max_concurrency: int
    """How many attempts it runs at once; 0: bounded by the worker's slots alone."""

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function; others run in threads."""
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(
            getattr(self.function, "__call__", None)  # noqa: B004 - not whether it can be called, but how.
        )

    async def call(self, context: Context, input_json: str | None, bytes_max: int) -> str | FailureReport:
        """Run a coroutine function; return its result as JSON text, or its failure.

        Raises:
            asyncio.CancelledError: if it was cancelled, or raised that.
            GeneratorExit: if the coroutine is thrown away with its event loop.
        """
        function = cast("Callable[[Context, JSONValue], Awaitable[object]]", self.function)
        try:
            return self._encode(await function(context, _decode(input_json)), bytes_max)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # The boundary to foreign code: a failure is data.
            if isinstance(error, GeneratorExit) and not _is_in_task():
                raise
            return report_of(error)

    def call_in_thread(
        self, context: Context, input_json: str | None, bytes_max: int
    ) -> str | FailureReport | asyncio.CancelledError:
        """Run a plain function, as `call` does.

        Returns:
            As `call`; a cancellation is returned, since a future cannot carry it to who awaits it.
        """
        function = cast("Callable[[Context, JSONValue], object]", self.function)
        try:
            return self._encode(function(context, _decode(input_json)), bytes_max)
        except asyncio.CancelledError as error:
            return error
        except BaseException as error:  # noqa: BLE001 - as in `call`.
            return report_of(error)

    def _encode(self, value: object, bytes_max: int) -> str | FailureReport:
        try:
            return encode_value(value, bytes_max)
        except UnfitValue as problem:
            if inspect.iscoroutine(value):
                # It will not be awaited, and should not warn of that when it is collected.
                value.close()
            message = f"the handler of {self.type} returned what cannot be a result: {problem}"
            if isinstance(problem, OversizeValue):
                return FailureReport(
                    code="TOO_LARGE", message=message, result_problem=hub.RESULT_PROBLEM_TOO_LARGE
                )
            return FailureReport(
                code="INVALID_RESULT", message=message, result_problem=hub.RESULT_PROBLEM_NOT_JSON
            )


def _is_in_task() -> bool:
    """Whether an event loop runs this code: not so when a coroutine is closed because its loop is gone."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _decode(input_json: str | None) -> JSONValue:
    if input_json is None:
        return None
    try:
        return decode_value(input_json)
    except ValueError as error:
        raise NodeFailure("INVALID_INPUT", f"the input cannot be read: {error}", retryable=False) from error
