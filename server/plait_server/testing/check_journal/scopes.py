"""Rule 5 of the journal port, its second half: events of a nested scope, found by the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plait_server.core.run.scope_index import ScopeEntry
from plait_server.errors import EventDamaged, ExecutionNotFound, InvariantViolated
from plait_server.ports.journal import Appended, AppendItem, Journal, SequenceConflict
from plait_server.testing.check_journal.items import (
    ALL,
    NAMESPACE,
    OTHER_NAMESPACE,
    append,
    go_on,
    make,
)
from plait_server.testing.check_journal.store import StoreUnderTest

_SCOPE = "a/b[3]/ä"


def _indexed(item: AppendItem, *entries: tuple[str, Sequence[int]]) -> AppendItem:
    return replace(item, scope_entries=[ScopeEntry(path, sequences) for path, sequences in entries])


async def _read_scope(
    journal: Journal, execution_id: str, scope_path: str, *, namespace: str = NAMESPACE
) -> Sequence[bytes]:
    page = await journal.namespace(namespace).read_scope(
        execution_id, scope_path, after=0, events_max=ALL, bytes_max=ALL
    )
    assert page.is_last
    return list(page.events)


async def check_a_scope_has_the_events_that_were_told(store: StoreUnderTest) -> None:
    """Check that a scope's events come in order, of several appends, and survive a crash (5)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2", b"3"), make("y", b"one"))
    await append(journal, _indexed(go_on("x", 3, b"4", b"5"), (_SCOPE, [1, 3, 4]), ("other", [2, 3])))
    await append(
        journal, _indexed(go_on("x", 5, b"6"), (_SCOPE, [6])), _indexed(go_on("y", 1, b"two"), (_SCOPE, [2]))
    )
    for _ in range(2):
        assert await _read_scope(journal, "x", _SCOPE) == [b"1", b"3", b"4", b"6"]
        assert await _read_scope(journal, "x", "other") == [b"2", b"3"]
        assert await _read_scope(journal, "y", _SCOPE) == [b"two"]
        assert await _read_scope(journal, "x", "a") == [], "no prefix of a path"
        await store.crash(journal)
        journal = await store.open()


async def check_reading_a_scope_keeps_its_bounds(store: StoreUnderTest) -> None:
    """Check that a page holds at least one event if there is one, and says whether there are more (5)."""
    journal = await store.open()
    await append(journal, make("x", *(bytes([number]) * 10 for number in range(1, 11))))
    await append(journal, _indexed(go_on("x", 10, b"end"), (_SCOPE, [2, 3, 5]), (_SCOPE, [8, 9])))
    for after, events_max, bytes_max, sequences, is_last in (
        (0, ALL, ALL, [2, 3, 5, 8, 9], True),
        (0, 4, ALL, [2, 3, 5, 8], False),
        (0, 5, ALL, [2, 3, 5, 8, 9], True),
        (2, ALL, 25, [3, 5], False),
        (3, ALL, 1, [5], False),
        (4, 2, ALL, [5, 8], False),
        (8, 1, 1, [9], True),
        (9, ALL, ALL, [], True),
        (20, ALL, ALL, [], True),
    ):
        page = await journal.namespace(NAMESPACE).read_scope(
            "x", _SCOPE, after=after, events_max=events_max, bytes_max=bytes_max
        )
        assert list(page.events) == [bytes([sequence]) * 10 for sequence in sequences], after
        assert (page.after, page.is_last) == (sequences[-1] if sequences else after, is_last), after


async def check_scopes_are_bound_to_their_execution(store: StoreUnderTest) -> None:
    """Check that scopes of other executions and namespaces look as those that are nowhere (8)."""
    journal = await store.open()
    await append(journal, _indexed(make("x", b"1"), (_SCOPE, [1])), make("y", b"2"))
    assert await _read_scope(journal, "x", _SCOPE) == [b"1"]
    assert await _read_scope(journal, "y", _SCOPE) == []
    for namespace, execution_id in ((OTHER_NAMESPACE, "x"), (NAMESPACE, "unknown")):
        try:
            await _read_scope(journal, execution_id, _SCOPE, namespace=namespace)
        except ExecutionNotFound:
            continue
        raise AssertionError("found")


async def check_a_refused_item_indexes_nothing(store: StoreUnderTest) -> None:
    """Check that of a refused item no entry is kept, of its neighbor each; and one of no events is a bug (2)."""
    journal = await store.open()
    await append(journal, make("x", b"1"), make("y", b"1"))
    results = await journal.append_many(
        [_indexed(go_on("x", 7, b"8"), (_SCOPE, [8])), _indexed(go_on("y", 1, b"2"), (_SCOPE, [1, 2]))]
    )
    assert list(results) == [SequenceConflict(last_sequence=1), Appended(last_sequence=2)]
    assert await _read_scope(journal, "x", _SCOPE) == []
    assert await _read_scope(journal, "y", _SCOPE) == [b"1", b"2"]
    for sequences in ([0, 1], [2, 4]):
        try:
            await journal.append_many([_indexed(go_on("y", 2, b"3"), (_SCOPE, sequences))])
        except InvariantViolated:
            continue
        raise AssertionError("accepted")


async def check_damage_is_found_in_scopes(store: StoreUnderTest) -> None:
    """Check that a damaged event raises in each scope that has it, and in no other (5)."""
    journal = await store.open()
    entries = ("hit", [2, 3, 5]), ("behind", [4, 5]), ("whole", [1, 5])
    await append(journal, _indexed(make("x", b"1", b"2", b"3", b"4", b"5"), *entries))
    await journal.aclose()
    await store.damage_event(NAMESPACE, "x", 3)
    journal = await store.open()
    try:
        await _read_scope(journal, "x", "hit")
    except EventDamaged as error:
        fields = error.fields
    else:
        raise AssertionError("read")
    assert (fields["execution_id"], fields["sequence"]) == ("x", 3)
    assert await _read_scope(journal, "x", "behind") == [b"4", b"5"], "the checksum before it is whole"
    assert await _read_scope(journal, "x", "whole") == [b"1", b"5"]
