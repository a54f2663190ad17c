"""Draws a trace as a tree for the terminal: each span with its offset from the start, its duration and its state.

    0.000   1.24 s  execution         SUCCEEDED
    0.001    12 ms  ├─ outline        SUCCEEDED
    0.001    12 ms  │  └─ attempt 1   SUCCEEDED  at demo-1
    0.013   1.21 s  ├─ branch 0-001

For an open execution there are spans of what has ended, but not of their parents; those are drawn without times.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.cli.text import color_of, colored, dim, duration, one_line

CHILDREN_MAX: Final = 20
"""Children drawn of a span; those that failed have precedence."""
SPANS_MAX: Final = 300
"""Spans drawn altogether: a few screens."""
DEPTH_MAX: Final = 24
"""Forks may be nested deeper than a terminal is wide."""
_MESSAGE_CHARS_MAX: Final = 300
_LABEL_CHARS_MAX: Final = 60
_LABELS_CHARS_MAX: Final = 48
"""States are aligned in a column behind labels of up to this width; behind longer ones they are not."""
_LINKS_SHOWN_MAX: Final = 5
_OFFSET_CHARS: Final = 9
_DURATION_CHARS: Final = 9
_NO_TIMES: Final = " " * (_OFFSET_CHARS + _DURATION_CHARS)

_ERROR: Final = trace_pb2.Status.STATUS_CODE_ERROR


class _Item:
    """A span, or a placeholder for one that is missing."""

    __slots__ = ("attributes", "children", "has_failed", "kind", "parent", "span")

    def __init__(self, kind: str, attributes: dict[str, str], span: trace_pb2.Span | None) -> None:
        self.kind = kind
        self.attributes = attributes
        self.span = span
        self.parent: _Item | None = None
        self.children: list[_Item] = []
        self.has_failed = False
        """Whether its span, or one below it, is an error."""

    @property
    def path(self) -> str:
        return self.attributes.get("plait.node.path", "")

    @property
    def branch(self) -> str:
        return self.attributes.get("plait.branch.id", "")

    @property
    def start_ns(self) -> int:
        return self.span.start_time_unix_nano if self.span is not None else 0

    @property
    def error(self) -> str:
        is_error = self.span is not None and self.span.status.code == _ERROR
        return (self.span.status.message or "ERROR") if is_error and self.span is not None else ""


class _Row(NamedTuple):
    tree: str
    """The lines of the tree before its label."""
    below: str
    """The lines of the tree in the rows of its children."""
    item: _Item


class TraceTree:
    """The spans of one execution, as a tree."""

    def __init__(self) -> None:
        self._items: dict[bytes, _Item] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<TraceTree of {len(self)} spans>"

    def add(self, data: trace_pb2.TracesData) -> None:
        """Add a part of the trace."""
        for of_resource in data.resource_spans:
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    kind = span.name.partition(" ")[0]
                    self._items[span.span_id] = _Item(kind, _attributes_of(span), span)

    def execution(self) -> dict[str, str] | None:
        """Return the attributes of the execution's span, of the newest run that ended; None if none has."""
        ended = [item for item in self._items.values() if item.kind == "execution"]
        return max(ended, key=lambda item: item.start_ns).attributes if ended else None

    def lines(self, *, shows_all: bool) -> Iterator[str]:
        """Draw the tree.

        Args:
            shows_all: Whether to draw every span, however many there are.
        """
        roots = self._roots()
        shown = _choose(roots, shows_all=shows_all)
        rows = list(_rows(roots, shown))
        widest = max(
            (len(row.tree) + len(_label(row.item)) for row in rows if not isinstance(row, str)), default=0
        )
        width = min(widest, _LABELS_CHARS_MAX)
        begin_ns = min((item.start_ns for item in self._items.values()), default=0)
        for row in rows:
            yield dim(row) if isinstance(row, str) else self._line(row, width, begin_ns)
        left_out = len(self) - sum(item.span is not None for item in shown)
        if left_out:
            yield dim(
                f"{left_out:,} of {len(self):,} spans are not drawn; --all draws them, --json writes them"
            )

    # The tree.

    def _roots(self) -> list[_Item]:
        """Add each item to its parent's children; return the items that have no parent."""
        items = list(self._items.values())
        missing = _Missing(items)
        roots: list[_Item] = []
        for item in items:
            assert item.span is not None  # The placeholders are in `missing`.
            parent = self._items.get(item.span.parent_span_id)
            if parent is None and item.kind != "execution":
                parent = missing.parent_of(item)
            if parent is None:
                roots.append(item)
            else:
                item.parent = parent
                parent.children.append(item)
        roots += missing.roots()
        for item in [*items, *missing.items()]:
            item.children.sort(key=_order)
            if item.error:
                _mark_failed(item)
        return sorted(roots, key=_order)

    def _line(self, row: _Row, width: int, begin_ns: int) -> str:
        item, span = row.item, row.item.span
        times = _NO_TIMES
        if span is not None:
            offset = f"{(span.start_time_unix_nano - begin_ns) / 1e9:.3f}".rjust(_OFFSET_CHARS)
            took_s = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
            times = dim(offset) + duration(took_s).rjust(_DURATION_CHARS)
        label = _label(item)
        state = _state(item)
        tail = "  ".join(each for each in (colored(state, color_of(state)), *self._notes(item)) if each)
        padding = " " * max(0, width - len(row.tree) - len(label))
        return f"{times}  {dim(row.tree)}{label}{padding}  {tail}".rstrip()

    def _notes(self, item: _Item) -> list[str]:
        if item.span is None:
            return [dim("has not ended")]
        has = item.attributes
        notes: list[str] = []
        reason = has.get("plait.reason", "")
        if reason and reason != has.get("error.type"):
            notes.append(one_line(reason))
        error = item.error
        if error and item.kind == "attempt" and item.parent is not None and item.parent.error == error:
            error = has.get("error.type", "")  # The parent's line has the message.
        notes.append(one_line(error, _MESSAGE_CHARS_MAX))
        if item.kind == "node" and has.get("plait.node.kind", "task") != "task":
            notes.append(has["plait.node.kind"])
        if worker_id := has.get("plait.worker.id"):
            notes.append(f"at {one_line(worker_id)}")
        notes.append(self._links(item.span))
        return [note for note in notes if note]

    def _links(self, span: trace_pb2.Span) -> str:
        """Name what fed a join."""
        names = [
            one_line(self._items[link.span_id].path)
            for link in span.links[:_LINKS_SHOWN_MAX]
            if link.span_id in self._items
        ]
        more = len(span.links) + span.dropped_links_count - len(names)
        if not names:
            return ""
        return f"after {', '.join(names)}{f' and {more:,} more' if more else ''}"


