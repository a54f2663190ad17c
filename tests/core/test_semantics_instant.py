"""J5: the order within one instant; and what a large graph leaves to the next decision."""

from __future__ import annotations

import pytest

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.run.commands import (
    AttemptResult,
    Cancel,
    Continue,
    Granted,
    Input,
    OfferNode,
    QueueTimeout,
    Start,
    TimerDue,
    TimerKind,
)
from plait_server.core.run.events import Event, ExecutionSubmitted
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure
from plait_server.core.run.machine import STEPS_MAX, Decision, Machine
from plait_server.core.run.payload import NULL
from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState
from tests.core.driver import Driver
from tests.core.graph_text import build

LARGE = 3 * STEPS_MAX


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def order(driver: Driver) -> list[str]:
    """What happened to nodes, in order, since the execution started."""
    return [
        f"{event.node_path} {event.node_state.name}{'/' if event.reason else ''}{event.reason}"
        for event in driver.events
        if event.node_state is not None
    ]


def test_way_that_a_switch_did_not_take_is_a_dead_path_also_where_the_other_decides_a_race() -> None:
    """J5: the way that a switch did not take is SKIPPED/DEAD_PATH, also where the way it took decides a race."""
    d = run('node s kind=switch:"x":x,y; node j join=ANY', "s -x-> j; s -y-> late; late -> j")
    assert order(d)[:2] == ["s SUCCEEDED", "late SKIPPED/DEAD_PATH"]
    assert d.state("j") == "RUNNING"


def test_losers_end_together_in_graph_order() -> None:
    """J1, J5: a loser whose upstream loses as well is CANCELLED like it; losers end in graph order."""
    d = run("z -> j; up -> mid; mid -> low; low -> j", "node j join=ANY")
    d.succeed("z")
    assert order(d)[2:] == [
        "z SUCCEEDED",
        "up CANCELLED/RACE_LOST",
        "mid CANCELLED/RACE_LOST",
        "low CANCELLED/RACE_LOST",
        "j RUNNING",
    ]


def test_skip_goes_before_losers_and_losers_before_what_begins() -> None:
    """J5: a node whose join says SKIPPED ends; losers end; one other node whose join was decided begins."""
    d = run("z -> t; z -> j; z -> skip when=false; a -> j", "node t kind=transform; node j join=ANY")
    d.succeed("z")
    assert order(d)[2:] == [
        "z SUCCEEDED",
        "skip SKIPPED/DEAD_PATH",
        "a CANCELLED/RACE_LOST",
        "t SUCCEEDED",
        "j RUNNING",
    ]


def test_node_of_the_engine_begins_and_ends_before_the_next_begins() -> None:
    """J5: after each step the first of these goes on; the edges of a node that ended come before another begins."""
    d = run(
        "z -> t; z -> u; t -> x when=false; u -> y when=false", "node t kind=transform; node u kind=transform"
    )
    d.succeed("z")
    assert order(d)[1:] == [
        "z SUCCEEDED",
        "t SUCCEEDED",
        "x SKIPPED/DEAD_PATH",
        "u SUCCEEDED",
        "y SKIPPED/DEAD_PATH",
    ]


def test_join_that_failed_waits_its_turn() -> None:
    """J5: a node begins, or FAILS with its join, in the order of the decisions: the transform was first."""
    d = run(
        "z -> t; z -> q when=false; bad -> q; t -> side when=false",
        "node t kind=transform; node q join=ANY; node bad on_error=TOLERATE",
    )
    d.fail("bad")
    d.succeed("z")
    assert order(d)[3:] == [
        "z SUCCEEDED",
        "t SUCCEEDED",
        "side SKIPPED/DEAD_PATH",
        "q FAILED/ALL_BRANCHES_FAILED",
    ]


def test_race_that_fails_with_the_policy_cancels_its_losers_before_the_sweep() -> None:
    """J1: when a QUORUM fails, they are cancelled before E4 looks at the rest."""
    d = run("a, b, c -> q; other -> end", "node q join=QUORUM:3; node a on_error=TOLERATE")
    d.fail("a")
    assert order(d)[4:] == [
        "a FAILED/INTERNAL",
        "b CANCELLED/RACE_LOST",
        "c CANCELLED/RACE_LOST",
        "q FAILED/QUORUM_UNREACHABLE",
        "other IDLE/SIBLING_FAILED",
        "end IDLE/SIBLING_FAILED",
    ]


def test_node_that_its_level_held_begins_before_what_was_decided_later() -> None:
    """J5, R2: in the order of the decisions; a lock waits with the starts, a failing join does not."""
    d = run(
        "scheduling LEVELS; policy CONTINUE",
        "a -> late; b -> held; b -> locked",
        "node a; node b kind=transform; node held kind=transform; node locked locked; node late join=QUORUM:1",
        "node a on_error=TOLERATE",
    )
    d.fail("a")
    assert order(d) == [
        "b SUCCEEDED",
        "a RUNNING",
        "a FAILED/INTERNAL",
        "held SUCCEEDED",
        "locked SKIPPED/LOCKED",
        "late FAILED/QUORUM_UNREACHABLE",
    ]


