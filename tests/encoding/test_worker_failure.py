"""S2.1: what a worker says of a failure is taken in the engine's terms."""

from __future__ import annotations

import json
import tracemalloc

import grpc
import pytest

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.core.limits import FAILURE_CAUSES_BYTES_MAX, FAILURE_CAUSES_MAX, FAILURE_DEPTH_MAX
from plait_server.core.run.failures import ENGINE_CODES, Failure
from plait_server.core.run.payload import Payload
from plait_server.encoding.failure_codec import failure_to_proto
from plait_server.encoding.worker_failure import failure_from_worker

GRPC_CODES = [code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", [*GRPC_CODES, "own.code", "HTTP_503", "x" * 128])
def test_codes_of_grpc_and_the_users_own_are_kept(code: str) -> None:
    """S2.1: the sixteen status codes of gRPC are free to workers; any other well-formed code is the user's own."""
    failure = failure_from_worker(hub.Fail(code=code, message="said"))
    assert (failure.code, failure.message, failure.details) == (code, "said", None)


@pytest.mark.parametrize(
    "code", [*sorted(ENGINE_CODES), "", "two words", "ÜBER", "line\nfeed", "x" * 129, "x" * 5_000]
)
def test_other_codes_are_recorded_as_unknown(code: str) -> None:
    """S2.1: one of the engine's, or a malformed one, is recorded as UNKNOWN with the original in the details."""
    failure = failure_from_worker(hub.Fail(code=code, message="said"))
    assert failure.code == "UNKNOWN"
    assert failure.details is not None
    original = json.loads(failure.details.json)["original_code"]
    assert original == code if len(code) <= 200 else original == code[:200] + "…"


def test_details_stand_beside_a_code_that_was_refused() -> None:
    fail = hub.Fail(code="POISON", details=payload_pb2.Payload(json='{"a": [1]}'))
    details = failure_from_worker(fail).details
    assert details is not None
    assert json.loads(details.json) == {"original_code": "POISON", "original_details": {"a": [1]}}


@pytest.mark.parametrize(
    ("problem", "code"),
    [(hub.RESULT_PROBLEM_NOT_JSON, "INVALID_RESULT"), (hub.RESULT_PROBLEM_TOO_LARGE, "TOO_LARGE")],
)
def test_a_worker_may_say_that_its_result_cannot_be_sent(problem: hub.ResultProblem, code: str) -> None:
    failure = failure_from_worker(hub.Fail(code="POISON", message="said", result_problem=problem))
    assert (failure.code, failure.details) == (code, None)


@pytest.mark.parametrize(
    "details",
    [
        payload_pb2.Payload(json="{"),
        payload_pb2.Payload(digest="ab" * 32),
        payload_pb2.Payload(json=json.dumps("x" * 2**20)),
    ],
    ids=["broken", "digest", "large"],
)
def test_details_that_are_no_payload_are_dropped_and_the_message_says_so(
    details: payload_pb2.Payload,
) -> None:
    failure = failure_from_worker(hub.Fail(code="BUSY", message="said", details=details))
    assert failure.details is None
    assert failure.message.startswith("said (its details were dropped: ")


def test_details_of_one_mebibyte_are_kept() -> None:
    text = json.dumps("x" * (2**20 - 2))
    fail = hub.Fail(code="BUSY", details=payload_pb2.Payload(json=text))
    assert failure_from_worker(fail).details == Payload(text)


def chain(length: int) -> failure_pb2.Failure:
    failure = failure_pb2.Failure(code="DEEPEST")
    for number in range(length - 1):
        failure = failure_pb2.Failure(code=f"c{number}", causes=[failure])
    return failure


def depth_of(failure: Failure) -> int:
    return 1 + max(map(depth_of, failure.causes), default=0)


@pytest.mark.parametrize("length", [1, FAILURE_DEPTH_MAX - 1, FAILURE_DEPTH_MAX, 90])
def test_causes_are_at_most_eight_deep(length: int) -> None:
    failure = failure_from_worker(hub.Fail(code="BUSY", causes=[chain(length)]))
    assert depth_of(failure) == min(length + 1, FAILURE_DEPTH_MAX)


def test_causes_are_at_most_fifty_wide_and_the_others_are_counted() -> None:
    wide = [failure_pb2.Failure(code=f"c{number}") for number in range(60)]
    failure = failure_from_worker(
        hub.Fail(code="BUSY", causes=[failure_pb2.Failure(code="first", causes=wide), *wide])
    )
    first = failure.causes[0]
    assert (len(failure.causes), failure.causes_omitted) == (FAILURE_CAUSES_MAX, 11)
    assert (len(first.causes), first.causes_omitted) == (FAILURE_CAUSES_MAX, 10)
    assert [cause.code for cause in first.causes] == [f"c{number}" for number in range(50)]


def test_millions_of_causes_are_not_touched() -> None:
    """FAILURES 49: a frame of 4 MiB may hold two million; only what can be kept becomes objects."""
    crowd = failure_pb2.Failure(code="CROWD")
    crowd.causes.extend([failure_pb2.Failure()] * 30)
    for _ in range(2):
        crowd = failure_pb2.Failure(code="CROWD", causes=[crowd] * 30)
    fail = hub.Fail(code="BUSY", causes=[crowd] * 25)
    tracemalloc.start()
    failure = failure_from_worker(fail)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 1024 * 1024
    assert failure_to_proto(failure).ByteSize() <= FAILURE_CAUSES_BYTES_MAX + 64
    assert len(failure.causes) == 25


def test_causes_of_a_worker_name_no_nodes_and_no_digests() -> None:
    """Only the engine knows what is kept by digest and which nodes failed."""
    cause = failure_pb2.Failure(
        code="POISON",
        message="said",
        details=payload_pb2.Payload(digest="ab" * 32),
        node_path="other",
        attempt=7,
    )
    failure = failure_from_worker(hub.Fail(code="BUSY", causes=[cause, failure_pb2.Failure(code="X")]))
    refused, kept = failure.causes
    assert (refused.code, refused.message, refused.node_path, refused.attempt) == ("UNKNOWN", "said", "", 0)
    assert refused.details is not None
    assert json.loads(refused.details.json) == {"original_code": "POISON"}
    assert refused.details_omitted
    assert (kept.code, kept.details_omitted) == ("X", False)


@pytest.mark.parametrize("text", ["{", "1 2", json.dumps("x" * 40_000)], ids=["broken", "two", "large"])
def test_details_of_a_cause_that_are_no_small_payload_are_left_out(text: str) -> None:
    cause = failure_pb2.Failure(code="X", details=payload_pb2.Payload(json=text))
    failure = failure_from_worker(hub.Fail(code="BUSY", causes=[cause]))
    assert (failure.causes[0].details, failure.causes[0].details_omitted) == (None, True)