class _Missing:
    """Makes placeholders for spans that are missing because they have not ended."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._nodes: dict[str, _Item] = {}
        self._branches: dict[tuple[str, str], _Item] = {}
        """By scope path and path: a scope's branches are its own."""
        self._scope_branches: dict[str, str] = {}
        """Scope path -> the branch that the scope seems to go on in: what the branches of all in it begin with."""
        for item in items:
            scope_path = _scope_of(item.path)
            while scope_path:
                known = self._scope_branches.get(scope_path, item.branch)
                self._scope_branches[scope_path] = _common_branch(known, item.branch)
                scope_path = _scope_of(scope_path)

    def items(self) -> list[_Item]:
        return [*self._nodes.values(), *self._branches.values()]

    def roots(self) -> list[_Item]:
        return [item for item in self._branches.values() if item.parent is None]

    def parent_of(self, item: _Item) -> _Item | None:
        """Return the placeholder of an item's parent; None if it needs none."""
        if item.kind in ("attempt", "queue"):
            return self._node(item.path, item.branch)
        return self._around(item.path, item.branch) if item.kind == "node" else None

    def _node(self, path: str, branch: str) -> _Item:
        """Return the placeholder of a node."""
        node = self._nodes.get(path)
        if node is None:
            attributes = {"plait.node.path": path, "plait.branch.id": branch}
            node = self._nodes[path] = _Item("node", attributes, None)
            _put_below(node, self._around(path, branch))
        return node

    def _around(self, path: str, branch: str) -> _Item:
        """Return what a node lies under: a branch, or the node of its scope."""
        scope_path = _scope_of(path)
        if not scope_path:
            return self._branch(branch)
        own = self._scope_branches[scope_path]
        node = self._node(scope_path, own)
        if branch == own:
            return node
        found = self._branches.get((scope_path, branch))
        if found is None:
            found = self._branches[scope_path, branch] = _Item("branch", {"plait.branch.id": branch}, None)
            _put_below(found, node)
        return found

    def _branch(self, path: str) -> _Item:
        """Return the placeholder of a branch, below that of its parent; for branch 0 the execution's."""
        branch = self._branches.get(("", path))
        if branch is None:
            is_main = "-" not in path
            branch = _Item("execution" if is_main else "branch", {"plait.branch.id": path}, None)
            self._branches["", path] = branch
            if not is_main:
                # A path that is cut does not name its parent.
                above = "0" if "…" in path else path.rpartition("-")[0]
                _put_below(branch, self._branch(above))
        return branch