def test_a_failed_join_names_each_failure_behind_its_edges_once() -> None:
    """E1: a failed join is named with the failures behind its edges as causes."""
    d = run("policy CONTINUE; z -> mid; z -> j; mid -> j; y -> j", "node j join=QUORUM:1")
    d.fail("y", "Y")
    d.fail("z", "Z")
    assert [(cause.node_path, cause.code) for cause in d.scope.failures[-1].causes] == [
        ("z", "Z"),
        ("y", "Y"),
    ]


def test_tasks_are_offered_last() -> None:
    """J5: last, tasks are given out by R4: a task whose race is decided in the same instant is never offered."""
    d = Driver(
        build("z -> a; z -> t; t -> j; a -> j", "node t kind=transform; node j join=ANY"), grants=False
    )
    d.start()
    d.grant("z")
    d.succeed("z")
    assert d.state("a") == "CANCELLED/RACE_LOST"
    assert list(d.offered) == ["j"]


class Wide:
    """An execution of many tasks, all of which run; `Driver` would look at all of them each time."""

    def __init__(self, *lines: str, grants: bool = True, starts: bool = True) -> None:
        self.names = [f"n{number}" for number in range(LARGE)]
        self.graph = build(f"{', '.join(self.names)} -> end", *lines)
        self.analysis = analyze(self.graph, build_adjacency(self.graph))
        self.machine = Machine(Execution(self.graph, self.analysis))
        self.offers: list[OfferNode] = []
        self.parts = 0
        submitted = ExecutionSubmitted("e1", "", "", "", NULL, {}, 1, "", len(self.graph.nodes))
        event = Event(1, 0.0, 1, "", 0, "0", None, ExecutionState.QUEUED, "", submitted)
        self.machine.apply(event)
        self.events = [event]
        if starts:
            self.take(Start())
        for offer in self.offers if grants else ():
            self.take(Granted(offer.node_path, 1, "w", "i", 0.0))

    def take(self, what: Input, *, crashes: bool = False) -> list[Event]:
        """Return the machine an input, and what it leaves unsettled; if it crashes, after the first decision."""
        count = len(self.events)
        decision = self.machine.decide(what, 1.0)
        self.parts = 1
        self._keep(decision)
        if crashes:
            assert not decision.is_settled
            self.machine = Machine(Execution(self.graph, self.analysis))
            for event in self.events:
                self.machine.apply(event)
            decision = self.machine.resume(2.0)
            self._keep(decision)
        while not decision.is_settled:
            decision = self.machine.decide(Continue(), 2.0)
            self.parts += 1
            self._keep(decision)
        return self.events[count:]

    def _keep(self, decision: Decision) -> None:
        assert len(decision.events) <= 2 * STEPS_MAX + 1
        self.events += decision.events
        self.offers += [command for command in decision.commands if isinstance(command, OfferNode)]


@pytest.mark.parametrize("crashes", [False, True])
@pytest.mark.parametrize(
    ("what", "lines", "state", "reason"),
    [
        (Cancel("enough"), "", ExecutionState.CANCELLING, ""),
        (
            TimerDue(TimerKind.SCOPE_TIMEOUT, "", 0),
            "policy timeout=9",
            ExecutionState.TIMED_OUT,
            "EXECUTION_TIMEOUT",
        ),
        (QueueTimeout(), "", ExecutionState.TIMED_OUT, "QUEUE_TIMEOUT"),
    ],
)
def test_end_of_many_nodes_takes_several_decisions_and_survives_a_crash_between_them(
    what: Input, lines: str, state: ExecutionState, reason: str, crashes: bool
) -> None:
    """C1, T5, Q3: every node not ended is CANCELLED, however many decisions that takes; nothing else is decided."""
    wide = Wide(lines, starts=not isinstance(what, QueueTimeout))
    events = wide.take(what, crashes=crashes)
    assert wide.parts > 2
    assert wide.machine.execution.state is state
    ends = [event for event in events if event.node_state is not None]
    assert {(event.node_state, event.reason) for event in ends} == {(NodeState.CANCELLED, reason)}
    assert sorted(event.node_path for event in ends) == sorted([*wide.names, "end"])


@pytest.mark.parametrize("crashes", [False, True])
def test_sweep_of_many_nodes_survives_a_crash_in_its_middle(crashes: bool) -> None:
    """E4: every node neither ended nor running goes to IDLE/SIBLING_FAILED, once."""
    wide = Wide()
    failure = Failure(code="BAD", node_path="n0", attempt=1)
    events = wide.take(AttemptResult("n0", 1, AttemptOutcome.FAILED, failure=failure), crashes=crashes)
    assert wide.parts > 2
    assert wide.machine.execution.state is ExecutionState.FAILED
    idled = [event.node_path for event in events if event.reason == "SIBLING_FAILED"]
    assert sorted(idled) == sorted([*wide.names[1:], "end"])


def test_offers_of_many_tasks_come_in_the_order_of_r4() -> None:
    """R4: higher priority first, also where one decision does not offer all."""
    wide = Wide(f"node n{LARGE - 1} priority=5", grants=False)
    paths = [offer.node_path for offer in wide.offers]
    assert paths == [wide.names[-1], *wide.names[:-1]]
