"""The namespace of a large request is read from its bytes, as the parser would see it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from plait.v1 import execution_service_pb2
from plait_server.encoding.last_text import last_text

Submit = execution_service_pb2.SubmitGraphRequest


def _named(text: str) -> bytes:
    return Submit(namespace=text).SerializeToString()


def _other(text: str) -> bytes:
    return Submit(request_id=text).SerializeToString()


TEXTS = st.text(max_size=5)
PARTS = st.one_of(TEXTS.map(_named), TEXTS.map(_other), st.binary(max_size=8))


@given(st.lists(PARTS, max_size=6).map(b"".join))
@example(b"\x8a\x00\x01x")
@example(b"\x8a\x80\x80\x80\x00\x01x")
@example(b"\x8a\x80\x80\x80\x10\x01x")
@example(b"\x0a\x81\x00x")
@example(b"\x08\x01")
def test_the_namespace_of_bytes_is_the_parsers(content: bytes) -> None:
    """Otherwise a request could be admitted in one namespace and carried out in another."""
    try:
        parsed = Submit.FromString(content)
    except DecodeError:
        return  # It is refused later, whatever was found.
    try:
        assert last_text(content, 1) == parsed.namespace
    except DecodeError:
        assert any(byte & 7 in (3, 4) for byte in content), "only groups are refused that the parser takes"


def test_a_large_request_with_very_many_fields_is_refused() -> None:
    with pytest.raises(DecodeError, match="more than"):
        last_text(b"\x08\x01" * 1_001, 1)
