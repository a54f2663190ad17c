"""OpenTelemetry's variables mean what its specification says."""

from __future__ import annotations

import math

import pytest

from plait_server.adapters.otlp.settings import (
    InvalidSetting,
    OtlpProtocol,
    OtlpSettings,
    read_settings,
    read_settings_for,
)
from plait_server.ports.span_sender import SpanLimits

GRPC, HTTP = OtlpProtocol.GRPC, OtlpProtocol.HTTP
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def settings(**variables: str) -> OtlpSettings:
    """Read variables beside an endpoint; names without prefix are those of OTLP."""
    named = {
        name if name.startswith("OTEL_") else f"OTEL_EXPORTER_OTLP_{name}": value
        for name, value in variables.items()
    }
    found = read_settings({ENDPOINT: "http://localhost:4317", **named})
    assert found is not None
    return found


# Whether.


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {ENDPOINT: "", TRACES_ENDPOINT: " "},
        {ENDPOINT: "http://a:4317", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://a:4317", "OTEL_SDK_DISABLED": "TRUE"},
        {ENDPOINT: "http://a:4317", "OTEL_TRACES_EXPORTER": "none"},
        {ENDPOINT: "http://a:4317", "OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://a:4317"},
    ],
    ids=str,
)
def test_spans_are_not_sent(environ: dict[str, str]) -> None:
    assert read_settings(environ) is None


@pytest.mark.parametrize(
    "environ",
    [
        {ENDPOINT: "http://a:4317"},
        {TRACES_ENDPOINT: "http://a:4317"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_TRACES_EXPORTER": "console, otlp"},
        {ENDPOINT: "http://a:4317", "OTEL_TRACES_EXPORTER": ""},
        {ENDPOINT: "http://a:4317", "OTEL_SDK_DISABLED": "1"},
    ],
    ids=str,
)
def test_spans_are_sent(environ: dict[str, str]) -> None:
    assert read_settings(environ) is not None


# Where.


@pytest.mark.parametrize(
    ("environ", "protocol", "endpoint", "is_secure"),
    [
        ({}, GRPC, "localhost:4317", False),
        ({PROTOCOL: "http/protobuf"}, HTTP, "http://localhost:4318/v1/traces", False),
        ({ENDPOINT: "http://a:4317"}, GRPC, "a:4317", False),
        ({ENDPOINT: "https://a:4317/ignored"}, GRPC, "a:4317", True),
        ({ENDPOINT: "HTTPS://a"}, GRPC, "a:443", True),
        ({ENDPOINT: "http://[::1]:4317"}, GRPC, "[::1]:4317", False),
        # Without a scheme TLS is the default, as specified.
        ({ENDPOINT: "a:4317"}, GRPC, "a:4317", True),
        ({ENDPOINT: "a:4317", "OTEL_EXPORTER_OTLP_INSECURE": "true"}, GRPC, "a:4317", False),
        ({ENDPOINT: "https://a:1", "OTEL_EXPORTER_OTLP_INSECURE": "true"}, GRPC, "a:1", True),
        ({ENDPOINT: "http://a:1", "OTEL_EXPORTER_OTLP_INSECURE": "false"}, GRPC, "a:1", False),
        (
            {ENDPOINT: "unix:/run/otlp", "OTEL_EXPORTER_OTLP_INSECURE": "TRUE"},
            *(GRPC, "unix:/run/otlp", False),
        ),
        # The specification's own examples.
        ({ENDPOINT: "http://collector:4318"}, HTTP, "http://collector:4318/v1/traces", False),
        (
            {ENDPOINT: "http://collector:4318/mycollector/"},
            *(HTTP, "http://collector:4318/mycollector/v1/traces", False),
        ),
        ({TRACES_ENDPOINT: "http://collector:4318"}, HTTP, "http://collector:4318/", False),
        (
            {TRACES_ENDPOINT: "https://collector.example.com/v1/traces"},
            *(HTTP, "https://collector.example.com/v1/traces", True),
        ),
        (
            {ENDPOINT: "http://a:4317", TRACES_ENDPOINT: "https://b:1/x", PROTOCOL: "http/protobuf"},
            *(HTTP, "https://b:1/x", True),
        ),
        ({ENDPOINT: "http://a:1/b?key=c", PROTOCOL: "http/protobuf"}, HTTP, "http://a:1/b/v1/traces?key=c", False),
        # Who says the protocol is believed.
        ({ENDPOINT: "http://a:4318", PROTOCOL: "grpc"}, GRPC, "a:4318", False),
        ({PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, HTTP, None, False),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, HTTP, "http://localhost:4318/v1/traces", False),
    ],
    ids=str,
)  # fmt: skip
def test_the_endpoint(
    environ: dict[str, str], protocol: OtlpProtocol, endpoint: str | None, is_secure: bool
) -> None:
    found = read_settings({"OTEL_TRACES_EXPORTER": "otlp", **environ})
    assert found is not None
    assert (found.protocol, found.is_secure) == (protocol, is_secure)
    assert endpoint in {None, found.endpoint}


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://",
        "http://a:b/",
        "http://a:99999",
        "ftp://a",
        "a:4318",
        "http://a b/",
        "http://[::1/",
        "http://é/",
    ],
)
def test_an_endpoint_that_cannot_be_used_is_named(endpoint: str) -> None:
    with pytest.raises(InvalidSetting, match="is not a URL such as http://localhost:4318"):
        read_settings({ENDPOINT: endpoint, PROTOCOL: "http/protobuf"})