def _scope_of(path: str) -> str:
    return path.rpartition("/")[0]


def _common_branch(first: str, second: str) -> str:
    parts = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first.split("-"), second.split("-")))  # noqa: B905 # one may be longer
    return "-".join(part for part, _ in parts) or "0"


def _put_below(item: _Item, parent: _Item) -> None:
    item.parent = parent
    parent.children.append(item)


def _mark_failed(item: _Item) -> None:
    above: _Item | None = item
    while above is not None and not above.has_failed:
        above.has_failed = True
        above = above.parent


def _order(item: _Item) -> tuple[int, str]:
    """Sort spans by the millisecond in which they began; placeholders come last."""
    return (item.start_ns // 1_000_000 or 1 << 63, item.branch)


# What is drawn.


def _choose(roots: Sequence[_Item], *, shows_all: bool) -> dict[_Item, None]:
    """Choose the items to draw: parents before children, and of the children those that failed, then the earliest."""
    chosen: dict[_Item, None] = {}
    queue: deque[tuple[_Item, int]] = deque((root, 0) for root in roots)
    while queue and (shows_all or len(chosen) < SPANS_MAX):
        item, depth = queue.popleft()
        chosen[item] = None
        if shows_all:
            queue += [(child, depth + 1) for child in item.children]
        elif depth < DEPTH_MAX:
            children = sorted(item.children, key=lambda child: not child.has_failed)
            queue += [(child, depth + 1) for child in children[:CHILDREN_MAX]]
    return chosen


def _rows(roots: Sequence[_Item], shown: dict[_Item, None]) -> Iterator[_Row | str]:
    """Return the rows of the tree, and lines that count the children left out."""
    stack: list[_Row | str] = [_Row("", "", root) for root in reversed(roots) if root in shown]
    while stack:
        row = stack.pop()
        yield row
        if isinstance(row, str):
            continue
        children = [child for child in row.item.children if child in shown]
        left_out = len(row.item.children) - len(children)
        if left_out:
            stack.append(f"{_NO_TIMES}  {row.below}└─ … and {left_out:,} more")
        for number, child in enumerate(reversed(children)):
            is_last = number == 0 and not left_out
            tree, below = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
            stack.append(_Row(row.below + tree, row.below + below, child))


def _label(item: _Item) -> str:
    has = item.attributes
    match item.kind:
        case "execution":
            text = "execution"
        case "branch":
            name = has.get("plait.branch.name", "")
            text = f"branch {item.branch}{f' ({name})' if name else ''}"
        case "node":
            text = item.path
        case "attempt":
            text = f"attempt {has.get('plait.attempt.number', '')}"
        case "queue":
            text = "queue"
        case _:
            text = item.span.name if item.span is not None else item.kind
    return one_line(text, _LABEL_CHARS_MAX)


def _state(item: _Item) -> str:
    has = item.attributes
    keys = "plait.execution.state", "plait.node.state", "plait.attempt.outcome"
    return one_line(next((has[key] for key in keys if key in has), ""))


def _attributes_of(span: trace_pb2.Span) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in span.attributes:
        value = each.value
        match value.WhichOneof("value"):
            case "string_value":
                found[each.key] = value.string_value
            case "int_value":
                found[each.key] = str(value.int_value)
            case "double_value":
                found[each.key] = repr(value.double_value)
            case _:
                pass  # Plait writes no others.
    return found
