"""Both clients against a real server, and what they make of errors."""

import asyncio
import itertools
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from plait.v1 import (
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    graph_pb2,
    limit_service_pb2,
    namespace_service_pb2,
    state_pb2,
)
from plait_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    GraphBuilder,
    GraphFileError,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
    has_ended,
)
from plait_client.access import check_address
from plait_client.channel import Patience
from plait_client.errors import PlaitError, error_of
from plait_client.graph_builder import JsonValue
from plait_client.requests import Requests
from plait_client.watching import Watch
from tests.cli import live

SUCCEEDED = state_pb2.EXECUTION_STATE_SUCCEEDED


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with live.server(":memory:") as listening, live.worker(listening):
        yield listening


@pytest.fixture
def client(address: str) -> Generator[Client]:
    with Client(address) as connected:
        yield connected


def one(node_type: str) -> graph_pb2.Graph:
    graph = GraphBuilder("one")
    graph.task("only", node_type)
    return graph.build()


# Against a server.


def test_an_execution_from_its_submission_to_its_output(client: Client) -> None:
    execution = client.submit(one("test.echo"), input={"n": 2**53 + 1}, labels={"team": "design"})
    assert not execution.HasField("end_time") or has_ended(execution)
    ended = client.wait(execution.execution_id)
    assert ended.state == SUCCEEDED
    assert client.payload(ended.output) == {"n": 2**53 + 1}
    assert dict(client.get(execution.execution_id).labels) == {"team": "design"}


def test_a_graph_is_given_as_a_path_a_text_or_a_dict(client: Client) -> None:
    graph: JsonValue = {"nodes": [{"id": "a", "transform": {}, "input": {"x": 1}}]}
    assert isinstance(graph, Mapping)
    text = "nodes:\n  - id: a\n    transform:\n    input: {x: 1}\n"
    for source in (graph, text):
        assert client.payload(client.wait(client.submit(source).execution_id).output) == {"x": 1}
    path = Path("examples/route.yaml")
    ended = client.wait(client.submit(path, input={"kind": "pickup", "amount": 1}).execution_id)
    assert ended.state == SUCCEEDED
    with pytest.raises(GraphFileError):
        client.submit({"nods": []})


def test_an_output_kept_by_digest_is_fetched(client: Client) -> None:
    ended = client.wait(client.submit(one("test.large"), input=200_000).execution_id)
    assert ended.output.digest
    assert client.payload(ended.output) == "x" * 200_000


def test_no_value_is_none(client: Client) -> None:
    assert client.payload(execution_pb2.Execution().output) is None


def test_watch_gives_every_event_once_and_in_order(client: Client) -> None:
    """A3."""
    id_ = client.submit(one("test.echo")).execution_id
    events = list(client.watch(id_))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == event_pb2.EVENT_TYPE_EXECUTION_ENDED
    assert list(client.watch(id_, after_sequence=2)) == events[2:]
    assert list(client.events(id_, page_size=2)) == events
    assert list(client.events(id_, after_sequence=len(events))) == []


def test_a_snapshot_comes_before_the_events(client: Client) -> None:
    id_ = client.submit(one("test.echo")).execution_id
    client.wait(id_)
    first, *frames = client.watch_frames(id_, include_snapshot=True)
    assert first.snapshot.execution.state == SUCCEEDED
    assert [node.path for node in first.snapshot.nodes] == ["only"]
    assert not any(frame.HasField("events") for frame in frames)


def test_the_audit_tells_who_submitted(client: Client) -> None:
    ids = [client.submit(one("test.echo"), wait_s=60).execution_id for _ in range(3)]
    for id_ in ids:
        (entry,) = client.audit(id_)
        assert (entry.kind, entry.execution_id, entry.target) == ("SubmitGraph", id_, "one")
        assert not entry.verified
        assert "127.0.0.1" in entry.principal
    listed = [entry.execution_id for entry in client.audit(page_size=2)]
    assert [id_ for id_ in listed if id_ in ids] == ids[::-1]


