"""The nodes of an execution, over all its scopes: found by path, and listed in pages (N2).

The order of the list: the nodes of a scope in graph order, then the scopes inside it in the order of their nodes, each
followed by its own nested scopes. A page begins at a place in that order: a scope and a position in its graph. Scopes
never vanish, so a place stays valid while scopes open and end; scopes that open before it are not in later pages.

Scopes that have ended are read from the journal one by one, only those whose nodes are shown. The execution continues
in the meantime, so a page may show nodes as of different sequences, each in a durable state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import trio

from plait.v1 import execution_pb2
from plait_server.core.definition.compiled import Definition
from plait_server.core.definition.graph import Subgraph
from plait_server.core.run.execution import Execution
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.encoding.execution_codec import describe_node
from plait_server.errors import NodeNotFound
from plait_server.runtime.closed_scopes import ClosedScopes
from plait_server.runtime.slicing import SLICE_S, Pacing
from plait_server.runtime.view import View

NODES_PER_LOOK: Final = 64
"""Nodes written between two checks of the clock: half a millisecond."""
_ENTRY_OVERHEAD: Final = 8
"""The bytes of a tag, and of a length of up to 4 bytes."""


class Cursor(NamedTuple):
    """A place in the list."""

    scope_path: str
    position: int
    """The position of a node in the scope's graph."""

    def text(self) -> str:
        """Return the cursor as text for a page token."""
        return f"{self.position}/{self.scope_path}"

    @classmethod
    def of_text(cls, text: str) -> Cursor:
        """Parse the result of `text`."""
        position, _, scope_path = text.partition("/")
        return cls(scope_path, int(position))


class NodesPage(NamedTuple):
    """A page of the list."""

    nodes: list[execution_pb2.ExecutionNode]
    next: Cursor | None
    """Where the next page begins; None on the last."""


class _ScopeNeeded(Exception):
    """A scope that has ended must be read before the call continues."""

    def __init__(self, scope_path: str) -> None:
        super().__init__(scope_path)
        self.scope_path = scope_path


class _Page:
    """A page under construction."""

    def __init__(self, begin: Cursor, nodes_max: int, bytes_max: int) -> None:
        self.nodes: list[execution_pb2.ExecutionNode] = []
        self.cursor: Cursor | None = begin
        """The place of the next node; None when there is none."""
        self._nodes_max = nodes_max
        self._bytes_left = bytes_max

    @property
    def has_all_nodes(self) -> bool:
        """Whether it has as many nodes as allowed."""
        return len(self.nodes) == self._nodes_max

    def add(self, node: execution_pb2.ExecutionNode) -> bool:
        """Add a node, unless the page is full."""
        self._bytes_left -= node.ByteSize() + _ENTRY_OVERHEAD
        if self.has_all_nodes or (self.nodes and self._bytes_left < 0):
            return False
        self.nodes.append(node)
        return True


