"""Snapshots for watchers: an execution and all its nodes at one sequence, written in slices.

Writing 100,000 nodes takes a second, and the execution continues in the meantime. So:

1. Each slice fetches the current durable state and writes some nodes of open scopes.
2. When all are written, nodes with newer events are due again, and so are those of scopes opened since. An execution
   changes a node in 0.1 ms, and writing a node takes 10 us, so each round has a tenth of the nodes of the one before.
3. When few nodes are left, they are written in one slice together with the execution. No event comes in between, so
   everything is of that sequence.
4. The nodes of scopes that had ended by then no longer change. They are read when the watcher receives them, one
   scope at a time, because an execution may have a million.

A small execution is written at once. The reason why a node waits has no event (A1), and may be older than the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio

from plait.v1 import execution_service_pb2
from plait_server.api.describing import describe_view
from plait_server.api.nodes import describe_seen
from plait_server.api.watching import FRAME_BYTES_MAX, FRAME_ROOM, join_field
from plait_server.core.run.execution import Execution
from plait_server.core.run.scope import Scope
from plait_server.runtime.closed_scopes import ClosedScopes
from plait_server.runtime.slicing import SLICE_S, Pacing
from plait_server.runtime.view import View

LAST_NODES_MAX: Final = 500
"""Nodes that the last slice may write again, which takes 5 ms."""
ROUNDS_MAX: Final = 10
"""The most rounds: enough for the largest graph. Nodes due after that are written at once."""
_NODES_PER_LOOK: Final = 64
"""Nodes written between two checks of the clock."""
_NODES_TAG: Final = b"\x1a"
_SNAPSHOT_TAG: Final = b"\x12"

_Due: TypeAlias = list[tuple[str, Sequence[int]]]
"""Scope paths, and the positions of nodes in their graphs."""

Pb = execution_service_pb2


async def write_snapshot(
    namespace: str, view_of: Callable[[], Awaitable[View]], closed_scopes: ClosedScopes
) -> tuple[int, AsyncGenerator[bytes, None]]:
    """Write the state of an execution.

    Args:
        namespace: The namespace of the execution.
        view_of: Returns the execution's durable state.
        closed_scopes: Reads scopes that have ended.

    Returns:
        The sequence of the state, and the encoded frames, of at most 1 MiB each; they are built one by
        one, so that others run in between. The caller closes them (`contextlib.aclosing`). They raise EventDamaged if
        a scope that has ended cannot be read.
    """
    view = await view_of()
    written: dict[str, list[bytes]] = {}
    due: _Due = [(path, range(len(scope.records))) for path, scope in view.execution.scopes.items()]
    for round_ in range(ROUNDS_MAX):
        since = view.execution.sequence
        view = await _write_round(written, due, view, view_of)
        due = _due_since(view.execution, since)
        if sum(len(indexes) for _, indexes in due) <= LAST_NODES_MAX or round_ + 1 == ROUNDS_MAX:
            break
    for path, indexes in due:
        for index in indexes:
            _write_node(written, view, view.execution.scopes[path], index)
    execution = view.execution
    head = Pb.Snapshot(sequence=execution.sequence, execution=describe_view(namespace, view))
    # Outer scopes come first.
    closed = sorted(execution.closed, key=lambda path: path.count("/"))
    nodes = [node for path in execution.scopes for node in written[path]]

    async def read_closed(path: str) -> list[bytes]:
        scope = await closed_scopes.read(namespace, execution, path)
        seen = View(execution, None, None)
        return [describe_seen(seen, record, in_list=True).SerializeToString() for record in scope.records]

    return execution.sequence, _frames(head, nodes, closed, read_closed)


async def _write_round(
    written: dict[str, list[bytes]], due: _Due, view: View, view_of: Callable[[], Awaitable[View]]
) -> View:
    """Write the nodes that are due, in slices; return the state in which the last were written."""
    begun_s = trio.current_time()
    count = 0
    for path, indexes in due:
        for index in indexes:
            if count % _NODES_PER_LOOK == 0 and (taken_s := trio.current_time() - begun_s) >= SLICE_S:
                await trio.sleep(min(taken_s, SLICE_S))
                view = await view_of()
                begun_s = trio.current_time()
            count += 1
            scope = view.execution.scopes.get(path)
            if scope is None:
                break  # It has ended in the meantime, and is read from its events.
            _write_node(written, view, scope, index)
    return view


def _due_since(execution: Execution, since: int) -> _Due:
    """Return the nodes of open scopes with events after a sequence, and those of scopes opened by such an event."""
    due: _Due = []
    for path, scope in execution.scopes.items():
        if scope.first_sequence > since:
            due.append((path, range(len(scope.records))))
        elif scope.sequence > since:
            due.append((path, [record.index for record in scope.records if record.sequence > since]))
    return due


def _write_node(written: dict[str, list[bytes]], view: View, scope: Scope, index: int) -> None:
    nodes = written.get(scope.path)
    if nodes is None:
        nodes = written[scope.path] = [b""] * len(scope.records)
    nodes[index] = describe_seen(view, scope.records[index], in_list=True).SerializeToString()


async def _frames(
    head: execution_service_pb2.Snapshot,
    nodes: Sequence[bytes],
    closed: Sequence[str],
    read_closed: Callable[[str], Awaitable[list[bytes]]],
) -> AsyncGenerator[bytes, None]:
    """Cut a snapshot into frames; the first begins with the execution, the last one is marked."""
    part = head
    gathered: list[bytes] = []
    size = head.ByteSize()
    pacing = Pacing()
    for path in ("", *closed):
        await pacing.pause_if_due()
        for node in await read_closed(path) if path else nodes:
            if size + len(node) + 8 > FRAME_BYTES_MAX - FRAME_ROOM:
                yield _frame(part, gathered)
                part = Pb.Snapshot(sequence=head.sequence)
                gathered, size = [], 0
            gathered.append(node)
            size += len(node) + 8
    part.last = True
    yield _frame(part, gathered)


def _frame(part: execution_service_pb2.Snapshot, nodes: Sequence[bytes]) -> bytes:
    content = part.SerializeToString() + join_field(_NODES_TAG, nodes)
    return join_field(_SNAPSHOT_TAG, [content])