def test_a_deleted_execution_is_gone(client: Client, address: str) -> None:
    """K1: DeleteExecution deletes an ended execution now; other executions keep what they share with it."""
    id_, other = (client.submit(one("test.large"), input=200_000, wait_s=60).execution_id for _ in range(2))
    output = client.get(id_).output
    with Client(address, namespace="elsewhere") as stranger, pytest.raises(NotFound):
        stranger.delete(id_)
    client.delete(id_, request_id="delete-it")
    client.delete(id_, request_id="delete-it")
    for call in (client.get, client.delete, client.wait, client.cancel):
        with pytest.raises(NotFound) as missing:
            call(id_)
        assert missing.value.reason == "EXECUTION_NOT_FOUND"
    assert id_ not in [execution.execution_id for execution in client.list()]
    assert [entry.kind for entry in client.audit(id_)] == ["DeleteExecution", "SubmitGraph"]
    assert client.payload(output) == client.payload(client.get(other).output)


def test_an_open_execution_is_not_deleted(client: Client) -> None:
    id_ = client.submit(one("test.nobody")).execution_id
    with pytest.raises(PlaitError, match="Cancel it first") as refused:
        client.delete(id_)
    assert refused.value.reason == "EXECUTION_NOT_ENDED"
    client.cancel(id_)
    client.wait(id_)
    client.delete(id_)


def test_submit_waits_in_the_same_call(client: Client) -> None:
    assert client.submit(one("test.echo"), wait_s=60).state == SUCCEEDED
    execution = client.submit(one("test.nobody"), wait_s=0.01)
    assert not has_ended(execution)
    client.cancel(execution.execution_id)


def test_submit_waits_on_when_one_call_is_too_short(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_client.client.WAIT_S", 0.001)
    assert client.submit(one("test.large"), input=10, wait_s=60).state == SUCCEEDED


def test_wait_shows_the_present_state_when_its_time_is_over(client: Client) -> None:
    id_ = client.submit(one("test.nobody")).execution_id
    assert not has_ended(client.wait(id_, timeout_s=0.01))
    assert client.cancel(id_, reason="done").state in (
        state_pb2.EXECUTION_STATE_CANCELLING,
        state_pb2.EXECUTION_STATE_CANCELLED,
    )
    assert client.wait(id_).state == state_pb2.EXECUTION_STATE_CANCELLED


def test_lists_go_on_over_pages(address: str) -> None:
    with Client(address, namespace="pages") as client:
        ids = [client.submit(one("test.nobody")).execution_id for _ in range(5)]
        assert [execution.execution_id for execution in client.list(page_size=2)] == ids[::-1]
        fan = GraphBuilder()
        paths = [fan.transform(f"n{number}").id for number in range(5)]
        id_ = client.submit(fan.build()).execution_id
        assert [node.path for node in client.nodes(id_, page_size=2)] == paths


def test_a_node_is_shown_with_its_attempts(client: Client) -> None:
    id_ = client.submit(one("test.echo"), input=[1]).execution_id
    client.wait(id_)
    node = client.node(id_, "only")
    assert (client.payload(node.output), len(node.attempts)) == ([1], 1)


def test_a_graph_is_checked_and_planned(client: Client) -> None:
    assert client.validate(one("t")).violation_count == 0
    assert client.validate({"nodes": []}).violation_count == 1
    assert client.plan(one("t")).plan.width == 1
    with pytest.raises(InvalidArgument) as caught:
        client.plan({"nodes": [], "name": "no name"})
    assert caught.value.reason == "INVALID_GRAPH"
    assert [violation.field for violation in caught.value.violations] == ["graph.name", "graph.nodes"]


def test_the_server_tells_about_itself(client: Client) -> None:
    info = client.server_info()
    assert info.store == "memory"
    client.wait(client.submit(one("test.echo")).execution_id)
    assert [worker.worker_id for worker in client.workers()] == ["live"]


def test_errors_are_told_apart(client: Client) -> None:
    with pytest.raises(NotFound) as not_found:
        client.get("nobody")
    assert not_found.value.reason == "EXECUTION_NOT_FOUND"
    id_ = client.submit(one("test.echo"), request_id="apart").execution_id
    assert client.submit(one("test.echo"), request_id="apart").execution_id == id_
    with pytest.raises(AlreadyExists) as exists:
        client.submit(one("test.echo"), request_id="apart", input=1)
    assert exists.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(OutOfRange):
        list(client.events(id_, after_sequence=1_000))
    with pytest.raises(InvalidArgument) as invalid:
        client.get("no id")
    assert [violation.field for violation in invalid.value.violations] == ["execution_id"]


def test_a_watch_goes_on_after_a_restart_of_its_server(tmp_path: Path) -> None:
    """A3: everything once and in order, over two streams."""
    store = str(tmp_path / "plait.db")
    with live.server(store) as address:
        client = Client(address)
        id_ = client.submit({"nodes": [{"id": "a", "delay": {"duration": "1h"}}]}).execution_id
        watch = client.watch(id_)
        events = [next(watch) for _ in range(2)]
    with client, live.server(store, listen=address):
        client.cancel(id_)
        events += watch
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].execution_state == state_pb2.EXECUTION_STATE_CANCELLED


