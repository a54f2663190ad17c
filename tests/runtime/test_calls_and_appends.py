"""Calls of clients and the appends that answer them: each is answered once, and loses nothing on the way."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import Disposition, Receipt
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState
from plait_server.errors import RequestIdReused
from plait_server.ports.journal import AppendItem, EpochConflict, RequestConflict, RequestRecord
from plait_server.ports.workers import AttemptKey
from plait_server.runtime import controls
from plait_server.runtime.exits import ExecutionDropped
from tests.runtime.world import NAMESPACE, hangs, result_of, running

LONG = '"' + "x" * 100_000 + '"'


def cancel_request(request_id: str, fingerprint: bytes = b"1") -> RequestRecord:
    return RequestRecord(
        method="CancelExecution", request_id=request_id, fingerprint=fingerprint, execution_id="x"
    )


def refuse_request(item: AppendItem) -> RequestConflict | None:
    """Refuse an append that carries a request id, as one that was recorded meanwhile."""
    return RequestConflict(record=cancel_request("r")) if item.request is not None else None


async def test_request_ids_of_one_instant_are_all_recorded(autojump_clock: MockClock) -> None:
    """K3: an append carries one; the others follow in appends of their own."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                request = cancel_request(f"r{number}")
                nursery.start_soon(partial(runtime.cancel, request=request))
        await runtime.wait_ended()
        for number in range(3):
            await runtime.cancel(request=cancel_request(f"r{number}"))
            with pytest.raises(RequestIdReused):
                await runtime.cancel(request=cancel_request(f"r{number}", b"2"))


async def test_a_refused_request_id_loses_nothing_of_its_step(autojump_clock: MockClock) -> None:
    """K3, T6: what a late result left for the audit and the store is appended without it."""
    async with running(scripts={"a": hangs, "b": hangs}) as runtime:
        runtime.workers.exit_s = {"b": 8}
        await runtime.submit("a, b -> c")
        await trio.sleep(1)
        await runtime.cancel()
        await trio.sleep(1)
        executor = (await runtime.supervisor.view(NAMESPACE, "x")).executor
        assert executor is not None
        runtime.gate.breaks += [refuse_request, refuse_request]
        # In one instant with the call, which decides nothing, for the execution is being cancelled.
        late = result_of(AttemptKey(NAMESPACE, "x", 1, "a", 1), output_json=LONG, worker_id="w")
        executor.post_result(late)
        with trio.fail_after(5), pytest.raises(ExecutionDropped):
            await executor.call(controls.cancel("again"), cancel_request("r"))
        await wait_all_tasks_blocked()
        assert ("STALE_RESULT", "a", 1) in runtime.audit()
        assert LONG.encode() in runtime.store.contents.values()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED


async def test_a_refused_request_id_drops_no_events_of_its_instant(autojump_clock: MockClock) -> None:
    """A4: a result that comes beside a call that is refused is taken, and its worker is told."""
    async with running(scripts={"a": hangs, "b": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 8, "b": 8}
        await runtime.submit("a, b -> c")
        await trio.sleep(1)
        await runtime.cancel()
        await trio.sleep(1)
        executor = (await runtime.supervisor.view(NAMESPACE, "x")).executor
        assert executor is not None
        runtime.gate.breaks += [refuse_request, refuse_request]
        executor.post(Receipt("b", 1, CancelStage.EXITED, "w"))
        late = result_of(AttemptKey(NAMESPACE, "x", 1, "a", 1), output_json="1", worker_id="w")
        executor.post_result(late)
        with trio.fail_after(5), pytest.raises(ExecutionDropped):
            await executor.call(controls.cancel("again"), cancel_request("r"))
        await wait_all_tasks_blocked()
        assert ("a", 1, Disposition.STALE) in runtime.workers.told
        assert (await runtime.supervisor.view(NAMESPACE, "x")).executor is executor


async def test_calls_behind_a_refused_append_are_made_again(autojump_clock: MockClock) -> None:
    """Callers that wait are answered, even if the execution was dropped and read again meanwhile."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.breaks.append(lambda _: EpochConflict(owner_epoch=1))
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    request = cancel_request(f"r{number}")
                    nursery.start_soon(partial(runtime.cancel, request=request))
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert runtime.names().count("CancelRequested") == 1


async def test_a_submission_whose_caller_left_is_started(autojump_clock: MockClock) -> None:
    """An execution that is in the journal runs, even if its caller has gone."""
    async with running() as runtime:
        runtime.gate.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(runtime.submit, "a -> b")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            runtime.gate.open()
        with trio.fail_after(60):
            execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED


async def test_an_attempt_whose_time_ran_out_meanwhile_is_given_no_more(autojump_clock: MockClock) -> None:
    """T4: to a worker 0 s left would mean that there is no bound."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("node a attempt_timeout=5; a -> b")
        await trio.sleep(4)
        runtime.crash()
    await trio.sleep(60)
    async with running(runtime.store, scripts={"a": hangs}, seams=runtime.seams) as again:
        execution = await again.wait_ended()
        assert execution.record("a").attempts[0].outcome is AttemptOutcome.TIMED_OUT
        (assignment,) = again.workers.assigned
        assert 0 < assignment.time_left_s < 0.01


async def test_a_report_that_comes_when_the_server_stops_is_left(autojump_clock: MockClock) -> None:
    """The worker keeps it, and sends it to the next server; a stream must not end by it."""
    async with running() as runtime:
        await runtime.submit("a -> b")
    key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
    runtime.supervisor.deliver(key, result_of(key, worker_id="w"))
    assert runtime.workers.told == []
