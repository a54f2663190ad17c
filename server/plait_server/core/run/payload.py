"""Payloads: JSON text, carried inline or referenced by digest. The core never parses it."""

from __future__ import annotations

from typing import Final, NamedTuple

from plait_server.core.limits import INLINE_BYTES_MAX


class Payload(NamedTuple):
    """One JSON value. A tuple, because every result makes one: 0.3 us, where a frozen dataclass takes 1.5 us."""

    json: str = ""
    """The text; absent if the payload is referenced by `digest`."""
    digest: str = ""
    """SHA-256 of the text in lower-case hexadecimal; empty for an inline payload."""
    size_bytes: int = 0
    """Length of the text; 0 for an inline payload."""


def is_inline(text: str) -> bool:
    """Return whether a text is short enough for an inline payload."""
    # Short enough even if every character takes four bytes.
    return len(text) <= INLINE_BYTES_MAX // 4 or len(text.encode()) <= INLINE_BYTES_MAX


NULL: Final = Payload("null")
