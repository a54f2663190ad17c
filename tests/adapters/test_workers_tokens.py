"""Attempt tokens: they name an attempt, survive a restart, and cannot be forged."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from plait_server.adapters.workers.tokens import Tokens, idempotency_key
from plait_server.ports.workers import AttemptKey

IDS = st.text("abcXYZ019_.-", min_size=1, max_size=12)
PATHS = st.lists(IDS, min_size=1, max_size=3).map("/".join)
KEYS = st.builds(AttemptKey, IDS, IDS, st.integers(1, 10_000), PATHS, st.integers(1, 10_000))
TOKENS = Tokens(b"k" * 32)


@given(KEYS)
def test_a_token_names_its_attempt_after_a_restart_too(key: AttemptKey) -> None:
    assert Tokens(b"k" * 32).read(TOKENS.make(key)) == key


@given(KEYS, KEYS)
def test_different_attempts_have_different_tokens(one: AttemptKey, other: AttemptKey) -> None:
    assert (TOKENS.make(one) == TOKENS.make(other)) == (one == other)


@given(KEYS)
def test_another_store_does_not_know_it(key: AttemptKey) -> None:
    assert Tokens(b"o" * 32).read(TOKENS.make(key)) is None


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_without_an_error(token: str) -> None:
    assert TOKENS.read(token) is None


@given(KEYS, st.data())
def test_a_changed_token_names_nothing(key: AttemptKey, data: st.DataObject) -> None:
    token = TOKENS.make(key)
    place = data.draw(st.integers(0, len(token) - 1))
    changed = token[:place] + data.draw(st.characters(exclude_categories=["Cs"])) + token[place + 1 :]
    assert (TOKENS.read(changed) is None) == (changed != token)


def test_the_idempotency_key_is_the_same_for_every_attempt_and_run() -> None:
    """A4."""
    key = AttemptKey("n", "x", 1, "a/b", 1)
    assert idempotency_key(key) == idempotency_key(key._replace(run=2, attempt=5)) == "n/x/a/b"
    assert idempotency_key(key._replace(node_path="c")) != idempotency_key(key)
