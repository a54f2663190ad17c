"""The entry: what the environment says about tracing, made into the parts of a server."""

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
    """How a server is traced."""

    settings: OtlpSettings
    """Where spans go, the bounds of the queue and of batches, the limits of spans."""
    sampler: Sampler
    resource: Mapping[str, str | bool | int | float]
    """The attributes of the resource."""
    open_sender: Callable[[Crossing], SpanSender]
    """Makes the sender, while the asyncio loop runs; its argument is `runtime.asyncio_bridge.callable_from_trio`.
    Raises InvalidSetting if a file of a certificate or key can no longer be used."""

    def describe(self) -> str:
        """Say where spans go, without headers and credentials."""
        return self.settings.describe()


def open_tracing(version: str) -> Tracing | None:
    """Read the environment; None if spans are not to be sent, or cannot be, about which there is one warning.

    Called before the loop runs: the SDK reads parts of the resource in threads.

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
            tls_context(settings)  # Reads the files, so that what is wrong with them is said now.
    except ImportError as error:
        logger.warning(
            "spans are not sent, because %s is not installed; run: pip install 'plait[otel]'", error.name
        )
        return None
    except InvalidSetting as error:
        logger.warning("spans are not sent: %s", error)
        return None
    defaults = {"service.name": "plait", "service.version": version, "host.name": socket.gethostname()}
    # Jaeger 1 knows by it, and Jaeger 2 by the name, which spans are of one host, and so of one clock.
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
    """Return the address by which this host reaches others; empty if it reaches none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of the block that is kept for documentation (RFC 5737)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
