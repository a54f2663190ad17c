"""The entry point: reads the environment, and makes the parts of a server that tracing needs."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from plait_server.adapters.otlp.grpc_sender import Crossing, GrpcSender
from plait_server.adapters.otlp.settings import InvalidSetting, OtlpProtocol, OtlpSettings, read_settings
from plait_server.adapters.otlp.tls import tls_context
from plait_server.ports.sampler import Sampler
from plait_server.ports.span_sender import SpanSender

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """The parts of a server that tracing needs."""

    settings: OtlpSettings
    """Where and how spans are sent, the bounds of the queue and of batches, the limits of spans."""
    sampler: Sampler
    resource: Mapping[str, str | bool | int | float]
    """The attributes of the resource."""
    open_sender: Callable[[Crossing], SpanSender]
    """Makes the sender, while the asyncio loop runs; its argument is `runtime.asyncio_bridge.callable_from_trio`.
    Raises InvalidSetting if a certificate or key file can no longer be used."""

    def describe(self) -> str:
        """Return where spans are sent, for people; without headers and credentials."""
        return self.settings.describe()


def open_tracing(version: str) -> Tracing | None:
    """Read the environment; return None if no spans are to be sent, or, with one warning, if they cannot be.

    Called before the loop runs, since the SDK reads parts of the resource in threads.

    Args:
        version: The version of Plait.
    """
    try:
        settings = read_settings(os.environ)
        if settings is None:
            return None
        from plait_server.adapters.otlp.sdk import (  # noqa: PLC0415 -- It comes with the extra.
            resource_of_environment,
            sampler_of_environment,
        )

        open_sender = _opener(settings, f"plait/{version}")
        if settings.is_secure:
            tls_context(settings)  # Reads the files, so that an error in them is found now.
    except ImportError as error:
        logger.warning(
            "spans are not sent, because %s is not installed; run: pip install 'plait[otel]'", error.name
        )
        return None
    except InvalidSetting as error:
        logger.warning("spans are not sent: %s", error)
        return None
    defaults = {"service.name": "plait", "service.version": version, "host.name": socket.gethostname()}
    # Jaeger 1 tells by the address, and Jaeger 2 by the host's name, which spans have the same clock.
    if address := own_address():
        defaults["ip"] = address
    return Tracing(
        settings=settings,
        sampler=sampler_of_environment(),
        resource=resource_of_environment(defaults),
        open_sender=open_sender,
    )


def _opener(settings: OtlpSettings, user_agent: str) -> Callable[[Crossing], SpanSender]:
    match settings.protocol:
        case OtlpProtocol.GRPC:
            return lambda crossing: GrpcSender(settings, crossing, user_agent)
        case OtlpProtocol.HTTP:
            # httpx comes with the extra.
            from plait_server.adapters.otlp.http_sender import HttpSender  # noqa: PLC0415

            return lambda _: HttpSender(settings, user_agent)


def own_address() -> str:
    """Return the address from which this host sends to others; empty if it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # from the block reserved for documentation (RFC 5737)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
