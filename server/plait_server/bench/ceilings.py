"""Measures what the machine allows, beside each round: its speed drifts meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, assert_never

import apsw

from plait_server.bench.echo import call_s, echo_messages_per_s
from plait_server.bench.shape import Ceiling

_ECHO_S: Final = 1.0
_CALLS_S: Final = 0.5
_COMMITS: Final = 300
_QUICK: Final = 0.05
"""The share that a quick run measures."""


def measure(ceiling: Ceiling, *, echo_port: int, folder: Path, is_quick: bool) -> float:
    """Measure a ceiling, in the unit that its name ends with.

    Args:
        ceiling: What to measure.
        echo_port: Where the echo server listens.
        folder: On the disk that the server's store is on.
        is_quick: Whether to measure shortly.
    """
    share = _QUICK if is_quick else 1.0
    match ceiling:
        case Ceiling.ECHO:
            return echo_messages_per_s(echo_port, share * _ECHO_S)
        case Ceiling.CALL:
            return 1000 * call_s(echo_port, share * _CALLS_S)
        case Ceiling.COMMIT:
            return 1000 * _commit_s(folder / "ceiling.db", int(share * _COMMITS))
        case _:
            assert_never(ceiling)


def _commit_s(path: Path, count: int) -> float:
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS ceiling (content BLOB)")
        begun_s = time.perf_counter()
        for _ in range(count):
            connection.execute("INSERT INTO ceiling VALUES (?)", (b"x" * 100,))
        return (time.perf_counter() - begun_s) / count
    finally:
        connection.close()
