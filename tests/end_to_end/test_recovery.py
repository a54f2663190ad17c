"""Servers and workers that are killed: nothing acknowledged is lost or doubled (item 8 of the service's promises)."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest

from plait.v1 import event_pb2, execution_service_pb2, state_pb2, worker_hub_service_pb2
from tests.end_to_end.processes import Process, Server, Worker
from tests.end_to_end.service import CALL_S, Service, outcome, read_refusal, until
from tests.end_to_end.stage import Stage

Pb = execution_service_pb2
Hub = worker_hub_service_pb2
STAGED = "nodes: [{id: a, task: {type: staged}}]"
MIXED = """
    nodes:
      - {id: start, task: {type: echo}}
      - {id: one, task: {type: echo}}
      - {id: two, task: {type: thread.echo}}
      - {id: big, task: {type: large}, input: 40000}
      - {id: flaky, task: {type: fail}, input: 2, retry: {max_attempts: 3, initial_backoff: 50ms}}
      - {id: wait, delay: {duration: 20ms}}
      - {id: choose, condition: {expression: "execution.input % 2 == 0"}}
      - {id: even, task: {type: echo}}
      - {id: join, task: {type: measure}}
      - {id: end, transform: , input: {n: "{{ execution.input }}", bytes: "{{ nodes.join.output.bytes }}"}}
    edges:
      - {source: start, target: one}
      - {source: start, target: two}
      - {source: start, target: big}
      - {source: start, target: flaky}
      - {source: start, target: wait}
      - {source: start, target: choose}
      - {source: choose, handle: "true", target: even}
      - {source: one, target: join}
      - {source: two, target: join}
      - {source: big, target: join}
      - {source: flaky, target: join}
      - {source: wait, target: join}
      - {source: even, target: join}
      - {source: join, target: end}
    """


class Host:
    """A server that is killed and started again, on one store and one port."""

    def __init__(self, folder: Path, **config: object) -> None:
        self.folder = folder
        # On a busy machine no lease is to run out while a server starts.
        self._config = {"store": str(folder / "plait.db"), "ping_s": 60} | config
        self.server = Server(folder / "server.log", **self._config)
        self._config["listen"] = self.address = self.server.address

    def start(self) -> None:
        self.server = Server(self.folder / "server.log", **self._config)

    def kill(self) -> None:
        self.server.kill()

    def live(self, moment: str, events: int) -> None:
        """Run a server until it kills itself, before or after the commit of so many events."""
        config = self._config | {"dies": [moment, events]}
        process = Process(self.folder / "server.log", "tests.end_to_end.serve", json.dumps(config))
        code = process.popen.wait(CALL_S)
        process.kill()
        assert code == -signal.SIGKILL, process.stderr()

    def close(self) -> None:
        self.server.__exit__(None, None, None)


@pytest.fixture
def host(tmp_path: Path) -> Generator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


@pytest.fixture
def hand(host: Host, stage: Stage, tmp_path: Path) -> Generator[Worker]:
    """A worker that lives through the deaths of its server."""
    with Worker(tmp_path / "worker.log", host.address, stage.address) as worker:
        yield worker


@pytest.fixture
def client(host: Host, hand: Worker) -> Generator[Service]:
    with Service(host.address) as service:
        yield service


class Submitter(threading.Thread):
    """Submits executions one after the other, each until it is acknowledged."""

    def __init__(self, address: str, count: int) -> None:
        super().__init__()
        self._address = address
        self._count = count
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with Service(self._address) as service:
            for number in range(self._count):
                self.acknowledged.append(self._submit(service, number))

    def _submit(self, service: Service, number: int) -> str:
        while True:
            try:
                return service.submit(MIXED, number, request_id=f"request-{number}", wait_for_ready=True)
            except grpc.RpcError as error:
                if read_refusal(error).code is not grpc.StatusCode.UNAVAILABLE:
                    raise


def test_server_killed_at_its_commits_loses_and_doubles_nothing(host: Host, client: Service) -> None:
    """FAILURES 1, 2, 4, 5; A4: six kills while executions are submitted and run by a worker that stays alive.

    Each is at the commit of the n-th event of that life: before it, with everything decided and nothing durable, or
    after it, with everything durable and nobody told.
    """
    submitter = Submitter(host.address, 20)
    host.kill()
    submitter.start()
    for count in (1, 7, 100):
        host.live("before", count)
        host.live("after", count)
    host.start()
    submitter.join()

    listed = client.executions.ListExecutions(Pb.ListExecutionsRequest(page_size=1_000), wait_for_ready=True)
    assert sorted(each.execution_id for each in listed.executions) == sorted(submitter.acknowledged)
    for number, execution_id in enumerate(submitter.acknowledged):
        execution = client.wait(execution_id)
        assert outcome(execution) == "SUCCEEDED", execution
        assert client.value(execution.output)["n"] == number
        events = client.events(execution_id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        ends = Counter((e.node_path, e.attempt) for e in events if e.HasField("attempt_ended"))
        starts = Counter((e.node_path, e.attempt) for e in events if e.HasField("attempt_started"))
        assert ends == starts
        assert set(starts.values()) == {1}
        attempts = {path: node.attempt_count for path, node in client.nodes(execution_id).items()}
        # What ran went on: the worker lived, so nothing was lost, and nothing ran under a second number.
        expected = {"start": 1, "one": 1, "two": 1, "big": 1, "flaky": 2, "join": 1}
        expected |= {"wait": 0, "choose": 0, "even": 1 - number % 2, "end": 0}
        assert attempts == expected


def test_node_runs_on_while_the_server_is_away(host: Host, client: Service, stage: Stage) -> None:
    """A result that the worker held is taken; what still runs goes on under the same attempt."""
    execution_id = client.submit(
        """
        nodes:
          - {id: held, task: {type: staged}}
          - {id: runs, task: {type: staged}}
          - {id: next, task: {type: echo}}
        edges: [{source: held, target: next}, {source: runs, target: next}]
        """
    )
    actors = stage.take(execution_id, 2)
    host.kill()
    actors["held"].answer("result of the old life")
    actors["held"].wait_gone()
    host.start()
    client.wait_until(
        execution_id, lambda event: event.node_path == "held" and event.HasField("attempt_ended")
    )
    assert client.states(execution_id)["runs"] == "RUNNING"
    actors["runs"].answer("went on")
    execution = client.wait(execution_id)
    assert client.value(execution.output) == {"held": "result of the old life", "runs": "went on"}
    assert {node.attempt_count for node in client.nodes(execution_id).values()} == {1}
    assert stage.is_empty(execution_id), "a handler was started twice"


def test_cancel_goes_on_after_a_restart(host: Host, client: Service, stage: Stage) -> None:
    """C1: a worker that comes back is told again; the handler's end is its receipt."""
    execution_id = client.submit("nodes: [{id: a, task: {type: stubborn}}]")
    actor = stage.next(execution_id)
    client.cancel(execution_id, "enough")
    actor.wait_for("cancelled")
    host.kill()
    host.start()
    assert outcome(client.get(execution_id)) == "CANCELLING/enough"
    actor.answer("anyway")
    assert outcome(client.wait(execution_id)) == "CANCELLED/enough"
    stages = [e.cancel_receipt.stage for e in client.events(execution_id) if e.HasField("cancel_receipt")]
    assert stages[0] == event_pb2.CANCEL_STAGE_REQUESTED
    assert stages[-1] == event_pb2.CANCEL_STAGE_EXITED


