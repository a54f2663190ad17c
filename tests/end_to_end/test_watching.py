"""WatchExecution and ListEvents: every watcher gets everything once, in order, and harms nobody (A3)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence

import grpc
import pytest

from plait.v1 import event_pb2, execution_service_pb2, state_pb2
from tests.end_to_end.processes import Server, rss_bytes
from tests.end_to_end.service import CALL_S, Service, outcome, short
from tests.end_to_end.stage import Stage

Frame = execution_service_pb2.WatchExecutionResponse
MANY = 40
VARIED = """
    policy: {on_failure: continue}
    nodes:
      - {id: start, task: {type: echo}}
      - {id: flaky, task: {type: fail}, input: 2, retry: {max_attempts: 3, initial_backoff: 1ms}}
      - {id: bad, task: {type: raise}, input: x}
      - {id: behind, task: {type: echo}}
      - {id: choose, condition: {expression: "1 < 2"}}
      - {id: dead, task: {type: echo}}
      - {id: locked, task: {type: echo}, locked: true}
      - {id: wait, delay: {duration: 1ms}}
      - {id: slow, task: {type: echo}, timeouts: {attempt: 10s}}
    edges:
      - {source: start, target: flaky}
      - {source: bad, target: behind}
      - {source: choose, handle: "false", target: dead}
      - {source: start, target: wait}
    """


def events_of(frames: Iterable[Frame]) -> list[event_pb2.Event]:
    return [event for frame in frames for event in frame.events.events]


def fold(events: Iterable[event_pb2.Event]) -> tuple[str, dict[str, tuple[str, str, int]]]:
    """Fold events as a client does that knows five fields: state and reason of the execution and its nodes."""
    execution = ""
    nodes: dict[str, tuple[str, str, int]] = {}
    for event in events:
        if event.execution_state:
            execution = f"{short(state_pb2.ExecutionState, event.execution_state)} {event.reason}"
        if event.node_state:
            attempt = max(event.attempt, nodes.get(event.node_path, ("", "", 0))[2])
            state = short(state_pb2.NodeState, event.node_state)
            nodes[event.node_path] = state, event.reason, attempt
    return execution, nodes


@pytest.fixture(scope="module")
def ended(service: Service) -> str:
    """The id of an execution with events of many kinds, that has ended."""
    return service.run(VARIED).execution_id


def test_watch_of_an_ended_execution_gives_all_and_a_final_frame(service: Service, ended: str) -> None:
    frames = list(service.watch(ended))
    events = events_of(frames)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    last = len(events)
    assert frames[-1] == Frame(end=execution_service_pb2.WatchEnd(sequence=last, run=1))
    assert [frame.caught_up.sequence for frame in frames if frame.HasField("caught_up")] == [last]
    assert frames.index(Frame(caught_up=execution_service_pb2.CaughtUp(sequence=last))) == len(frames) - 2
    assert events == service.events(ended)


def test_watch_resumes_after_any_sequence(service: Service, ended: str) -> None:
    """Gap-free, nothing twice; with the end, if there is nothing else."""
    events = service.events(ended)
    for after in range(len(events) + 1):
        frames = list(service.watch(ended, after))
        assert events_of(frames) == events[after:]
        assert frames[-1].end.sequence == len(events)
    frames = list(service.watch(ended, -1))
    assert events_of(frames) == []
    assert frames[-1].end.sequence == len(events)


def test_folded_events_equal_the_nodes(service: Service, ended: str) -> None:
    """A client that folds state and reason by event sees what ListNodes and GetExecution show."""
    execution, nodes = fold(service.events(ended))
    shown = service.get(ended)
    assert execution == f"{short(state_pb2.ExecutionState, shown.state)} {shown.reason}"
    assert nodes == {
        path: (short(state_pb2.NodeState, node.state), node.reason, node.attempt_count)
        for path, node in service.nodes(ended).items()
        if node.state != state_pb2.NODE_STATE_IDLE
    }


def test_snapshot_stands_for_the_events_before_it(service: Service, stage: Stage) -> None:
    execution_id = service.submit(
        """
        nodes: [{id: a, task: {type: staged}}, {id: b, task: {type: staged}}, {id: c, task: {type: echo}}]
        edges: [{source: a, target: c}, {source: b, target: c}]
        """
    )
    actors = stage.take(execution_id, 2)
    actors["a"].answer(1)
    service.wait_until(execution_id, lambda event: event.type == event_pb2.EVENT_TYPE_ATTEMPT_ENDED)
    for after in (0, -1):
        frames = service.watch(execution_id, after, snapshot=True)
        first = next(frames)
        assert first.HasField("snapshot")
        assert first.snapshot.last
        assert outcome(first.snapshot.execution) == "RUNNING"
        states = [short(state_pb2.NodeState, node.state) for node in first.snapshot.nodes]
        assert states == ["SUCCEEDED", "RUNNING", "IDLE"]
        assert first.snapshot.sequence == first.snapshot.execution.last_sequence
        assert next(frames).caught_up.sequence == first.snapshot.sequence
        frames.cancel()
    frames = service.watch(execution_id, snapshot=True)
    sequence = next(frames).snapshot.sequence
    actors["b"].answer(2)
    later = events_of(frames)
    assert [event.sequence for event in later] == list(range(sequence + 1, sequence + 1 + len(later)))
    assert later == service.events(execution_id, sequence)


def test_snapshot_of_a_large_graph_comes_in_parts(alone: Service) -> None:
    """A frame has at most 1 MiB."""
    count = 20_000
    nodes = ",".join(f'{{"id":"{n:0100}","task":{{"type":"none"}}}}' for n in range(count))
    execution_id = alone.submit(f'{{"nodes":[{nodes}]}}')
    frames = alone.watch(execution_id, snapshot=True)
    paths: list[str] = []
    parts = 0
    for frame in frames:
        assert frame.ByteSize() <= 1024 * 1024
        parts += 1
        assert frame.snapshot.HasField("execution") == (parts == 1)
        paths += [node.path for node in frame.snapshot.nodes]
        if frame.snapshot.last:
            break
    assert paths == [f"{n:0100}" for n in range(count)]
    assert parts > 1
    frames.cancel()
    assert alone.cancel(execution_id).node_counts.cancelled == count


def test_watchers_from_anywhere_see_the_same(service: Service, stage: Stage) -> None:
    """A3: twelve watchers that begin at different times and places get equal bytes."""
    nodes = ", ".join(f"{{id: n{n}, task: {{type: staged}}}}" for n in range(MANY))
    execution_id = service.submit(f"nodes: [{nodes}]\npolicy: {{max_concurrency: 4}}")
    seen: dict[int, Sequence[event_pb2.Event]] = {}

    def watch(number: int, after: int) -> None:
        with Service(service.address) as other:
            seen[number] = events_of(other.watch(execution_id, after))

    threads: list[threading.Thread] = []
    for number in range(MANY):
        if number % 4 == 0:
            after = len(service.events(execution_id)) if number % 8 else 0
            threads.append(threading.Thread(target=watch, args=(number, after)))
            threads[-1].start()
        stage.next(execution_id).answer(number)
    service.wait(execution_id)
    for thread in threads:
        thread.join()
    events = service.events(execution_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len(seen) == MANY // 4
    for watched in seen.values():
        assert watched == events[len(events) - len(watched) :]
        assert watched


def test_watcher_that_never_reads_delays_nobody(server: Server, service: Service, stage: Stage) -> None:
    """FAILURES 38: 20 stalled watchers of 20 MB of events cost the server bounded memory, and others no time."""
    nodes = ",".join(
        json.dumps({"id": f"n{n}", "task": {"type": "large"}, "input": 30_000}) for n in range(700)
    )
    execution_id = service.submit(
        f'{{"nodes":[{{"id":"gate","task":{{"type":"staged"}}}},{nodes}],'
        f'"edges":[{",".join(json.dumps({"source": "gate", "target": f"n{n}"}) for n in range(700))}],'
        '"policy":{"max_concurrency":20},"output":"true"}'
    )
    gate = stage.next(execution_id)
    with Service(server.address) as other:
        stalled = [other.watch(execution_id) for _ in range(20)]
        for each in stalled:
            next(each)
        before = rss_bytes(server.pid)
        gate.answer()
        assert outcome(service.wait(execution_id)) == "SUCCEEDED"
        assert len(events_of(service.watch(execution_id))) == 2 * 701 + 3
        grown = rss_bytes(server.pid) - before
        for each in stalled:
            each.cancel()
    # The events are 21 MB; a queue of them for each stalled watcher would be 420 MB.
    assert grown < 150 * 1024 * 1024


def test_end_of_a_call_cancels_nothing(service: Service, stage: Stage) -> None:
    execution_id = service.submit("nodes: [{id: a, task: {type: staged}}]")
    actor = stage.next(execution_id)
    frames = service.watch(execution_id)
    next(frames)
    frames.cancel()
    with pytest.raises(grpc.RpcError) as raised:
        list(service.watch(execution_id, timeout=0.05))
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    actor.answer()
    assert outcome(service.wait(execution_id)) == "SUCCEEDED"


def test_list_events_pages_by_count_and_size(service: Service) -> None:
    """A page has at most 1 MiB of events, and as many as were asked for."""
    text = "x" * 30_000
    nodes = ", ".join(f"{{id: n{n}, transform: , input: '{text}'}}" for n in range(60))
    execution = service.run(f"nodes: [{nodes}]")
    request = execution_service_pb2.ListEventsRequest(execution_id=execution.execution_id, page_size=1_000)
    seen: list[int] = []
    pages = 0
    while not seen or seen[-1] < execution.last_sequence:
        page = service.executions.ListEvents(request, timeout=CALL_S)
        assert page.events
        assert page.ByteSize() < 1024 * 1024 + 64 * 1024
        assert page.last_sequence == execution.last_sequence
        seen += [event.sequence for event in page.events]
        request.after_sequence = seen[-1]
        pages += 1
    assert seen == list(range(1, execution.last_sequence + 1))
    assert pages == 2
    request.after_sequence, request.page_size = 0, 7
    assert len(service.executions.ListEvents(request, timeout=CALL_S).events) == 7
