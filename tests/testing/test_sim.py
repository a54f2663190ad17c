"""The simulator: many seeds pass and reach every row, a seed is the same everywhere, planted defects are found."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from plait_server.core.definition.graph import Join
from plait_server.core.limit_values import LimitName
from plait_server.core.run import edges, joins
from plait_server.core.run.attempts import Attempts
from plait_server.core.run.edges import EdgeRow, Effect
from plait_server.core.run.ending import NodeDetail
from plait_server.core.run.events import AttemptEnded
from plait_server.core.run.scope_index import ScopeEntry, ScopeIndex
from plait_server.core.run.states import EdgeState
from plait_server.core.run.trace import SpanIds
from plait_server.runtime import limit_table, supervisor
from plait_server.runtime.admission import NamespaceAdmission
from plait_server.runtime.changes import Changes
from plait_server.runtime.feed import Feed
from plait_server.runtime.grant import Grant
from plait_server.runtime.limit import Limit
from plait_server.runtime.limit_table import LimitTable
from plait_server.runtime.rate import Rate
from plait_server.telemetry import spans
from plait_server.telemetry.span_observer import SpanObserver
from plait_server.testing import sim
from plait_server.testing.simulation.coverage import NOT_REACHED, wanted_rows
from plait_server.testing.simulation.run import simulate
from plait_server.testing.simulation.world import World, run_in_virtual_time

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 500
SEEN_MIN = 20
"""How often each row must be seen in so many seeds."""


@pytest.mark.slow
def test_seeds_pass_and_reach_every_row() -> None:
    """A1-A5, C1, E1-E5, J1, K3, Q1, R1-R3 and sections 5 and 6, as `simulation.checks` quotes them."""
    summary = sim.Summary()
    failures: list[str] = []
    with sim.silenced():
        for seed in range(1, SEEDS + 1):
            result = simulate(seed)
            summary.take(result)
            failures += [result.failure] if result.failure else []
    assert not failures, failures[0]
    rare = {row: summary.coverage.counts[row] for row in summary.coverage.too_rare(SEEN_MIN)}
    assert rare == {}, f"rows seen fewer than {SEEN_MIN} times in {SEEDS} seeds: {rare}"
    assert summary.coverage.unexpected() == []


def test_rows_out_of_reach_have_a_reason() -> None:
    assert all(NOT_REACHED.values())
    assert not set(NOT_REACHED) & set(wanted_rows())


def test_a_seed_is_the_same_in_two_fresh_processes() -> None:
    """Determinism: hashes of strings differ between processes, and nothing may follow from them."""
    code = "import sys; from plait_server.testing.sim import run; sys.exit(run(1, 25, json=True))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for hash_seed in ("1", "2")
    ]
    ends = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    for end in ends:
        del end["real_s"]
    assert ends[0] == ends[1]


def test_a_seed_is_the_same_when_it_is_run_alone() -> None:
    with sim.silenced():
        assert [simulate(seed).digest for seed in (7, 8, 8)] == [simulate(seed).digest for seed in (7, 8, 8)]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.run(3, 2, json=True) == 0
    end = json.loads(capsys.readouterr().out)
    assert (end["seeds"], end["failed"]) == (2, 0)


def test_a_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sim.run(3, 1, json=False) == 0
    text = capsys.readouterr().out
    assert "edges: SUCCEEDED" in text
    assert "out of reach in this version" in text


# Planted defects: each must be found within a few seeds, by the check that is there for it.


def is_found(count: int, *checks: str, first: int = 1) -> bool:
    """Whether one of the checks fails within so many seeds; those after the first that fails so are not run."""
    with sim.silenced():
        return any(
            result.failure and result.check in checks for result in map(simulate, range(first, first + count))
        )


def test_a_wrong_row_of_the_edge_table_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Effect(EdgeState.DEAD, EdgeState.DEAD, EdgeState.DEAD, asks_plain=False)
    monkeypatch.setitem(edges.EFFECTS, EdgeRow.UPSTREAM_FAILED, wrong)
    assert is_found(40, "5, 6")


def test_a_wrong_quorum_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(join: Join, not_dead: int) -> int:
        return 1

    monkeypatch.setattr(joins, "quorum_needed", one)
    assert is_found(20, "5, 6")


def test_a_permit_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(self: Grant) -> None:
        """Give nothing back."""

    monkeypatch.setattr(Grant, "release_engine", keep)
    # In seed 1 nothing ends any more, and it takes 5 s to say so.
    assert is_found(3, "Q1", first=2)


def test_a_running_slot_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NamespaceAdmission, "has_free_slot", True)
    assert is_found(20, "Q3", first=21)


def test_a_rate_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(_: Rate, _now_s: float) -> None:
        pass

    monkeypatch.setattr(Rate, "take", forget)
    assert is_found(20, "Q1")


def test_a_key_with_a_permit_too_many_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit_table, "DEFAULT_KEY_LIMIT", 2)
    assert is_found(60, "Q1", first=41)


def test_a_new_limit_that_does_not_count_what_runs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(_: LimitTable, _limit: Limit, _name: LimitName) -> None:
        pass

    monkeypatch.setattr(LimitTable, "_count_running", forget)
    assert is_found(40, "Q1", first=5)


def test_details_of_another_attempt_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def confuse(self: Attempts, detail: NodeDetail, node_path: str, number: int) -> NodeDetail:
        if isinstance(detail, AttemptEnded) and self._details:
            return detail._replace(heartbeat_details=next(iter(self._details.values())))
        return detail

    monkeypatch.setattr(Attempts, "with_heartbeat", confuse)
    assert is_found(5, "T4")


def test_a_watcher_of_the_namespace_that_is_not_woken_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(_: Changes, _namespace: str) -> None:
        pass

    monkeypatch.setattr(Changes, "note", forget)
    assert is_found(5, "A3", first=9)


def test_a_watcher_that_misses_an_event_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Feed.read

    def skip(self: Feed, after: int) -> Sequence[bytes] | None:
        return read(self, after + 1 if after == 2 else after)

    monkeypatch.setattr(Feed, "read", skip)
    assert is_found(20, "A3")


def test_an_index_by_scope_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    take = ScopeIndex.take

    def forget(self: ScopeIndex) -> Sequence[ScopeEntry]:
        entries = take(self)
        self._lists.clear()
        return entries

    monkeypatch.setattr(ScopeIndex, "take", forget)
    assert is_found(10, "N2")


def test_a_span_of_another_parent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(self: SpanIds, scope_path: str, branch: int) -> bytes:
        return self.execution()

    monkeypatch.setattr(SpanIds, "branch", flat)
    assert is_found(5, "B2", "B2.1")


def test_a_link_that_is_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "LINKS_MAX", 1)
    assert is_found(20, "B2")


def test_spans_that_are_not_told_again_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(*_: object) -> None:
        """Tell nothing."""

    monkeypatch.setattr(supervisor, "tell_again", forget)
    assert is_found(10, "B2.1")


def test_spans_that_a_stopping_server_forgets_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def forget(self: SpanObserver) -> None:
        """Hand over nothing."""

    monkeypatch.setattr(SpanObserver, "finish", forget)
    assert is_found(40, "B2.1")


def test_a_failure_is_readable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = Effect(EdgeState.DEAD, EdgeState.DEAD, EdgeState.DEAD, asks_plain=False)
    monkeypatch.setitem(edges.EFFECTS, EdgeRow.SUCCEEDED, wrong)
    assert sim.run(1, 1, json=False) == 1
    text = capsys.readouterr().out
    assert "seed 1 fails" in text
    assert "its events:" in text
    assert "plait sim --seed 1 --count 1" in text


def test_time_that_stands_still_is_found() -> None:
    world = World(1)

    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    assert run_in_virtual_time(world, spin) is None
    assert world.failure is not None
    assert world.failure.check == "livelock"
