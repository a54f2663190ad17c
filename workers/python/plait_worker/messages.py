"""Messages and plain values: the worker's are made from them, the server's are read into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from google.protobuf import duration_pb2, timestamp_pb2

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.session_events import Assigned, Welcomed
from plait_worker.usage import format_totals

_NANOS: Final = 1_000_000_000
_CANCEL_REASONS: Final = {
    number: name.removeprefix("CANCEL_REASON_") for name, number in hub.CancelReason.items()
}


def reject(token: str, code: str, message: str) -> hub.WorkerMessage:
    """Return a message that refuses an attempt, or hands it back."""
    return hub.WorkerMessage(reject=hub.Reject(token=token, code=f"REJECT_CODE_{code}", message=message))


def cancel_ack(token: str) -> hub.WorkerMessage:
    """Acknowledge a cancel."""
    return hub.WorkerMessage(cancel_ack=hub.CancelAck(token=token))


def exited(token: str, usage: Mapping[str, Decimal]) -> hub.WorkerMessage:
    """Return a message that a cancelled handler has ended, with the attempt's total usage."""
    return hub.WorkerMessage(exited=hub.Exited(token=token, usage=_totals(usage)))


def pong(number: int) -> hub.WorkerMessage:
    """Answer a ping."""
    return hub.WorkerMessage(pong=hub.Pong(number=number))


def credit(slots: int) -> hub.WorkerMessage:
    """Change how many attempts are taken at once."""
    return hub.WorkerMessage(credit=hub.Credit(slots=slots))


def drain() -> hub.WorkerMessage:
    """Return a message that the worker drains."""
    return hub.WorkerMessage(drain=hub.Drain())


def progress(token: str, fraction: float, message: str) -> hub.WorkerMessage:
    """Report how far an attempt is."""
    return hub.WorkerMessage(progress=hub.Progress(token=token, fraction=fraction, message=message))


def usage_report(token: str, unit: str, amount: str) -> hub.WorkerMessage:
    """Report what an attempt used since the last report."""
    return hub.WorkerMessage(usage=hub.Usage(token=token, unit=unit, amount=amount))


def heartbeat(token: str, details_json: str | None) -> hub.WorkerMessage:
    """Return a heartbeat of an attempt."""
    return hub.WorkerMessage(heartbeat=hub.AttemptHeartbeat(token=token, details=_payload(details_json)))


def extend(token: str, duration_s: float) -> hub.WorkerMessage:
    """Return a request for more time."""
    return hub.WorkerMessage(extend=hub.Extend(token=token, duration=_duration(duration_s)))


def log(token: str, level: str, message: str, time_ns: int) -> hub.WorkerMessage:
    """Make a log line; a time of 0 is left out."""
    line = hub.LogLine(token=token, level=f"LOG_LEVEL_{level}", message=message)
    if time_ns:
        seconds, nanos = divmod(time_ns, _NANOS)
        line.time.CopyFrom(timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos))
    return hub.WorkerMessage(log=line)


def complete(token: str, output_json: str | None, usage: Mapping[str, Decimal]) -> hub.WorkerMessage:
    """Deliver a result, and what the attempt used in all."""
    output = _payload(output_json)
    return hub.WorkerMessage(complete=hub.Complete(token=token, output=output, usage=_totals(usage)))


def fail(  # noqa: PLR0913 -- A failure may say many things; most are keywords.
    token: str,
    code: str,
    message: str,
    *,
    details_json: str | None,
    retryable: bool | None,
    retry_after_s: float | None,
    causes: Iterable[failure_pb2.Failure],
    usage: Mapping[str, Decimal],
    result_problem: hub.ResultProblem,
) -> hub.WorkerMessage:
    """Deliver a failure, and what the attempt used in all."""
    failure = hub.Fail(
        token=token,
        code=code,
        message=message,
        details=_payload(details_json),
        causes=causes,
        usage=_totals(usage),
        result_problem=result_problem,
    )
    if retryable is not None:
        failure.retryable = retryable
    if retry_after_s is not None:
        failure.retry_after.CopyFrom(_duration(retry_after_s))
    return hub.WorkerMessage(fail=failure)


def read_welcome(welcome: hub.Welcome) -> Welcomed:
    """Read the server's `welcome`."""
    return Welcomed(
        server_version=welcome.server_version,
        server_instance_id=welcome.server_instance_id,
        ping_interval_s=seconds_of(welcome.ping_interval),
        lease_s=seconds_of(welcome.lease),
        payload_bytes_max=welcome.payload_bytes_max,
        frame_bytes_max=welcome.limits.frame_bytes_max,
    )


def read_assign(assign: hub.Assign) -> Assigned:
    """Read an attempt."""
    content = assign.input.WhichOneof("content")
    return Assigned(
        token=assign.token,
        execution_id=assign.execution_id,
        node_path=assign.node_path,
        attempt=assign.attempt,
        run=assign.run,
        type=assign.type,
        input_json=assign.input.json if content == "json" else None,
        input_digest=assign.input.digest if content == "digest" else None,
        time_left_s=seconds_of(assign.time_left) if assign.HasField("time_left") else None,
        traceparent=assign.traceparent,
        tracestate=assign.tracestate,
        branch=assign.branch,
        idempotency_key=assign.idempotency_key,
        heartbeat_details_json=assign.heartbeat_details.json
        if assign.HasField("heartbeat_details")
        else None,
        heartbeat_timeout_s=(
            seconds_of(assign.heartbeat_timeout) if assign.HasField("heartbeat_timeout") else None
        ),
    )


def cancel_reason_of(cancel: hub.Cancel) -> str:
    """Return the name of a cancel's reason; its number if the server is newer than this SDK."""
    return _CANCEL_REASONS.get(cancel.reason, str(cancel.reason))


def seconds_of(duration: duration_pb2.Duration) -> float:
    """Read a duration as seconds."""
    return duration.seconds + duration.nanos / _NANOS


def _duration(duration_s: float) -> duration_pb2.Duration:
    seconds, nanos = divmod(round(duration_s * _NANOS), _NANOS)
    return duration_pb2.Duration(seconds=seconds, nanos=nanos)


def _payload(json_text: str | None) -> payload_pb2.Payload | None:
    return None if json_text is None else payload_pb2.Payload(json=json_text)


def _totals(usage: Mapping[str, Decimal]) -> hub.UsageTotals | None:
    # Nothing used is nothing said: what was reported before counts then, and that was nothing.
    return hub.UsageTotals(amounts=format_totals(usage)) if usage else None
