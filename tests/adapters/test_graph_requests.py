"""Requests with a graph, read in place and in helper processes: equal answers, and what helpers may not do.

Real processes and the real clock, but for what is said of time: nothing here waits for any.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from google.protobuf.message import Message
from trio.testing import wait_all_tasks_blocked

from plait.v1 import execution_service_pb2, graph_pb2, graph_service_pb2, payload_pb2
from plait_client import parse_graph
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.requests import pool
from plait_server.adapters.requests.inline import InlineGraphRequests
from plait_server.adapters.requests.pool import PooledGraphRequests
from plait_server.core.limits import MIB
from plait_server.errors import InvalidRequest, Overloaded, TooCostly
from plait_server.ports.graph_requests import Want

Submit = execution_service_pb2.SubmitGraphRequest
INLINE = InlineGraphRequests(CelEvaluator())


@asynccontextmanager
async def pooled(**bounds: Any) -> AsyncGenerator[PooledGraphRequests]:  # noqa: ANN401 # of the constructor
    requests = PooledGraphRequests(CelEvaluator(), **bounds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.run)
        yield requests
        nursery.cancel_scope.cancel()


def graph(nodes: int = 3, *inputs: str) -> graph_pb2.Graph:
    made = graph_pb2.Graph(name="g", labels={"b": "2", "a": "1"})
    for number in range(nodes):
        made.nodes.add(id=f"n{number}").task.type = "t"
        if number:
            made.edges.add(source=f"n{number - 1}", target=f"n{number}")
    for node, text in zip(made.nodes, inputs, strict=False):
        node.input.json = text
    return made


def nested(depth: int) -> graph_pb2.Graph:
    made = graph()
    for _ in range(depth):
        outer = graph(2)
        outer.nodes[1].subgraph.graph.CopyFrom(made)
        made = outer
    return made


REQUESTS: dict[str, tuple[Want, Message]] = {
    "submission": (
        Want.SUBMIT,
        Submit(
            namespace="n",
            graph=graph(3, '{"a": "{{ input.x }}"}'),
            input=payload_pb2.Payload(json='{"x": 1}'),
            request_id="r",
            execution_id="e",
            labels={"z": "1", "y": "2"},
        ),
    ),
    "graphs in graphs": (Want.SUBMIT, Submit(graph=nested(16))),
    "plan of graphs in graphs": (Want.PLAN, graph_service_pb2.PlanGraphRequest(graph=nested(3))),
    "no graph": (Want.SUBMIT, Submit(namespace="n", input=payload_pb2.Payload(json="{"))),
    "an invalid graph": (Want.SUBMIT, Submit(graph=graph(2, '"{{ nodes.n9.output }}"', "{"))),
    "many problems": (Want.SUBMIT, Submit(graph=graph_pb2.Graph(nodes=[graph_pb2.Node()] * 5_000))),
    "validation": (Want.VALIDATE, graph_service_pb2.ValidateGraphRequest(namespace="n", graph=graph())),
    "plan": (Want.PLAN, graph_service_pb2.PlanGraphRequest(graph=graph(50))),
    "plan of an invalid graph": (
        Want.PLAN,
        graph_service_pb2.PlanGraphRequest(graph=graph_pb2.Graph(name="a b")),
    ),
    "plan of nothing": (Want.PLAN, graph_service_pb2.PlanGraphRequest(namespace="n")),
}


async def test_a_helper_answers_as_if_it_were_read_in_place() -> None:
    async with pooled() as requests:
        for name, (want, message) in REQUESTS.items():
            here = await INLINE.read(want, message)
            there = await requests.read(want, message.SerializeToString())
            if here.graph is not None:
                assert here.graph.values is not None
                here = replace(here, graph=replace(here.graph, values=None))
            assert there == here, name


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff",
        b"\x12\x05ab",
        Submit(graph=graph_pb2.Graph(nodes=[graph_pb2.Node()] * 100_001)),
        Submit(graph=nested(17)),
    ],
    ids=["no message", "cut", "too many nodes", "too deep"],
)
async def test_what_is_refused_is_refused_alike(content: bytes | Message) -> None:
    async with pooled() as requests:
        raw = content if isinstance(content, bytes) else content.SerializeToString()
        refusals: list[InvalidRequest] = []
        for each in (INLINE, requests):
            with pytest.raises(InvalidRequest) as raised:
                await each.read(Want.SUBMIT, raw)
            refusals.append(raised.value)
        assert refusals[0].violations == refusals[1].violations


async def test_small_requests_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object, **__: object) -> trio.Process:
        raise AssertionError

    monkeypatch.setattr(trio.lowlevel, "open_process", start)
    requests = PooledGraphRequests(CelEvaluator())
    for want, message in REQUESTS.values():
        if len(message.SerializeToString()) < 5_000:
            await requests.read(want, message)
    with pytest.raises(AssertionError):  # 5,000 nodes in 10,000 bytes
        await requests.read(*REQUESTS["many problems"])
    with pytest.raises(AssertionError):
        await requests.read(Want.SUBMIT, Submit(graph=graph(200, *[f'"{{{{ {n} }}}}"' for n in range(200)])))
    for size in (200, 2_000):
        outer, inner = graph(), graph(size, *[f'"{{{{ {n} }}}}"' for n in range(200)])
        outer.nodes[0].subgraph.graph.CopyFrom(inner)
        with pytest.raises(AssertionError):
            await requests.read(Want.SUBMIT, Submit(graph=outer))


async def test_a_helper_is_kept_for_the_next_small_request() -> None:
    want, message = REQUESTS["many problems"]
    async with pooled() as requests:
        await requests.read(want, message)
        ((_, first),) = requests._idle
        await requests.read(want, message)
        assert [process for _, process in requests._idle] == [first]
        await requests.read(want, Submit(graph=graph(50_000)).SerializeToString())
        assert requests._idle == []


async def test_a_helper_that_died_while_idle_is_replaced() -> None:
    want, message = REQUESTS["many problems"]
    async with pooled() as requests:
        await requests.read(want, message)
        ((_, first),) = requests._idle
        os.kill(first.pid, signal.SIGKILL)
        await first.wait()
        assert (await requests.read(want, message)).violation_count


async def test_idle_helpers_are_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        requests = PooledGraphRequests(CelEvaluator())
        process = await trio.lowlevel.open_process(["sleep", "1000"])
        nursery.start_soon(requests.run)
        requests._idle.append((trio.current_time(), process))
        requests._kept.set()
        await trio.sleep(pool.IDLE_S / 2)
        assert process.poll() is None
        assert await process.wait() != 0
        nursery.cancel_scope.cancel()


async def test_a_request_that_takes_too_long_is_refused_and_its_helper_killed() -> None:
    async with pooled(deadline_s=0.01) as requests:
        with pytest.raises(TooCostly, match=r"within 0\.01 s"):
            await requests.read(Want.SUBMIT, Submit(graph=graph(20_000)).SerializeToString())
        assert requests.statistics().running == 0


async def test_a_request_that_needs_too_much_memory_is_refused() -> None:
    async with pooled(memory_bytes=160 * MIB) as requests:
        with pytest.raises(TooCostly, match="memory"):
            await requests.read(Want.SUBMIT, Submit(graph=graph(99_000)).SerializeToString())


async def test_a_helper_that_dies_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_MODULE", "plait_server.no_such_module")
    async with pooled() as requests:
        with pytest.raises(TooCostly, match="ended"):
            await requests.read(Want.SUBMIT, Submit(graph=graph(3_000)).SerializeToString())


async def test_a_cancelled_request_leaves_no_helper() -> None:
    async with pooled() as requests:
        with trio.CancelScope() as scope:
            scope.cancel()
            await requests.read(Want.SUBMIT, Submit(graph=graph(3_000)).SerializeToString())
        assert requests._idle == []
        assert requests.statistics().running == 0


async def test_too_many_waiting_requests_are_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object, **__: object) -> trio.Process:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio.lowlevel, "open_process", start)
    requests = PooledGraphRequests(CelEvaluator(), processes=1, waiting_max=4)
    content = Submit(namespace="n", graph=graph(3_000)).SerializeToString()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(requests.read, Want.SUBMIT, content)
        await wait_all_tasks_blocked()
        with pytest.raises(Overloaded) as raised:
            await requests.read(Want.SUBMIT, content)
        assert raised.value.retry_after_s is not None
        assert requests.statistics().waiting == 2
        nursery.cancel_scope.cancel()


# Outputs that are graphs (L4, N7).


TEXTS: dict[str, str] = {
    "a graph file": json.dumps(
        {
            "name": "g",
            "nodes": [
                {
                    "id": "a",
                    "task": {"type": "t"},
                    "input": {"x": "{{ input.y }}"},
                    "timeouts": {"attempt": "2m"},
                },
                {"id": "b", "transform": {}, "join": {"mode": "any"}, "locked_output": None},
            ],
            "edges": [{"source": "a", "target": "b", "branchName": "n"}],
        }
    ),
    "a large one": json.dumps({"nodes": [{"id": f"n{number}", "transform": {}} for number in range(5_000)]}),
    "an invalid graph": json.dumps({"nodes": [{"id": "a b", "transform": {}}], "edges": [{"source": "q"}]}),
    "a large invalid one": json.dumps({"nodes": [{"id": "a", "transform": {}}] * 5_000}),
    "not like a graph": json.dumps({"nodes": [{"id": 7, "tusk": {}}], "edges": {}}),
    "no object": '"graph"',
    "a long list": json.dumps(list(range(10_000))),
    "graphs in graphs": json.dumps({"nodes": [{"id": "s", "subgraph": {"graph": {"nodes": [{"id": "a"}]}}}]}),
}


async def test_n7_a_helper_reads_a_text_as_if_it_were_read_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CHEAP_TEXT_CHARS_MAX", 0)
    async with pooled() as requests:
        for name, text in TEXTS.items():
            here = await INLINE.read_text("n", text)
            there = await requests.read_text("n", text)
            assert (here.graph is None) == bool(here.violation_count) == bool(here.violations), name
            if here.graph is not None:
                here = replace(here, graph=replace(here.graph, values=None))
            assert there == here, name


async def test_n7_a_text_is_read_as_a_graph_file_is() -> None:
    read = await INLINE.read_text("n", TEXTS["a graph file"])
    assert read.graph is not None
    message = graph_pb2.Graph.FromString(read.graph.content)
    assert message == parse_graph(TEXTS["a graph file"])
    assert message.nodes[0].input.json == '{"x":"{{ input.y }}"}'
    assert message.nodes[1].locked_output.json == "null"


@pytest.mark.parametrize(
    ("text", "violations"),
    [
        (
            TEXTS["an invalid graph"],
            {
                "graph.nodes[0].id": '"a b" is no id: write 1 to 128 letters, digits, `_`, `.` or `-`',
                "graph.edges[0].source": 'there is no node "q"; add it, or name another',
                "graph.edges[0].target": 'there is no node ""; add it, or name another',
            },
        ),
        (
            TEXTS["not like a graph"],
            {
                "graph.nodes[0].id": 'expected a text; write "7", found the number 7',
                "graph.nodes[0]": 'unknown key "tusk"; did you mean "task"?',
                "graph.edges": "expected a list, found an object",
            },
        ),
        ("null", {"graph": "expected an object, found nothing"}),
        ('{"nodes": []}', {"graph.nodes": "there is no node; add at least one"}),
    ],
)
async def test_n7_all_that_is_wrong_with_a_text_is_said(text: str, violations: dict[str, str]) -> None:
    read = await INLINE.read_text("n", text)
    assert read.graph is None
    assert {each.field: each.message for each in read.violations} == violations
    assert read.violation_count == len(violations)


async def test_n7_of_many_problems_the_first_50_are_kept() -> None:
    read = await INLINE.read_text("n", json.dumps({"nodes": [{"x": 1}] * 80}))
    assert (len(read.violations), read.violation_count) == (50, 80)


async def test_n7_a_text_that_takes_too_much_is_no_valid_graph() -> None:
    async with pooled(deadline_s=0.01) as requests:
        read = await requests.read_text("n", TEXTS["a large one"])
        too_long = await requests.read_text("n", '"' + "x" * 16 * MIB + '"')
    for each, message in (
        (read, "the graph cannot be read within 0.01 s; send a smaller graph"),
        (too_long, "has 16,777,218 characters; at most 16,777,216 are allowed"),
    ):
        assert [(violation.field, violation.message) for violation in each.violations] == [("graph", message)]
        assert (each.graph, each.violation_count) == (None, 1)


async def test_a_text_waits_for_its_turn_however_many_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: object, **__: object) -> trio.Process:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio.lowlevel, "open_process", start)
    requests = PooledGraphRequests(CelEvaluator(), processes=1, waiting_max=4)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(requests.read_text, "n", TEXTS["a large one"])
        await wait_all_tasks_blocked()
        assert requests.statistics().waiting == 19
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("content", "namespace"),
    [
        (Submit(namespace="abc", graph=graph()).SerializeToString(deterministic=True), "abc"),
        (Submit(labels={"a": "b"}).SerializeToString() + Submit(namespace="x").SerializeToString(), "x"),
        (b"\x32\x00" * 17 + Submit(namespace="late").SerializeToString(), "late"),
        (
            Submit(namespace="first").SerializeToString() + Submit(namespace="last").SerializeToString(),
            "last",
        ),
        (b"\x32\x00" * 1_000 + Submit(namespace="late").SerializeToString(), ""),
        (b"\x0a\xff", ""),
        (b"\x0a", ""),
        (b"", ""),
    ],
    ids=["first", "behind labels", "behind others", "twice", "too late", "cut off", "no length", "nothing"],
)
def test_the_turn_is_that_of_the_namespace_in_which_the_request_is_carried_out(
    content: bytes, namespace: str
) -> None:
    assert pool._namespace_of(content) == namespace


UNKNOWN = {
    "varint": b"\x98\x06\x96\x01",
    "fixed64": b"\x99\x06" + bytes(8),
    "bytes": b"\x9a\x06\x03abc",
    "group": b"\x9b\x06\x12\x00\x9b\x06\x12\x00\x9c\x06\x9c\x06",
    "fixed32": b"\x9d\x06" + bytes(4),
}


@pytest.mark.parametrize("kind", UNKNOWN)
async def test_unknown_fields_of_a_graph_are_refused_where_they_stand(kind: str) -> None:
    """DESIGN 4: in graphs unknown fields are refused, elsewhere ignored."""
    message = (
        "this server does not know its field 99; "
        "is the server older than the client? upgrade the server, or remove the field"
    )
    whole = graph()
    whole.MergeFromString(UNKNOWN[kind])
    node, deep, edge, inner = graph(), graph(), graph(), graph()
    node.nodes[1].MergeFromString(UNKNOWN[kind])
    deep.nodes[2].task.MergeFromString(UNKNOWN[kind])
    edge.edges[0].MergeFromString(UNKNOWN[kind])
    inner.nodes[0].subgraph.graph.CopyFrom(node)
    for each, field in (
        (whole, "graph"),
        (node, "graph.nodes[1]"),
        (deep, "graph.nodes[2].task"),
        (edge, "graph.edges[0]"),
        (inner, "graph.nodes[0].subgraph.graph.nodes[1]"),
    ):
        read = await INLINE.read(Want.SUBMIT, Submit(graph=each))
        assert [(each.field, each.message) for each in read.violations] == [(field, message)]
        assert read.graph is None
    outside = Submit(graph=graph())
    outside.MergeFromString(UNKNOWN[kind])
    assert not (await INLINE.read(Want.SUBMIT, outside)).violations


async def test_many_unknown_fields_are_told_by_message_and_number() -> None:
    message = graph(2)
    for number in range(100, 120):
        message.nodes[1].MergeFromString(bytes([number << 3 & 127 | 128, number >> 4, 1]))
    message.edges[0].MergeFromString(UNKNOWN["varint"])
    read = await INLINE.read(Want.VALIDATE, graph_service_pb2.ValidateGraphRequest(graph=message))
    first, second = read.violations
    assert (first.field, second.field) == ("graph.nodes[1]", "graph.edges[0]")
    assert first.message.startswith(
        "this server does not know its fields 100, 101, 102, 103, 104, 105, 106, 107, 108, 109 and 10 more"
    )


async def test_unknown_fields_of_a_large_graph_are_refused_by_the_helper() -> None:
    """Graphs of any size and depth are read alike in another process."""
    large, outer = graph(pool.CHEAP_ELEMENTS_MAX + 1), graph(1)
    large.nodes[2000].task.MergeFromString(UNKNOWN["varint"])
    outer.nodes[0].subgraph.graph.CopyFrom(large)
    for message, field in ((large, "graph"), (outer, "graph.nodes[0].subgraph.graph")):
        async with pooled() as requests:
            read = await requests.read(Want.SUBMIT, Submit(graph=message))
            assert requests._idle, "it was read in place"
        assert [violation.field for violation in read.violations] == [f"{field}.nodes[2000].task"]
        assert "field 99" in read.violations[0].message


async def test_groups_nested_without_end_are_refused() -> None:
    """FAILURES 48."""
    content = UNKNOWN["group"][:2] * 50_000 + UNKNOWN["group"][-2:] * 50_000
    with pytest.raises(InvalidRequest, match="not a valid"):
        await INLINE.read(Want.SUBMIT, Submit(graph=graph()).SerializeToString() + content)
