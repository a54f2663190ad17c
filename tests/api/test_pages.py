"""Pages: tokens belong to one list, and a page is as full as its bytes allow."""

from __future__ import annotations

import base64
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import payload_pb2
from plait_server.api.pages import PageTokens, fill
from plait_server.errors import InvalidPageToken

TOKENS = PageTokens(b"key")
POSITIONS = st.integers(0, 2**63).map(str) | st.just("worker.1/instance-1")
LISTS = st.sampled_from(
    (
        ("ListNodes", "default", "x"),
        ("ListNodes", "default", "y"),
        ("ListNodes", "other", "x"),
        ("ListExecutions", "default"),
        ("ListWorkers", "default"),
    )
)


def test_the_first_page_has_no_token() -> None:
    assert TOKENS.read("", "ListExecutions", "default") is None


@given(POSITIONS, LISTS)
def test_a_token_says_where_its_list_goes_on_also_after_a_restart(
    position: str, list_: tuple[str, ...]
) -> None:
    assert PageTokens(b"key").read(TOKENS.make(position, *list_), *list_) == position


@given(POSITIONS, LISTS, LISTS)
def test_the_token_of_another_list_namespace_or_execution_is_refused(
    position: str, given_by: tuple[str, ...], given_to: tuple[str, ...]
) -> None:
    token = TOKENS.make(position, *given_by)
    if given_by == given_to:
        assert TOKENS.read(token, *given_to) == position
    else:
        with pytest.raises(InvalidPageToken):
            TOKENS.read(token, *given_to)


@given(st.text(min_size=1) | st.binary(min_size=1).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_what_was_made_up_is_no_token(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        TOKENS.read(token, "ListExecutions", "default")


def test_a_position_cannot_be_read_from_its_token() -> None:
    """Some positions count what happened in all namespaces."""
    token = TOKENS.make("position-12345678", "ListExecutions", "default")
    assert b"position" not in base64.urlsafe_b64decode(token)
    other = TOKENS.make("position-12345679", "ListExecutions", "default")
    same = sum(a == b for a, b in zip(*map(base64.urlsafe_b64decode, (token, other)), strict=True))
    assert same < 12, "two that are close have no more in common than any two"


def test_a_token_of_another_store_is_refused() -> None:
    with pytest.raises(InvalidPageToken):
        PageTokens(b"other").read(TOKENS.make("7", "ListExecutions", "default"), "ListExecutions", "default")


def test_a_token_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(InvalidPageToken, match="Begin again without one"):
        TOKENS.read("A" * 4_000_000, "ListExecutions", "default")


@given(st.lists(st.integers(0, 300), max_size=10))
def test_a_page_is_as_full_as_its_bytes_allow_and_never_empty(sizes: list[int]) -> None:
    messages = [payload_pb2.Payload(json="x" * size) for size in sizes]
    page = fill(messages, 400)
    assert page == messages[: len(page)]
    assert bool(page) is bool(messages)
    total = 0
    fitting = [total for m in messages if (total := total + m.ByteSize() + 8) <= 400]
    assert len(page) == max(len(fitting), bool(messages))


def test_a_page_reads_no_more_than_it_takes() -> None:
    read = takewhile(lambda _: True, iter([payload_pb2.Payload(json="x" * 300)] * 5))
    assert len(fill(read, 400)) == 1
    assert len(list(read)) == 3
