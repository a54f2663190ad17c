"""Where each waiting request stands: the groups, queues and lines that exist, and the moves between them.

They exist only as long as something waits in them; `waiting` and `key_limits` say what each is.
"""

from __future__ import annotations

from plait_server.runtime.key_limits import KeyLine
from plait_server.runtime.limit_table import LimitTable
from plait_server.runtime.namespace_queues import NamespaceQueue, Namespaces, TypeQueue
from plait_server.runtime.rate import PacedQueues
from plait_server.runtime.waiting import Group, ScopeQueue
from plait_server.runtime.worker_table import WorkerTable


class WaitingGroups:
    """Creates, moves and removes the groups of waiting requests."""

    def __init__(
        self, limits: LimitTable, namespaces: Namespaces, workers: WorkerTable, paced: PacedQueues
    ) -> None:
        self._limits = limits
        self._namespaces = namespaces
        self._workers = workers
        self._paced = paced

    def make(self, queue: ScopeQueue, node_type: str, key: str = "") -> Group:
        """Create the group of a limit, a node type and a key, and those around it."""
        group = queue.groups.get((node_type, key))
        if group is not None:
            return group
        kind = self._kind(queue.namespace, node_type)
        parent, line = None, None
        if key:
            parent = self.make(queue, node_type)
            line = self._line(kind, key)
            line.count += 1
            line.limit.count += 1
        elif queue.outer:
            parent = self.make(queue.outer[-1], node_type)
        if parent is not None:
            parent.child_count += 1
        for limit in queue.chain:
            limit.count += 1
        kind.count += 1
        group = queue.groups[node_type, key] = Group(queue, kind, parent, line)
        return group

    def put(self, group: Group) -> None:
        """Put a group where its first own request belongs now; an empty one is removed."""
        group.trim()
        queue = group.queue
        if group.entries:
            group.own_rank = group.entries[0][0]
            for limit in queue.chain:
                limit.note(group)
            if group.line is not None:
                group.line.limit.note(group)
        else:
            group.own_rank = None
            if not group.child_count:
                self._forget_group(group)
                return
        queue.note_exhausted()
        self._namespaces.make_ready(group.move())

    def bind(self, kind: TypeQueue) -> None:
        """Let a queue depend on the limits that there are now, and mark it to be examined."""
        for limit in kind.limits:
            limit.kinds.pop(kind, None)
        namespace = kind.namespace
        namespace.limit = self._limits.of_namespace(namespace.name)
        kind.limits = self._limits.of_type(namespace.name, kind.name)
        kind.engine = self._limits.of_grants(namespace.name, kind.name)
        for limit in kind.limits:
            limit.kinds[kind] = None
        self._namespaces.make_ready(kind)

    # Inside.

    def _forget_group(self, group: Group) -> None:
        """Remove an empty group, and the one around it if that becomes empty."""
        queue, kind, parent = group.queue, group.kind, group.parent
        group.rank = None
        del queue.groups[group.name]
        for limit in queue.chain:
            limit.count -= 1
        queue.note_exhausted()
        kind.count -= 1
        if group.line is not None:
            self._leave_line(group.line)
        if not kind.count:
            self._forget_kind(kind)
        if parent is not None:
            parent.child_count -= 1
            if parent.is_empty:
                self._forget_group(parent)
            else:
                self._namespaces.make_ready(parent.move())

    def _kind(self, namespace: NamespaceQueue, node_type: str) -> TypeQueue:
        kind = namespace.kinds.get(node_type)
        if kind is None:
            pool = self._workers.pool(namespace.name, node_type)
            kind = namespace.kinds[node_type] = TypeQueue(namespace, node_type, pool)
            self.bind(kind)
        return kind

    def _line(self, kind: TypeQueue, key: str) -> KeyLine:
        limit = self._limits.of_key(kind.namespace.name, key)
        line = limit.lines.get(kind)
        if line is None:
            line = limit.lines[kind] = KeyLine(limit, kind)
        return line

    def _leave_line(self, line: KeyLine) -> None:
        """Account for a group that left the line of its key; an empty line is removed."""
        line.count -= 1
        line.limit.count -= 1
        if line.count:
            self._namespaces.make_ready(line)  # Another group may be its first now.
            return
        del line.limit.lines[line.kind]
        self._limits.forget_unused(line.limit)

    def _forget_kind(self, kind: TypeQueue) -> None:
        del kind.namespace.kinds[kind.name]
        for limit in kind.limits:
            limit.kinds.pop(kind, None)
        self._paced.drop(kind)
        self._workers.forget_unused_pool(kind.namespace.name, kind.name)
