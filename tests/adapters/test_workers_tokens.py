"""Attempt tokens: they come back as they were made, and nobody else makes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.adapters.workers.tokens import Tokens, idempotency_key
from plait_server.ports.workers import AttemptKey

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)
KEYS = st.builds(
    AttemptKey,
    namespace=NAMES,
    execution_id=NAMES,
    run=st.integers(1, 2**31 - 1),
    node_path=st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    attempt=st.integers(1, 2**31 - 1),
)
TOKENS = Tokens(b"one key")


@given(KEYS)
def test_a_token_says_which_attempt_it_is_for(key: AttemptKey) -> None:
    assert TOKENS.read(TOKENS.make(key)) == key
    assert Tokens(b"one key").read(TOKENS.make(key)) == key  # Over a restart, too.


@given(KEYS)
def test_another_key_reads_nothing(key: AttemptKey) -> None:
    assert Tokens(b"another key").read(TOKENS.make(key)) is None


@given(KEYS, st.data())
def test_a_token_that_was_changed_is_refused(key: AttemptKey, data: st.DataObject) -> None:
    token = TOKENS.make(key)
    at = data.draw(st.integers(0, len(token) - 1))
    changed = token[:at] + data.draw(st.characters(codec="utf-8")) + token[at + 1 :]
    assert TOKENS.read(changed) == (key if changed == token else None)


@given(st.text())
def test_a_token_made_by_hand_is_refused(token: str) -> None:
    assert TOKENS.read(token) is None


@given(KEYS, KEYS)
def test_two_attempts_have_two_tokens(one: AttemptKey, other: AttemptKey) -> None:
    assert (TOKENS.make(one) == TOKENS.make(other)) is (one == other)


@given(KEYS, st.integers(1, 9), st.integers(1, 9))
def test_the_idempotency_key_is_the_same_in_every_attempt_and_run(
    key: AttemptKey, run: int, attempt: int
) -> None:
    """A4."""
    assert idempotency_key(key._replace(run=run, attempt=attempt)) == idempotency_key(key)


@pytest.mark.parametrize("change", [{"namespace": "m"}, {"execution_id": "y"}, {"node_path": "b"}], ids=str)
def test_the_idempotency_key_is_one_of_its_node(change: dict[str, str]) -> None:
    """A4."""
    key = AttemptKey("n", "x", 1, "a", 1)
    execution_id, node_path = change.get("execution_id", "x"), change.get("node_path", "a")
    other = AttemptKey(change.get("namespace", "n"), execution_id, 1, node_path, 1)
    assert idempotency_key(other) != idempotency_key(key)
