"""Input that is wrong, too large or hostile: a clear error, nothing half done, and the server alive."""

from __future__ import annotations

import json
import random
from collections.abc import Generator
from typing import cast

import grpc
import pytest

from plait.v1 import execution_service_pb2, graph_pb2, payload_pb2, state_pb2
from plait_server.api.methods import SERVICES
from tests.end_to_end.processes import Server, rss_bytes
from tests.end_to_end.service import CALL_S, Service, outcome, read_refusal, refusal_of, short

MIB = 1024 * 1024
UNARY = [
    f"/{service.full_name}/{method.name}"
    for service in SERVICES.values()
    for method in service.methods
    if not method.client_streaming and not method.server_streaming
]
STREAMS = [
    f"/{service.full_name}/{method.name}"
    for service in SERVICES.values()
    for method in service.methods
    if method.server_streaming
]
FINE = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE}


def _inside(graph: bytes) -> bytes:
    """A node that holds a graph."""
    return _field(2, _field(7, _field(1, graph)))


def _nested(depth: int) -> bytes:
    """A graph with others in one another inside it."""
    graph = b""
    for _ in range(depth):
        graph = _inside(graph)
    return graph


def _field(number: int, content: bytes) -> bytes:
    """Write a length-delimited field with a number below 16."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


@pytest.fixture(autouse=True)
def server_is_alive_after(service: Service) -> Generator[None]:
    yield
    assert service.is_serving()
    assert outcome(service.run("nodes: [{id: a, task: {type: echo}}]")) == "SUCCEEDED"


def unary(service: Service, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
    return cast("grpc.UnaryUnaryMultiCallable[bytes, bytes]", service.channel.unary_unary(path))


def stream(service: Service, path: str) -> grpc.StreamStreamMultiCallable[bytes, bytes]:
    return cast("grpc.StreamStreamMultiCallable[bytes, bytes]", service.channel.stream_stream(path))


def noise(chance: random.Random) -> bytes:
    """Make bytes that are nothing, or nearly a message."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(200))
    # Fields of low numbers and all wire types, nested, with lengths that may lie.
    out = bytearray()
    for _ in range(chance.randrange(1, 6)):
        out.append(chance.randrange(1, 16) << 3 | chance.choice((0, 1, 2, 2, 2, 5)))
        inner = noise(chance) if chance.random() < 0.3 else chance.randbytes(chance.randrange(20))
        out.append(min(len(inner) + chance.choice((0, 0, 0, 1, 100)), 127))
        out += inner
    return bytes(out)


def test_random_bytes_are_refused_or_answered(service: Service) -> None:
    """FAILURES 47: on each unary call; never a bug, never a crash."""
    chance = random.Random(47)
    odd: dict[str, grpc.StatusCode] = {}
    for path in UNARY:
        call = unary(service, path)
        waiting = [call.future(noise(chance), timeout=5) for _ in range(250)]
        for each in waiting:
            error = each.exception()
            # WaitExecution may wait; nothing else may.
            if error is not None and each.code() not in FINE:
                odd[path] = each.code()
    assert odd == {}


