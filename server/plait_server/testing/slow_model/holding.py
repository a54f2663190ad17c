"""The slow model of an execution that is paused, resumed and updated (C2, C10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

from plait_server.core.definition.graph import Graph, Policy, Task
from plait_server.core.run.states import NodeState
from plait_server.testing.slow_model.model import SlowModel
from plait_server.testing.slow_model.nodes import Change, ModelNode, ModelScope, ScopeEnd
from plait_server.testing.slow_model.scopes import is_stopped


class Lock(NamedTuple):
    """A lock that an update sets or removes."""

    node_path: str
    is_locked: bool
    output: str | None
    """JSON text; None means null."""


class HeldModel(SlowModel):
    """The slow model, with what callers do to hold or change an execution."""

    is_held = False
    """Whether it is paused: nothing begins, and nothing is given out (C2)."""

    @cached_property
    def _locks(self) -> dict[str, Lock]:
        """Locks by path, also of nodes in scopes that have not opened (N10)."""
        return {}

    # Inputs.

    def pause(self, *, aborts: bool) -> list[Change | ScopeEnd]:
        """Hold the execution; running attempts go on, or are aborted to IDLE (C2)."""
        self.is_held = True
        if aborts:
            self._abort(self.root)
        return self._settled()

    def resume(self) -> list[Change | ScopeEnd]:
        """Let the execution go on."""
        self.is_held = False
        return self._settled()

    def update(self, policy: Policy | None, locks: Sequence[Lock]) -> list[Change | ScopeEnd]:
        """Change the policy of the execution, and locks by path (C10, N10)."""
        root = self.root
        if policy is not None:
            if root.is_stopped:
                policy = replace(policy, on_failure=root.graph.policy.on_failure)
            root.graph = replace(root.graph, policy=policy)
        for lock in locks:
            self._locks[lock.node_path] = lock
        for lock in locks:
            scope_path, _, node_id = lock.node_path.rpartition("/")
            scope = self.scopes.get(scope_path)
            if scope is not None:
                self._lock(scope.nodes[node_id])
                if not self.is_closed(scope):
                    self._reconsider(scope.nodes[node_id])
        return self._settled()

    def give_out(self, path: str) -> list[Change | ScopeEnd]:
        """Start an attempt of a node that waits for one."""
        self.node(path).has_started = True
        return super().give_out(path)

    def nodes_to_give_out(self) -> list[str]:
        """Return the nodes that wait for an attempt to be given out, in the order of R4."""
        return [] if self.is_held else super().nodes_to_give_out()

    # Inside.

    def _begin_one(self) -> bool:
        return not self.is_held and super()._begin_one()

    def _open(self, node: ModelNode, graph: Graph) -> None:
        super()._open(node, graph)
        if node.inner is not None:
            for inner in node.inner.nodes.values():
                self._lock(inner)

    def _abort(self, scope: ModelScope) -> None:
        """Abort the attempts in a scope; their nodes wait for another once the execution goes on."""
        for node in scope.nodes.values():
            if node.state is not NodeState.RUNNING:
                continue
            if node.inner is not None:
                self._abort(node.inner)
            elif isinstance(node.node.kind, Task):
                if is_stopped(scope):
                    self._changes.put_back(node)
                else:
                    self._changes.change(node, NodeState.IDLE)
                    self._decide_again(node)

    def _lock(self, node: ModelNode) -> None:
        """Replace the lock of a node (C4)."""
        lock = self._locks.get(node.path)
        if lock is not None:
            node.node = replace(node.node, locked=lock.is_locked, locked_output=lock.output)

    def _reconsider(self, node: ModelNode) -> None:
        """Let a node whose turn came begin anew, unless an attempt of it has started."""
        is_pending = node.wants_worker or node in self._late
        is_run = node.verdict is not None and node.verdict.is_run
        if is_pending and is_run and not node.has_started:
            self._decide_again(node)

    def _decide_again(self, node: ModelNode) -> None:
        """Put a node at the end of the order of decisions."""
        node.has_begun = node.wants_worker = False
        if node in self._late:
            self._late.remove(node)
        self._decisions.remove(node)
        self._decisions.append(node)
