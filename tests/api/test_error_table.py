"""Errors on the wire: every class has a line of the table, every reason stands in the contract."""

import base64
import inspect
import urllib.parse

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import error_reason_pb2
from plait_server import errors
from plait_server.api.error_table import DOMAIN, TABLE, row_of, status_of
from plait_server.errors import FieldViolation, InvalidGraph, InvalidRequest, PlaitError

CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, errors.PlaitError)
]
VIOLATIONS = [
    FieldViolation(field="namespace", message="must be short"),
    FieldViolation(field="page_size", message="must be small"),
]


def make(each: type[PlaitError]) -> PlaitError:
    if issubclass(each, InvalidGraph):
        return each(VIOLATIONS, 7)
    if issubclass(each, InvalidRequest):
        return each(VIOLATIONS)
    return each()


def details_of(status: status_pb2.Status) -> dict[str, Message]:
    """Unpack the details, by the name of their type; each type stands there once."""
    found: dict[str, Message] = {}
    for detail in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
        ):
            message = kind()
            if detail.Is(kind.DESCRIPTOR):
                detail.Unpack(message)
                assert kind.__name__ not in found
                found[kind.__name__] = message
    assert len(found) == len(status.details)
    return found


def test_the_table_has_every_class_and_no_other() -> None:
    assert set(TABLE) == set(CLASSES)


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_each_reason_stands_in_the_contract_and_each_code_is_an_error(each: type[PlaitError]) -> None:
    row = TABLE[each]
    number = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{row.reason}")
    assert number != error_reason_pb2.ERROR_REASON_UNSPECIFIED
    assert row.code is not grpc.StatusCode.OK


def test_every_reason_of_the_contract_is_given_by_some_error() -> None:
    given = {f"ERROR_REASON_{row.reason}" for row in TABLE.values()}
    assert given == set(error_reason_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}


@pytest.mark.parametrize("each", CLASSES, ids=lambda each: each.__name__)
def test_each_error_says_what_happened_and_carries_its_reason(each: type[PlaitError]) -> None:
    error = make(each)
    status = status_of(error)
    details = details_of(status)
    info = details["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert status.code == row_of(error).code.value[0]
    assert status.message == error.message
    assert status.message
    assert "\n" not in status.message
    assert (info.reason, info.domain) == (row_of(error).reason, DOMAIN)
    assert ("BadRequest" in details) is isinstance(error, InvalidRequest)
    assert ("RetryInfo" in details) is (each.retry_after_s is not None)


def test_fields_of_an_error_are_its_metadata() -> None:
    info = details_of(status_of(errors.TooLarge("too much", size=2, limit=1)))["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert dict(info.metadata) == {"size": "2", "limit": "1"}


def test_an_invalid_request_names_all_its_fields() -> None:
    bad = details_of(status_of(InvalidRequest(VIOLATIONS)))["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [(each.field, each.description) for each in bad.field_violations] == [
        ("namespace", "must be short"),
        ("page_size", "must be small"),
    ]


def test_an_invalid_graph_says_how_many_problems_there_are_in_all() -> None:
    error = InvalidGraph(VIOLATIONS, 7)
    assert status_of(error).message == "the graph is invalid: namespace: must be short (and 6 more)"


def test_a_retry_says_when() -> None:
    retry = details_of(status_of(errors.JournalFull()))["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToSeconds() == 5


def test_a_message_of_its_own_wins_over_the_docstring() -> None:
    assert status_of(errors.NodeNotFound("no node b")).message == "no node b"
    assert status_of(errors.NodeNotFound()).message.startswith("The execution has no node of this path.")


# Sizes: gRPC's default clients take headers of 8 KiB, and refuse more as RESOURCE_EXHAUSTED.

TEXTS = st.sampled_from(
    ("", "x", "short and plain", "x" * 5_000, "\u00e4" * 900, "%" * 400, "\n" * 2_000, "\U0001f9f6" * 2_000)
)
FIELDS = st.sampled_from(("namespace", "graph.nodes[99999].retry.retryable_codes[63]", "f" * 300))


def header_bytes(error: PlaitError) -> int:
    """Count what an error takes as headers: percent-encoded, in base64, with the names."""
    status = status_of(error)
    details = len(base64.b64encode(status.SerializeToString()))
    return (
        len(urllib.parse.quote(status.message))
        + details
        + 3 * 32
        + len("grpc-status-details-bingrpc-messagegrpc-status")
    )


@given(TEXTS, st.lists(st.builds(FieldViolation, field=FIELDS, message=TEXTS), min_size=1, max_size=200))
def test_an_error_fits_the_headers_of_a_default_client(text: str, violations: list[FieldViolation]) -> None:
    assert header_bytes(InvalidRequest(violations, text)) < 8 * 1024
    assert header_bytes(errors.NodeNotFound(text, node_path=text, execution_id=text)) < 8 * 1024


def test_of_many_violations_each_field_is_named_and_short_texts_stay_whole() -> None:
    """V5: all problems are reported together (first 50), each with the field path."""
    violations = [FieldViolation(field=f"graph.edges[{n}].target", message="m" * 5 * n) for n in range(50)]
    bad = details_of(status_of(InvalidGraph(violations, 99)))["BadRequest"]
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [each.field for each in bad.field_violations] == [each.field for each in violations]
    texts = [each.description for each in bad.field_violations]
    assert texts[:15] == [each.message for each in violations[:15]]
    assert texts[-1].endswith("m…")


def test_a_full_queue_says_whose_it_is_when_to_retry_and_what_to_change() -> None:
    """Q3: a full queue is RESOURCE_EXHAUSTED with retry advice."""
    status = status_of(errors.QueueFull("full", namespace="shop", queue_max=5))
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    details = details_of(status)
    retry, quota = details["RetryInfo"], details["QuotaFailure"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert isinstance(quota, error_details_pb2.QuotaFailure)
    assert retry.retry_delay.seconds > 0
    violation = quota.violations[0]
    assert (violation.subject, violation.description) == (
        "namespace:shop",
        "queue_max is 5; UpdateNamespace changes it",
    )
