"""Sends the spans of a worker process to a collector by OTLP, configured by OpenTelemetry's environment variables.

Only for `python -m plait_worker`: a program that calls `Worker.run` sets its own TracerProvider. The exporter is set
up in the process that runs the handlers, since its thread does not survive a fork, and after the worker's module has
been imported, since that may set a provider of its own. Whether spans are sent, by which protocol, and how long a
request may take is decided here, as the server decides it; OpenTelemetry itself reads the other variables.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from plait_worker.version import sdk_version

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger("plait_worker")

SERVICE_NAME: Final = "plait-worker"
FLUSH_S: Final = 2.0
"""How long the last spans may delay the exit of a process: its results are recorded, and others wait for its id."""
TIMEOUT_MAX_S: Final = 3600.0

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TIMEOUTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_EXPORTERS: Final[Mapping[str, str]] = {
    "otlp": "",
    # The names that OpenTelemetry's Python SDK uses.
    "otlp_proto_grpc": "grpc",
    "otlp_proto_http": "http/protobuf",
}
_SUPPORTED: Final = ("grpc", "http/protobuf")
_HTTP_PORT: Final = 4318


def export_spans(environ: Mapping[str, str], *, is_first: bool = True) -> Callable[[], None]:
    """Export the spans of this process, if the environment says so and the program has not set a TracerProvider.

    Args:
        environ: the environment.
        is_first: whether this is the first of several processes; only that one warns of what is wrong.

    Returns:
        A function that sends the remaining spans, to be called at the end; it takes at most 2 s.
    """
    log_level = logging.WARNING if is_first else logging.DEBUG
    try:
        protocol = otlp_protocol(environ, log_level=log_level)
        if protocol is None or _has_provider():
            return _nothing
        return _export(protocol, timeout_s(environ))
    except ImportError as error:
        problem = f"{error}; run: pip install 'plait[otel]'"
    except Exception as error:  # noqa: BLE001 - of a foreign library, about variables that are not ours.
        problem = str(error)
    logger.log(log_level, "spans are not sent: %s", problem)
    return _nothing


def otlp_protocol(environ: Mapping[str, str], *, log_level: int = logging.WARNING) -> str | None:
    """Return the protocol by which spans are sent, `grpc` or `http/protobuf`; None if they are not sent.

    Args:
        environ: the environment.
        log_level: how a protocol that is not supported, and so ignored, is logged.

    Raises:
        ValueError: the endpoint is not a URL.
    """
    if _text(environ, "OTEL_SDK_DISABLED").lower() == "true":
        return None
    endpoint = _text(environ, *_ENDPOINTS)
    listed = [
        name.strip().lower() for name in _text(environ, "OTEL_TRACES_EXPORTER").split(",") if name.strip()
    ]
    names = [name for name in listed if name in _EXPORTERS]
    if not names and (listed or not endpoint):
        return None
    for name in _PROTOCOLS:
        if text := _text(environ, name):
            if text.lower() in _SUPPORTED:
                return text.lower()
            logger.log(log_level, "%s: %r is not supported; grpc and http/protobuf are", name, text)
            break
    return (_EXPORTERS[names[0]] if names else "") or _default_protocol(endpoint)


def timeout_s(environ: Mapping[str, str]) -> float | None:
    """Return how long a request may take; None leaves it to OpenTelemetry.

    The variables are in milliseconds by the specification, but OpenTelemetry's Python exporters read them as seconds.
    """
    text = _text(environ, *_TIMEOUTS)
    # 0 means no limit.
    return int(text) / 1000 or TIMEOUT_MAX_S if text.isascii() and text.isdigit() else None


def _default_protocol(endpoint: str) -> str:
    """Return the protocol of an endpoint if none is named: gRPC, unless its port or path is that of OTLP over HTTP."""
    parts = urlsplit(endpoint)
    is_http = parts.port == _HTTP_PORT or parts.path.rstrip("/").endswith("/v1/traces")
    return "http/protobuf" if is_http and parts.scheme in {"http", "https"} else "grpc"


def _has_provider() -> bool:
    """Return whether the program, or `opentelemetry-instrument`, has set a TracerProvider."""
    from opentelemetry import trace  # noqa: PLC0415 - OpenTelemetry may be missing.

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _export(protocol: str, timeout_s: float | None) -> Callable[[], None]:
    from opentelemetry import trace  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above.

    # `Resource.create` prefers what it is given to the environment, so the environment's attributes are merged here.
    of_environment = OTELResourceDetector().detect().attributes
    from plait_worker.quiet_exporter import QuietExporter  # noqa: PLC0415 - as above.

    exporter = QuietExporter(_exporter(protocol, timeout_s))
    provider = TracerProvider(
        resource=Resource.create({**_own_resource(), **of_environment}),
        # That would wait for 30 s; `flush` waits instead.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        # In a thread, since `shutdown` does not keep to its own time limit while a request is under way.
        closing = threading.Thread(target=provider.shutdown, name="plait-spans", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            logger.warning("the collector did not take the last spans within %g s", FLUSH_S)
            exporter.shutdown()

    return flush


def _own_resource() -> dict[str, str]:
    """Return the default attributes of the resource; those of the environment take precedence."""
    resource = {
        "service.name": SERVICE_NAME,
        "service.version": sdk_version(),
        "host.name": socket.gethostname(),
    }
    # Jaeger 1 tells by the address, and Jaeger 2 by the host's name, which spans have the same clock.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        # An address of the block reserved for documentation (RFC 5737); nothing is sent.
        probe.connect(("192.0.2.1", 9))
        resource["ip"] = str(probe.getsockname()[0])
    return resource


def _exporter(protocol: str, timeout_s: float | None) -> SpanExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as by_grpc  # noqa: PLC0415 - as above.

        return by_grpc.OTLPSpanExporter(timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http  # noqa: PLC0415 - as above.

    return by_http.OTLPSpanExporter(timeout=timeout_s)


def _text(environ: Mapping[str, str], *names: str) -> str:
    """Return the value of the first of these variables that is set and not empty; else an empty string."""
    return next((text for name in names if (text := environ.get(name, "").strip())), "")


def _nothing() -> None:
    """There is nothing to send."""
