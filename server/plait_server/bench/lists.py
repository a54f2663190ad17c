"""Q: lists and counts of a namespace that has kept a million executions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from plait.v1 import execution_pb2
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.bench.client import Client, call
from plait_server.bench.shape import Ceiling, Requirement, Round, Runner, Shape
from plait_server.bench.site import Site, run_server
from plait_server.core.lists.listing import Listing
from plait_server.core.run.states import ExecutionState
from plait_server.ports.journal import AppendItem, ExecutionRow

_KEPT: Final = 1_000_000
_BATCH: Final = 500
_CALLS: Final = 9
_SPACING_S: Final = 0.1
"""Between two executions: all of them are younger than what is deleted by itself."""
_STATES: Final = (*[ExecutionState.SUCCEEDED] * 8, ExecutionState.FAILED, ExecutionState.CANCELLED)


_QUERIES: Final = {
    "page_ms": "",
    "two_columns_ms": 'state = FAILED AND graph_name = "graph-3"',
    "label_ms": "labels.team = team-3 AND NOT state = SUCCEEDED",
    "no_match_ms": 'create_time < "2001-01-01T00:00:00Z"',
}
"""Figure -> the filter of a page of 50; the last goes through all that there is."""


@contextlib.contextmanager
def _open_lists(site: Site) -> Generator[Runner]:
    count = site.size(_KEPT, 100)
    trio.run(_fill, site.store(), count)
    with run_server(site) as server:

        def run() -> Round:
            before_s = server.cpu_s
            figures = call(server.address, _ask)
            cpu_s = server.cpu_s
            return Round(
                figures=figures,
                nodes=count,
                cpu_s=cpu_s - before_s if cpu_s is not None and before_s is not None else None,
                rss_bytes=server.rss_bytes,
            )

        yield run


async def _fill(path: Path, count: int) -> None:
    """Append rows alone: nobody opens these executions."""
    journal = SqliteJournal.open(path, owner="bench")
    begun_s = time.time() - count * _SPACING_S
    for first in range(0, count, _BATCH):
        await journal.append_many(
            [_item(number, begun_s) for number in range(first, min(count, first + _BATCH))]
        )
    await journal.aclose()


def _item(number: int, begun_s: float) -> AppendItem:
    state, name, team = _STATES[number % 10], f"graph-{number % 20}", f"team-{number % 7}"
    create_time_s = round(begun_s + number * _SPACING_S, 6)
    summary = execution_pb2.Execution(
        namespace="default",
        execution_id=f"kept-{number}",
        graph_name=name,
        state=int(state),  # type: ignore[arg-type] # the core's numbers are the contract's
        labels={"team": team},
        last_sequence=1,
    )
    listing = Listing(
        state=state,
        graph_name=name,
        labels={"team": team},
        create_time_s=create_time_s,
        end_time_s=create_time_s + 1,
    )
    return AppendItem(
        namespace="default",
        execution_id=f"kept-{number}",
        expected_sequence=0,
        owner_epoch=1,
        events=[b""],
        row=ExecutionRow(summary=summary.SerializeToString(), is_open=False, listing=listing),
    )


async def _ask(client: Client) -> dict[str, float]:
    """Return the median of each query."""
    figures: dict[str, float] = {}
    for figure, text in _QUERIES.items():
        figures[figure] = await _median_ms(partial(client.list_page, text))
    for figure, text in (("count_ms", "state = SUCCEEDED"), ("count_all_ms", "")):
        figures[figure] = await _median_ms(partial(client.count, text))
    return figures


async def _median_ms(ask: Callable[[], Awaitable[object]]) -> float:
    times: list[float] = []
    for _ in range(_CALLS):
        begun_s = time.perf_counter()
        await ask()
        times.append(time.perf_counter() - begun_s)
    return 1000 * sorted(times)[_CALLS // 2]


SHAPES = (
    Shape(
        name="Q",
        title=f"lists and counts with {_KEPT:,} executions kept",
        figure="two_columns_ms",
        open=_open_lists,
        rounds=3,
        ceilings=(Ceiling.CALL,),
        requirements=tuple(
            Requirement(figure=figure, at_most=100.0)
            for figure in ("page_ms", "two_columns_ms", "count_ms", "count_all_ms")
        ),
    ),
)
"""The shapes of this module."""