@pytest.mark.parametrize("path", [*STREAMS, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"])
def test_random_bytes_on_streams_are_refused_or_answered(service: Service, path: str) -> None:
    chance = random.Random(path)
    codes: set[grpc.StatusCode] = set()
    # A watch of a namespace has no end; the others have one.
    is_endless = path.endswith("WatchExecutions")
    for _ in range(150):
        frames = [noise(chance) for _ in range(chance.randrange(1, 3))]
        if not path.endswith(("Attach", "Info")):
            frames = frames[:1]
        answers = stream(service, path)(iter(frames), timeout=0.1 if is_endless else 5)
        try:
            for _ in answers:
                pass
        except grpc.RpcError as error:
            codes.add(read_refusal(error).code)
    assert codes <= FINE | ({grpc.StatusCode.DEADLINE_EXCEEDED} if is_endless else set())


def test_bytes_that_are_no_message_are_told_so(service: Service) -> None:
    refusal = refusal_of(lambda: unary(service, UNARY[0])(b"\x0a\xff", timeout=CALL_S))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert "plait.v1." in refusal.message


@pytest.mark.parametrize("path", UNARY)
def test_message_over_the_limit_is_refused(service: Service, path: str) -> None:
    """16 MiB where a graph is sent, 4 MiB elsewhere; the reason names size and limit."""
    limit = 16 * MIB if path.endswith("Graph") else 4 * MIB
    size = limit + 1
    # An unknown field of the right length: a valid message of exactly `size` bytes.
    body = size - 6
    content = b"\xfa\x7f" + bytes(
        (body & 127 | 128, body >> 7 & 127 | 128, body >> 14 & 127 | 128, body >> 21)
    )
    content += bytes(body)
    assert len(content) == size
    refusal = refusal_of(lambda: unary(service, path)(content, timeout=CALL_S))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert refusal.metadata == {"size": str(size), "limit": str(limit)}


@pytest.mark.parametrize("path", [UNARY[0], UNARY[-1]])
def test_message_far_over_the_limit_is_refused(service: Service, path: str) -> None:
    """gRPC itself refuses it before it is read."""
    content = b"\xfa\x7f\x80\x80\x80\x10" + bytes(32 * MIB)
    refusal = refusal_of(lambda: unary(service, path)(content, timeout=CALL_S))
    assert refusal.code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT)


def test_chain_of_a_hundred_thousand_nodes_is_planned_and_accepted(alone: Service) -> None:
    """V8, FAILURES 44"""
    count = 100_000
    graph = graph_pb2.Graph()
    task = graph_pb2.Task(type="none")
    for n in range(count):
        graph.nodes.add(id=f"n{n}", task=task)
        if n:
            graph.edges.add(source=f"n{n - 1}", target=f"n{n}")
    plan = alone.plan(graph).plan
    assert (plan.level_count, plan.width, len(plan.longest_path)) == (count, 1, count)
    execution_id = alone.submit(graph)
    assert alone.node(execution_id, "n0").reason == "NO_WORKER"
    assert alone.node(execution_id, f"n{count - 1}").level == count - 1
    cancelled = alone.cancel(execution_id)
    assert (outcome(cancelled), cancelled.node_counts.cancelled) == ("CANCELLED", count)


def test_node_too_many_is_refused(alone: Service) -> None:
    graph = graph_pb2.Graph()
    for n in range(100_001):
        graph.nodes.add(id=f"n{n}").transform.SetInParent()
    refusal = refusal_of(lambda: alone.submit(graph))
    assert refusal.reason == "INVALID_GRAPH"
    assert "100,000" in refusal.message or "100000" in refusal.message


def test_fan_of_ten_thousand_transforms_runs(alone: Service) -> None:
    """FAILURES 44: wide graphs of the engine's own nodes need no worker."""
    count = 10_000
    graph = graph_pb2.Graph(output="1")
    for n in range(count):
        graph.nodes.add(id=f"n{n}", input=payload_pb2.Payload(json="1")).transform.SetInParent()
        graph.edges.add(source=f"n{n}", target="end")
    graph.nodes.add(id="end").transform.SetInParent()
    assert outcome(alone.run(graph)) == "SUCCEEDED"


def test_cycle_of_a_hundred_thousand_nodes_is_refused(alone: Service) -> None:
    """V3: named, without a message of megabytes."""
    count = 100_000
    graph = graph_pb2.Graph()
    for n in range(count):
        graph.nodes.add(id=f"n{n}").transform.SetInParent()
        graph.edges.add(source=f"n{n}", target=f"n{(n + 1) % count}")
    refusal = refusal_of(lambda: alone.submit(graph))
    assert refusal.reason == "INVALID_GRAPH"
    assert len(refusal.message) < 4096


DEEP = [
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    "[" * 65 + "]" * 65,
]


@pytest.mark.parametrize("text", DEEP, ids=["lists", "objects", "just-over"])
def test_deep_json_is_refused(alone: Service, text: str) -> None:
    """FAILURES 48"""
    graph = graph_pb2.Graph()
    graph.nodes.add(id="a", input=payload_pb2.Payload(json=text)).transform.SetInParent()
    refusal = refusal_of(lambda: alone.submit(graph))
    assert refusal.reason == "INVALID_GRAPH"
    assert any("input" in field for field in refusal.fields)
    request = payload_pb2.Payload(json=text)
    one = graph_pb2.Graph()
    one.nodes.add(id="a").transform.SetInParent()
    refusal = refusal_of(
        lambda: alone.executions.SubmitGraph(
            execution_service_pb2.SubmitGraphRequest(namespace=alone.namespace, graph=one, input=request),
            timeout=CALL_S,
        )
    )
    assert (refusal.reason, list(refusal.fields)) == ("INVALID_REQUEST", ["input.json"])


BOMBS = [
    "(" * 1_000 + "1" + ")" * 1_000,
    "!" * 4_000 + "true",
    "-" * 4_000 + "1",
    "+".join(["1"] * 2_000),
    "[" * 1_000 + "]" * 1_000,
    "x" * 5_000,
    ".".join(["execution.input"] + ["a"] * 1_000),
    "true ? " * 500 + "1" + " : 1" * 500,
    "execution.input.map(a, execution.input.map(b, execution.input.map(c, execution.input)))",
    "execution.input.map(a, execution.input.all(b, execution.input.all(c, execution.input.all(d, true))))",
    "'" + "a" * 4_000 + "'.matches('(a+)+$')",
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab'.matches('(a+)+$')",
    "execution.input[99999999999999999999]",
    "1 / 0",
    "9223372036854775807 + 1",
    "__import__('os').system('true')",
    "nodes.__class__",
    "\x00",
    "'\ud800'".encode("utf-8", "replace").decode(),
]


@pytest.mark.parametrize("expression", BOMBS, ids=range(len(BOMBS)))
def test_hostile_expression_is_refused_or_fails_its_node(alone: Service, expression: str) -> None:
    """DESIGN.md 5: bounded work; others are served meanwhile."""
    graph = graph_pb2.Graph()
    node = graph.nodes.add(id="a", input=payload_pb2.Payload(json=json.dumps(f"{{{{ {expression} }}}}")))
    node.transform.SetInParent()
    try:
        execution_id = alone.submit(graph, list(range(300)))
    except grpc.RpcError:
        assert refusal_of(lambda: alone.submit(graph)).reason == "INVALID_GRAPH"
        return
    execution = alone.wait(execution_id)
    assert outcome(execution) in ("SUCCEEDED", "FAILED/EXPRESSION")
    if outcome(execution) != "SUCCEEDED":
        assert execution.failure.node_path == "a"
        assert execution.failure.message


def test_others_are_served_while_expressions_burn(alone: Service, service: Service) -> None:
    """An expression that works until its limit holds up no other execution."""
    bomb = "execution.input.map(a, execution.input.all(b, execution.input.all(c, true)))"
    ids = [
        alone.submit(f'nodes: [{{id: a, transform: , input: "{{{{ {bomb} }}}}"}}]', list(range(300)))
        for _ in range(3)
    ]
    assert outcome(service.run("nodes: [{id: a, task: {type: echo}}]")) == "SUCCEEDED"
    for execution_id in ids:
        assert outcome(alone.wait(execution_id)) in ("SUCCEEDED", "FAILED/EXPRESSION")


def test_graph_of_extreme_numbers_is_refused(alone: Service) -> None:
    """FAILURES 53: everything wrong is told at once."""
    graph = graph_pb2.Graph()
    node = graph.nodes.add(id="a", task=graph_pb2.Task(type="t"), priority=2**31 - 1)
    node.retry.max_attempts = 2**31 - 1
    node.retry.multiplier = float("nan")
    node.retry.initial_backoff.seconds = -1
    node.retry.max_backoff.seconds = 2**62
    node.timeouts.attempt.seconds = -(2**62)
    node.timeouts.node.nanos = -5
    node.timeouts.heartbeat.seconds = 2**62
    node.timeouts.queue.seconds = -1
    node.timeouts.worker.seconds = 2**62
    graph.nodes.add(id="b").delay.duration.seconds = 0
    graph.nodes.add(id="c").delay.duration.seconds = 2**62
    graph.policy.max_concurrency = -1
    graph.policy.min_success_rate = float("inf")
    graph.policy.on_failure = 77  # type: ignore[assignment] # a value of a later version
    answer = alone.validate(graph)
    fields = " ".join(problem.field for problem in answer.violations)
    for name in (
        *("priority", "max_attempts", "multiplier", "initial_backoff", "max_backoff", "timeouts.attempt"),
        *("timeouts.node", "timeouts.heartbeat", "nodes[1]", "nodes[2]", "max_concurrency"),
        *("timeouts.queue", "timeouts.worker", "min_success_rate", "on_failure"),
    ):
        assert name in fields, (name, fields)


@pytest.mark.parametrize("id_", ["", "a b", "a\x00b", "\uff41", "a/b", "x" * 129, "\u202eabc", "a\n"])
def test_node_id_of_odd_characters_is_refused(alone: Service, id_: str) -> None:
    """FAILURES 51"""
    graph = graph_pb2.Graph()
    graph.nodes.add(id=id_).transform.SetInParent()
    (problem,) = alone.validate(graph).violations
    assert problem.field == "graph.nodes[0].id"


def test_payload_that_is_not_utf8_is_refused(service: Service) -> None:
    """A string field that is no UTF-8 is no message."""
    # In the field `input` of SubmitGraphRequest, the field `json` is the byte ff.
    refusal = refusal_of(
        lambda: unary(service, "/plait.v1.ExecutionService/SubmitGraph")(
            b"\x1a\x03\x0a\x01\xff", timeout=CALL_S
        )
    )
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


def test_numbers_survive(service: Service) -> None:
    """FAILURES 50: a payload is text, and nobody rounds it."""
    value = {"big": 2**63, "small": 5e-324, "exact": 9_007_199_254_740_993, "text": "\u0000\u2028"}
    execution = service.run("nodes: [{id: a, task: {type: echo}}]", value)
    assert service.value(execution.output) == value


def test_join_of_more_than_sixteen_mebibytes_fails_its_node(service: Service) -> None:
    """Item 7 of the limits: said with the remedy; the server did not put it together for nothing."""
    nodes = ", ".join(f"{{id: n{n}, task: {{type: large}}, input: 1048000}}" for n in range(17))
    edges = ", ".join(f"{{source: n{n}, target: join}}" for n in range(17))
    execution = service.run(f"nodes: [{{id: join, task: {{type: echo}}}}, {nodes}]\nedges: [{edges}]")
    assert outcome(execution) == "FAILED/EXPRESSION"
    assert (execution.failure.node_path, execution.failure.attempt) == ("join", 0)
    assert str(16 * MIB) in execution.failure.message.replace(",", "")
    assert short(state_pb2.NodeState, service.node(execution.execution_id, "join").state) == "FAILED"


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (b"\x12\x00" * 7_500_000, "graph.nodes: there are more than 100,000 nodes"),
        (b"\x1a\x00" * 7_500_000, "graph.edges: there are more than 500,000 edges"),
        (
            _field(2, _field(12, b"\x2a\x00" * 7_500_000)),
            "graph.nodes[0].retry.retryable_codes: there are more than 64 codes",
        ),
        (b"\x9a\x06\x00" * 5_000_000, "there are more than 3,000,000 fields"),
        (b"\x12\x00" * 30_000, "is already the id of"),
        (_inside(b"\x12\x00") * 1_500_000, "more than 100,000 nodes in all graphs together"),
        (_nested(20), "graphs are nested more than 16 deep"),
        (_nested(30) + b"\x9a\x06\x00" * 30_000, "graphs are nested more than 16 deep"),
        (_nested(20_000), "graphs are nested more than 16 deep"),
    ],
    ids=[
        *("nodes", "edges", "codes in a node", "unknown fields", "30,000 nodes in 60 kB"),
        *("graphs of a node", "20 deep", "30 deep in 90 kB", "20,000 deep"),
    ],
)
def test_millions_of_elements_are_refused_by_name_and_leave_nothing(
    server: Server, service: Service, graph: bytes, text: str
) -> None:
    """Two bytes on the wire make an element; parsed, 15 MB of them took 16 s and 1.6 GB."""
    before = rss_bytes(server.pid)
    submit = unary(service, "/plait.v1.ExecutionService/SubmitGraph")
    refusal = refusal_of(lambda: submit(_field(2, graph), timeout=CALL_S))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert text in refusal.message
    assert rss_bytes(server.pid) - before < 100 * MIB


def test_a_large_graph_runs_like_any_other(service: Service) -> None:
    """A graph that a helper reads, and the server builds in slices, equals one that is built in place."""
    graph = graph_pb2.Graph(output="nodes.last.output")
    for number in range(3_000):
        graph.nodes.add(id=f"n{number}").transform.SetInParent()
        graph.edges.add(source=f"n{number - 1}" if number else "first", target=f"n{number}")
    graph.nodes.add(id="first").task.type = "echo"
    graph.nodes.add(id="last").task.type = "echo"
    graph.edges.add(source="n2999", target="last")
    execution = service.run(graph, {"a": 1}, request_id="large-graph")
    assert outcome(execution) == "SUCCEEDED"
    assert json.loads(execution.output.json) == {"a": 1}
    again = service.submit(graph, {"a": 1}, request_id="large-graph")
    assert again == execution.execution_id