def test_cancel_is_told_to_a_worker_that_was_away(host: Host, client: Service, stage: Stage) -> None:
    """C1: decided by a server without streams, before its worker is back."""
    execution_id = client.submit(STAGED)
    actor = stage.next(execution_id)
    host.kill()
    host.start()
    client.cancel(execution_id)
    actor.wait_for("cancelled")
    assert outcome(client.wait(execution_id)) == "CANCELLED"
    events = client.events(execution_id)
    assert events[-2].cancel_receipt.stage == event_pb2.CANCEL_STAGE_EXITED


def test_timers_go_on_after_a_restart(host: Host, client: Service, stage: Stage) -> None:
    """Delays, backoffs and timeouts are due when they were due."""
    execution_id = client.submit(
        """
        policy: {timeout: 1h}
        nodes:
          - {id: wait, delay: {duration: 1200ms}, input: waited}
          - {id: again, task: {type: staged}, retry: {max_attempts: 2, initial_backoff: 1ms}}
          - {id: slow, task: {type: staged}, timeouts: {attempt: 1500ms}, on_timeout: continue}
        """
    )
    actors = stage.take(execution_id, 2)
    far_id = client.submit("nodes: [{id: far, delay: {duration: 1h}}]")
    far = client.node(far_id, "far").due_time
    due = [event.node_waiting.due_time for event in client.events(execution_id) if event.node_path == "wait"]
    actors["again"].fail("UNAVAILABLE", retry_after_s=1.0)
    client.wait_until(execution_id, lambda event: event.node_state == state_pb2.NODE_STATE_BACKING_OFF)
    host.kill()
    host.start()
    assert client.node(far_id, "far").due_time == far
    stage.next(execution_id).answer("again")
    execution = client.wait(execution_id)
    assert client.value(execution.output) == {"wait": "waited", "again": "again", "slow": None}
    assert client.node(execution_id, "wait").end_time.ToNanoseconds() >= due[0].ToNanoseconds()
    actors["slow"].wait_for("cancelled")


