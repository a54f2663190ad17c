"""The texts of an execution's payloads: inline ones, ones stored by digest, and values parsed before."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from plait_server.core.json_text import JsonValue, parse_json
from plait_server.core.limits import INLINE_BYTES_MAX, MIB
from plait_server.core.run.payload import Payload
from plait_server.errors import EventDamaged
from plait_server.ports.journal import NamespaceJournal

CACHE_BYTES_MAX: Final = 16 * MIB
"""The most text kept in memory for an execution: as much as one join may need at once."""


class ContentMissing(Exception):
    """A text has to be read from the store first. This is not an error, and never leaves this package."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(digest)


class ContentStore:
    """The texts behind the payloads of one execution."""

    def __init__(self, journal: NamespaceJournal) -> None:
        self._journal = journal
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0
        self._parsed: OrderedDict[str, JsonValue] = OrderedDict()
        self.unsaved: dict[str, bytes] = {}
        """digest -> content that the next append must carry."""
        self.saving: Mapping[str, bytes] = {}
        """digest -> content of the pending append, which the store may not have yet."""

    def keep(self, text: str) -> Payload:
        """Return a payload for a text; a long one is stored by digest, with the next append."""
        if len(text) <= INLINE_BYTES_MAX // 4:  # Short enough even if every character takes four bytes.
            return Payload(text)
        content = text.encode()
        if len(content) <= INLINE_BYTES_MAX:
            return Payload(text)
        digest = hashlib.sha256(content).hexdigest()
        self.unsaved[digest] = content
        self._remember(digest, text)
        return Payload("", digest, len(content))

    def text(self, payload: Payload) -> str:
        """Return the text of a payload.

        Raises:
            ContentMissing: The text must be loaded first.
        """
        if not payload.digest:
            return payload.json
        text = self._texts.get(payload.digest)
        if text is None:
            content = self.unsaved.get(payload.digest) or self.saving.get(payload.digest)
            if content is None:
                raise ContentMissing(payload.digest)
            text = content.decode()
            self._remember(payload.digest, text)
        self._texts.move_to_end(payload.digest)
        return text

    def value(self, payload: Payload) -> JsonValue:
        """Return the parsed value of a payload; it is parsed only once while it is cached.

        Raises:
            ContentMissing: The text must be loaded first.
        """
        if not payload.digest and len(payload.json) < 64:  # cheaper to parse than to look up
            return parse_json(payload.json)
        key = payload.digest or payload.json
        if key in self._parsed:
            return self._parsed[key]
        value = parse_json(self.text(payload))
        self._parsed[key] = value
        if len(self._parsed) > 64:  # parsed values are many times the size of their text
            self._parsed.popitem(last=False)
        return value

    async def load(self, digest: str) -> None:
        """Load a text from the store, so that `text` returns it.

        Raises:
            EventDamaged: The store has lost the text, or it is damaged.
        """
        content = await self._journal.read_content(digest)
        if content is None:
            message = f"the content {digest} is missing from the store; restore it from a backup"
            raise EventDamaged(message)
        self._remember(digest, content.decode())

    def _remember(self, digest: str, text: str) -> None:
        if digest not in self._texts:
            self._bytes += len(text)
        self._texts[digest] = text
        # The newest stays whatever its size, because it is needed now.
        while self._bytes > CACHE_BYTES_MAX and len(self._texts) > 1:
            _, dropped = self._texts.popitem(last=False)
            self._bytes -= len(dropped)
