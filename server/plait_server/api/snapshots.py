"""Snapshots for watchers: an execution and all its nodes at one sequence, written in slices.

To write 100,000 nodes takes a second, and the execution goes on meanwhile. So:

1. Each slice asks for the durable state anew and writes some nodes as they are.
2. When all are written, those that events came about since are due again. An execution changes a node in
   0.1 ms, and a node is written in 10 us, so each round has a tenth of the nodes of the one before.
3. A round that leaves few ends in the same slice: they are written again, and the execution with them. No event
   comes in between, so everything is of that sequence.

A small execution is written at once. What a node waits for is no event (A1), and may be older than the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import trio

from plait.v1 import execution_service_pb2
from plait_server.api.watching import FRAME_BYTES_MAX, FRAME_ROOM, join_field
from plait_server.encoding.execution_codec import describe, describe_node
from plait_server.runtime.slicing import SLICE_S
from plait_server.runtime.view import View

LAST_NODES_MAX: Final = 500
"""Nodes that the last slice may write again; 5 ms."""
ROUNDS_MAX: Final = 10
"""Enough for the largest graph; whatever is due then is written at once."""
_NODES_PER_LOOK: Final = 64
"""Nodes between two looks at the clock."""
_NODES_TAG: Final = b"\x1a"
_SNAPSHOT_TAG: Final = b"\x12"

Pb = execution_service_pb2


async def write_snapshot(
    namespace: str, view_of: Callable[[], Awaitable[View]]
) -> tuple[int, Iterator[bytes]]:
    """Write the state of an execution.

    Args:
        namespace: Where it is.
        view_of: Gives its durable state.

    Returns:
        The sequence of the state, and the encoded frames, of at most 1 MiB each; they are put together one by
        one, for others to go on between.
    """
    view = await view_of()
    count = len(view.execution.root.records)
    nodes = [b""] * count
    due: Sequence[int] = range(count)
    for round_ in range(ROUNDS_MAX):
        since = view.execution.sequence
        view = await _write_round(nodes, due, view, view_of)
        due = [record.index for record in view.execution.root.records if record.sequence > since]
        if len(due) <= LAST_NODES_MAX or round_ + 1 == ROUNDS_MAX:
            break
    for index in due:
        nodes[index] = _write_node(view, index)
    execution = view.execution
    head = Pb.Snapshot(
        sequence=execution.sequence, execution=describe(namespace, execution, view.queued_counts())
    )
    return execution.sequence, _frames(head, nodes)


async def _write_round(
    nodes: list[bytes], due: Sequence[int], view: View, view_of: Callable[[], Awaitable[View]]
) -> View:
    """Write the nodes that are due, in slices; gives the state in which the last were written."""
    begun_s = trio.current_time()
    for position, index in enumerate(due):
        if position % _NODES_PER_LOOK == 0 and (taken_s := trio.current_time() - begun_s) >= SLICE_S:
            await trio.sleep(min(taken_s, SLICE_S))
            view = await view_of()
            begun_s = trio.current_time()
        nodes[index] = _write_node(view, index)
    return view


def _write_node(view: View, index: int) -> bytes:
    record = view.execution.root.records[index]
    node = describe_node(
        view.execution.root,
        record,
        is_queued=view.is_queued,
        queue_reason=view.queue_reason,
        in_list=True,
    )
    return node.SerializeToString()


def _frames(head: execution_service_pb2.Snapshot, nodes: Sequence[bytes]) -> Iterator[bytes]:
    """Cut a snapshot into frames; the first begins with the execution, the last says so."""
    begins = [0]
    size = head.ByteSize()
    for position, node in enumerate(nodes):
        size += len(node) + 8
        if size > FRAME_BYTES_MAX - FRAME_ROOM:
            begins.append(position)
            size = len(node) + 8
    part = head
    for begin, end in zip(begins, [*begins[1:], len(nodes)], strict=True):
        part.last = end == len(nodes)
        content = part.SerializeToString() + join_field(_NODES_TAG, nodes[begin:end])
        yield join_field(_SNAPSHOT_TAG, [content])
        part = Pb.Snapshot(sequence=head.sequence)