def test_request_id_is_known_after_a_restart(host: Host, client: Service) -> None:
    """FAILURES 2, K3"""
    first = client.submit(MIXED, 1, request_id="once")
    host.kill()
    host.start()
    assert client.submit(MIXED, 1, request_id="once", wait_for_ready=True) == first
    assert outcome(client.wait(first)) == "SUCCEEDED"


def test_watcher_resumes_over_a_restart(host: Host, client: Service, stage: Stage) -> None:
    """FAILURES 39: a stream without a final frame was cut; what follows the last event received is not lost."""
    execution_id = client.submit(STAGED)
    actor = stage.next(execution_id)
    seen: list[int] = []
    frames = client.watch(execution_id)
    for frame in frames:
        seen += [event.sequence for event in frame.events.events]
        if frame.HasField("caught_up"):
            break
    host.kill()
    with pytest.raises(grpc.RpcError) as raised:
        next(frames)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    host.start()
    actor.answer()
    client.wait(execution_id)
    seen += [event.sequence for event in client.watch_events(execution_id, seen[-1])]
    assert seen == list(range(1, client.get(execution_id).last_sequence + 1))


def test_ended_executions_read_the_same_after_a_restart(host: Host, client: Service) -> None:
    """A1: live and replayed state are equal."""
    execution_id = client.run(MIXED, 4).execution_id
    before = client.get(execution_id), client.nodes(execution_id), client.events(execution_id)
    detail = [client.node(execution_id, path) for path in before[1]]
    host.kill()
    host.start()
    with Service(host.address) as again:
        assert (
            again.executions.GetExecution(
                Pb.GetExecutionRequest(execution_id=execution_id), wait_for_ready=True
            ).execution
            == before[0]
        )
        assert (again.nodes(execution_id), again.events(execution_id)) == before[1:]
        assert [again.node(execution_id, path) for path in before[1]] == detail