def test_a_server_that_is_not_there_is_said_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Client(address, connect_s=0.1) as client, pytest.raises(Unavailable) as caught:
            client.server_info()
    assert str(caught.value) == f"no Plait server at {address}; start one with `plait serve`"
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_trace_is_exported_and_the_same_each_time(client: Client) -> None:
    """B2.1."""
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-00"
    id_ = client.submit(one("test.echo"), traceparent=traceparent).execution_id
    client.wait(id_)
    (part,) = client.export_trace(id_)
    assert list(client.export_trace(id_)) == [part]
    (of_resource,) = trace_pb2.TracesData.FromString(part).resource_spans
    spans = of_resource.scope_spans[0].spans
    assert {span.trace_id.hex() for span in spans} == {trace_id}
    assert spans[-1].name == "execution"
    with pytest.raises(NotFound) as caught:
        list(client.export_trace("nobody"))
    assert caught.value.reason == "EXECUTION_NOT_FOUND"


def test_the_async_client_does_the_same(address: str) -> None:
    async def talk() -> None:
        async with AsyncClient(address, namespace="default") as client:
            id_ = (await client.submit(one("test.large"), input=100_000)).execution_id
            events = [event async for event in client.watch(id_)]
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            ended = await client.wait(id_)
            assert (await client.submit(one("test.echo"), wait_s=60)).state == SUCCEEDED
            assert await client.payload(ended.output) == "x" * 100_000
            assert [event async for event in client.events(id_)] == events
            (part,) = [part async for part in client.export_trace(id_)]
            assert trace_pb2.TracesData.FromString(part).resource_spans
            assert [node.path async for node in client.nodes(id_)] == ["only"]
            assert (await client.node(id_, "only")).attempt_count == 1
            assert id_ in [execution.execution_id async for execution in client.list()]
            assert [worker.worker_id async for worker in client.workers()] == ["live"]
            assert (await client.cancel(id_)).state == SUCCEEDED
            assert (await client.validate(one("t"))).violation_count == 0
            assert (await client.plan(one("t"))).plan.width == 1
            assert (await client.server_info()).store == "memory"
            assert (await client.get_namespace()).name == "default"
            settings = namespace_service_pb2.NamespaceSettings(queue_max=9)
            changed = await client.update_namespace(settings)
            assert changed in [each async for each in client.list_namespaces()]
            await client.update_namespace(namespace_service_pb2.NamespaceSettings(), reset=["queue_max"])
            limit = await client.set_limit(limit_service_pb2.LIMIT_KIND_KEY, "db", max_concurrency=2)
            assert [each async for each in client.list_limits(limit.kind, page_size=1)] == [limit]
            assert (await client.remove_limit(limit_service_pb2.LIMIT_KIND_KEY, "db")) is not None
            with pytest.raises(NotFound):
                await client.get("nobody")

    asyncio.run(talk())


# Without a server.


@pytest.mark.parametrize(
    "address", ["localhost", "http://localhost:1", "localhost:0", "localhost:65536", ":1", ""]
)
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        check_address(address)


