"""The span sender port: sends finished spans to a collector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A collector's response to a request that it accepted: OTLP's partial success."""

    rejected: int = 0
    """How many spans it rejected, by its own count, which may be negative or more than were sent."""
    message: str = ""
    """Why, or a warning if it accepted all spans; the collector's own text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLimits:
    """The limits of a span; what exceeds them is dropped and counted. The defaults are OpenTelemetry's."""

    attributes_max: int = 128
    attribute_chars_max: int | None = None
    """None means no limit."""
    events_max: int = 128
    links_max: int = 128


class SendFailed(Exception):
    """A request did not reach the collector, or the collector refused it.

    Args:
        message: What happened, and where; it may quote the collector.
        is_retryable: Whether the same request may succeed later.
        retry_after_s: How long the collector asks to wait before a retry, in seconds; None if it does not say.
    """

    def __init__(self, message: str, *, is_retryable: bool, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable
        self.retry_after_s = retry_after_s


class SpanSender(Protocol):
    """Sends requests to one collector; several may be in flight at once."""

    async def send(self, request: bytes) -> Sent:
        """Send an ExportTraceServiceRequest and wait for the response. The caller sets the deadline.

        If it is cancelled, the collector may have accepted the request.

        Raises:
            SendFailed: The collector could not be reached, or refused the request.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
