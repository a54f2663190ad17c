"""A trace as text, and checks that hold for every trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from plait_server.adapters.otlp.tracing import own_address
from tests.end_to_end.collectors import SeenSpan

SERVER, WORKER = "plait", "plait-worker"
STOPPED = frozenset({"TIMED_OUT", "CANCELLED", "ABORTED", "LOST"})
"""Outcomes of attempts that the engine ends: their handlers may end later."""
KINDS = {
    "execution": "consumer",
    "branch": "internal",
    "node": "internal",
    "queue": "internal",
    "attempt": "client",
    "handle": "server",
}
# The nodes and branches of a graph inside a node lie below that node.
PARENTS = {
    "branch": {"execution", "branch", "node subgraph"},
    "node": {"execution", "branch", "node subgraph"},
    "queue": {"node"},
    "attempt": {"node"},
    "handle": {"attempt"},
}


def draw(spans: Sequence[SeenSpan]) -> str:
    """Draw a trace, one line a span, in an order that does not depend on times. Queue waits are left out.

    A line says what ended how, `!` with which failure, and `<-` which spans it links to.
    """
    by_id = {span.span_id: span for span in spans}
    children: defaultdict[str, list[SeenSpan]] = defaultdict(list)
    for span in spans:
        if not span.name.startswith("queue "):
            children[span.parent_id if span.parent_id in by_id else ""].append(span)
    lines: list[str] = []

    def draw_below(parent_id: str, depth: int) -> None:
        for line, span in sorted((_line(span, by_id), span) for span in children[parent_id]):
            lines.append("  " * depth + line)
            draw_below(span.span_id, depth + 1)

    draw_below("", 0)
    return "\n".join(lines)


def _line(span: SeenSpan, by_id: Mapping[str, SeenSpan]) -> str:
    what = span.name.partition(" ")[0] if span.service == SERVER else ""
    match what:
        case "execution":
            words = [span.name, span.get("graph.name"), span.get("execution.state"), span.get("reason")]
        case "branch":
            words = [span.name, span.get("branch.id"), span.get("branch.name")]
        case "node":
            words = [f"{span.name}:", span.get("node.path"), span.get("node.state"), span.get("reason")]
        case "attempt":
            words = [f"{span.name}:", span.get("attempt.number"), span.get("attempt.outcome")]
        case _:
            words = [span.name]
    if span.status == "ERROR":
        words += ["!", span.attributes.get("error.type", "without a code")]
    if span.links:
        sources = [by_id[span_id].get("node.id") for _, span_id in span.links]
        words += ["<-", *sources]
    return " ".join(str(word) for word in words if word)


def missing(spans: Sequence[SeenSpan], expected: Iterable[str]) -> set[str]:
    """Return what has not arrived yet, of the expected spans, by id, and of the handlers' spans."""
    with_children = {span.parent_id for span in spans}
    attempts = {span.span_id for span in spans if span.name.startswith("attempt ")}
    return {*expected} - {span.span_id for span in spans} | attempts - with_children


def check(spans: Sequence[SeenSpan], *, task_types: Iterable[str]) -> None:
    """Check what holds for every trace of an execution that has ended, whoever else has spans in it."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "two spans with one id"
    assert len({span.trace_id for span in spans}) == 1
    types = {*task_types, "condition", "switch", "transform", "delay", "subgraph"}
    for span in spans:
        if span.service not in (SERVER, WORKER) or span.kind != KINDS.get(span.name.partition(" ")[0]):
            assert span.service != SERVER, span
            continue  # A handler's own, or the caller's.
        _check_name(span, types)
        parent = by_id[span.parent_id]
        what = span.name.partition(" ")[0]
        names = {parent.name, parent.name.partition(" ")[0]}
        assert what == "execution" or not names.isdisjoint(PARENTS[what]), (span, parent)
        is_stopped = what == "handle" and parent.get("attempt.outcome") in STOPPED
        _check_times(span, parent, may_end_later=is_stopped)
        # Where hosts have no address, Jaeger takes a handler that ends after its attempt for one with a skewed clock.
        assert not span.warnings or (is_stopped and not own_address()), (span, parent)
        _check_failure(span)


def _check_name(span: SeenSpan, types: set[str]) -> None:
    what, _, type_ = span.name.partition(" ")
    if what in ("execution", "branch"):
        assert not type_, span
    else:
        assert type_ in types, span
    assert span.service == (WORKER if what == "handle" else SERVER), span


def _check_times(span: SeenSpan, parent: SeenSpan, *, may_end_later: bool) -> None:
    assert span.start_us <= span.end_us, span
    # A microsecond is what Jaeger may cut off a worker's nanoseconds.
    assert parent.start_us <= span.start_us + 1, (span, parent)
    assert may_end_later or span.end_us <= parent.end_us + 1, (span, parent)


def _check_failure(span: SeenSpan) -> None:
    exceptions = [attributes for name, attributes in span.events if name == "exception"]
    assert span.status in ("ERROR", "UNSET"), span
    assert ("error.type" in span.attributes) is (span.status == "ERROR"), span
    if span.status != "ERROR" or span.service != SERVER:
        return
    if not exceptions:
        # A timeout that is taken for no failure (E1) has a code alone.
        assert span.message == span["error.type"], span
        return
    (exception,) = exceptions
    assert exception["exception.type"] == span["error.type"], span
    assert span.message == f"{exception['exception.type']}: {exception['exception.message']}", span
