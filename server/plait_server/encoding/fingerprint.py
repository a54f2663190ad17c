"""Fingerprints of requests, which show whether a reused request id has the same content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from google.protobuf.message import Message


def fingerprint_of(request: Message, *, without: Sequence[str] = ()) -> bytes:
    """Return the SHA-256 of a request.

    The hash covers the parsed message, because protobuf bytes are not canonical: fields in the order of their
    numbers, maps by key, without unknown fields and those named in `without`.
    """
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()  # type: ignore[attr-defined] # the stubs lack it
    for field in without:
        known.ClearField(field)
    return hashlib.sha256(known.SerializeToString(deterministic=True)).digest()
