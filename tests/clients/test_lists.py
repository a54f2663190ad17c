"""The clients' lists and watches of a namespace, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from plait.v1 import execution_service_pb2
from plait_client import AsyncClient, Client, GraphBuilder, InvalidArgument
from plait_client.errors import PlaitError
from tests.cli import live

UPDATED = execution_service_pb2.EXECUTION_CHANGE_TYPE_UPDATED
DELETED = execution_service_pb2.EXECUTION_CHANGE_TYPE_DELETED


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with live.server(":memory:") as listening:
        yield listening


def submit(client: Client, execution_id: str, **labels: str) -> None:
    """Run a graph that ends at once."""
    graph = GraphBuilder("quick")
    graph.transform("only")
    client.submit(graph.build(), execution_id=execution_id, labels=labels, wait_s=10)


def changes_of(
    frames: Iterator[execution_service_pb2.WatchExecutionsResponse], until: str
) -> tuple[list[tuple[int, str]], str]:
    """Read frames up to the end of an execution; return the changes, and the newest token."""
    changes: list[tuple[int, str]] = []
    for frame in frames:
        for change in frame.changes:
            changes.append((change.type, change.execution_id))
            if change.execution_id == until and (
                change.type == DELETED or change.execution.HasField("end_time")
            ):
                return changes, frame.watch_token
    raise AssertionError(until)


def test_lists_are_filtered_ordered_and_counted(address: str) -> None:
    with Client(address, namespace="filters") as client:
        for number in range(5):
            submit(client, f"x{number}", parity="odd" if number % 2 else "even")
        even = 'state = SUCCEEDED AND labels.parity = "even"'
        listed = client.list(filter=even, order_by="end_time", page_size=2)
        assert [execution.execution_id for execution in listed] == ["x0", "x2", "x4"]
        assert client.count(even) == 3
        assert client.count() == 5
        with pytest.raises(InvalidArgument, match="the fields are state") as refused:
            list(client.list(filter="colour = red"))
        assert refused.value.reason == "INVALID_FILTER"
        assert [violation.field for violation in refused.value.violations] == ["filter"]


def test_a_watch_follows_a_namespace(address: str) -> None:
    """A3: whatever ended before is there, each change comes, and so does what was deleted."""
    with Client(address, namespace="watched") as client:
        submit(client, "before")
        frames = client.watch_executions(include_initial=True)
        first = next(frames)
        assert [change.execution_id for change in first.changes] == ["before"]
        assert first.caught_up
        submit(client, "after")
        changes, token = changes_of(frames, "after")
        assert {*changes} == {(UPDATED, "after")}
        client.delete("before")
        assert changes_of(client.watch_executions(watch_token=token), "before")[0] == [(DELETED, "before")]
        with pytest.raises(PlaitError) as refused:
            next(client.watch_executions(watch_token=token, filter="labels:a"))
        assert refused.value.reason == "INVALID_WATCH_TOKEN"


def test_the_async_client_lists_and_watches(address: str) -> None:
    async def act() -> None:
        async with AsyncClient(address, namespace="async-lists") as client:
            frames = client.watch_executions(include_initial=True)
            assert (await anext(frames)).caught_up
            graph = GraphBuilder()
            graph.transform("only")
            await client.submit(graph.build(), execution_id="x", wait_s=10)
            assert (await anext(frames)).changes[0].execution_id == "x"
            listed = client.list(filter="state = SUCCEEDED", order_by="create_time")
            assert [execution.execution_id async for execution in listed] == ["x"]
            assert await client.count("NOT state = SUCCEEDED") == 0

    asyncio.run(act())


def test_a_watch_goes_on_at_the_server_s_next_start(tmp_path: Path) -> None:
    """FAILURES 39: nothing is missed, and what changed meanwhile comes once."""
    store = str(tmp_path / "store.db")
    with live.server(store) as address, Client(address) as client:
        frames = client.watch_executions()
        next(frames)
        submit(client, "x")
        _, token = changes_of(frames, "x")
        submit(client, "y")
    with live.server(store) as address, Client(address) as client:
        changes, token = changes_of(client.watch_executions(watch_token=token), "y")
        assert changes == [(UPDATED, "y")]
        assert [execution.execution_id for execution in client.list(filter="graph_name = quick")] == [
            "y",
            "x",
        ]
