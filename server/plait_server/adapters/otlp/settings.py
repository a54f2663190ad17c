"""Reads OpenTelemetry's environment variables by its specification.

The specification: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. An empty variable counts as not
set. Durations are whole milliseconds. A value that cannot be parsed, or is out of range, is ignored with a warning,
unless that would send spans elsewhere, or less safely, than was meant: then `InvalidSetting` is raised. Headers may be
secrets, so warnings never quote them.
"""

from __future__ import annotations

import base64
import enum
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from plait_server.ports.span_sender import SpanLimits

logger = logging.getLogger(__name__)

TRACES_PATH: Final = "v1/traces"
HTTP_PORT: Final = 4318
"""The port of OTLP over HTTP by convention; that of gRPC is 4317."""
GZIP_LEVEL: Final = 1
"""Compresses spans to a tenth; level 6 to a twelfth, in three times the time."""
INTEGER_MAX: Final = 2**31 - 1
SPAN_BYTES: Final = 512
"""The average size of a span by which the queue is bounded in bytes."""
QUEUE_BYTES_MIN: Final = 8 * 2**20

_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_TRACES_PREFIX: Final = "OTEL_EXPORTER_OTLP_TRACES_"
_HEADER_NAME: Final = re.compile(r"[0-9a-z_.-]+")
"""What gRPC allows; HTTP allows a few more characters, which nobody uses."""
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_OWN_HEADERS: Final = frozenset({"content-encoding", "content-length", "content-type", "host", "te"})


class InvalidSetting(ValueError):
    """A variable has a value that cannot be used."""


class OtlpProtocol(enum.Enum):
    """The transport of OTLP."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


_EXPORTERS: Final[Mapping[str, OtlpProtocol | None]] = {
    "otlp": None,
    # The names that OpenTelemetry's Python SDK uses.
    "otlp_proto_grpc": OtlpProtocol.GRPC,
    "otlp_proto_http": OtlpProtocol.HTTP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OtlpSettings:
    """Where and how spans are sent."""

    protocol: OtlpProtocol
    endpoint: str
    """For HTTP a URL, http:// or https://, without credentials; for gRPC a target, such as `localhost:4317`."""
    is_secure: bool
    """Whether TLS is used."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names in lower case."""
    timeout_s: float = 10.0
    """How long a request may take, in seconds; infinite if the variable is 0."""
    has_gzip: bool = False
    certificate_file: str | None = None
    """A file of trusted certificates (PEM); None: the system's are trusted."""
    client_key_file: str | None = None
    client_certificate_file: str | None = None
    delay_s: float = 1.0
    """How long a batch that is not full waits for more spans, in seconds."""
    queue_spans_max: int = 65_536
    batch_spans_max: int = 2_048
    limits: SpanLimits = field(default_factory=SpanLimits)

    @property
    def queue_bytes_max(self) -> int:
        """How many bytes may be queued."""
        return max(QUEUE_BYTES_MIN, self.queue_spans_max * SPAN_BYTES)

    def describe(self) -> str:
        """Return where spans are sent, for people; without headers and credentials."""
        if self.protocol is OtlpProtocol.GRPC:
            return f"{self.endpoint} by OTLP over gRPC{'' if self.is_secure else ' without TLS'}"
        return f"{self.url} by OTLP over HTTP"

    @property
    def url(self) -> str:
        """The HTTP endpoint as it may be shown: without its query, which may contain a key."""
        return self.endpoint.partition("?")[0]


def read_settings(environ: Mapping[str, str]) -> OtlpSettings | None:
    """Read where and how a server sends its spans; None if it is not to send any.

    Raises:
        InvalidSetting: the endpoint cannot be used, or only one of a client's key and certificate is set.
    """
    variables = _Variables(environ)
    if variables.boolean("OTEL_SDK_DISABLED"):
        return None
    exporters = _read_exporters(variables)
    if not exporters:
        if not variables.text(_PREFIX + "ENDPOINT") and not variables.text(_TRACES_PREFIX + "ENDPOINT"):
            return None
        exporters = ["otlp"]
    known = [name for name in exporters if name in _EXPORTERS]
    unknown = [name for name in exporters if name not in _EXPORTERS and name != "none"]
    if unknown:
        variables.warn("OTEL_TRACES_EXPORTER", f"{', '.join(unknown)!r} is not supported; otlp is")
    return _read(variables, _EXPORTERS[known[0]]) if known else None