class Nodes:
    """The nodes of one execution, for one call.

    Args:
        namespace: The namespace of the execution.
        view_of: Returns the execution's durable state.
        closed_scopes: Reads scopes that have ended.
    """

    def __init__(
        self, namespace: str, view_of: Callable[[], Awaitable[View]], closed_scopes: ClosedScopes
    ) -> None:
        self._namespace = namespace
        self._view_of = view_of
        self._closed_scopes = closed_scopes
        self._read: dict[str, Scope] = {}
        """Ended scopes read for this call, by path."""
        self._pacing = Pacing()

    async def get(self, node_path: str) -> execution_pb2.ExecutionNode:
        """Return the full form of a node.

        Raises:
            NodeNotFound: No node has this path, or its scope has not been opened.
            EventDamaged: Its scope has ended and cannot be read.
        """
        scope_path, _, node_id = node_path.rpartition("/")
        while True:
            view = await self._view_of()
            try:
                scope = self._find_scope(view.execution, scope_path)
            except _ScopeNeeded as needed:
                await self._read_scope(view, needed.scope_path)
                continue
            record = scope.find(node_id) if scope is not None else None
            if record is None:
                raise NodeNotFound(node_path=node_path[:200], execution_id=view.execution.execution_id)
            return describe_seen(view, record, in_list=False)

    async def list(
        self, begin: Cursor, *, nodes_max: int, bytes_max: int, in_scope: bool = False
    ) -> NodesPage:
        """List nodes from a place on.

        Args:
            begin: The place; a scope that has not been opened has no nodes.
            nodes_max: The most nodes in the page.
            bytes_max: The most bytes in the page, except that its first node may be larger.
            in_scope: Whether the list ends with the scope of the place.

        Raises:
            EventDamaged: A scope has ended and cannot be read.
        """
        page = _Page(begin, nodes_max, bytes_max)
        while True:
            view = await self._view_of()
            try:
                is_filled = self._fill(page, view, in_scope=in_scope)
            except _ScopeNeeded as needed:
                await self._read_scope(view, needed.scope_path)
                continue
            if is_filled:
                return NodesPage(page.nodes, page.cursor)
            await trio.sleep(SLICE_S)

    def _fill(self, page: _Page, view: View, *, in_scope: bool) -> bool:
        """Add nodes for some milliseconds; return whether the page is full or the list at its end."""
        execution = view.execution
        begun_s = trio.current_time()
        count = 0
        while page.cursor is not None:
            scope_path, begin = page.cursor
            scope = self._find_scope(execution, scope_path)
            records = scope.records if scope is not None else []
            for index in range(begin, len(records)):
                if count == NODES_PER_LOOK:
                    count = 0
                    if trio.current_time() - begun_s >= SLICE_S:
                        return False
                count += 1
                if not page.add(describe_seen(view, records[index], in_list=True)):
                    return True
                page.cursor = Cursor(scope_path, index + 1)
            page.cursor = None if in_scope or scope is None else self._next_scope(execution, scope_path)
            if page.has_all_nodes:
                # A scope has at least one node, so the list continues at the cursor.
                return True
        return True

    async def _read_scope(self, view: View, scope_path: str) -> None:
        scope = await self._closed_scopes.read(self._namespace, view.execution, scope_path)
        self._read[scope_path] = scope
        await self._pacing.pause_if_due()

    def _find_scope(self, execution: Execution, scope_path: str) -> Scope | None:
        """Return a scope; None if no scope of this path was opened.

        Raises:
            _ScopeNeeded: The scope has ended and has not been read.
        """
        scope = execution.scopes.get(scope_path)
        if scope is None and scope_path in execution.closed:
            scope = self._read.get(scope_path)
            if scope is None:
                raise _ScopeNeeded(scope_path)
        return scope

    def _next_scope(self, execution: Execution, scope_path: str) -> Cursor | None:
        """Return the start of the next opened scope; None after the last."""
        if len(execution.scopes) == 1 and not execution.closed:
            return None
        path, begin = scope_path, 0
        while True:
            inner = _first_inside(execution, path, self._definition(execution, path), begin)
            if inner is not None:
                return Cursor(inner, 0)
            if not path:
                return None
            path, _, node_id = path.rpartition("/")
            begin = self._definition(execution, path).adjacency.index[node_id] + 1

    def _definition(self, execution: Execution, scope_path: str) -> Definition:
        """Return the graph of a scope that was opened, if possible without reading it.

        Raises:
            _ScopeNeeded: Its graph was an output, which only its events contain.
        """
        scope = execution.scopes.get(scope_path) or self._read.get(scope_path)
        if scope is not None:
            return scope.definition
        outer_path, _, node_id = scope_path.rpartition("/")
        outer = self._definition(execution, outer_path)
        inner = outer.inner.get(outer.adjacency.index[node_id])
        if inner is None:
            raise _ScopeNeeded(scope_path)
        return inner


def describe_seen(view: View, record: NodeRecord, *, in_list: bool) -> execution_pb2.ExecutionNode:
    """Describe a node as a view shows it."""
    return describe_node(
        view.execution,
        record,
        is_queued=view.is_queued,
        queue_reason=view.queue_reason,
        in_list=in_list,
    )


def _first_inside(execution: Execution, scope_path: str, definition: Definition, begin: int) -> str | None:
    """Return the first opened scope in a node of a scope, from a position on."""
    prefix = f"{scope_path}/" if scope_path else ""
    nodes = definition.graph.nodes
    for index in range(begin, len(nodes)):
        if isinstance(nodes[index].kind, Subgraph):
            path = prefix + nodes[index].id
            if path in execution.scopes or path in execution.closed:
                return path
    return None
