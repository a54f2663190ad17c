"""The resource and the sampler, made by OpenTelemetry's SDK, which reads the environment itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.trace.sampling import Sampler as SdkSampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, set_span_in_context
from opentelemetry.trace.span import TraceFlags, TraceState

from plait_server.core.run.trace import TraceContext
from plait_server.ports.sampler import Sampling

_NO_LIMITS: Final = dict.fromkeys(
    (
        *("max_attributes", "max_events", "max_links", "max_span_attributes"),
        *("max_event_attributes", "max_link_attributes", "max_attribute_length", "max_span_attribute_length"),
    ),
    SpanLimits.UNSET,
)
"""Keeps the SDK from reading the limits: it raises if one is empty or not a number. `settings` reads them."""
_INSTANCE_ID: Final = "service.instance.id"


class EnvironmentSampler:
    """The sampler named by OTEL_TRACES_SAMPLER; by default it follows the caller, and samples if there is none."""

    def __init__(self, sampler: SdkSampler) -> None:
        self._sampler = sampler

    def __repr__(self) -> str:
        return f"<EnvironmentSampler {self._sampler.get_description()}>"

    def sample(self, trace_id: str, caller: TraceContext | None, attributes: Mapping[str, str]) -> Sampling:
        """Decide about the trace of one execution."""
        context = Context()
        state = TraceState()
        if caller is not None:
            state = TraceState.from_header([caller.tracestate])
            parent = SpanContext(
                int(trace_id, 16),
                int(caller.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(caller.flags),
                trace_state=state,
            )
            context = set_span_in_context(NonRecordingSpan(parent), context)
        result = self._sampler.should_sample(
            context, int(trace_id, 16), "execution", SpanKind.CONSUMER, dict(attributes), ()
        )
        found = result.trace_state if result.trace_state is not None else TraceState()
        # Unless the sampler changed it, the original is passed on: the SDK parses less than the recommendation allows.
        original = caller.tracestate if caller is not None else ""
        is_sampled = result.decision is Decision.RECORD_AND_SAMPLE
        return Sampling(is_sampled, original if found == state else found.to_header())


def sampler_of_environment() -> EnvironmentSampler:
    """Return the sampler that the environment names."""
    provider = TracerProvider(
        resource=Resource.get_empty(), span_limits=SpanLimits(**_NO_LIMITS), shutdown_on_exit=False
    )
    return EnvironmentSampler(provider.sampler)


def resource_of_environment(defaults: Mapping[str, str]) -> dict[str, str | bool | int | float]:
    """Return the attributes of the resource; in order of precedence the environment's, `defaults`, and the SDK's.

    The SDK's own `service.instance.id` is left out, since it is random at each start.
    """
    named = {**defaults, **OTELResourceDetector().detect().attributes}
    attributes = Resource.create(named).attributes
    return {
        key: value if isinstance(value, str | bool | int | float) else str(value)
        for key, value in attributes.items()
        if value is not None and (key != _INSTANCE_ID or key in named)
    }
