"""Pages of lists: cut by count and by bytes, and continued by tokens.

A token is opaque and bound to its list: the method, the namespace and whatever else identifies it. A token
of another list, or a forged one, is refused; the page size may change from page to page. What a token says cannot be
read: a position in the whole store would tell how busy other namespaces are. The construction is SIV (RFC 5297):
the code that authenticates the position is also what it is encrypted with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message

from plait_server.core.limits import MESSAGE_BYTES_MAX, MIB
from plait_server.errors import InvalidPageToken

ANSWER_BYTES_MAX: Final = MESSAGE_BYTES_MAX - MIB
"""The bytes that a page may have. A default client accepts 4 MiB, and no list entry comes near the MiB left."""
_MAC_BYTES: Final = 16
_TOKEN_CHARS_MAX: Final = 4_096
"""A token may hold the path of a scope: 16 ids of 128 characters."""
_ENTRY_OVERHEAD: Final = 8
"""The bytes of a tag, and of a length of up to 4 bytes."""

M = TypeVar("M", bound=Message)


class PageTokens:
    """Creates and verifies page tokens with the store's key, so that they survive a restart."""

    def __init__(self, key: bytes) -> None:
        self._key = hashlib.sha256(b"page tokens\0" + key).digest()
        self._stream_key = hashlib.sha256(b"positions of page tokens\0" + key).digest()

    def make(self, position: str, *list_: str) -> str:
        """Return the token of the page after a position.

        Args:
            position: The end of the page before.
            list_: The identity of the list: its method, its namespace and so on; none contains a NUL.
        """
        content = position.encode()
        mac = self._mac(content, list_)
        return base64.urlsafe_b64encode(mac + self._crypt(content, mac)).decode()

    def read(self, token: str, *list_: str) -> str | None:
        """Read a token; None for the first page.

        Raises:
            InvalidPageToken: The token is not one of this list.
        """
        if not token:
            return None
        if len(token) > _TOKEN_CHARS_MAX:
            raise InvalidPageToken
        try:
            sealed = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidPageToken from error
        mac = sealed[:_MAC_BYTES]
        content = self._crypt(sealed[_MAC_BYTES:], mac)
        if not hmac.compare_digest(mac, self._mac(content, list_)):
            raise InvalidPageToken
        return content.decode()

    def _crypt(self, content: bytes, mac: bytes) -> bytes:
        """Encrypt or decrypt a position."""
        stream = hashlib.shake_256(self._stream_key + mac).digest(len(content))
        return bytes(a ^ b for a, b in zip(content, stream, strict=True))

    def _mac(self, content: bytes, list_: tuple[str, ...]) -> bytes:
        bound = "\0".join(list_).encode() + b"\0" + content
        return hmac.digest(self._key, bound, "sha256")[:_MAC_BYTES]


def fill(messages: Iterable[M], bytes_max: int) -> list[M]:
    """Return the messages that fit into a page, at least one."""
    page: list[M] = []
    left = bytes_max
    for message in messages:
        left -= message.ByteSize() + _ENTRY_OVERHEAD
        if left < 0 and page:
            break
        page.append(message)
    return page
