"""Tells once that spans do not get through, and once that they do again. Imported only if the SDK is installed.

OpenTelemetry's exporters log each try that fails and each batch that they give up: several lines every few seconds,
from every process of a worker, as long as a collector is away.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from plait_worker.logs import one_line

logger = logging.getLogger("plait_worker")

_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class _Reasons(logging.Filter):
    """Keeps what an exporter has to say out of the log, and the latest of it."""

    latest = ""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        self.latest = one_line(record.getMessage())
        return False


_REASONS: Final = _Reasons()
"""Of all exporters of the process, of which there is one: loggers are the process's as well."""


class QuietExporter(SpanExporter):
    """Sends by an exporter of OTLP, and logs in its place.

    Args:
        exporter: Sends the spans.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_REASONS)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, and wait until they are taken or given up."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                logger.warning("spans get through again; %d were lost", self._lost)
                self._lost = 0
            return result
        if not self._lost:
            logger.warning("spans do not get through; handlers go on, spans are lost: %s", _REASONS.latest)
        self._lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Send nothing more."""
        self._exporter.shutdown()
        if self._lost:
            logger.warning("at the end %d spans had been lost", self._lost)
            self._lost = 0

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return whether nothing waits here."""
        return self._exporter.force_flush(timeout_millis)
