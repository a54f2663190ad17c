"""Sends the spans of a worker's process to a collector by OTLP, as the variables of OpenTelemetry say.

For `python -m plait_worker` alone: a program that calls `Worker.run` sets its TracerProvider itself. It is done in
the process that runs the handlers, for an exporter's thread does not survive a fork, and after the worker's module has
been imported, which may have set a provider of its own. Whether traces are sent, and by which protocol, is what the
server reads from the same variables; all else is OpenTelemetry's own reading of them.
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
"""How long the last spans may hold the end of a process: its results are recorded, and others wait for its id."""
TIMEOUT_MAX_S: Final = 3600.0

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_TIMEOUTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
_EXPORTERS: Final[Mapping[str, str]] = {
    "otlp": "",
    # What OpenTelemetry's Python SDK calls them.
    "otlp_proto_grpc": "grpc",
    "otlp_proto_http": "http/protobuf",
}
_HTTP_PORT: Final = 4318


class _BadSetting(Exception):
    """A variable has a value that cannot be used; the message says which."""


def export_spans(environ: Mapping[str, str], *, is_first: bool = True) -> Callable[[], None]:
    """Have the spans of this process sent, if the environment asks for it and the program has no provider of its own.

    Args:
        environ: the environment.
        is_first: whether this is the first of several processes, and so the one that tells what is wrong.

    Returns:
        Sends what is left; to be called at the end. It takes at most 2 s.
    """
    try:
        protocol = otlp_protocol(environ)
        if protocol is None or _has_provider():
            return _nothing
        return _export(protocol, timeout_s(environ))
    except ImportError as error:
        problem = f"{error}; pip install 'plait[otel]' brings what is missing"
    except Exception as error:  # noqa: BLE001 - of a foreign library, about variables that are not ours.
        problem = str(error)
    logger.log(logging.WARNING if is_first else logging.DEBUG, "spans are not sent: %s", problem)
    return _nothing


def otlp_protocol(environ: Mapping[str, str]) -> str | None:
    """Return how spans are to be sent, `grpc` or `http/protobuf`; None if they are not.

    Raises:
        Exception: the variables name another protocol.
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
    protocol = _text(environ, *_PROTOCOLS).lower() or (_EXPORTERS[names[0]] if names else "")
    if protocol not in {"", "grpc", "http/protobuf"}:
        raise _BadSetting(f"{' and '.join(_PROTOCOLS)} may be grpc or http/protobuf, not {protocol}")
    return protocol or _usual_protocol(endpoint)


def timeout_s(environ: Mapping[str, str]) -> float | None:
    """Return how long a request may take; None: as long as OpenTelemetry says.

    The variables are in milliseconds, as the specification and the server have it; Python's exporters read seconds.
    """
    text = _text(environ, *_TIMEOUTS)
    # 0 is no bound.
    return int(text) / 1000 or TIMEOUT_MAX_S if text.isascii() and text.isdigit() else None


def _usual_protocol(endpoint: str) -> str:
    """Return what an endpoint speaks, if nobody said so: gRPC, but for one that is HTTP's by convention."""
    parts = urlsplit(endpoint)
    is_http = parts.port == _HTTP_PORT or parts.path.rstrip("/").endswith("/v1/traces")
    return "http/protobuf" if is_http and parts.scheme in {"http", "https"} else "grpc"


def _has_provider() -> bool:
    """Whether the program has a provider, or `opentelemetry-instrument` has set one."""
    from opentelemetry import trace  # noqa: PLC0415 - OpenTelemetry may be missing.

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def _export(protocol: str, timeout_s: float | None) -> Callable[[], None]:
    from opentelemetry import trace  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above.
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above.

    # What is given here wins over the environment.
    of_environment = OTELResourceDetector().detect().attributes
    exporter = _exporter(protocol, timeout_s)
    provider = TracerProvider(
        resource=Resource.create({**_own_resource(), **of_environment}),
        # It would wait for 30 s; `flush` waits instead.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        # Its own bound is not kept while a request is under way.
        closing = threading.Thread(target=provider.shutdown, name="plait-spans", daemon=True)
        closing.start()
        closing.join(FLUSH_S)
        if closing.is_alive():
            logger.warning("the collector did not take the last spans within %g s", FLUSH_S)
            exporter.shutdown()

    return flush


def _own_resource() -> dict[str, str]:
    """Say what the environment may say better."""
    resource = {
        "service.name": SERVICE_NAME,
        "service.version": sdk_version(),
        "host.name": socket.gethostname(),
    }
    # Jaeger 1 knows by the address, and Jaeger 2 by the name, which spans are of one host, and so of one clock.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        # Of the block that is kept for documentation (RFC 5737); nothing is sent.
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
    """Return the first of some variables that is set; one that is empty counts as not set."""
    return next((text for name in names if (text := environ.get(name, "").strip())), "")


def _nothing() -> None:
    """There is nothing to send."""