# Workers that die.


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server with short leases and little grace."""
    folder = tmp_path_factory.mktemp("impatient")
    config = {"store": str(folder / "plait.db"), "ping_s": 0.4, "grace_s": 0.2}
    with Server(folder / "server.log", **config) as server:
        yield server


def test_attempt_of_a_killed_worker_is_lost_after_its_lease(
    impatient: Server, stage: Stage, tmp_path: Path
) -> None:
    """T2, FAILURES 18: it is redone elsewhere without using up max_attempts."""
    log = tmp_path / "worker.log"
    with Service(impatient.address, "lease") as service:
        execution_id = service.submit(STAGED)
        with Worker(log, impatient.address, stage.address, worker_id="mortal", namespace="lease") as mortal:
            stage.next(execution_id)
            mortal.kill()
        # Its process ends a moment after the one that was killed.
        gone = [("mortal", Hub.WORKER_STATE_DETACHED)]
        until(lambda: [(each.worker_id, each.state) for each in service.workers()] == gone)
        with Worker(log, impatient.address, stage.address, worker_id="other", namespace="lease"):
            actor = stage.next(execution_id)
            assert (actor.attempt, actor.hello["worker"]) == (2, "other")
            actor.answer("done")
            assert outcome(service.wait(execution_id)) == "SUCCEEDED"
        first, second = service.node(execution_id, "a").attempts
        assert first.outcome == state_pb2.ATTEMPT_OUTCOME_LOST
        assert (first.worker_id, first.failure.code) == ("mortal", "WORKER_LOST")
        assert second.outcome == state_pb2.ATTEMPT_OUTCOME_SUCCEEDED


def test_handler_that_ignores_a_cancel_is_abandoned(impatient: Server, stage: Stage, tmp_path: Path) -> None:
    """C1: after the grace time, and only then, its slot is free again (Q1)."""
    with (
        Service(impatient.address, "grace") as service,
        Worker(tmp_path / "worker.log", impatient.address, stage.address, namespace="grace"),
    ):
        execution_id = service.submit("nodes: [{id: a, task: {type: stubborn}}]")
        actor = stage.next(execution_id)
        service.cancel(execution_id)
        actor.wait_for("cancelled")
        assert outcome(service.wait(execution_id)) == "CANCELLED"
        receipts = [
            e.cancel_receipt.stage for e in service.events(execution_id) if e.HasField("cancel_receipt")
        ]
        assert receipts == [
            event_pb2.CANCEL_STAGE_REQUESTED,
            event_pb2.CANCEL_STAGE_DELIVERED,
            event_pb2.CANCEL_STAGE_ACKNOWLEDGED,
            event_pb2.CANCEL_STAGE_ABANDONED,
        ]
        actor.answer("too late")
        assert service.wait(execution_id).last_sequence == len(service.events(execution_id))


def test_node_that_kills_every_worker_is_poison(service: Service, stage: Stage, tmp_path: Path) -> None:
    """T2, FAILURES 22: after max_lost_attempts redos it fails, and others go on. A worker that comes back without
    an attempt has lost it, however long its lease."""
    with Service(service.address, "poison") as client:
        execution_id = client.submit(
            """
            policy: {on_failure: continue}
            nodes:
              - {id: deadly, task: {type: die}, retry: {max_attempts: 1, max_lost_attempts: 2}}
              - {id: harmless, task: {type: staged}}
            """
        )
        # Each time it is another process of the worker, which starts those that die again.
        with Worker(tmp_path / "log", service.address, stage.address, namespace="poison"):
            client.wait_until(
                execution_id,
                lambda e: e.node_path == "deadly" and e.node_state == state_pb2.NODE_STATE_FAILED,
            )
            while (actor := stage.next(execution_id)).attempt < client.node(
                execution_id, "harmless"
            ).attempt_count:
                pass
            actor.answer("alive")
            execution = client.wait(execution_id)
        assert outcome(execution) == "PARTIALLY_SUCCEEDED/POISON"
        deadly = client.node(execution_id, "deadly")
        assert [each.outcome for each in deadly.attempts] == 3 * [state_pb2.ATTEMPT_OUTCOME_LOST]
        assert deadly.failure.code == "POISON"


def test_draining_worker_finishes_and_takes_nothing_new(
    service: Service, stage: Stage, tmp_path: Path
) -> None:
    """T3, FAILURES 26"""
    with Service(service.address, "drain") as client:
        with Worker(tmp_path / "log", service.address, stage.address, namespace="drain") as worker:
            first = client.submit(STAGED)
            actor = stage.next(first)
            worker.popen.terminate()
            until(lambda: [each.state for each in client.workers()] == [Hub.WORKER_STATE_DRAINING])
            second = client.submit(STAGED)
            assert client.states(second)["a"].startswith("QUEUED/")
            actor.answer("finished")
            assert worker.popen.wait(CALL_S) == 0
        assert outcome(client.wait(first)) == "SUCCEEDED"
        assert client.node(first, "a").attempt_count == 1
        assert client.workers() == []
        assert outcome(client.cancel(second)) == "CANCELLED"
