"""Fingerprints of requests, by which a request id is known to stand for the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from google.protobuf.message import Message


def fingerprint_of(request: Message, *, without: Sequence[str] = ()) -> bytes:
    """Return the SHA-256 of a request.

    It is of the parsed message, for protobuf bytes are not canonical: fields in the order of their numbers,
    maps by key, unknown fields and those named by `without` dropped.
    """
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()  # type: ignore[attr-defined] # the stubs lack it
    for field in without:
        known.ClearField(field)
    return hashlib.sha256(known.SerializeToString(deterministic=True)).digest()
