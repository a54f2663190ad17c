"""A TracerProvider for the duration of a test, and its spans."""

from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ATTEMPT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{ATTEMPT}-01"


class Spans:
    """The spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.all if span.name == name]
        return span

    def below(self, parent: ReadableSpan) -> list[str]:
        """List the names of a span's children, in the order of their ends."""
        return [span.name for span in self.all if span.parent and parent_id(span) == span_id(parent)]


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def span_id(span: ReadableSpan) -> str:
    return trace.format_span_id(context_of(span).span_id)


def trace_id(span: ReadableSpan) -> str:
    return trace.format_trace_id(context_of(span).trace_id)


def parent_id(span: ReadableSpan) -> str:
    assert span.parent is not None
    return trace.format_span_id(span.parent.span_id)


def provide_spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Set a provider, as a program does, until the end of the test."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    spans = Spans()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans.exporter))
    trace.set_tracer_provider(provider)
    return spans
