"""The server's session and the SDK's, end to end: what one says the other understands."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.commands import Disposition
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_worker.session import WorkerSession
from plait_worker.session_events import (
    Assigned,
    CancelRequested,
    ProtocolError,
    Recorded,
    RecordedResult,
    SessionEvent,
    Welcomed,
)
from tests.adapters.workers_streams import Hub, a_hub


class SessionDriver:
    """Drives the SDK's session over streams in memory."""

    def __init__(self, hub: Hub, *, slots: int = 4) -> None:
        self._hub = hub
        self.session = WorkerSession(worker_id="w", instance_id="w.1", types={"t": 0}, slots=slots)
        self.events: list[SessionEvent] = []
        self.flow = trio.Event()
        """While it is not set, nothing of the server's arrives."""
        self.flow.set()
        self._wake = trio.Event()
        self._scope = trio.CancelScope()

    def of(self, kind: type[SessionEvent]) -> list[SessionEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def attach(self) -> None:
        self.session.connected()
        self._scope = trio.CancelScope()
        self._hub.nursery.start_soon(self._serve, self._scope)
        await wait_all_tasks_blocked()

    async def cut(self) -> None:
        self._scope.cancel()
        self.session.disconnected()
        await wait_all_tasks_blocked()

    async def do(self) -> None:
        """Let what was queued go out, and wait for what it led to."""
        self._wake.set()
        await wait_all_tasks_blocked()

    async def _serve(self, scope: trio.CancelScope) -> None:
        with scope:
            await self._hub.workers.attach(self._next_frame, self._take_frame, lambda _: None)

    async def _next_frame(self) -> bytes:
        while (frame := self.session.take_frame()) is None:
            self._wake = trio.Event()
            await self._wake.wait()
        return frame.SerializeToString()

    async def _take_frame(self, frame: pb.AttachResponse) -> None:
        await self.flow.wait()
        self.events += self.session.receive(pb.AttachResponse.FromString(frame.SerializeToString()))
        assert not self.of(ProtocolError)
        self._wake.set()
        await trio.lowlevel.checkpoint()


async def test_an_attempt_from_its_assign_to_recorded(autojump_clock: MockClock) -> None:
    """A4."""
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        assert len(worker.of(Welcomed)) == 1
        attempt = hub.execute(input_json='{"n":1}')
        await wait_all_tasks_blocked()
        (assigned,) = worker.of(Assigned)
        assert isinstance(assigned, Assigned)
        assert (assigned.node_path, assigned.input_json) == ("a", '{"n":1}')
        worker.session.usage(assigned.token, "tokens", "0.5")
        worker.session.complete(assigned.token, "2")
        await worker.do()
        assert attempt.result is not None
        assert attempt.result.output == Payload("2")
        assert attempt.result.usage == {"tokens": "0.5"}
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert worker.of(Recorded) == [Recorded(token=assigned.token, result=RecordedResult.RECORDED)]
        assert worker.session.is_idle


async def test_pings_keep_the_lease_for_ever(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        attempt = hub.execute()
        await trio.sleep(10_000)
        assert attempt.result is None
        assert hub.capacity.slots == {"w.1": 4}


async def test_a_cancel_is_answered_in_full(autojump_clock: MockClock) -> None:
    """C1."""
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop("RACE_LOST")
        await wait_all_tasks_blocked()
        (asked,) = worker.of(CancelRequested)
        assert isinstance(asked, CancelRequested)
        assert (asked.reason, asked.grace_s) == ("RACE_LOST", 10)
        worker.session.exited(asked.token)
        await worker.do()
        assert attempt.stages == [CancelStage.DELIVERED, CancelStage.ACKNOWLEDGED, CancelStage.EXITED]
        assert worker.session.is_idle


async def test_over_a_cut_stream_everything_finds_its_end(autojump_clock: MockClock) -> None:
    """T2, A4: one runs on, one has a result, one never arrived, one is cancelled meanwhile."""
    async with a_hub() as hub:
        worker = SessionDriver(hub, slots=10)
        await worker.attach()
        running, finished, stopped = hub.execute("running"), hub.execute("finished"), hub.execute("stopped")
        await wait_all_tasks_blocked()
        await worker.cut()
        lacking = hub.execute("lacking")
        stopped.stop()
        worker.session.complete(finished.token, "1")
        await trio.sleep(5)
        await worker.attach()
        assigned = [event.token for event in worker.of(Assigned) if isinstance(event, Assigned)]
        assert assigned.count(lacking.token) == 1
        assert len(assigned) == len(set(assigned)) == 4
        assert finished.result is not None
        asked = [event.token for event in worker.of(CancelRequested) if isinstance(event, CancelRequested)]
        assert asked == [stopped.token]
        worker.session.exited(stopped.token)
        worker.session.complete(running.token, "1")
        worker.session.fail(lacking.token, "ABORTED", "again")
        await worker.do()
        assert stopped.stages[-1] is CancelStage.EXITED
        assert running.result is not None
        assert running.result.outcome is AttemptOutcome.SUCCEEDED
        assert lacking.result is not None
        assert lacking.result.outcome is AttemptOutcome.FAILED
        for attempt in (running, finished, lacking):
            hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert worker.session.is_idle


async def test_a_drain_ends_with_an_idle_session(autojump_clock: MockClock) -> None:
    """T3: what runs finishes or is RETURNED, and what comes anyway is turned away without spinning."""
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        one, two = hub.execute("one"), hub.execute("two")
        await wait_all_tasks_blocked()
        worker.session.drain()
        worker.session.hand_back(two.token, "DRAINING", "later")
        late = hub.execute("late")
        await worker.do()
        worker.session.complete(one.token, "1")
        await worker.do()
        hub.workers.acknowledge(one.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        outcomes = [each.result and each.result.outcome for each in (one, two, late)]
        assert outcomes == [AttemptOutcome.SUCCEEDED, AttemptOutcome.RETURNED, AttemptOutcome.RETURNED]
        assert hub.capacity.slots == {"w.1": 0}
        assert worker.session.is_idle


async def test_a_stale_result_is_dropped_by_the_worker(autojump_clock: MockClock) -> None:
    """FAILURES 19."""
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await worker.cut()
        await trio.sleep(60)
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.LOST
        worker.session.complete(attempt.token, "1")
        await worker.attach()
        hub.workers.acknowledge(attempt.key, Disposition.STALE, "w")
        await wait_all_tasks_blocked()
        assert worker.of(Recorded) == [Recorded(token=attempt.token, result=RecordedResult.STALE)]
        assert worker.session.is_idle


async def test_an_attempt_that_was_cancelled_before_it_was_sent_starts_no_handler(
    autojump_clock: MockClock,
) -> None:
    """C1: after EXITED nothing of the attempt runs, however much stood before it in the stream."""
    async with a_hub() as hub:
        worker = SessionDriver(hub)
        await worker.attach()
        worker.flow = trio.Event()
        hub.execute("in the transport")
        await wait_all_tasks_blocked()
        attempt = hub.execute("b")
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        worker.flow.set()
        await wait_all_tasks_blocked()
        assert attempt.stages == [CancelStage.EXITED]
        assert attempt.token not in worker.session.running
        assert len(worker.of(Assigned)) == 1
