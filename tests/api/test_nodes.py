"""ListNodes and GetNode over nested scopes, open ones and those that have ended (N2, E6)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from plait.v1 import execution_pb2, execution_service_pb2, state_pb2
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.requests.inline import InlineGraphRequests
from plait_server.api import nodes as nodes_module
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.executions import ExecutionServicer
from plait_server.api.pages import PageTokens
from plait_server.core.run.events import NodeEnded, NodeIdled
from plait_server.core.run.execution import Execution
from plait_server.encoding.execution_codec import describe_node
from plait_server.errors import EventDamaged, InvalidPageToken, NodeNotFound
from plait_server.runtime import closed_scopes
from plait_server.runtime.changes import Changes
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Runtime, Script, fails, hangs, returns, running

CALL = Call(method="/plait.v1.ExecutionService/ListNodes", peer="test")
Pb = execution_service_pb2

EVERYTHING = """
    a -> s; s -> last; s -x> never
    sub s {
        p, q -> r; q -> d; r -> t; r -error-> w; c -true-> yes; c -false-> no
        node d kind=delay:2
        node c kind=condition:true
        node r on_error=TOLERATE
        node q retry=3
        policy CONTINUE
        sub t { u -> v; sub v { k -> l } }
    }
    node last kind=transform
""".replace("s -x> never", "s -error-> never")
SCRIPTS: Mapping[str, Script] = {
    "s/p": returns('{"p":1}', 0.5),
    "s/q": returns("2", 1.0),
    "s/t/u": returns('"u"', 3.0),
}


class Lister:
    """Asks as a client does."""

    def __init__(self, runtime: Runtime) -> None:
        self.servicer = ExecutionServicer(
            runtime.supervisor,
            runtime.journal,
            InlineGraphRequests(CelEvaluator()),
            PageTokens(b"k"),
            Actions(lambda: 0.0),
            runtime.allocator.unserved_types,
            Changes(),
        )

    async def page(
        self, token: str = "", *, size: int = 1_000, scope_path: str | None = None
    ) -> Pb.ListNodesResponse:
        request = Pb.ListNodesRequest(
            namespace=NAMESPACE, execution_id="x", page_size=size, page_token=token, scope_path=scope_path
        )
        return await self.servicer.list_nodes(request, CALL)

    async def all(
        self, *, size: int = 1_000, scope_path: str | None = None
    ) -> list[execution_pb2.ExecutionNode]:
        nodes: list[execution_pb2.ExecutionNode] = []
        token = ""
        while True:
            page = await self.page(token, size=size, scope_path=scope_path)
            assert len(page.nodes) <= size
            nodes += page.nodes
            token = page.next_page_token
            if not token:
                return nodes
            assert len(page.nodes) == size, "a page is as full as it can be"

    async def get(self, path: str) -> execution_pb2.ExecutionNode:
        request = Pb.GetNodeRequest(namespace=NAMESPACE, execution_id="x", node_path=path)
        return (await self.servicer.get_node(request, CALL)).node


def paths(nodes: list[execution_pb2.ExecutionNode]) -> list[str]:
    return [node.path for node in nodes]


async def as_while_it_ran(runtime: Runtime) -> dict[str, execution_pb2.ExecutionNode]:
    """Describe each node as it was right before its scope was let go of; those of open scopes as they are."""
    replayed = await runtime.replay()
    execution = Execution(replayed.root.graph, replayed.root.analysis)
    shown: dict[str, execution_pb2.ExecutionNode] = {}
    for event in runtime.events():
        if isinstance(event.detail, NodeEnded | NodeIdled):
            # Those inside were stopped before; they go with it.
            for path in list(execution.scopes):
                if path == event.node_path or path.startswith(f"{event.node_path}/"):
                    shown |= described(execution, path)
        execution.apply(event)
    for path in execution.scopes:
        shown |= described(execution, path)
    return shown


def described(execution: Execution, scope_path: str) -> dict[str, execution_pb2.ExecutionNode]:
    scope = execution.scopes.get(scope_path)
    return {
        record.path: describe_node(
            execution, record, is_queued=lambda _: False, queue_reason=lambda _: "", in_list=False
        )
        for record in (scope.records if scope is not None else ())
    }


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize(
    ("graph", "closed"),
    [
        (EVERYTHING, ["s/t/v", "s/t", "s"]),
        # The scope times out with one inside; its nodes end after it.
        (
            "sub s { a -> b; sub t { hangs -> x }; policy timeout=5 }; node s on_error=IGNORE; s -> z",
            ["s/t", "s"],
        ),
        (
            "sub s { a -> b; sub t { hangs -> x } }; node s node_timeout=5 on_error=IGNORE; s -> z",
            ["s/t", "s"],
        ),
        # One fails fast, with a scope inside that is stopped.
        ("sub s { fails; sub t { hangs -> x } }; node s on_error=IGNORE; s -> z", ["s", "s/t"]),
        # One is lost in a race.
        ("sub s { sub t { hangs -> x } }; s, fast -> z; node z join=ANY", ["s/t", "s"]),
        # The execution is stopped; what is inside stays open.
        ("sub s { sub t { hangs -> x } }; fails", []),
    ],
)
async def test_n2_nodes_of_a_scope_that_ended_are_shown_as_while_it_ran(
    autojump_clock: MockClock, graph: str, closed: list[str], is_restarted: bool
) -> None:
    store = MemoryStore()
    scripts = {**SCRIPTS, "s/t/hangs": hangs, "fails": fails(after_s=1.0), "s/fails": fails(after_s=1.0)}
    async with running(store, scripts=scripts) as runtime:
        await runtime.submit(build(graph))
        ended = await runtime.wait_ended()
        assert list(ended.closed) == closed
        if is_restarted:
            runtime.crash()
    async with running(store) as runtime:
        expected = await as_while_it_ran(runtime)
        assert len(expected) == ended.totals.node_count
        lister = Lister(runtime)
        for path, node in expected.items():
            assert await lister.get(path) == node
        listed = await lister.all()
        assert set(paths(listed)) == set(expected)
        assert [node.state for node in listed] == [expected[node.path].state for node in listed]


async def test_n2_scopes_are_listed_after_what_is_around_them_in_graph_order(
    autojump_clock: MockClock,
) -> None:
    async with running() as runtime:
        await runtime.submit(
            build("a -> z; sub z { b; c; sub c { d } }; z -> y; sub y { e }; w; sub w { f }")
        )
        await runtime.wait_ended()
        lister = Lister(runtime)
        order = ["a", "z", "y", "w", "z/b", "z/c", "z/c/d", "y/e", "w/f"]
        for size in range(1, 11):
            assert paths(await lister.all(size=size)) == order
        for scope_path, inside in (("", order[:4]), ("z", ["z/b", "z/c"]), ("z/c", ["z/c/d"]), ("none", [])):
            for size in (1, 10):
                assert paths(await lister.all(size=size, scope_path=scope_path)) == inside
        token = (await lister.page(size=2, scope_path="")).next_page_token
        with pytest.raises(InvalidPageToken):
            await lister.page(token)


async def test_n2_pages_go_on_while_scopes_open_and_end(autojump_clock: MockClock) -> None:
    """Each page is asked for at another moment; what was there at the first is in them once, in order."""
    graph = build(*(f"sub s{number} {{ a -> b; sub b {{ c -> d }} }}" for number in range(6)))
    scripts = {f"s{number}/b/c": returns("1", 2.0 + number) for number in range(6)}
    for size in (1, 2, 3, 5):
        async with running(scripts=scripts) as runtime:
            await runtime.submit(graph)
            await trio.sleep(1)
            lister = Lister(runtime)
            page = await lister.page(size=size)
            found = paths(list(page.nodes))
            while page.next_page_token:
                await trio.sleep(0.5)
                page = await lister.page(page.next_page_token, size=size)
                found += paths(list(page.nodes))
            expected = [f"s{number}" for number in range(6)]
            for number in range(6):
                expected += [f"s{number}/a", f"s{number}/b", f"s{number}/b/c", f"s{number}/b/d"]
            assert found == expected


async def test_e6_the_end_of_a_scope_is_shown_beside_its_node(autojump_clock: MockClock) -> None:
    graph = build(
        "sub part { a; b; policy CONTINUE }; sub bad { c }; node bad on_error=IGNORE; sub open { d }; sub gone { e }",
        "policy CONTINUE",
        "sub later { f }; open -> later",
    )
    scripts = {"part/a": fails(), "bad/c": fails("ABORTED"), "open/d": hangs}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(graph)
        await trio.sleep(1)
        shown = {node.path: node for node in await Lister(runtime).all(scope_path="")}
        part, bad, still_open = shown["part"], shown["bad"], shown["open"]
        assert part.state == state_pb2.NODE_STATE_SUCCEEDED
        assert part.scope.state == state_pb2.EXECUTION_STATE_PARTIALLY_SUCCEEDED
        assert (part.scope.path, part.scope.node_count, part.scope.failure.node_path) == ("part", 2, "part/a")
        assert bad.state == state_pb2.NODE_STATE_FAILED
        assert bad.scope.state == state_pb2.EXECUTION_STATE_FAILED
        assert bad.scope.failure.code == bad.failure.code == "ABORTED"
        assert still_open.scope.state == state_pb2.EXECUTION_STATE_RUNNING
        assert not shown["later"].HasField("scope")
        await runtime.cancel()
        await runtime.wait_ended()
        cancelled = await Lister(runtime).get("open")
        assert cancelled.scope.state == state_pb2.EXECUTION_STATE_CANCELLED
        assert (await Lister(runtime).get("open/d")).state == state_pb2.NODE_STATE_CANCELLED


async def test_a_node_of_a_scope_that_was_not_opened_is_not_found(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit(build("a -> s; sub s { b }"))
        await trio.sleep(1)
        lister = Lister(runtime)
        for path in ("s/b", "s/none", "none/b", "s/b/c", "", "/", "s/"):
            with pytest.raises(NodeNotFound):
                await lister.get(path)
        assert paths(await lister.all()) == ["a", "s"]


async def test_n7_nodes_of_a_graph_that_an_output_was_are_shown_when_it_has_ended(
    autojump_clock: MockClock,
) -> None:
    output = """{"name":"made","nodes":[
        {"id":"b","task":{"type":"t"}},
        {"id":"c","subgraph":{"graph":{"nodes":[{"id":"d","task":{"type":"t"}}]}}},
        {"id":"e","subgraph":{"output_of":"f"}},
        {"id":"f","task":{"type":"t"}}
    ],"edges":[{"source":"f","target":"e"}]}"""
    inner = '{"nodes":[{"id":"g","task":{"type":"t"}}]}'
    scripts = {"a": returns(output), "s/f": returns(inner)}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(build("a -> s; node s kind=output_of:a; s -> z; sub z { y }"))
        ended = await runtime.wait_ended()
        assert set(ended.closed) == {"s", "s/c", "s/e", "z"}
        lister = Lister(runtime)
        order = ["a", "s", "z", "s/b", "s/c", "s/e", "s/f", "s/c/d", "s/e/g", "z/y"]
        for size in (1, 3, 20):
            # Nothing is known of the pages before.
            assert paths(await Lister(runtime).all(size=size)) == order
        assert (await lister.get("s/e/g")).state == state_pb2.NODE_STATE_SUCCEEDED
        assert (await lister.get("s")).scope.graph_name == "made"


async def test_what_a_stopped_attempt_says_after_its_scope_ended_is_shown(autojump_clock: MockClock) -> None:
    scripts: dict[str, Script] = {"s/a": hangs, "s/b": fails(after_s=1.0)}
    async with running(scripts=scripts) as runtime:
        runtime.workers.exit_s["s/a"] = 3.0
        runtime.workers.exit_usage["s/a"] = {"tokens": "7"}
        await runtime.submit(
            build("sub s { a; b }; node s on_error=IGNORE; s -> wait; node wait kind=delay:9")
        )
        await trio.sleep(2)
        lister = Lister(runtime)
        assert not (await lister.get("s/a")).attempts[0].usage
        await trio.sleep(4)
        assert (await lister.get("s/a")).attempts[0].usage == {"tokens": "7"}
        await runtime.wait_ended()
        assert (await Lister(runtime).get("s/a")).attempts[0].usage == {"tokens": "7"}


async def test_a_scope_that_is_open_when_the_server_dies_is_whole_when_it_has_ended(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    graph = build("sub s { a -> b; b -> c }")
    async with running(store, scripts={"s/b": hangs}) as runtime:
        await runtime.submit(graph)
        await trio.sleep(1)
        runtime.crash()
    async with running(store) as runtime:
        await runtime.wait_ended()
        nodes = await Lister(runtime).all(scope_path="s")
        assert [node.state for node in nodes] == [state_pb2.NODE_STATE_SUCCEEDED] * 3


@pytest.mark.parametrize("lost", ["all", "first", "middle", "last"])
async def test_an_index_that_lacks_events_is_told(autojump_clock: MockClock, lost: str) -> None:
    async with running() as runtime:
        await runtime.submit(build("sub s { a -> b }; sub t { c }"))
        await runtime.wait_ended()
        scopes = runtime.store.executions[NAMESPACE, "x"].scopes
        sequences = scopes["s"]
        match lost:
            case "all":
                del scopes["s"]
            case "first":
                del sequences[0]
            case "middle":
                del sequences[2]
            case _:
                del sequences[-1]
        lister = Lister(runtime)
        for call in (lister.get("s/a"), lister.all()):
            with pytest.raises(EventDamaged, match="plait store salvage"):
                await call
        assert paths(await lister.all(scope_path="t")) == ["t/c"]


async def test_a_page_reads_no_more_scopes_than_it_shows(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as runtime:
        await runtime.submit(build(*(f"sub s{number} {{ a -> b }}" for number in range(40))))
        await runtime.wait_ended()
        read: list[str] = []
        inner = closed_scopes.ClosedScopes.read

        async def count(
            self: closed_scopes.ClosedScopes, namespace: str, execution: Execution, scope_path: str
        ) -> object:
            read.append(scope_path)
            return await inner(self, namespace, execution, scope_path)

        monkeypatch.setattr(closed_scopes.ClosedScopes, "read", count)
        lister = Lister(runtime)
        page = await lister.page(size=40)
        assert read == []
        page = await lister.page(page.next_page_token, size=6)
        assert read == ["s0", "s1", "s2"]
        read.clear()
        await lister.page(page.next_page_token, size=3)
        assert read == ["s3", "s4"]
        read.clear()
        await lister.get("s39/b")
        assert read == ["s39"]


async def test_a_long_page_is_filled_in_slices(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as runtime:
        await runtime.submit(build(", ".join(f"n{number}" for number in range(300)) + " -> end"))
        lister = Lister(runtime)
        monkeypatch.setattr(nodes_module, "SLICE_S", 0.0)
        begun_s = trio.current_time()
        nodes = await lister.all()
        assert len(nodes) == 301
        assert trio.current_time() == begun_s
