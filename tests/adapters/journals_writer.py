"""A process that appends to a store until it is killed, and says after each append what is durable.

    python journals_writer.py STORE OWNER

Prints `ready`, then for each append a line `<execution> <last sequence>` for every execution in it.
"""

from __future__ import annotations

import itertools
import random
import sys

import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.ports.audit import AuditRecord
from plait_server.ports.journal import Appended, AppendItem, Claim, ExecutionRow, RequestRecord

EXECUTIONS = 5
EVENTS_AN_APPEND = 3


def event(execution_id: str, sequence: int) -> bytes:
    """The event of a sequence, long enough that an append spans several pages."""
    return f"{execution_id} {sequence} ".encode() * 40


def make_item(execution_id: str, sequence: int, epoch: int) -> AppendItem:
    """An append whose request and audit name the sequence they came with."""
    last = sequence + EVENTS_AN_APPEND
    return AppendItem(
        namespace="n",
        execution_id=execution_id,
        expected_sequence=sequence,
        owner_epoch=epoch,
        events=[event(execution_id, number) for number in range(sequence + 1, last + 1)],
        row=ExecutionRow(summary=str(last).encode(), is_open=True),
        request=RequestRecord(
            method="M", request_id=f"{execution_id} {last}", fingerprint=b"f", execution_id=execution_id
        ),
        audit=[AuditRecord(time_s=0.0, kind="K", node_path="", attempt=1, worker_id="", detail=str(last))],
    )


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def write(path: str, owner: str) -> None:
    journal = SqliteJournal.open(path, owner=owner, checkpoint_pages=50)
    heads = {f"x{number}": (0, 1) for number in range(EXECUTIONS)}
    for claim in await journal.claim(limit=100):
        assert isinstance(claim, Claim)
        heads[claim.execution_id] = (claim.last_sequence, claim.owner_epoch)
    say("ready")
    rng = random.Random(owner)
    for _ in itertools.count():
        chosen = rng.sample(sorted(heads), 3)
        results = await journal.append_many([make_item(name, *heads[name]) for name in chosen])
        for name, result in zip(chosen, results, strict=True):
            if not isinstance(result, Appended):
                raise SystemExit(f"{name}: {result}")
            heads[name] = (result.last_sequence, heads[name][1])
            say(f"{name} {result.last_sequence}")


if __name__ == "__main__":
    trio.run(write, sys.argv[1], sys.argv[2])