class Failure:
    """A failed call as gRPC gives it."""

    def __init__(self, code: grpc.StatusCode, status: bytes = b"") -> None:
        self._code = code
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "what the server says"

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return (("grpc-status-details-bin", self._status),) if self._status else ()


def test_what_the_server_attaches_to_an_error_is_read() -> None:
    status = status_pb2.Status(code=8, message="what the server says")
    info = error_details_pb2.ErrorInfo(reason="OVERLOADED", domain="plait.v1", metadata={"watchers": "10000"})
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000))
    violation = error_details_pb2.BadRequest.FieldViolation(field="graph.name", description="is no name")
    bad = error_details_pb2.BadRequest(field_violations=[violation])
    for detail in (info, retry, bad):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    error = error_of(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, status.SerializeToString()), "host:1")
    assert (error.reason, error.metadata) == ("OVERLOADED", {"watchers": "10000"})
    assert error.retry_after == timedelta(seconds=1.5)
    assert [(violation.field, violation.message) for violation in error.violations] == [
        ("graph.name", "is no name")
    ]
    assert str(error) == "what the server says"


def test_a_trailer_that_is_no_status_does_no_harm() -> None:
    failure = Failure(grpc.StatusCode.UNAVAILABLE, b"\xff\xff\xff")
    assert isinstance(error_of(failure, "host:1"), Unavailable)


def test_tries_end_when_the_patience_does() -> None:
    now = 0.0
    lost = Unavailable("lost", code=grpc.StatusCode.UNAVAILABLE)
    patience = Patience(connect_s=5, retry_s=60)
    tries = patience.tries(lambda: now)
    assert tries.delay_after(lost) is not None
    now = 5.1
    assert tries.delay_after(lost) is None
    # Once it has answered, it is waited for longer, counted from its first failure.
    tries.succeeded()
    now = 1_000.0
    assert tries.delay_after(lost) is not None
    now = 1_050.0
    assert tries.delay_after(lost) is not None
    now = 1_060.1
    assert tries.delay_after(lost) is None


def test_an_error_that_another_try_does_not_help_is_not_tried_again() -> None:
    tries = Patience(connect_s=5, retry_s=60).tries(lambda: 0.0)
    assert tries.delay_after(NotFound("no", code=grpc.StatusCode.NOT_FOUND)) is None
    assert tries.delay_after(PlaitError("bug", code=grpc.StatusCode.INTERNAL)) is None


def test_a_full_queue_is_tried_again_only_by_those_who_ask_for_it() -> None:
    """Q3: a full queue is RESOURCE_EXHAUSTED with retry advice."""
    full = ResourceExhausted(
        "full", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after=timedelta(seconds=5)
    )
    patience = Patience(connect_s=5, retry_s=60)
    assert patience.tries(lambda: 0.0).delay_after(full) is None
    now = 0.0
    tries = patience.tries(lambda: now, 30.0)
    assert 5 <= (tries.delay_after(full) or 0.0) < 6
    now = 26.0
    assert tries.delay_after(full) is None


def test_a_namespace_is_shown_and_changed(client: Client) -> None:
    changed = client.update_namespace(namespace_service_pb2.NamespaceSettings(weight=3))
    assert changed.settings.weight == 3
    assert client.get_namespace() == changed
    assert changed in list(client.list_namespaces(page_size=1))
    with pytest.raises(InvalidArgument) as caught:
        client.update_namespace(namespace_service_pb2.NamespaceSettings(weight=0))
    assert [each.field for each in caught.value.violations] == ["settings.weight"]
    assert (
        client.update_namespace(namespace_service_pb2.NamespaceSettings(), reset=["weight"]).settings.weight
        == 1
    )


