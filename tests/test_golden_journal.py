"""Journals of every released version replay to the same state, for ever (A1, V9)."""

import base64
import hashlib
import json
from pathlib import Path
from typing import TypedDict, get_args

import pytest

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.run.events import Detail
from plait_server.encoding.event_codec import decode_event
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow
from plait_server.runtime.recovery import load_execution
from tests.golden.summary import Summary, summarize

JOURNALS = sorted((Path(__file__).parent / "golden").glob("journal-*.json"))


class Recorded(TypedDict):
    graph: str
    analysis: str
    events: list[str]
    summary: Summary


def read(path: Path) -> dict[str, Recorded]:
    recorded: dict[str, Recorded] = json.loads(path.read_text(encoding="utf-8"))
    return recorded


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
async def test_golden_journal_replays_to_what_it_came_to(path: Path) -> None:
    """A1: live and replayed state are equal; replay evaluates no expression."""
    journal = MemoryJournal(MemoryStore(), owner="golden")
    for number, recorded in enumerate(read(path).values()):
        contents = [base64.b64decode(recorded["graph"]), base64.b64decode(recorded["analysis"])]
        item = AppendItem(
            namespace="default",
            execution_id=f"golden-{number}",
            expected_sequence=0,
            owner_epoch=1,
            events=[base64.b64decode(event) for event in recorded["events"]],
            row=ExecutionRow(summary=b"", is_open=False),
            contents={hashlib.sha256(content).hexdigest(): content for content in contents},
        )
        assert isinstance((await journal.append_many([item]))[0], Appended)
        execution = await load_execution(journal.namespace("default"), f"golden-{number}")
        assert summarize(execution) == recorded["summary"]


def test_newest_golden_journal_has_every_type_of_event() -> None:
    seen = {
        type(decode_event(base64.b64decode(event)).detail).__name__
        for recorded in read(JOURNALS[-1]).values()
        for event in recorded["events"]
    }
    assert seen == {detail.__name__ for detail in get_args(Detail)}
