"""E1: failures on the wire say the same, within their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import failure_pb2, payload_pb2
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.encoding.failure_codec import (
    failure_from_proto,
    failure_to_proto,
    payload_from_proto,
    payload_to_proto,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAYLOADS = st.one_of(
    st.sampled_from(('"x"', "null", "1.50", '{"a":[1,2]}')).map(Payload),
    st.integers(1, 2**40).map(lambda size: Payload("", "ab" * 32, size)),
)
LEAVES = st.builds(
    Failure,
    code=st.sampled_from(("UNKNOWN", "POISON", "own.code")),
    message=TEXT,
    details=st.none() | PAYLOADS,
    retryable=st.booleans(),
    node_path=TEXT,
    attempt=st.integers(0, 2**31 - 1),
    causes_omitted=st.integers(0, 2**31 - 1),
    details_omitted=st.booleans(),
)
FAILURES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        Failure, code=st.just("JOIN"), message=TEXT, causes=st.lists(inner, max_size=4).map(tuple)
    ),
    max_leaves=6,
)


@given(FAILURES)
def test_a_failure_within_its_bounds_comes_back_equal(failure: Failure) -> None:
    content = failure_to_proto(failure).SerializeToString()
    assert failure_from_proto(failure_pb2.Failure.FromString(content)) == failure


@given(PAYLOADS)
def test_a_payload_comes_back_equal(payload: Payload) -> None:
    assert payload_from_proto(payload_to_proto(payload)) == payload


def test_a_payload_without_content_is_null() -> None:
    assert payload_from_proto(payload_pb2.Payload()) == Payload("null")
