"""Attach and Watch, misused: what is sent is bounded, every refusal has its reason, and others go on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import grpc
import pytest

from plait.v1 import execution_service_pb2, worker_hub_service_pb2
from tests.end_to_end.attaching import Attached
from tests.end_to_end.service import CALL_S, Service, outcome, refusal_of

Pb = worker_hub_service_pb2
ONE = "nodes: [{id: a, task: {type: hand}, retry: {max_attempts: 5}}]"
MIB = 1024 * 1024


@pytest.mark.parametrize(
    "json_bytes", [2 * MIB, 5 * MIB, 20 * MIB], ids=["in a frame", "over 4 MiB", "over 16 MiB"]
)
def test_result_too_large_for_a_frame_fails_its_attempt_and_is_acknowledged(
    alone: Service, json_bytes: int
) -> None:
    """S2.1, FAILURES 24: not retried, and not sent again for ever; the stream goes on."""
    execution_id = alone.submit(ONE)
    with Attached(alone, "hand") as worker:
        token = worker.next_assign().token
        worker.complete(token, '"' + "x" * json_bytes + '"')
        assert worker.next_recorded() == (token, "RECORDED")
        execution = alone.wait(execution_id)
        assert outcome(execution) == "FAILED/TOO_LARGE"
        assert str(MIB) in execution.failure.message or str(MIB + 64 * 1024) in execution.failure.message
        assert alone.node(execution_id, "a").attempt_count == 1
        again = alone.submit(ONE)
        token = worker.next_assign().token
        worker.complete(token)
        assert worker.next_recorded() == (token, "RECORDED")
    assert outcome(alone.wait(again)) == "SUCCEEDED"


def test_violation_right_after_hello_is_answered(alone: Service) -> None:
    """The status does not get lost when it meets the welcome under way."""
    hello = Pb.Hello(
        protocol_version=1, worker_id="w", namespace=alone.namespace, types=[Pb.ServedType(type="t")], slots=1
    )
    for number in range(30):
        hello.instance_id = f"w-{number}"
        frame = Pb.AttachRequest(messages=[Pb.WorkerMessage(hello=hello)])
        refusal = refusal_of(partial(alone.hub.Attach, iter([frame, frame]), timeout=CALL_S))
        assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "PROTOCOL_VIOLATION")


def test_live_worker_keeps_its_id(alone: Service) -> None:
    """T2: the newcomer is refused, and told which instance has the id and what to do."""
    with Attached(alone, "hand", instance_id="first") as worker:
        # By hand nobody answers pings but those who wait for a message.
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(worker.next_assign)
            refusal = refusal_of(lambda: Attached(alone, "hand", instance_id="second"))
            assert (refusal.code.name, refusal.reason) == ("ALREADY_EXISTS", "WORKER_ID_IN_USE")
            assert refusal.metadata == {"worker_id": "hand", "instance_id": "first"}
            assert refusal.retry_s == 5.0
            execution_id = alone.submit(ONE)
            token = reading.result(CALL_S).token
        worker.complete(token)
        worker.next_recorded()
    assert outcome(alone.wait(execution_id)) == "SUCCEEDED"


def test_too_many_attempts_in_flight_are_refused(alone: Service) -> None:
    held = {f"token-{number}": False for number in range(200_000)}
    refusal = refusal_of(lambda: Attached(alone, "hand", in_flight=held))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert list(refusal.fields) == ["hello.in_flight"]


def test_frame_of_millions_of_empty_messages_is_refused(alone: Service) -> None:
    attach = cast(
        "grpc.StreamStreamMultiCallable[bytes, bytes]",
        alone.channel.stream_stream("/plait.v1.WorkerHubService/Attach"),
    )
    hello = Pb.Hello(
        protocol_version=1,
        worker_id="w",
        instance_id="i",
        namespace=alone.namespace,
        types=[Pb.ServedType(type="t")],
    )
    opening = Pb.AttachRequest(messages=[Pb.WorkerMessage(hello=hello)]).SerializeToString()
    refusal = refusal_of(lambda: attach(iter([opening, b"\x0a\x00" * (2 * MIB)]), timeout=CALL_S))
    assert refusal.reason == "PROTOCOL_VIOLATION"
    assert "16384 messages" in refusal.message


def test_worker_that_never_reads_loses_its_stream_with_a_reason(alone: Service) -> None:
    """Long tokens come back as they are: the server keeps 8 MiB of answers, and reads no more."""
    hello = Pb.Hello(
        protocol_version=1,
        worker_id="w",
        instance_id="i",
        namespace=alone.namespace,
        types=[Pb.ServedType(type="t")],
    )
    result = Pb.WorkerMessage(complete=Pb.Complete(token="x" * 4_000))

    def flood() -> Iterator[worker_hub_service_pb2.AttachRequest]:
        yield Pb.AttachRequest(messages=[Pb.WorkerMessage(hello=hello)])
        for _ in range(64):
            yield Pb.AttachRequest(messages=[result] * 250)

    answers = alone.hub.Attach(flood(), timeout=CALL_S)
    assert next(answers).messages[0].HasField("welcome")
    while alone.workers():
        pass  # It reads nothing; what is in its transport's buffers stays there.
    refusal = refusal_of(lambda: answers)
    assert (refusal.code.name, refusal.reason) == ("RESOURCE_EXHAUSTED", "SLOW_CONSUMER")
    assert "read" in refusal.message


def test_burst_of_streams_is_served_whole(alone: Service) -> None:
    """10,000 watchers are promised; gRPC itself would drop a part of more than 1,000 at once."""
    execution_id = alone.submit(ONE)
    request = execution_service_pb2.WatchExecutionRequest(
        namespace=alone.namespace, execution_id=execution_id
    )
    streams = [alone.executions.WatchExecution(request, timeout=CALL_S) for _ in range(1_200)]
    with Attached(alone, "hand") as worker:
        worker.complete(worker.next_assign().token)
        worker.next_recorded()
    ends = [list(stream)[-1].end.sequence for stream in streams]
    assert len(ends) == 1_200
    assert len(set(ends)) == 1
