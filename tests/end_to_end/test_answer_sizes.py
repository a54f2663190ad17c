"""DESIGN 4: every answer fits a client with gRPC's default limits, every frame 1 MiB, whatever workers report."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Final

import grpc
import pytest

from plait.v1 import execution_pb2, execution_service_pb2, failure_pb2
from tests.end_to_end.attaching import Attached
from tests.end_to_end.processes import Server
from tests.end_to_end.service import CALL_S, Service

Pb = execution_service_pb2
MIB: Final = 1024 * 1024
NODES: Final = 400
MESSAGE: Final = "m" * 4_096
DETAILS: Final = json.dumps("d" * 30_000)


def causes(width: int, depth: int) -> list[failure_pb2.Failure]:
    chain: list[failure_pb2.Failure] = []
    for _ in range(depth):
        chain = [failure_pb2.Failure(code="BEHIND", message=MESSAGE, causes=chain)]
    return chain * width


class Modest(Service):
    """A client with gRPC's default limits: 4 MiB an answer."""

    BOUNDS = ()


@pytest.fixture(scope="module")
def modest(server: Server) -> Generator[Service]:
    with Modest(server.address, "answer-sizes") as service:
        yield service


@pytest.fixture(scope="module")
def failed(modest: Service) -> str:
    """An execution of nodes whose failures say as much as they may, and a join of them all."""
    nodes = ",".join(
        f"{{id: n{number}, task: {{type: hand}}, on_error: tolerate}}" for number in range(NODES)
    )
    edges = ",".join(f"{{source: n{number}, target: z}}" for number in range(NODES))
    join = "join: {mode: collect, min_success_rate: 0.5}"
    graph = (
        f"policy: {{max_concurrency: 400}}\n"
        f"nodes: [{nodes}, {{id: z, task: {{type: hand}}, {join}}}]\nedges: [{edges}]"
    )
    execution_id = modest.submit(graph)
    with Attached(modest, "hand", slots=NODES) as worker:
        wide = causes(50, 6)
        for assign in [worker.next_assign() for _ in range(NODES)]:
            # One is as wide as a frame allows, which takes long; the others are as large where it counts.
            more = wide if assign.node_path == "n0" else wide[:3]
            fail = {"token": assign.token, "code": "BROKEN", "message": MESSAGE}
            worker.say(fail={**fail, "details": {"json": DETAILS}, "causes": more})
        for _ in range(NODES):
            worker.next_recorded()
        execution = modest.wait(execution_id)
    assert execution.failure.code == "MIN_SUCCESS_RATE"
    return execution_id


def test_an_execution_with_large_failures_fits(modest: Service, failed: str) -> None:
    execution = modest.get(failed)
    assert execution.ByteSize() < MIB
    assert execution.failure_count == NODES + 1
    assert 0 < len(execution.failures) < 100
    assert execution.failure.details.digest
    assert len(execution.failure.causes) + execution.failure.causes_omitted == NODES


def test_a_node_with_a_large_failure_fits(modest: Service, failed: str) -> None:
    failure = modest.node(failed, "n0").failure
    assert failure.details.json == DETAILS
    assert failure.causes
    assert len(failure.causes) + failure.causes_omitted == 50
    assert failure.ByteSize() < 128 * 1024


def test_pages_of_nodes_with_large_failures_fit(modest: Service, failed: str) -> None:
    listed: list[execution_pb2.ExecutionNode] = []
    request = Pb.ListNodesRequest(namespace=modest.namespace, execution_id=failed, page_size=1_000)
    sizes: list[int] = []
    while True:
        page = modest.executions.ListNodes(request, timeout=CALL_S)
        sizes.append(page.ByteSize())
        listed += page.nodes
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [node.path for node in listed] == [*(f"n{number}" for number in range(NODES)), "z"]
    assert len(sizes) > 1
    assert max(sizes) < 4 * MIB
    assert all(node.failure.details_omitted for node in listed[:NODES])


def test_frames_of_a_watch_with_large_failures_fit(modest: Service, failed: str) -> None:
    paths: list[str] = []
    for frame in modest.watch(failed, snapshot=True):
        assert frame.ByteSize() <= MIB
        paths += [node.path for node in frame.snapshot.nodes]
    assert len(paths) == NODES + 1
    sequences: list[int] = []
    for frame in modest.watch(failed):
        assert frame.ByteSize() <= MIB
        assert all(event.ByteSize() <= 256 * 1024 for event in frame.events.events)
        sequences += [event.sequence for event in frame.events.events]
    assert sequences == list(range(1, len(sequences) + 1))


def test_pages_of_events_with_large_failures_fit(modest: Service, failed: str) -> None:
    request = Pb.ListEventsRequest(namespace=modest.namespace, execution_id=failed, page_size=1_000)
    while True:
        page = modest.executions.ListEvents(request, timeout=CALL_S)
        assert page.ByteSize() <= MIB
        if page.events[-1].sequence == page.last_sequence:
            break
        request.after_sequence = page.events[-1].sequence


def test_a_page_of_executions_with_large_labels_fits(modest: Service) -> None:
    labels = {f"{number:03}" + "\u20ac" * 125: "\u20ac" * 128 for number in range(64)}
    ids = [modest.submit("nodes: [{id: a, task: {type: nobody}}]", labels=labels) for _ in range(70)]
    request = Pb.ListExecutionsRequest(namespace=modest.namespace, page_size=1_000)
    listed: list[str] = []
    pages = 0
    while True:
        page = modest.executions.ListExecutions(request, timeout=CALL_S)
        pages += 1
        assert page.ByteSize() < 4 * MIB
        listed += [execution.execution_id for execution in page.executions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert [each for each in listed if each in ids] == ids[::-1]
    assert pages > 1


def test_attempts_of_a_node_are_the_newest_that_fit(modest: Service) -> None:
    retry = "retry: {max_attempts: 100, initial_backoff: 0.001s, max_backoff: 0.001s}"
    execution_id = modest.submit(f"nodes: [{{id: a, task: {{type: again}}, {retry}}}]")
    with Attached(modest, "again") as worker:
        for _ in range(100):
            fail = {"token": worker.next_assign().token, "code": "BROKEN", "message": MESSAGE}
            worker.say(fail={**fail, "details": {"json": DETAILS}, "retryable": True})
            worker.next_recorded()
    modest.wait(execution_id)
    node = modest.node(execution_id, "a")
    assert node.ByteSize() < 3 * MIB
    assert node.attempt_count == 100
    shown = [attempt.number for attempt in node.attempts]
    assert shown == list(range(101 - len(shown), 101))
    assert 20 < len(shown) < 100


def test_a_token_holds_for_its_list_alone(modest: Service, failed: str) -> None:
    other = modest.submit("nodes: [{id: a, task: {type: nobody}}, {id: b, task: {type: nobody}}]")
    request = Pb.ListNodesRequest(namespace=modest.namespace, execution_id=failed, page_size=1)
    request.page_token = modest.executions.ListNodes(request, timeout=CALL_S).next_page_token
    request.execution_id = other
    with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
        modest.executions.ListNodes(request, timeout=CALL_S)
