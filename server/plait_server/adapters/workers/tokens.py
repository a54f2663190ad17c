"""Attempt tokens: identify an attempt to its worker, signed with the store's key (HMAC, RFC 2104).

A token has no epoch, so it survives a restart of the server. It contains the attempt's key, so that a result
from before a restart finds its execution.
"""

from __future__ import annotations

import hmac
from typing import Final

from plait_server.ports.workers import AttemptKey

_MAC_CHARS: Final = 32
"""128 bits in hexadecimal; a forger has one guess for each message."""


class Tokens:
    """Creates and verifies tokens with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, key: AttemptKey) -> str:
        """Return the token of an attempt."""
        text = f"{key.namespace}/{key.execution_id}/{key.run}/{key.attempt}/{key.node_path}"
        return f"{self._mac(text)}/{text}"

    def read(self, token: str) -> AttemptKey | None:
        """Return the attempt of a token; None if the token was not made with this key."""
        mac, _, text = token.partition("/")
        if not hmac.compare_digest(mac.encode(), self._mac(text).encode()):
            return None
        namespace, execution_id, run, attempt, node_path = text.split("/", 4)
        return AttemptKey(namespace, execution_id, int(run), node_path, int(attempt))

    def _mac(self, text: str) -> str:
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:_MAC_CHARS]


def idempotency_key(key: AttemptKey) -> str:
    """Return the key that is the same for every attempt and run of a node in an execution (A4)."""
    return f"{key.namespace}/{key.execution_id}/{key.node_path}"
