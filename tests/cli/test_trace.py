"""`plait trace` against a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.core.run.trace import SpanIds, own_trace_id
from tests.adapters.otlp_sinks import Answer, Sink, open_grpc_sink, open_http_sink
from tests.cli import live

Run = Callable[..., CompletedProcess[str]]

GRAPH = """
name: traced
policy: {on_failure: continue}
nodes:
  - {id: start, task: {type: test.echo}}
  - id: bad
    task: {type: test.fail}
    retry: {max_attempts: 2, initial_backoff: 0.01s, retryable_codes: [OUT_OF_PAPER]}
  - {id: good, task: {type: test.echo}}
  - {id: never, task: {type: test.echo}}
  - {id: last, task: {type: test.echo}, join: {mode: collect}}
edges:
  - {source: start, target: bad, branch_name: quick one}
  - {source: start, target: good}
  - {source: start, target: never, when: "false"}
  - {source: bad, target: last}
  - {source: good, target: last}
"""


def submit(run: Run, tmp_path: Path, execution_id: str) -> None:
    path = tmp_path / "traced.yaml"
    path.write_text(GRAPH)
    assert run("submit", str(path), "--id", execution_id, "--wait").returncode == 0


def without_times(text: str) -> list[str]:
    """Return the lines of a tree without what differs from run to run: its times, and waits in the queue."""
    lines = [line[20:] for line in text.partition("\n\n")[2].splitlines()]
    return [re.sub(r" {2,}", "  ", line).strip() for line in lines if not line.endswith("queue")]


@pytest.mark.parametrize(
    ("flags", "told"), [("01", ""), ("03", ""), ("00", ", not sampled"), ("02", ", not sampled")]
)
def test_trace_tells_whether_it_was_sampled(run: Run, tmp_path: Path, flags: str, told: str) -> None:
    """The second flag says that the trace id is random, and nothing of sampling."""
    path = tmp_path / "one.yaml"
    path.write_text("nodes: [{id: a, transform: }]")
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    submitted = run("submit", str(path), "--wait", TRACEPARENT=f"00-{trace_id}-00f067aa0ba902b7-{flags}")
    shown = run("trace", submitted.stdout.split()[1]).stdout
    assert f"trace      {trace_id}{told}\n" in shown


def test_trace_draws_the_tree_of_an_execution(run: Run, tmp_path: Path) -> None:
    """B2."""
    submit(run, tmp_path, "traced")
    done = run("trace", "traced")
    assert (done.returncode, done.stderr) == (0, "")
    head = dict(line.split(maxsplit=1) for line in done.stdout.partition("\n\n")[0].splitlines())
    assert head["graph"] == "traced"
    assert head["state"] == "SUCCEEDED"
    assert re.fullmatch(r"\S+ m?s, critical path \S+ m?s", head["took"])
    assert re.fullmatch(r"\d+\.\d\d, \S+ m?s of nodes in \S+ m?s", head["speed-up"])
    assert head["trace"] == own_trace_id("default", "traced")
    failed = r"FAILED  OUT_OF_PAPER: the tray is \x1b[31mempty\nfill it"
    lines = [line.lstrip("├└│─ ") for line in without_times(done.stdout)]
    # Which branch begins in the earlier millisecond is chance.
    assert sorted(lines) == sorted(
        [
            "execution  SUCCEEDED",
            "start  SUCCEEDED",
            "attempt 1  SUCCEEDED  at live",
            "branch 0-001 (quick one)",
            f"bad  {failed}",
            "attempt 1  FAILED  OUT_OF_PAPER  at live",
            "attempt 2  FAILED  OUT_OF_PAPER  at live",
            "branch 0-002",
            "good  SUCCEEDED",
            "attempt 1  SUCCEEDED  at live",
            "branch 0-003",
            "never  SKIPPED  DEAD_PATH",
            "last  SUCCEEDED  after bad, good",
            "attempt 1  SUCCEEDED  at live",
        ]
    )
    assert lines[:2] == ["execution  SUCCEEDED", "start  SUCCEEDED"]
    assert lines[-2] == "last  SUCCEEDED  after bad, good"
    assert run("trace", "traced").stdout == done.stdout


def test_trace_writes_what_collectors_take_as_json(run: Run, tmp_path: Path) -> None:
    """B2.1: the ids follow from the execution."""
    submit(run, tmp_path, "as-otlp")
    done = run("trace", "as-otlp", "--json")
    assert run("trace", "as-otlp", "--json").stdout == done.stdout
    (data,) = map(json.loads, done.stdout.splitlines())
    (of_scope,) = data["resourceSpans"][0]["scopeSpans"]
    ids = SpanIds("default", "as-otlp", 1)
    assert {span["traceId"] for span in of_scope["spans"]} == {own_trace_id("default", "as-otlp")}
    (last,) = (span for span in of_scope["spans"] if span["spanId"] == ids.node("last").hex())
    assert last["parentSpanId"] == ids.execution().hex()
    assert [link["spanId"] for link in last["links"]] == [ids.node("bad").hex(), ids.node("good").hex()]
    assert of_scope["spans"][-1]["kind"] == 5


def test_trace_of_an_open_execution_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "open.yaml"
    path.write_text("nodes: [{id: a, delay: {duration: 1h}}, {id: b, transform: {}}]")
    run("submit", str(path), "--id", "open")
    done = run("trace", "open")
    assert (done.returncode, done.stderr) == (0, "open is RUNNING: spans that have not ended are missing\n")
    assert without_times(done.stdout) == [
        "execution  has not ended",
        "└─ branch 0-002  has not ended",
        "└─ b  SUCCEEDED  transform",
    ]
    run("cancel", "open")


def test_trace_is_sent_to_a_collector_again(run: Run, tmp_path: Path) -> None:
    """B2.1: equal each time."""
    submit(run, tmp_path, "sent")
    for opener in (open_grpc_sink, open_http_sink):
        sink = Sink()
        with opener(sink):
            endpoint = f"http://127.0.0.1:{sink.port}{'/v1/traces' if opener is open_http_sink else ''}"
            done = run("trace", "sent", "--otlp", endpoint)
            assert run("trace", "sent", "--otlp", endpoint).returncode == 0
        first, second = sink.requests
        assert first == second
        (of_scope,) = trace_pb2.TracesData.FromString(first).resource_spans[0].scope_spans
        ids = SpanIds("default", "sent", 1)
        assert of_scope.spans[-1].span_id == ids.execution()
        where = f"127.0.0.1:{sink.port} by OTLP over gRPC without TLS"
        if opener is open_http_sink:
            where = f"{endpoint} by OTLP over HTTP"
        told = f"sent {len(of_scope.spans)} spans to {where}\n"
        assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_spans_that_a_collector_rejects_are_reported(run: Run, tmp_path: Path) -> None:
    submit(run, tmp_path, "not-taken")
    sink = Sink()
    with open_grpc_sink(sink):
        endpoint = f"http://127.0.0.1:{sink.port}"
        sink.answer = lambda _: Answer(rejected=2, message="too \x1b[31mold")
        done = run("trace", "not-taken", "--otlp", endpoint)
        assert (done.returncode, done.stderr) == (
            5,
            "the collector rejected 2 of them: too \\x1b[31mold\n",
        )
        sink.answer = lambda _: Answer(code=grpc.StatusCode.PERMISSION_DENIED, message="who\x1b[2J?")
        done = run("trace", "not-taken", "--otlp", endpoint)
        assert (done.returncode, done.stdout) == (5, "")
        told = f"plait: 127.0.0.1:{sink.port} answered PERMISSION_DENIED: who\\x1b[2J?\n"
        assert done.stderr == told
    # It is gone now.
    done = run("trace", "not-taken", "--otlp", endpoint)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith(f"plait: 127.0.0.1:{sink.port} answered UNAVAILABLE: ")
    assert done.stderr.count("\n") == 1


def test_endpoint_that_is_not_valid_is_a_usage_error(run: Run, tmp_path: Path) -> None:
    done = run("trace", "nobody", "--otlp", "http://:0")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not a URL such as" in done.stderr
    assert run("trace", "nobody", "--otlp", "localhost:4317", "--json").returncode == 2


def test_what_is_sent_again_is_what_was_sent_live(tmp_path: Path) -> None:
    """B2.1: equal, to the bit, whatever was sent together; so is the resource."""
    path, store = tmp_path / "traced.yaml", str(tmp_path / "plait.db")
    path.write_text(GRAPH)
    sent, again = Sink(), Sink()
    with open_grpc_sink(sent), open_grpc_sink(again):
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sent.port}"}
        serve = ("serve", "--listen", "127.0.0.1:0", "--store", store, "--create")
        # When it stops, the server sends what it has not sent yet.
        with live.process(*serve, env=env) as server:
            address = live.first_line(server).split()[-1]
            with live.worker(address):
                live.call("submit", str(path), "--id", "x", "--wait", "--server", address)
            live.call("trace", "x", "--server", address, "--otlp", f"http://127.0.0.1:{again.port}")
    assert len(spans_of(sent.requests)) > 10
    assert bytes_of(again.requests) == bytes_of(sent.requests)
    resources = {
        of_resource.resource.SerializeToString(deterministic=True)
        for request in (*sent.requests, *again.requests)
        for of_resource in trace_pb2.TracesData.FromString(request).resource_spans
    }
    assert len(resources) == 1


def spans_of(requests: Sequence[bytes]) -> list[trace_pb2.Span]:
    return [
        span
        for request in requests
        for of_resource in trace_pb2.TracesData.FromString(request).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def bytes_of(requests: Sequence[bytes]) -> list[bytes]:
    return sorted(span.SerializeToString() for span in spans_of(requests))