def test_a_submission_to_a_full_queue_says_when_to_retry_and_what_to_change(address: str) -> None:
    """Q3, Q6: over gRPC, with an execution that waits and says why."""
    with Client(address, namespace="full") as client:
        client.update_namespace(namespace_service_pb2.NamespaceSettings(running_max=1, queue_max=1))
        running = client.submit(one("nobody.serves"))
        queued = client.submit(one("nobody.serves"))
        assert queued.state == state_pb2.EXECUTION_STATE_QUEUED
        shown = client.get(queued.execution_id)
        assert shown.reason == "waits for a running slot of namespace full (1 of 1 running)"
        with pytest.raises(ResourceExhausted) as caught:
            client.submit(one("nobody.serves"))
        assert caught.value.reason == "QUEUE_FULL"
        assert caught.value.metadata == {"namespace": "full", "queue_max": "1"}
        assert caught.value.retry_after == timedelta(seconds=5)
        counts = client.get_namespace()
        assert (counts.running_count, counts.queued_count) == (1, 1)
        client.cancel(running.execution_id)
        begun = list(itertools.islice(client.watch(queued.execution_id), 2))
        assert begun[-1].type == event_pb2.EVENT_TYPE_EXECUTION_STARTED
        client.cancel(queued.execution_id)


def test_a_watch_from_the_end_learns_where_that_was() -> None:
    watch = Watch(Requests("default"), "x", -1, include_snapshot=False)
    frame = execution_service_pb2.WatchExecutionResponse
    watch.take(frame(caught_up=execution_service_pb2.CaughtUp(sequence=7)))
    assert watch.request().after_sequence == 7
    assert not watch.take(frame(heartbeat=execution_service_pb2.Heartbeat(sequence=7)))
    watch.take(frame(events=execution_service_pb2.EventBatch(events=[event_pb2.Event(sequence=8)])))
    assert watch.request().after_sequence == 8
    watch.take(frame(end=execution_service_pb2.WatchEnd(sequence=8)))
    assert watch.is_over


@pytest.mark.parametrize(
    ("state", "ended"),
    [(1, False), (5, False), (7, False), (32, True), (36, True), (40, True), (64, True), (70, True)],
)
def test_the_end_of_an_execution_is_told_in_states_that_are_newer_than_the_client(
    state: state_pb2.ExecutionState, ended: bool
) -> None:
    assert has_ended(execution_pb2.Execution(state=state)) is ended


def test_a_frame_that_is_newer_than_the_client_is_stepped_over() -> None:
    watch = Watch(Requests("default"), "x", 3, include_snapshot=False)
    newer = execution_service_pb2.WatchExecutionResponse.FromString(
        b"\xfa\x01\x00"
    )  # field 31, an empty message
    assert not watch.take(newer)
    assert (watch.after_sequence, watch.is_over) == (3, False)


def test_a_watch_that_breaks_within_its_snapshot_asks_for_another() -> None:
    watch = Watch(Requests("default"), "x", 0, include_snapshot=True)
    frame = execution_service_pb2.WatchExecutionResponse
    watch.take(frame(snapshot=execution_service_pb2.Snapshot(sequence=5)))
    assert watch.request().include_snapshot
    watch.take(frame(snapshot=execution_service_pb2.Snapshot(sequence=6, last=True)))
    assert not watch.request().include_snapshot
    assert watch.request().after_sequence == 6


def test_the_client_stands_on_the_base_dependencies() -> None:
    """Without extras it can be imported and used, except for YAML."""
    script = (
        "import sys, plait_client\n"
        "extras = ('apsw', 'cel_expr_python', 'click', 'google.rpc', 'plait_server', 'trio', 'yaml')\n"
        "print([name for name in extras if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_limit_is_set_shown_and_removed(client: Client) -> None:
    """Q2: over a real connection; the bounds are those of tests/api/test_limits."""
    kind = limit_service_pb2.LIMIT_KIND_TYPE
    limit = client.set_limit(kind, "text.draft", rate=2.0, burst=4, everywhere=True)
    assert limit in list(client.list_limits(page_size=1))
    assert limit in list(client.list_limits(kind, everywhere=True))
    assert client.remove_limit(kind, "text.draft", everywhere=True) is None
    with pytest.raises(NotFound):
        client.remove_limit(kind, "text.draft", everywhere=True)
    with pytest.raises(InvalidArgument) as caught:
        client.set_limit(kind, "text.draft", max_concurrency=0)
    assert [each.field for each in caught.value.violations] == ["max_concurrency"]