def test_credentials_become_a_header_and_are_not_shown() -> None:
    found = settings(ENDPOINT="https://user:p%40ss@a/b?key=secret", PROTOCOL="http/protobuf")
    assert found.endpoint == "https://a/b/v1/traces?key=secret"
    assert found.headers == (("authorization", "Basic dXNlcjpwQHNz"),)
    assert found.describe() == "https://a/b/v1/traces by OTLP over HTTP"
    with pytest.raises(InvalidSetting) as caught:
        settings(ENDPOINT="ftp://user:pass@a/?key=secret", PROTOCOL="http/protobuf")
    assert "pass" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("http://a:4317", "a:4317 by OTLP over gRPC without TLS"),
        ("https://a:4317", "a:4317 by OTLP over gRPC"),
        ("https://a:4318", "https://a:4318/v1/traces by OTLP over HTTP"),
    ],
)
def test_destination_is_described(endpoint: str, text: str) -> None:
    assert settings(ENDPOINT=endpoint, HEADERS="key=secret").describe() == text


def test_endpoint_of_the_user_is_combined_with_the_variables() -> None:
    environ = {
        TRACES_ENDPOINT: "http://other:1",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_EXPORTER_OTLP_HEADERS": "key=x",
    }
    found = read_settings_for("http://a:4318", environ)
    assert (found.endpoint, found.headers) == ("http://a:4318/v1/traces", (("key", "x"),))
    assert read_settings_for("http://a:4317", {}).endpoint == "a:4317"
    assert read_settings_for("http://a:1/v1/traces", environ).endpoint == "http://a:1/v1/traces"


# How.


def test_the_defaults() -> None:
    found = settings()
    assert (found.headers, found.timeout_s, found.has_gzip, found.delay_s) == ((), 10, False, 1)
    assert (found.queue_spans_max, found.batch_spans_max) == (65_536, 2_048)
    assert found.queue_bytes_max == 32 * 2**20
    assert found.limits == SpanLimits()


def test_headers_are_decoded() -> None:
    found = settings(HEADERS=" Key = a%20b%2C%3D , other=x=y,empty=,,")
    assert found.headers == (("key", "a b,="), ("other", "x=y"), ("empty", ""))


def test_headers_of_traces_replace_those_of_all_signals() -> None:
    assert settings(HEADERS="a=1,b=2", TRACES_HEADERS="c=3").headers == (("c", "3"),)
    assert settings(HEADERS="a=1", TRACES_HEADERS="").headers == (("a", "1"),)


@pytest.mark.parametrize(
    "member",
    ["secret", "=secret", "a key=secret", "k=a%0asecret", "k=secret\u00e9", "grpc-timeout=secret", "k-bin=secret",
     "content-type=secret", "k%0aey=secret"],
)  # fmt: skip
def test_a_header_that_cannot_be_sent_is_ignored_and_not_quoted(
    member: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings(HEADERS=f"good=1,{member}").headers == (("good", "1"),)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("OTEL_EXPORTER_OTLP_HEADERS: header 2 is ignored")
    assert "secret" not in line


@pytest.mark.parametrize(
    ("variables", "attribute", "value"),
    [
        ({"TIMEOUT": "2500"}, "timeout_s", 2.5),
        ({"TIMEOUT": "2500", "TRACES_TIMEOUT": "100"}, "timeout_s", 0.1),
        ({"TIMEOUT": "0"}, "timeout_s", math.inf),
        ({"COMPRESSION": "gzip"}, "has_gzip", True),
        ({"COMPRESSION": "none"}, "has_gzip", False),
        ({"COMPRESSION": "gzip", "TRACES_COMPRESSION": "none"}, "has_gzip", False),
        ({"CERTIFICATE": "/a", "TRACES_CERTIFICATE": "/b"}, "certificate_file", "/b"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "0"}, "delay_s", 0),
        ({"OTEL_BSP_SCHEDULE_DELAY": "5000"}, "delay_s", 5),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1000"}, "queue_spans_max", 1_000),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "1000"}, "batch_spans_max", 1_000),
        ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "512"}, "batch_spans_max", 512),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "9"}, "limits", SpanLimits(attributes_max=9)),
        (
            {"OTEL_ATTRIBUTE_COUNT_LIMIT": "9", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "10"},
            *("limits", SpanLimits(attributes_max=10)),
        ),
        (
            {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "99"},
            *("limits", SpanLimits(attribute_chars_max=99)),
        ),
        (
            {"OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "0", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "99"},
            *("limits", SpanLimits(attribute_chars_max=0)),
        ),
        (
            {"OTEL_SPAN_EVENT_COUNT_LIMIT": "1", "OTEL_SPAN_LINK_COUNT_LIMIT": "2"},
            *("limits", SpanLimits(events_max=1, links_max=2)),
        ),
    ],
    ids=str,
)
def test_a_variable_is_read(
    variables: dict[str, str], attribute: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert getattr(settings(**variables), attribute) == value
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("OTEL_EXPORTER_OTLP_TIMEOUT", value) for value in ("10s", "-1", "1.5", "9" * 5_000, "\u0665")),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "snappy"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
        ("OTEL_SDK_DISABLED", "yes"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be_read_is_ignored_with_a_warning(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings(**{name: value}) == settings()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(name)


def test_what_is_empty_counts_as_not_set(caplog: pytest.LogCaptureFixture) -> None:
    names = (
        *("PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION", "CERTIFICATE", "CLIENT_KEY", "INSECURE"),
        *("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SPAN_LINK_COUNT_LIMIT"),
        *("OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    )
    assert settings(**dict.fromkeys(names, "")) == settings()
    assert caplog.records == []


def test_half_of_a_clients_certificate_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="CLIENT_KEY and OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"):
        settings(CLIENT_KEY="/key.pem")


def test_headers_are_not_in_the_repr() -> None:
    assert "secret" not in repr(settings(HEADERS="key=secret"))
