"""Every call of the contract by its generated stub, and how each is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from plait.v1 import (
    execution_service_pb2,
    graph_pb2,
    graph_service_pb2,
    payload_pb2,
    state_pb2,
    system_service_pb2,
    worker_hub_service_pb2,
)
from plait_server.api.methods import SERVICES
from tests.end_to_end.processes import Server
from tests.end_to_end.service import CALL_S, Refusal, Service, outcome, payload, refusal_of
from tests.end_to_end.stage import Stage

Pb = execution_service_pb2
ONE = "nodes: [{id: a, transform: , input: 1}]"
DIAMOND = """
    name: diamond
    nodes:
      - {id: start, transform: }
      - {id: left, task: {type: echo}}
      - {id: right, task: {type: echo}}
      - {id: join, task: {type: echo}, join: {mode: any}}
    edges:
      - {source: start, target: left}
      - {source: start, target: right, branch_name: scenic}
      - {source: left, target: join}
      - {source: right, target: join}
    """


@pytest.fixture(scope="module")
def one(service: Service) -> str:
    """The id of an execution that has ended."""
    return service.run(ONE).execution_id


# What each call answers.


def test_validate_graph_answers_with_problems_and_warnings(alone: Service) -> None:
    """V5: an invalid graph is an answer, not an error."""
    assert alone.validate(DIAMOND) == graph_service_pb2.ValidateGraphResponse()
    answer = alone.validate(
        """
        nodes:
          - {id: a, transform: }
          - {id: a, transform: }
          - {id: "b c", task: {type: ""}}
        edges: [{source: a, target: gone}, {source: a, target: a}]
        """
    )
    assert answer.violation_count == len(answer.violations) >= 5
    fields = [problem.field for problem in answer.violations]
    for field in ("nodes[1].id", "nodes[2].id", "nodes[2].task.type", "edges[0].target", "edges[1]"):
        assert any(f"graph.{field}" in each for each in fields), (field, fields)
    answer = alone.validate(
        """
        nodes:
          - {id: a, task: {type: t}, on_error: ignore}
          - {id: b, transform: }
          - {id: first, transform: , join: {mode: any}}
        edges: [{source: a, target: first}, {source: b, target: first}]
        """
    )
    assert (answer.violation_count, len(answer.warnings)) == (0, 1)


def test_plan_graph_shows_levels_and_branches(alone: Service) -> None:
    plan = alone.plan(DIAMOND).plan
    assert (plan.level_count, plan.width) == (3, 2)
    assert plan.longest_path[0] == "start"
    assert plan.longest_path[-1] == "join"
    assert [(node.id, node.level, node.remaining, node.guarded, node.branch) for node in plan.nodes] == [
        ("start", 0, 2, True, "0"),
        ("left", 1, 1, True, "0-001"),
        ("right", 1, 1, True, "0-002"),
        ("join", 2, 0, False, "0"),
    ]
    assert [edge.branch_name for edge in plan.edges] == ["", "scenic", "", ""]
    assert [(node.rank, node.order) for node in plan.nodes] == [(0, 0), (1, 0), (1, 1), (2, 0)]


def test_submit_graph_answers_with_the_execution(alone: Service) -> None:
    request = Pb.SubmitGraphRequest(
        namespace=alone.namespace,
        graph=graph_pb2.Graph(name="g", nodes=[graph_pb2.Node(id="a", task=graph_pb2.Task(type="none"))]),
        input=payload({"x": 1}),
        execution_id="my-id",
        labels={"team": "blue"},
    )
    execution = alone.executions.SubmitGraph(request, timeout=CALL_S).execution
    assert (execution.namespace, execution.execution_id, execution.graph_name) == (
        alone.namespace,
        "my-id",
        "g",
    )
    assert execution.state in (state_pb2.EXECUTION_STATE_QUEUED, state_pb2.EXECUTION_STATE_RUNNING)
    assert (dict(execution.labels), execution.run, execution.node_count) == ({"team": "blue"}, 1, 1)
    assert execution.last_sequence >= 1
    assert execution.create_time.seconds
    assert execution.input.json == '{"x":1}'
    assert alone.get("my-id").execution_id == "my-id"


def test_submit_graph_is_idempotent(alone: Service) -> None:
    """FAILURES 36: the same id with the same content gets the same answer."""
    ids = {alone.submit(ONE, request_id="r-1", labels={"b": "2", "a": "1"}) for _ in range(3)}
    assert len(ids) == 1
    assert alone.submit(ONE, request_id="r-2") not in ids
    assert alone.submit(ONE) != alone.submit(ONE), "without a request id each call is a new request"


def test_request_id_with_other_content_is_refused(alone: Service) -> None:
    alone.submit(ONE, request_id="r")
    refusal = refusal_of(lambda: alone.submit(ONE, 2, request_id="r"))
    assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert refusal.metadata == {"request_id": "r"}
    with Service(alone.address, alone.namespace + "-other") as other:
        other.submit(ONE, 2, request_id="r")  # A request id lives in its namespace (K3).


def test_execution_id_that_is_taken_is_refused(alone: Service) -> None:
    alone.submit(ONE, execution_id="taken")
    refusal = refusal_of(lambda: alone.submit(ONE, execution_id="taken"))
    assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "EXECUTION_EXISTS")
    assert refusal.metadata == {"execution_id": "taken"}
    # The same request again is no second request.
    assert alone.submit(ONE, execution_id="mine", request_id="x") == "mine"
    assert alone.submit(ONE, execution_id="mine", request_id="x") == "mine"


def test_list_executions_pages_newest_first(alone: Service) -> None:
    ids = [alone.run(ONE, n).execution_id for n in range(5)]
    request = Pb.ListExecutionsRequest(namespace=alone.namespace, page_size=2)
    listed: list[str] = []
    sizes: list[int] = []
    while True:
        page = alone.executions.ListExecutions(request, timeout=CALL_S)
        sizes.append(len(page.executions))
        for execution in page.executions:
            assert not execution.HasField("input")
            assert not execution.HasField("node_counts")
            assert outcome(execution) == "SUCCEEDED"
            assert execution.last_sequence == len(alone.events(execution.execution_id))
            listed.append(execution.execution_id)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert (listed, sizes) == (ids[::-1], [2, 2, 1])


def test_list_nodes_pages_in_graph_order(alone: Service) -> None:
    nodes = ", ".join(f"{{id: n{n}, transform: }}" for n in range(5))
    execution_id = alone.run(f"nodes: [{nodes}]").execution_id
    request = Pb.ListNodesRequest(namespace=alone.namespace, execution_id=execution_id, page_size=3)
    first = alone.executions.ListNodes(request, timeout=CALL_S)
    request.page_token = first.next_page_token
    second = alone.executions.ListNodes(request, timeout=CALL_S)
    assert [node.path for node in [*first.nodes, *second.nodes]] == [f"n{n}" for n in range(5)]
    assert (len(first.nodes), second.next_page_token) == (3, "")
    assert not any(node.HasField("output") for node in first.nodes)


def test_get_node_shows_input_output_and_attempts(service: Service) -> None:
    execution = service.run("nodes: [{id: a, task: {type: echo}, input: {x: '{{ execution.input }}'}}]", 3)
    node = service.node(execution.execution_id, "a")
    assert (node.kind, node.type, node.level, node.branch) == (graph_pb2.NODE_KIND_TASK, "echo", 0, "0")
    assert (node.input.json, node.output.json) == ('{"x":3}', '{"x":3}')
    (attempt,) = node.attempts
    assert (attempt.number, attempt.run, attempt.worker_id) == (1, 1, "live")
    assert attempt.outcome == state_pb2.ATTEMPT_OUTCOME_SUCCEEDED
    assert attempt.HasField("queue_time")
    assert attempt.start_time.ToNanoseconds() <= attempt.end_time.ToNanoseconds()


def test_get_payload_streams_in_chunks(service: Service) -> None:
    execution = service.run("nodes: [{id: a, task: {type: large}, input: 200000}]")
    digest = execution.output.digest
    request = Pb.GetPayloadRequest(digest=digest)
    chunks = [part.chunk for part in service.executions.GetPayload(request, timeout=CALL_S)]
    assert [len(chunk) for chunk in chunks] == [65_536, 65_536, 65_536, 3_392]
    refusal = refusal_of(
        lambda: service.executions.GetPayload(
            Pb.GetPayloadRequest(namespace="elsewhere", digest=digest), timeout=CALL_S
        )
    )
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "PAYLOAD_NOT_FOUND")


def test_wait_execution_shows_what_there_is_when_the_wait_ends(alone: Service) -> None:
    execution_id = alone.submit("nodes: [{id: a, task: {type: none}}]")
    request = Pb.WaitExecutionRequest(
        namespace=alone.namespace, execution_id=execution_id, wait=duration_pb2.Duration(nanos=1_000_000)
    )
    answer = alone.executions.WaitExecution(request, timeout=CALL_S)
    assert outcome(answer.execution) == "RUNNING/NO_WORKER"


def test_list_events_waits_for_the_next_one(service: Service, stage: Stage) -> None:
    """The long poll: it answers when something happens, or when the wait is over."""
    execution_id = service.submit("nodes: [{id: a, task: {type: staged}}]")
    actor = stage.next(execution_id)
    known = len(service.events(execution_id))
    request = Pb.ListEventsRequest(
        execution_id=execution_id, after_sequence=known, wait=duration_pb2.Duration(nanos=1)
    )
    answer = service.executions.ListEvents(request, timeout=CALL_S)
    assert (len(answer.events), answer.last_sequence, answer.ended) == (0, known, False)
    request.wait.FromSeconds(60)
    waiting = service.executions.ListEvents.future(request, timeout=CALL_S)
    actor.answer("x")
    answer = waiting.result()
    assert answer.events[0].sequence == known + 1
    service.wait(execution_id)
    answer = service.executions.ListEvents(Pb.ListEventsRequest(execution_id=execution_id, page_size=2))
    assert (len(answer.events), answer.last_sequence, answer.ended) == (2, known + 2, True)


def test_cancel_execution_is_idempotent(alone: Service) -> None:
    execution_id = alone.submit("nodes: [{id: a, task: {type: none}}]")
    request = Pb.CancelExecutionRequest(
        namespace=alone.namespace, execution_id=execution_id, reason="enough", request_id="c"
    )
    answers = [alone.executions.CancelExecution(request, timeout=CALL_S).execution for _ in range(2)]
    assert {outcome(answer) for answer in answers} == {"CANCELLED/enough"}
    request.reason = "other"
    refusal = refusal_of(lambda: alone.executions.CancelExecution(request, timeout=CALL_S))
    assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")


def test_cancel_after_the_end_tells_the_end(service: Service, one: str) -> None:
    """C1"""
    assert outcome(service.cancel(one)) == "SUCCEEDED"


def test_list_workers_shows_what_is_attached(service: Service) -> None:
    service.run("nodes: [{id: a, task: {type: echo}}]")
    (worker,) = [each for each in service.workers() if each.worker_id == "live"]
    assert worker.state == worker_hub_service_pb2.WORKER_STATE_ATTACHED
    assert (worker.slots, worker.instance_id != "") == (200, True)
    assert {"echo", "staged"} <= {served.type for served in worker.types}
    assert worker.sdk.startswith("plait-python/")
    assert worker.attach_time.seconds <= worker.last_heard_time.seconds
    with Service(service.address, "nobody-here") as other:
        assert other.workers() == []


def test_get_server_info_tells_limits(service: Service) -> None:
    info = service.system.GetServerInfo(system_service_pb2.GetServerInfoRequest(), timeout=CALL_S)
    assert (info.store, info.insecure, info.semantics_version) == ("sqlite", True, 1)
    assert info.version
    assert info.instance_id
    assert info.limits["payload_bytes_max"] == 1024 * 1024
    assert (info.limits["nodes_max"], info.limits["execution_nodes_max"]) == (100_000, 1_000_000)
    assert info.limits["scopes_deep_max"] == 16
    assert (info.limits["frame_bytes_max"], info.limits["event_bytes_max"]) == (1024 * 1024, 256 * 1024)


def test_health_answers_and_watches(service: Service) -> None:
    health = service.health
    serving = health_pb2.HealthCheckResponse.SERVING
    for name in ("", *(each.full_name for each in SERVICES.values())):
        request = health_pb2.HealthCheckRequest(service=name)
        assert health.Check(request, timeout=CALL_S).status == serving
        watch = health.Watch(request, timeout=CALL_S)
        assert next(watch).status == serving
        watch.cancel()
    request = health_pb2.HealthCheckRequest(service="no.such.Service")
    refusal = refusal_of(lambda: health.Check(request, timeout=CALL_S))
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "SERVICE_UNKNOWN")
    watch = health.Watch(request, timeout=CALL_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_reflection_describes_all_services(service: Service) -> None:
    database = ProtoReflectionDescriptorDatabase(service.channel)
    names = set(database.get_services())
    assert names >= {each.full_name for each in SERVICES.values()} | {"grpc.health.v1.Health"}
    file = database.FindFileContainingSymbol("plait.v1.ExecutionService")
    assert "SubmitGraph" in [method.name for method in file.service[0].method]
    assert database.FindFileByName("plait/v1/graph.proto").package == "plait.v1"


def test_reflection_v1_is_the_same_stream(service: Service) -> None:
    """The two versions have the same messages but for their package."""
    call = cast(
        "grpc.StreamStreamMultiCallable[bytes, bytes]",
        service.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    )
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString(),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such").SerializeToString(),
    ]
    answers = [
        reflection_pb2.ServerReflectionResponse.FromString(answer)
        for answer in call(iter(asked), timeout=CALL_S)
    ]
    names = [each.name for each in answers[0].list_services_response.service]
    assert "plait.v1.WorkerHubService" in names
    assert answers[1].error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


# How calls are refused.

BAD_NAMESPACE = {"namespace": "no spaces"}
NOT_THERE = {"execution_id": "not-there"}
WITHOUT_ID = {"execution_id": ""}

FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("SubmitGraph", BAD_NAMESPACE, "namespace"),
    ("SubmitGraph", {}, "graph"),
    ("SubmitGraph", {"execution_id": "a/b"}, "execution_id"),
    ("SubmitGraph", {"request_id": "with space"}, "request_id"),
    ("SubmitGraph", {"request_id": "x" * 129}, "request_id"),
    ("SubmitGraph", {"labels": {"k": "v" * 129}}, "labels"),
    ("SubmitGraph", {"labels": {str(n): "" for n in range(65)}}, "labels"),
    ("SubmitGraph", {"input": payload_pb2.Payload(json="{not json")}, "input.json"),
    ("SubmitGraph", {"input": payload_pb2.Payload(json='{"a":1,"a":2}')}, "input.json"),
    ("SubmitGraph", {"input": payload_pb2.Payload(json="NaN")}, "input.json"),
    ("SubmitGraph", {"input": payload_pb2.Payload(json='"\\ud800"')}, "input.json"),
    ("SubmitGraph", {"input": payload_pb2.Payload(digest="0" * 64)}, "input.digest"),
    ("SubmitGraph", {"wait": duration_pb2.Duration(seconds=3601)}, "wait"),
    ("SubmitGraph", {"wait": duration_pb2.Duration(seconds=-1)}, "wait"),
    ("GetExecution", WITHOUT_ID, "execution_id"),
    ("GetExecution", BAD_NAMESPACE | NOT_THERE, "namespace"),
    ("ListExecutions", BAD_NAMESPACE, "namespace"),
    ("ListExecutions", {"page_size": -1}, "page_size"),
    ("ListNodes", WITHOUT_ID, "execution_id"),
    ("ListNodes", NOT_THERE | {"page_size": -1}, "page_size"),
    ("GetNode", {"execution_id": "x" * 129}, "execution_id"),
    ("GetPayload", {"digest": "abc"}, "digest"),
    ("GetPayload", {"digest": "A" * 64}, "digest"),
    ("WaitExecution", NOT_THERE | {"wait": duration_pb2.Duration(seconds=3601)}, "wait"),
    ("WaitExecution", NOT_THERE | {"wait": duration_pb2.Duration(seconds=-1)}, "wait"),
    ("WatchExecution", WITHOUT_ID, "execution_id"),
    ("WatchExecution", NOT_THERE | {"after_sequence": -2}, "after_sequence"),
    ("WatchExecution", NOT_THERE | {"after_sequence": 3, "include_snapshot": True}, "include_snapshot"),
    ("ListEvents", NOT_THERE | {"after_sequence": -1}, "after_sequence"),
    ("ListEvents", NOT_THERE | {"wait": duration_pb2.Duration(seconds=61)}, "wait"),
    ("CancelExecution", NOT_THERE | {"reason": "x" * 1025}, "reason"),
    ("CancelExecution", NOT_THERE | {"request_id": "ü"}, "request_id"),
]


def call_of(service: Service, method: str, fields: dict[str, Any]) -> Refusal:
    request_type = getattr(Pb, f"{method}Request")
    call: Callable[..., object] = getattr(service.executions, method)
    return refusal_of(lambda: call(request_type(**fields), timeout=CALL_S))


@pytest.mark.parametrize(("method", "fields", "field"), FIELDS)
def test_malformed_field_is_named(service: Service, method: str, fields: dict[str, Any], field: str) -> None:
    refusal = call_of(service, method, fields)
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert refusal.domain == "plait.v1"
    assert field in refusal.fields
    assert refusal.fields[field]
    assert field in refusal.message, "the plain message names the field as well"
    assert refusal.retry_s is None


def test_all_malformed_fields_are_named_together(service: Service) -> None:
    fields = {
        "namespace": "/",
        "execution_id": "/",
        "request_id": " ",
        "input": payload_pb2.Payload(json="{"),
    }
    refusal = call_of(service, "SubmitGraph", fields)
    assert set(refusal.fields) == {"namespace", "execution_id", "request_id", "input.json", "graph"}


@pytest.mark.parametrize(
    "method",
    [
        "GetExecution",
        "ListNodes",
        "GetNode",
        "WaitExecution",
        "WatchExecution",
        "ListEvents",
        "CancelExecution",
    ],
)
def test_execution_that_is_not_there(service: Service, one: str, method: str) -> None:
    """One of another namespace is not there either, and is told of in the same words."""
    refusal = call_of(service, method, NOT_THERE)
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "EXECUTION_NOT_FOUND")
    assert refusal.metadata == NOT_THERE
    elsewhere = call_of(service, method, {"namespace": "elsewhere", "execution_id": one})
    assert elsewhere == replace(refusal, metadata={"execution_id": one})


def test_node_that_is_not_there(service: Service, one: str) -> None:
    refusal = call_of(service, "GetNode", {"execution_id": one, "node_path": "b"})
    assert (refusal.code.name, refusal.reason) == ("NOT_FOUND", "NODE_NOT_FOUND")
    assert refusal.metadata == {"node_path": "b", "execution_id": one}


@pytest.mark.parametrize("token", ["nonsense", "ZXhlY3V0aW9uczp4", "%%%", "ü", "d29ya2Vyczox"])
@pytest.mark.parametrize("method", ["ListExecutions", "ListNodes"])
def test_page_token_that_the_list_did_not_give(service: Service, one: str, method: str, token: str) -> None:
    fields = {"page_token": token} | ({"execution_id": one} if method == "ListNodes" else {})
    refusal = call_of(service, method, fields)
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


def test_page_token_of_list_workers(service: Service) -> None:
    request = worker_hub_service_pb2.ListWorkersRequest(page_token="x")
    refusal = refusal_of(lambda: service.hub.ListWorkers(request, timeout=CALL_S))
    assert refusal.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize("method", ["WatchExecution", "ListEvents"])
def test_sequence_beyond_the_newest(service: Service, one: str, method: str) -> None:
    refusal = call_of(service, method, {"execution_id": one, "after_sequence": 99})
    assert (refusal.code.name, refusal.reason) == ("OUT_OF_RANGE", "SEQUENCE_OUT_OF_RANGE")
    assert refusal.metadata == {"last_sequence": str(len(service.events(one)))}


def test_invalid_graph_is_refused_with_all_problems(alone: Service) -> None:
    """V3, V5, V7; S1, S4, S5: a cycle is named in order, dangling edges are reported, nothing is left behind."""
    graph = """
        nodes: [{id: a, transform: }, {id: b, transform: }, {id: c, transform: }, {id: d, transform: }]
        edges:
          - {source: a, target: b}
          - {source: b, target: c}
          - {source: c, target: d}
          - {source: d, target: b}
        """
    refusal = refusal_of(lambda: alone.submit(graph))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_GRAPH")
    assert '"b" -> "c" -> "d" -> "b"' in refusal.message
    graph = """
        nodes: [{id: a, transform: }, {id: b, transform: , input: "{{ 1 + }}"}]
        edges: [{source: a, target: gone}, {source: lost, target: b}, {source: a, target: b, handle: odd}]
        """
    refusal = refusal_of(lambda: alone.submit(graph, execution_id="never"))
    expected = {"graph.edges[0].target", "graph.edges[1].source", "graph.edges[2].handle"}
    assert expected <= set(refusal.fields)
    assert any(field.startswith("graph.nodes[1].input") for field in refusal.fields)
    assert any("gone" in text for text in refusal.fields.values())
    refusal = refusal_of(lambda: alone.get("never"))
    assert refusal.reason == "EXECUTION_NOT_FOUND"


def test_empty_graph_is_refused(alone: Service) -> None:
    """V4"""
    assert refusal_of(lambda: alone.submit(graph_pb2.Graph())).reason == "INVALID_GRAPH"


def test_at_most_fifty_problems_are_listed(alone: Service) -> None:
    """V5"""
    nodes = ", ".join("{id: '!', transform: }" for _ in range(80))
    answer = alone.validate(f"nodes: [{nodes}]")
    assert len(answer.violations) == 50
    assert answer.violation_count >= 80
    assert len(refusal_of(lambda: alone.submit(f"nodes: [{nodes}]")).fields) <= 50


def test_method_that_is_not_there(service: Service) -> None:
    call = cast(
        "grpc.UnaryUnaryMultiCallable[bytes, bytes]",
        service.channel.unary_unary("/plait.v1.ExecutionService/RollBackExecution"),
    )
    assert refusal_of(lambda: call(b"", timeout=CALL_S)).code is grpc.StatusCode.UNIMPLEMENTED


def test_namespaces_do_not_see_each_other(server: Server) -> None:
    suffix = uuid.uuid4().hex
    with Service(server.address, f"a-{suffix}") as a, Service(server.address, f"b-{suffix}") as b:
        a.run(ONE, execution_id="same")
        b.run(ONE.replace("input: 1", "input: 2"), execution_id="same")
        assert (a.output("same", "a"), b.output("same", "a")) == (1, 2)
        pages = [
            each.executions.ListExecutions(Pb.ListExecutionsRequest(namespace=each.namespace))
            for each in (a, b)
        ]
        assert [len(page.executions) for page in pages] == [1, 1]
