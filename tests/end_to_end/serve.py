"""Starts a server of a test: `python -m tests.end_to_end.serve '{"store": "plait.db"}'`.

The command line has no options for the times that tests make short; those of `ServerConfig` are taken as they are.
`"dies": ["before", 17]` has the process kill itself with the commit that makes the 17th event since its start
durable: just before it, so that nothing of it is there, or just after it, so that nobody has been told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import ClassVar

from plait_server import bootstrap
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.config import ServerConfig
from plait_server.ports.journal import AppendItem, AppendResult


class MortalJournal(SqliteJournal):
    """A store whose process dies at a chosen commit."""

    dies_before: ClassVar[bool]
    dies_at: ClassVar[int]

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        is_last = self.statistics().events + sum(len(item.events) for item in items) >= self.dies_at
        if not is_last or not self.dies_before:
            results = await super().append_many(items)
            if not is_last:
                return results
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL is not survived")


def announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    config = json.loads(sys.argv[1])
    if "dies" in config:
        when, MortalJournal.dies_at = config.pop("dies")
        MortalJournal.dies_before = when == "before"
        setattr(bootstrap, "SqliteJournal", MortalJournal)  # noqa: B010 # it is not exported
    sys.exit(bootstrap.serve(ServerConfig(**config), announce))