def read_settings_for(endpoint: str, environ: Mapping[str, str]) -> OtlpSettings:
    """Read how to send spans to an endpoint that the user named.

    It is treated as the value of OTEL_EXPORTER_OTLP_ENDPOINT; if it ends in `/v1/traces`, as that of
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT.

    Raises:
        InvalidSetting: the endpoint cannot be used, or only one of a client's key and certificate is set.
    """
    is_whole = endpoint.rstrip("/").endswith(f"/{TRACES_PATH}")
    named = {
        **environ,
        _PREFIX + "ENDPOINT": "" if is_whole else endpoint,
        _TRACES_PREFIX + "ENDPOINT": endpoint if is_whole else "",
    }
    return _read(_Variables(named), None)


def _read_exporters(variables: _Variables) -> list[str]:
    text = variables.text("OTEL_TRACES_EXPORTER")
    return [name for part in text.split(",") if (name := part.strip().lower())]


def _read(variables: _Variables, protocol: OtlpProtocol | None) -> OtlpSettings:
    generic = variables.text(_PREFIX + "ENDPOINT")
    own = variables.text(_TRACES_PREFIX + "ENDPOINT")
    given = own or generic
    protocol = _read_protocol(variables) or protocol or _default_protocol(given)
    headers: dict[str, str] = {}
    if protocol is OtlpProtocol.GRPC:
        endpoint, is_secure = _grpc_target(given or "http://localhost:4317", variables, headers)
    else:
        parts = _read_url(own or generic or f"http://localhost:{HTTP_PORT}", headers)
        path = parts.path if own else f"{parts.path.rstrip('/')}/{TRACES_PATH}"
        endpoint = parts._replace(path=path or "/").geturl()
        is_secure = parts.scheme == "https"
    queue_spans_max = variables.integer("OTEL_BSP_MAX_QUEUE_SIZE", 65_536, least=1)
    batch_spans_max = variables.integer("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 2_048, least=1)
    key, certificate = variables.signal("CLIENT_KEY"), variables.signal("CLIENT_CERTIFICATE")
    if bool(key) != bool(certificate):
        raise InvalidSetting(f"set both {_PREFIX}CLIENT_KEY and {_PREFIX}CLIENT_CERTIFICATE, or neither")
    return OtlpSettings(
        protocol=protocol,
        endpoint=endpoint,
        is_secure=is_secure,
        headers=tuple({**headers, **_read_headers(variables)}.items()),
        timeout_s=variables.signal_milliseconds("TIMEOUT", 10_000) / 1_000 or math.inf,
        has_gzip=_read_compression(variables),
        certificate_file=variables.signal("CERTIFICATE") or None,
        client_key_file=key or None,
        client_certificate_file=certificate or None,
        delay_s=variables.integer("OTEL_BSP_SCHEDULE_DELAY", 1_000) / 1_000,
        queue_spans_max=queue_spans_max,
        batch_spans_max=min(batch_spans_max, queue_spans_max),
        limits=_read_limits(variables),
    )


def _read_limits(variables: _Variables) -> SpanLimits:
    attributes_max = variables.integer("OTEL_ATTRIBUTE_COUNT_LIMIT", 128)
    chars_max = variables.optional_integer("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT")
    own_chars_max = variables.optional_integer("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT")
    return SpanLimits(
        attributes_max=variables.integer("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", attributes_max),
        attribute_chars_max=chars_max if own_chars_max is None else own_chars_max,
        events_max=variables.integer("OTEL_SPAN_EVENT_COUNT_LIMIT", 128),
        links_max=variables.integer("OTEL_SPAN_LINK_COUNT_LIMIT", 128),
    )


def _read_protocol(variables: _Variables) -> OtlpProtocol | None:
    name, text = variables.named_signal("PROTOCOL")
    try:
        return OtlpProtocol(text.lower()) if text else None
    except ValueError:
        variables.warn(name, f"{text!r} is not supported; grpc and http/protobuf are")
        return None


def _default_protocol(endpoint: str) -> OtlpProtocol:
    """Return the protocol of an endpoint if none is named: gRPC, unless its port or path is that of OTLP over HTTP.

    The specification lets implementations choose. gRPC is the default of OpenTelemetry's Python SDK.
    """
    try:
        parts = urlsplit(endpoint)
        is_http = parts.port == HTTP_PORT or parts.path.rstrip("/").endswith(f"/{TRACES_PATH}")
    except ValueError:
        return OtlpProtocol.GRPC  # `_read_url` raises for it.
    return OtlpProtocol.HTTP if is_http and parts.scheme in {"http", "https"} else OtlpProtocol.GRPC


def _grpc_target(endpoint: str, variables: _Variables, headers: dict[str, str]) -> tuple[str, bool]:
    """Return the target, and whether TLS is used: the scheme decides, or INSECURE if there is none."""
    scheme = endpoint.partition("://")[0].lower() if "://" in endpoint else ""
    if scheme not in {"http", "https"}:
        return endpoint, not variables.signal_boolean("INSECURE")
    parts = _read_url(endpoint, headers)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if scheme == 'https' else 80)}", scheme == "https"


