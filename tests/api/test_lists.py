"""ListExecutions and CountExecutions: filters, orders, and tokens that hold for one list."""

from __future__ import annotations

import pytest

from plait.v1 import execution_pb2, execution_service_pb2
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.api.lists import ExecutionLists
from plait_server.api.pages import PageTokens
from plait_server.core.lists.listing import Listing
from plait_server.core.run.states import ExecutionState
from plait_server.errors import InvalidFilter, InvalidPageToken, InvalidRequest
from plait_server.ports.journal import AppendItem, DamagedRow, ExecutionRow, ListedExecution

Pb = execution_service_pb2


class World:
    """Lists over a journal in memory."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(MemoryStore(), owner="o")
        self.lists = ExecutionLists(self.journal, PageTokens(b"key"), self.describe)

    def describe(self, namespace: str, row: ListedExecution | DamagedRow) -> execution_pb2.Execution:
        return execution_pb2.Execution(namespace=namespace, execution_id=row.execution_id)

    async def add(self, count: int) -> None:
        for number in range(count):
            state = ExecutionState.RUNNING if number % 2 else ExecutionState.SUCCEEDED
            listing = Listing(
                state=state, labels={"n": str(number)}, create_time_s=number, end_time_s=100.0 - number
            )
            item = AppendItem(
                namespace="default",
                execution_id=f"x{number}",
                expected_sequence=0,
                owner_epoch=1,
                events=[b"1"],
                row=ExecutionRow(summary=b"", is_open=True, listing=listing),
            )
            await self.journal.append_many([item])

    async def ids(self, **fields: object) -> tuple[list[str], str]:
        page = await self.lists.list(Pb.ListExecutionsRequest(**fields))  # type: ignore[arg-type] # The fields of the request.
        return [execution.execution_id for execution in page.executions], page.next_page_token


async def test_lists_are_filtered_and_ordered_over_pages() -> None:
    world = World()
    await world.add(7)
    pages = []
    token = ""
    while True:
        ids, token = await world.ids(
            filter="state = SUCCEEDED", order_by="end_time", page_size=2, page_token=token
        )
        pages.append(ids)
        if not token:
            break
    assert pages == [["x6", "x4"], ["x2", "x0"]]
    assert (await world.ids(page_size=3))[0] == ["x6", "x5", "x4"]
    assert (await world.ids(order_by="create_time", page_size=1))[0] == ["x0"]
    assert await world.ids(filter="labels.n = 3") == (["x3"], "")
    assert (await world.lists.count(Pb.CountExecutionsRequest())).count == 7
    assert (await world.lists.count(Pb.CountExecutionsRequest(filter="state = RUNNING"))).count == 3


@pytest.mark.parametrize(
    "other",
    [
        {"filter": "state = RUNNING"},
        {"order_by": "create_time"},
        {"namespace": "other"},
        {"filter": "state = SUCCEEDED", "order_by": "end_time desc"},
    ],
)
async def test_a_token_of_another_list_is_refused(other: dict[str, str]) -> None:
    world = World()
    await world.add(6)
    _, token = await world.ids(filter="state = SUCCEEDED", page_size=1)
    assert token
    with pytest.raises(InvalidPageToken):
        await world.ids(**{"filter": "", **other}, page_token=token, page_size=1)


async def test_what_cannot_be_read_is_refused_by_field() -> None:
    world = World()
    with pytest.raises(InvalidFilter, match="at character 1"):
        await world.ids(filter="colour = red")
    with pytest.raises(InvalidFilter, match="at character 1"):
        await world.lists.count(Pb.CountExecutionsRequest(filter="colour = red"))
    with pytest.raises(InvalidRequest) as refused:
        await world.ids(order_by="state", page_size=-1)
    assert [violation.field for violation in refused.value.violations] == ["page_size", "order_by"]
    assert "`end_time desc`" in refused.value.violations[1].message
