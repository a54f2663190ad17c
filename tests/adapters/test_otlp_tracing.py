"""Samplers and resource from OpenTelemetry's SDK, and starting with and without the extra."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from plait_server.adapters.otlp.grpc_sender import GrpcSender
from plait_server.adapters.otlp.http_sender import HttpSender
from plait_server.adapters.otlp.sdk import resource_of_environment
from plait_server.adapters.otlp.tracing import Tracing, open_tracing
from plait_server.core.run.trace import TraceContext
from plait_server.ports.sampler import Sampling
from plait_server.runtime.asyncio_bridge import callable_from_trio, open_loop

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
LOW, HIGH = "0" * 31 + "1", "f" * 32
"""Trace ids that a ratio takes early, and last."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317")


def tracing() -> Tracing:
    found = open_tracing("1.2.3")
    assert found is not None
    return found


def decision(caller: TraceContext | None, trace_id: str = TRACE_ID) -> Sampling:
    return tracing().sampler.sample(trace_id, caller, {"plait.namespace": "default"})


def calling(*, is_sampled: bool, trace_id: str = TRACE_ID, tracestate: str = "") -> TraceContext:
    return TraceContext(trace_id, "00f067aa0ba902b7", int(is_sampled), tracestate)


@pytest.mark.parametrize(
    ("sampler", "alone", "below_sampled", "below_unsampled"),
    [
        ("", True, True, False),
        ("always_on", True, True, True),
        ("always_off", False, False, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
        ("no_such_sampler", True, True, False),
    ],
)
def test_sampler_decides_with_and_without_a_caller(
    sampler: str, alone: bool, below_sampled: bool, below_unsampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    assert decision(None).is_sampled is alone
    assert decision(calling(is_sampled=True)).is_sampled is below_sampled
    assert decision(calling(is_sampled=False)).is_sampled is below_unsampled


def test_ratio_depends_on_the_trace_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert decision(None, LOW).is_sampled
    assert not decision(None, HIGH).is_sampled
    # The caller's decision counts for nothing.
    assert decision(calling(is_sampled=False, trace_id=LOW), LOW).is_sampled
    assert not decision(calling(is_sampled=True, trace_id=HIGH), HIGH).is_sampled


def test_caller_decides_before_the_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    assert not decision(None, HIGH).is_sampled
    assert decision(calling(is_sampled=True, trace_id=HIGH), HIGH).is_sampled
    assert not decision(calling(is_sampled=False, trace_id=LOW), LOW).is_sampled


@pytest.mark.parametrize("argument", ["", "half", "2", "-1"])
def test_ratio_that_is_not_valid_samples_all(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    assert decision(None, HIGH).is_sampled


@pytest.mark.parametrize("tracestate", ["", "a=1,b=2", "Upper=1,no value,=x"])
def test_tracestate_of_a_caller_is_passed_on(tracestate: str) -> None:
    assert decision(calling(is_sampled=True, tracestate=tracestate)).tracestate == tracestate


# The resource.


def test_the_resource_by_default() -> None:
    resource = tracing().resource
    assert (resource["service.name"], resource["service.version"]) == ("plait", "1.2.3")
    assert resource["host.name"] == socket.gethostname()
    assert resource["telemetry.sdk.language"] == "python"


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    attributes = "service.name=other,service.instance.id=one,deployment.environment.name=a%20b,broken"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", attributes)
    resource = tracing().resource
    assert (resource["service.name"], resource["service.version"]) == ("other", "1.2.3")
    assert (resource["service.instance.id"], resource["deployment.environment.name"]) == ("one", "a b")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    assert tracing().resource["service.name"] == "mine"


# The entry.


def test_nothing_set_means_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert open_tracing("1.2.3") is None


@pytest.mark.parametrize("value", ["", "many"])
def test_limit_that_the_sdk_would_refuse_does_no_harm(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", value)
    assert tracing().settings.limits.links_max == 128


def test_an_endpoint_that_cannot_be_used_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:b")
    assert open_tracing("1.2.3") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("spans are not sent: the OTLP endpoint 'http://a:b' is not a URL")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_that_cannot_be_used_is_warned_about(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "certificate.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(file))
    assert open_tracing("1.2.3") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"spans are not sent: cannot use the certificate or key of {file}")


@pytest.mark.parametrize(
    ("missing", "protocol"), [("opentelemetry.sdk.trace", "grpc"), ("httpx", "http/protobuf")]
)
def test_without_the_extra_one_warning_names_it(
    missing: str, protocol: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    for module in ("sdk", "http_sender"):
        monkeypatch.delitem(sys.modules, f"plait_server.adapters.otlp.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    assert open_tracing("1.2.3") is None
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"spans are not sent, because {missing} is not installed; run: pip install 'plait[otel]'"


@pytest.mark.parametrize(("protocol", "kind"), [("grpc", GrpcSender), ("http/protobuf", HttpSender)])
async def test_the_sender_is_of_the_protocol(
    protocol: str, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    async with open_loop():
        sender = tracing().open_sender(callable_from_trio)
        assert isinstance(sender, kind)
        await sender.aclose()
        await sender.aclose()


def test_resource_has_no_random_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that are sent again after a restart would be another server's."""
    assert "service.instance.id" not in resource_of_environment({})
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one")
    assert resource_of_environment({"service.instance.id": "two"})["service.instance.id"] == "one"
