"""The texts of an execution's payloads: what is inline, what is stored by digest, and what was parsed before."""

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
"""Texts kept in memory for an execution: as much as one join may need at once."""


class ContentMissing(Exception):
    """A text has to be read from the store first; not an error, and never seen outside this package."""

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
        """digest -> content of the append under way: the store may not have it yet."""

    def keep(self, text: str) -> Payload:
        """Make a payload of a text; a long one is kept by digest and put with the next append."""
        if len(text) <= INLINE_BYTES_MAX // 4:  # Not even in the widest characters is it too long.
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
            ContentMissing: it must be loaded first.
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
        """Return the parsed value of a payload; parsed once while it is kept.

        Raises:
            ContentMissing: it must be loaded first.
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
        """Read a text from the store, so that `text` has it.

        Raises:
            EventDamaged: the store has lost it, or it is damaged.
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
        # The newest stays whatever its size: it is what is needed now.
        while self._bytes > CACHE_BYTES_MAX and len(self._texts) > 1:
            _, dropped = self._texts.popitem(last=False)
            self._bytes -= len(dropped)
