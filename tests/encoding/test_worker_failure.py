"""S2.1: what a worker says of a failure is taken in the engine's terms."""

from __future__ import annotations

import json

import pytest

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.core.failures import ENGINE_CODES, GRPC_CODES
from plait_server.core.payload import Payload
from plait_server.encoding.worker_failure import failure_from_worker


@pytest.mark.parametrize("code", [*sorted(GRPC_CODES), "own.code", "HTTP_503", "x" * 128])
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
