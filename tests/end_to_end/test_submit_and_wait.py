"""SubmitGraph with a wait: a short execution costs one call."""

from __future__ import annotations

import uuid

from google.protobuf import duration_pb2

from plait.v1 import execution_service_pb2
from plait_client import parse_graph
from tests.end_to_end.service import CALL_S, Service, outcome
from tests.end_to_end.stage import Stage

Pb = execution_service_pb2
ONE = "nodes: [{id: a, transform: , input: 1}]"


def submission(service: Service, graph: str, wait_s: float, request_id: str = "") -> Pb.SubmitGraphRequest:
    wait = duration_pb2.Duration()
    wait.FromNanoseconds(round(wait_s * 1e9))
    parsed = parse_graph(graph)
    return Pb.SubmitGraphRequest(namespace=service.namespace, graph=parsed, wait=wait, request_id=request_id)


def test_submit_graph_waits_for_the_end(alone: Service) -> None:
    answer = alone.executions.SubmitGraph(submission(alone, ONE, 60), timeout=CALL_S)
    assert (outcome(answer.execution), answer.execution.output.json) == ("SUCCEEDED", "1")


def test_submit_graph_shows_what_there_is_when_the_wait_ends(alone: Service) -> None:
    request = submission(alone, "nodes: [{id: a, task: {type: none}}]", 0.001)
    execution = alone.executions.SubmitGraph(request, timeout=CALL_S).execution
    assert outcome(execution) == "RUNNING/NO_WORKER"
    assert outcome(alone.get(execution.execution_id)) == "RUNNING/NO_WORKER"


def test_repeated_submission_waits_for_the_execution_of_the_first(service: Service, stage: Stage) -> None:
    """The wait is not part of what a request id stands for; a wait that ends early cancels nothing."""
    graph = "nodes: [{id: a, task: {type: staged}}]"
    request_id = uuid.uuid4().hex
    cut = service.executions.SubmitGraph.future(submission(service, graph, 60, request_id=request_id))
    first = service.executions.SubmitGraph(
        submission(service, graph, 0, request_id=request_id), timeout=CALL_S
    )
    id_ = first.execution.execution_id
    actor = stage.next(id_)
    cut.cancel()
    waiting = service.executions.SubmitGraph.future(submission(service, graph, 59, request_id=request_id))
    actor.answer("x")
    ended = waiting.result(CALL_S).execution
    assert (ended.execution_id, outcome(ended)) == (id_, "SUCCEEDED")
