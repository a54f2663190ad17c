"""Traces drawn as trees: what they show, what they leave out, and that they steer no terminal."""

from __future__ import annotations

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.cli.trace_tree import CHILDREN_MAX, DEPTH_MAX, SPANS_MAX, TraceTree

MS = 1_000_000


class Drawing:
    """Spans that tests put together."""

    def __init__(self) -> None:
        self.data = trace_pb2.TracesData()
        self._spans = self.data.resource_spans.add().scope_spans.add().spans

    def add(
        self,
        name: str,
        parent: trace_pb2.Span | bytes = b"",
        *,
        start_ms: int = 0,
        took_ms: int = 1,
        error: str = "",
        **attributes: str,
    ) -> trace_pb2.Span:
        start_ns = (1_000_000 + start_ms) * MS
        span = self._spans.add(
            name=name,
            span_id=(len(self._spans) + 1).to_bytes(8, "big"),
            parent_span_id=parent if isinstance(parent, bytes) else parent.span_id,
            start_time_unix_nano=start_ns,
            end_time_unix_nano=start_ns + took_ms * MS,
        )
        for key, value in attributes.items():
            name = f"plait.{key.replace('__', '.')}"
            span.attributes.append(KeyValue(key=name, value=AnyValue(string_value=value)))
        if error:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            span.status.message = error
        return span

    def node(
        self,
        path: str,
        parent: trace_pb2.Span | bytes,
        *,
        branch: str = "0",
        start_ms: int = 0,
        error: str = "",
    ) -> trace_pb2.Span:
        return self.add("node t", parent, start_ms=start_ms, error=error, node__path=path, branch__id=branch)

    def lines(self, *, shows_all: bool = False) -> list[str]:
        tree = TraceTree()
        tree.add(self.data)
        return list(tree.lines(shows_all=shows_all))


def test_a_join_names_what_fed_it() -> None:
    drawing = Drawing()
    root = drawing.add("execution")
    sources = [drawing.node(f"n{number}", root) for number in range(8)]
    join = drawing.node("join", root, start_ms=1)
    for source in sources:
        join.links.add(span_id=source.span_id)
    join.dropped_links_count = 2
    assert drawing.lines()[-1].endswith("└─ join    after n0, n1, n2, n3, n4 and 5 more")


def test_failed_children_and_the_first_are_drawn() -> None:
    drawing = Drawing()
    root = drawing.add("execution", took_ms=10_000)
    for number in range(10_000):
        drawing.node(f"n{number}", root, start_ms=number, error="BAD: no" if number == 9_000 else "")
    lines = drawing.lines()
    assert len(lines) == 1 + CHILDREN_MAX + 2
    assert [line.split()[4] for line in lines[1:-2]] == [*(f"n{n}" for n in range(CHILDREN_MAX - 1)), "n9000"]
    assert lines[-3].endswith("n9000   BAD: no")
    assert lines[-2].strip() == "└─ … and 9,980 more"
    assert lines[-1] == "9,980 of 10,001 spans are not drawn; --all draws them, --json writes them"
    assert len(drawing.lines(shows_all=True)) == 10_001


def test_a_wide_and_deep_tree_is_cut() -> None:
    drawing = Drawing()
    root = drawing.add("execution")
    for wide in range(CHILDREN_MAX):
        branch = drawing.add("branch", root, branch__id=f"0-{wide:03}")
        for number in range(CHILDREN_MAX):
            drawing.node(f"n{wide}.{number}", branch, branch=f"0-{wide:03}")
    lines = drawing.lines()
    assert sum("more" not in line for line in lines[:-1]) == SPANS_MAX
    # From the outside in: each branch is drawn, and those that were left without nodes say so.
    assert sum(" branch " in line for line in lines) == CHILDREN_MAX


def test_forks_that_are_nested_deep_are_cut() -> None:
    drawing = Drawing()
    span = drawing.add("execution")
    for depth in range(5_000):
        span = drawing.add("branch", span, branch__id=f"0-{depth}")
    lines = drawing.lines()
    assert len(lines) == DEPTH_MAX + 3
    assert lines[-2].strip() == "└─ … and 1 more"
    assert len(drawing.lines(shows_all=True)) == 5_001


def test_what_surrounds_open_nodes_is_drawn_without_times() -> None:
    drawing = Drawing()
    missing = bytes(8)
    drawing.node("a", missing)
    drawing.node("b", b"branch-x", branch="0-002-001", start_ms=3)
    drawing.add("attempt t", b"node-c..", start_ms=5, node__path="c", branch__id="0-002", attempt__number="1")
    drawing.node("d", b"branch-y", branch="0-001-…-007", start_ms=6)
    assert [line.rstrip() for line in drawing.lines()] == [
        "                    execution               has not ended",
        "    0.000     1 ms  ├─ a",
        "                    ├─ branch 0-001-…-007   has not ended",
        "    0.006     1 ms  │  └─ d",
        "                    └─ branch 0-002         has not ended",
        "                       ├─ c                 has not ended",
        "    0.005     1 ms     │  └─ attempt 1",
        "                       └─ branch 0-002-001  has not ended",
        "    0.003     1 ms        └─ b",
    ]


def test_what_surrounds_open_scopes_is_drawn_by_paths() -> None:
    """The nodes of an open scope stand below its node, or below a branch that it opened."""
    drawing = Drawing()
    drawing.node("s/a", b"node-s..", branch="0-001")
    drawing.node("s/b", b"branch-x", branch="0-001-001", start_ms=1)
    drawing.node("s/t/c", b"node-t..", branch="0-001-001", start_ms=2)
    drawing.add(
        "attempt t",
        b"node-d..",
        start_ms=3,
        node__path="s/t/d",
        branch__id="0-001-001-001",
        attempt__number="1",
    )
    assert [line.rstrip() for line in drawing.lines()] == [
        "                    execution                            has not ended",
        "                    └─ branch 0-001                      has not ended",
        "                       └─ s                              has not ended",
        "    0.000     1 ms        ├─ s/a",
        "                          └─ branch 0-001-001            has not ended",
        "    0.001     1 ms           ├─ s/b",
        "                             └─ s/t                      has not ended",
        "    0.002     1 ms              ├─ s/t/c",
        "                                └─ branch 0-001-001-001  has not ended",
        "                                   └─ s/t/d              has not ended",
        "    0.003     1 ms                    └─ attempt 1",
    ]


def test_control_characters_are_escaped() -> None:
    drawing = Drawing()
    bad = "\x1b[2J\r\nforged\u202e"
    root = drawing.add("execution", reason=bad, execution__state=bad)
    branch = drawing.add("branch", root, branch__id=bad, branch__name=bad)
    node = drawing.node(bad, branch, error=bad)
    drawing.add("attempt t", node, worker__id=bad, attempt__number=bad, error="other")
    drawing.add(f"{bad} t", node)
    join = drawing.node("join", branch)
    join.links.add(span_id=node.span_id)
    text = "\n".join(drawing.lines())
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == 6


def test_trace_without_spans_draws_nothing() -> None:
    assert Drawing().lines() == []
