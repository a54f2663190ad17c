"""The trace of an execution that a driver ran, as a tree for tests."""

from __future__ import annotations

from collections.abc import Iterator

from plait_server.core.run.execution import Execution
from plait_server.telemetry.span_observer import nested_scopes
from plait_server.telemetry.spans import Span, SpanFold
from tests.core.driver import Driver


class Tree:
    """Spans by name; a node's are told apart by its path, a branch's by its path, an attempt's by its number."""

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans
        self.by_id = {span.span_id: span for span in spans}
        assert len(self.by_id) == len(spans), "an id stands for two spans"

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def labels(self) -> list[str]:
        return [label(span) for span in self.spans]

    def get(self, wanted: str) -> Span:
        (span,) = [span for span in self.spans if label(span) == wanted]
        return span

    def parent(self, wanted: str) -> str:
        return label(self.by_id[self.get(wanted).parent_id])

    def links(self, wanted: str) -> list[str]:
        return [label(self.by_id[span_id]) for span_id in self.get(wanted).links]

    def check_nesting(self) -> None:
        """Parents exist, and hold what is below them."""
        for span in self.spans:
            assert span.start_ns < span.end_ns, label(span)
            if span.name != "execution":
                parent = self.by_id[span.parent_id]
                assert parent.start_ns <= span.start_ns, label(span)
                assert span.end_ns <= parent.end_ns, label(span)


def attributes(span: Span) -> dict[str, str | int | float]:
    found = dict((*span.shared, *span.attributes))
    assert len(found) == len(span.shared) + len(span.attributes)
    return found


def label(span: Span) -> str:
    has = attributes(span)
    kind = span.name.partition(" ")[0]
    match kind:
        case "execution":
            return kind
        case "branch":
            return f"branch {has['plait.branch.id']}"
        case "node":
            return str(has["plait.node.path"])
        case _:
            return f"{kind} {has['plait.node.path']} {has['plait.attempt.number']}"


def trace_of(driver: Driver) -> Tree:
    """Make the trace event by event and once more from the final state; the two are equal."""
    live, again = SpanFold(), SpanFold()
    replay = Execution(driver.graph, driver.analysis)
    spans: list[Span] = []
    for event in driver.events:
        replay.apply(event)
        spans += [
            span
            for span in again.after("n", replay, event, nested_scopes(replay, [event]))
            if span is not None
        ]
        replay.forget_closed()
    scopes = {**driver.execution.scopes, **driver.execution.just_closed}
    late = [
        span
        for event in driver.events
        for span in live.after("n", driver.execution, event, scopes)
        if span is not None
    ]
    assert late == spans, "a span changed after its end"
    return Tree(spans)
