"""The span sender port: hands finished spans to a collector of traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a collector said when it took a request: OTLP's partial success."""

    rejected: int = 0
    """Spans that it did not take. The collector's own number: it may be negative, or more than were sent."""
    message: str = ""
    """Why, or a warning if all were taken; the collector's own text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLimits:
    """What a span may hold; beyond it is cut off and counted. The defaults are those of OpenTelemetry."""

    attributes_max: int = 128
    attribute_chars_max: int | None = None
    """None: any number."""
    events_max: int = 128
    links_max: int = 128


class SendFailed(Exception):
    """A request did not reach a collector, or was refused.

    Args:
        message: What happened, and where; it may hold text of the collector.
        is_retryable: Whether the same request may succeed later.
        retry_after_s: Seconds that the collector asks to be left alone; None if it does not say.
    """

    def __init__(self, message: str, *, is_retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s


class SpanSender(Protocol):
    """Sends requests to one collector; several may be under way at once."""

    async def send(self, request: bytes) -> Sent:
        """Send an ExportTraceServiceRequest and wait for the answer, without a deadline of its own.

        A cancelled call is given up; the collector may have taken the request.

        Raises:
            SendFailed: the collector did not take it.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
