"""Checks of requests: every bad field is named, fingerprints of requests."""

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import execution_service_pb2, payload_pb2
from plait_server.api.checks import (
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    Checks,
    request_fields,
    request_record,
)
from plait_server.core.limits import LABELS_MAX, PAYLOAD_BYTES_MAX
from plait_server.errors import InvalidRequest, TooLarge

Submit = execution_service_pb2.SubmitGraphRequest


def fields_of(checks: Checks) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        checks.finish()
    return [violation.field for violation in caught.value.violations]


def test_what_is_right_passes() -> None:
    checks = Checks()
    assert checks.namespace("") == "default"
    assert checks.namespace("a.b-c_D") == "a.b-c_D"
    assert checks.execution_id("", optional=True) == ""
    assert checks.execution_id("x" * 128) == "x" * 128
    assert checks.request_id("") == ""
    assert checks.request_id("!" * 128) == "!" * 128
    assert checks.labels({"k" * 128: "v" * 128}) == {"k" * 128: "v" * 128}
    assert checks.input(payload_pb2.Payload(), is_given=False) == "null"
    assert checks.input(payload_pb2.Payload(), is_given=True) == "null"
    assert checks.input(payload_pb2.Payload(json="[1]"), is_given=True) == "[1]"
    assert checks.page_size(0) == PAGE_SIZE
    assert checks.page_size(7) == 7
    assert checks.page_size(2**31 - 1) == PAGE_SIZE_MAX
    assert checks.wait_s(Duration(), default_s=3.0, max_s=60.0, is_given=False) == 3.0
    assert checks.wait_s(Duration(seconds=60), default_s=3.0, max_s=60.0, is_given=True) == 60.0
    assert checks.digest("0" * 64) == "0" * 64
    assert checks.reason("ä" * 1024) == "ä" * 1024
    checks.finish()


def test_every_bad_field_is_named_in_one_answer() -> None:
    checks = Checks()
    checks.namespace("a b")
    checks.execution_id("")
    checks.request_id("with space")
    checks.labels({"": "v"})
    checks.input(payload_pb2.Payload(json="{"), is_given=True, problem="no JSON")
    checks.page_size(-1)
    checks.wait_s(Duration(seconds=61), default_s=3.0, max_s=60.0, is_given=True)
    checks.digest("0" * 63)
    checks.reason("r" * 1025)
    assert fields_of(checks) == [
        "namespace",
        "execution_id",
        "request_id",
        "labels",
        "input.json",
        "page_size",
        "wait",
        "digest",
        "reason",
    ]


@pytest.mark.parametrize("value", ["a/b", "x" * 129, "ä", "a\n"])
def test_ids_that_are_none_are_refused(value: str) -> None:
    checks = Checks()
    checks.namespace(value)
    checks.execution_id(value)
    checks.execution_id(value, optional=True)
    assert fields_of(checks) == ["namespace", "execution_id", "execution_id"]


@pytest.mark.parametrize("value", ["x" * 129, "a\n", "ä", "\x7f"])
def test_request_ids_that_are_none_are_refused(value: str) -> None:
    checks = Checks()
    checks.request_id(value)
    assert fields_of(checks) == ["request_id"]


def test_each_bad_label_is_named() -> None:
    checks = Checks()
    checks.labels({"k" * 129: "", "fine": "v", "long": "v" * 129})
    assert fields_of(checks) == ["labels", "labels"]


def test_labels_are_bounded() -> None:
    checks = Checks()
    checks.labels({str(number): "" for number in range(LABELS_MAX)})
    checks.finish()
    checks.labels({str(number): "" for number in range(LABELS_MAX + 1)})
    assert fields_of(checks) == ["labels"]


@pytest.mark.parametrize("digest", ["A" * 64, "g" * 64, "0" * 65, "0" * 64 + "\n"])
def test_digests_that_are_none_are_refused(digest: str) -> None:
    checks = Checks()
    checks.digest(digest)
    assert fields_of(checks) == ["digest"]


def test_an_input_is_json_text_and_no_digest() -> None:
    checks = Checks()
    checks.input(payload_pb2.Payload(digest="0" * 64), is_given=True)
    assert fields_of(checks) == ["input.digest"]


def test_an_input_of_one_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    text = '"' + "x" * (PAYLOAD_BYTES_MAX - 2) + '"'
    checks = Checks()
    assert checks.input(payload_pb2.Payload(json=text), is_given=True) == text
    checks.finish()
    with pytest.raises(TooLarge) as caught:
        checks.input(payload_pb2.Payload(json=text + " "), is_given=True)
    assert caught.value.fields == {"size": PAYLOAD_BYTES_MAX + 1, "limit": PAYLOAD_BYTES_MAX}


def test_a_wait_is_not_negative() -> None:
    checks = Checks()
    checks.wait_s(Duration(nanos=-1_000_000), default_s=3.0, max_s=60.0, is_given=True)
    assert fields_of(checks) == ["wait"]


# Fingerprints of requests.

submits = st.builds(
    Submit,
    namespace=st.text(max_size=4),
    execution_id=st.text(max_size=4),
    labels=st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=4),
)


def fingerprint(request: Submit) -> bytes:
    record = request_record("SubmitGraph", "r", request, "x")
    assert record is not None
    return record.fingerprint


def test_a_request_without_an_id_has_no_record() -> None:
    assert request_record("SubmitGraph", "", Submit(), "x") is None


def test_a_record_says_what_was_asked_for() -> None:
    record = request_record("SubmitGraph", "r-1", Submit(), "x-1")
    assert record is not None
    assert (record.method, record.request_id, record.execution_id) == ("SubmitGraph", "r-1", "x-1")


@given(submits)
def test_the_order_of_fields_and_unknown_fields_change_no_fingerprint(request: Submit) -> None:
    whole = request.SerializeToString(deterministic=True)
    parts: list[bytes] = []
    for descriptor, value in reversed(request.ListFields()):
        part = Submit()
        if descriptor.name == "labels":
            for key in reversed(list(value)):
                part.labels[key] = value[key]
        else:
            setattr(part, descriptor.name, value)
        parts.append(part.SerializeToString())
    unknown = b"\xfa\x7f\x03new"  # field 2047, length-delimited
    shuffled = Submit.FromString(unknown + b"".join(parts))
    assert fingerprint(shuffled) == fingerprint(Submit.FromString(whole))
    assert shuffled.SerializeToString().endswith(b"\x03new")  # The request itself is left as it came.


@given(submits, submits)
def test_other_content_has_another_fingerprint(one: Submit, other: Submit) -> None:
    assert (fingerprint(one) == fingerprint(other)) is (one == other)


def test_a_log_line_names_the_execution_of_its_request() -> None:
    """B3."""
    request = execution_service_pb2.GetExecutionRequest
    assert request_fields(request(execution_id="x")) == {"namespace": "default", "execution": "x"}
    assert request_fields(request(namespace="n", execution_id="x")) == {"namespace": "n", "execution": "x"}
    for other in (None, request(), request(execution_id="x execution=y"), request(namespace="\n")):
        assert request_fields(other) == {}
    assert request_fields(execution_service_pb2.ListExecutionsRequest()) == {}
