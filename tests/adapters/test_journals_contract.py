"""The contract of the journal port, for every store of Plait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plait_server.ports.journal import Journal
from plait_server.testing.check_journal import (
    CHECKS,
    Check,
    StoreUnderTest,
    appends,
    deletions,
    lists,
    log_lines,
    reads,
    scopes,
    settings,
    snapshots,
)
from tests.adapters.journals_stores import MemoryUnderTest, SqliteUnderTest


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    if request.param == "memory":
        yield MemoryUnderTest()
    else:
        under_test = SqliteUnderTest(tmp_path / "store.db")
        yield under_test
        under_test.finish()


@pytest.mark.parametrize("check", CHECKS, ids=[check.__name__ for check in CHECKS])
async def test_the_store_keeps_the_contract(check: Check, store: StoreUnderTest) -> None:
    await check(store)


def test_every_check_is_in_the_list() -> None:
    defined = [
        vars(module)[name]
        for module in (appends, reads, lists, scopes, settings, deletions, snapshots, log_lines)
        for name in vars(module)
        if name.startswith("check_")
    ]
    assert defined == list(CHECKS)


async def test_a_journal_is_a_journal(store: StoreUnderTest) -> None:
    """The type checker compares the classes with the port here."""
    journal: Journal = await store.open()
    assert journal.namespace("n").namespace == "n"
    assert type(journal).__name__ in repr(journal)