def _read_url(url: str, headers: dict[str, str]) -> SplitResult:
    """Read a URL; turn credentials in it into a header."""
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
        parts = SplitResult("", "", "", "", "")
    if not is_usable or not url.isascii() or not url.isprintable() or " " in url:
        shown = re.sub(r"//.*@", "//", url.partition("?")[0])
        raise InvalidSetting(f"the OTLP endpoint {shown!r} is not a URL such as http://localhost:{HTTP_PORT}")
    credentials, _, address = parts.netloc.rpartition("@")
    if credentials:
        headers["authorization"] = f"Basic {base64.b64encode(unquote(credentials).encode()).decode()}"
    return parts._replace(netloc=address, fragment="")


def _read_compression(variables: _Variables) -> bool:
    name, text = variables.named_signal("COMPRESSION")
    if text.lower() not in {"", "none", "gzip"}:
        variables.warn(name, f"{text!r} is not supported; gzip and none are")
    return text.lower() == "gzip"


def _read_headers(variables: _Variables) -> dict[str, str]:
    """Read URL-encoded `name=value` pairs, separated by commas (W3C Baggage)."""
    name, text = variables.named_signal("HEADERS")
    headers: dict[str, str] = {}
    for number, member in enumerate(text.split(","), start=1):
        if not member.strip():
            continue
        key, separator, value = (unquote(part).strip() for part in member.partition("="))
        key = key.lower()
        is_valid = bool(separator and _HEADER_NAME.fullmatch(key) and _HEADER_VALUE.fullmatch(value))
        if not is_valid or key in _OWN_HEADERS or key.startswith("grpc-") or key.endswith("-bin"):
            variables.warn(
                name, f"header {number} is ignored; write NAME=VALUE, URL-encoded, as in api-key=a%20b"
            )
            continue
        headers[key] = value
    return headers


class _Variables:
    """Reads environment variables by type, with warnings."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        return self._environ.get(name, "").strip()

    def warn(self, name: str, problem: str) -> None:
        logger.warning("%s: %s", name, problem)

    def boolean(self, name: str) -> bool:
        text = self.text(name).lower()
        if text not in {"", "true", "false"}:
            self.warn(name, f"{text!r} is neither true nor false; it counts as false")
        return text == "true"

    def integer(self, name: str, default: int, *, least: int = 0) -> int:
        found = self.optional_integer(name, least=least)
        return default if found is None else found

    def optional_integer(self, name: str, *, least: int = 0) -> int | None:
        text = self.text(name)
        if not text:
            return None
        if text.isascii() and text.isdigit() and len(text) <= len(str(INTEGER_MAX)):
            value = int(text)
            if least <= value <= INTEGER_MAX:
                return value
        self.warn(name, f"{text!r} is not an integer of {least} to {INTEGER_MAX}; it is ignored")
        return None

    # The variables of traces take precedence over those of all signals.

    def named_signal(self, option: str) -> tuple[str, str]:
        own = _TRACES_PREFIX + option
        text = self.text(own)
        return (own, text) if text else (_PREFIX + option, self.text(_PREFIX + option))

    def signal(self, option: str) -> str:
        return self.named_signal(option)[1]

    def signal_boolean(self, option: str) -> bool:
        return self.boolean(self.named_signal(option)[0])

    def signal_milliseconds(self, option: str, default: int) -> int:
        own = self.optional_integer(_TRACES_PREFIX + option)
        return self.integer(_PREFIX + option, default) if own is None else own
