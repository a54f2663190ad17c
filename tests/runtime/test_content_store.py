"""ContentStore: what is inline, what is stored by digest (DESIGN 4), and what is loaded again."""

from __future__ import annotations

import hashlib

import pytest

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.limits import INLINE_BYTES_MAX
from plait_server.core.run.payload import Payload
from plait_server.errors import EventDamaged
from plait_server.runtime.content_store import CACHE_BYTES_MAX, ContentMissing, ContentStore


def a_text(size: int) -> str:
    """Return JSON text of so many bytes."""
    return '"' + "x" * (size - 2) + '"'


def contents_of(store: MemoryStore) -> ContentStore:
    return ContentStore(MemoryJournal(store, owner="o").namespace("n"))


@pytest.mark.parametrize("wide", [False, True], ids=["ascii", "wide"])
def test_up_to_32_kib_a_text_is_inline(wide: bool) -> None:
    contents = contents_of(MemoryStore())
    fits = '"' + "😀" * 8_191 + 'xx"' if wide else a_text(INLINE_BYTES_MAX)
    assert len(fits.encode()) == INLINE_BYTES_MAX
    assert contents.keep(fits) == Payload(fits)
    assert contents.unsaved == {}


@pytest.mark.parametrize("wide", [False, True], ids=["ascii", "wide"])
def test_beyond_32_kib_it_is_kept_by_digest(wide: bool) -> None:
    contents = contents_of(MemoryStore())
    text = '"' + "😀" * 8_192 + '"' if wide else a_text(INLINE_BYTES_MAX + 1)
    payload = contents.keep(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert payload == Payload("", digest, len(text.encode()))
    assert contents.unsaved == {digest: text.encode()}
    assert contents.text(payload) == text
    assert contents.value(payload) == text[1:-1]


async def test_what_is_not_in_memory_is_loaded() -> None:
    store = MemoryStore()
    text = a_text(50_000)
    digest = hashlib.sha256(text.encode()).hexdigest()
    store.contents["n", digest] = text.encode()
    contents = contents_of(store)
    payload = Payload("", digest, len(text))
    for read in (contents.text, contents.value):
        with pytest.raises(ContentMissing):
            read(payload)
    await contents.load(digest)
    assert contents.text(payload) == text
    assert contents.unsaved == {}


async def test_a_content_that_the_store_has_lost_or_that_is_damaged_is_damage() -> None:
    """K4: nothing is guessed."""
    store = MemoryStore()
    store.contents["n", "ab" * 32] = b"other"
    contents = contents_of(store)
    for digest in ("ab" * 32, "cd" * 32):
        with pytest.raises(EventDamaged):
            await contents.load(digest)


def test_what_is_kept_in_memory_is_bounded_and_the_newest_stays() -> None:
    contents = contents_of(MemoryStore())
    size = CACHE_BYTES_MAX // 8
    payloads = [contents.keep(a_text(size + number)) for number in range(10)]
    assert len(contents.text(payloads[-1])) == size + 9
    assert len(contents.text(payloads[0])) == size  # The store does not have it yet.
    contents.unsaved = {}
    with pytest.raises(ContentMissing):
        contents.text(payloads[3])


def test_values_are_parsed_once() -> None:
    contents = contents_of(MemoryStore())
    payload = Payload('{"a":' + "1" * 100 + "}")
    assert contents.value(payload) is contents.value(payload)
    assert contents.value(Payload("[1]")) == [1]
