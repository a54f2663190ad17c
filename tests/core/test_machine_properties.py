"""The machine against the slow model, on random graphs, fates and orders; replay against live; order
against order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from plait_server.core.definition.compiled import Definition, compile_graph
from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Edge,
    Graph,
    Join,
    JoinMode,
    Kind,
    Node,
    OnError,
    OnFailure,
    OnTimeout,
    Policy,
    RetryPolicy,
    Scheduling,
    Subgraph,
    Switch,
    Task,
    Timeouts,
    Transform,
)
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.events import Event, ExecutionEnded, ScopeOpened
from plait_server.core.run.lone_scope import apply_alone, open_alone
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState, NodeState
from plait_server.core.slices import finish
from tests.core.against_model import SideBySide
from tests.core.driver import Driver
from tests.core.evaluator import analysis_of

WHENS = st.sampled_from(["", "", "", "", "true", "false", "broken", "1"])
ERROR_WHENS = st.sampled_from(["", "", "true", "false", "broken"])
TIMEOUTS = (
    None,
    None,
    None,
    None,
    Timeouts(node_s=3.0),
    Timeouts(queue_s=2.0),
    Timeouts(node_s=3.0, queue_s=2.0),
)
"""The last two are for tasks alone."""
RATES = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.67, 1.0])
COMMON = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=400)


@st.composite
def kinds(draw: st.DrawFn, *, depth: int, races: bool, policies: tuple[OnFailure, ...]) -> Kind:
    names = ["task"] * 6 + ["condition", "switch", "transform", "delay"]
    match draw(st.sampled_from(names + ["subgraph"] * (3 if depth else 0))):
        case "subgraph":
            return Subgraph(graph=draw(graphs(races=races, policies=policies, size=4, depth=depth - 1)))
        case "condition":
            return Condition(expression=draw(st.sampled_from(["true", "false", "broken", "1"])))
        case "switch":
            return Switch(expression=draw(st.sampled_from(['"x"', '"y"', '"z"', "broken"])), cases=("x", "y"))
        case "transform":
            return Transform()
        case "delay":
            return Delay(duration_s=draw(st.sampled_from([1.0, 2.0])))
        case _:
            return Task(type="t")


@st.composite
def joins(draw: st.DrawFn, count: int, *, races: bool) -> Join | None:
    modes = [None, JoinMode.ALL, JoinMode.COLLECT] + [JoinMode.ANY, JoinMode.QUORUM] * (2 if races else 0)
    match draw(st.sampled_from(modes)):
        case None:
            return None
        case JoinMode.COLLECT:
            return Join(mode=JoinMode.COLLECT, min_success_rate=draw(RATES))
        case JoinMode.QUORUM:
            keeps = draw(st.booleans())
            if draw(st.booleans()):
                return Join(mode=JoinMode.QUORUM, count=draw(st.integers(1, count)), cancel_losers=keeps)
            return Join(mode=JoinMode.QUORUM, rate=draw(RATES.filter(bool)), cancel_losers=keeps)
        case JoinMode.ANY:
            return Join(mode=JoinMode.ANY, cancel_losers=draw(st.sampled_from([True, True, False])))
        case mode:
            return Join(mode=mode)


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    races: bool = True,
    policies: tuple[OnFailure, ...] = tuple(OnFailure),
    size: int = 10,
    depth: int = 0,
) -> Graph:
    size = draw(st.integers(1, size))
    chosen = [draw(kinds(depth=depth, races=races, policies=policies)) for _ in range(size)]
    edges: dict[tuple[int, int, str], Edge] = {}
    pairs = [(a, b) for a in range(size) for b in range(a + 1, size)]
    for a, b in draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []:
        match chosen[a]:
            case Condition():
                handles = ["true", "false", "error"]
            case Switch():
                handles = ["x", "y", "default", "error"]
            case _:
                handles = ["", "", "", "error"]
        handle = draw(st.sampled_from(handles))
        when = draw(ERROR_WHENS if handle == "error" else WHENS)
        edges[a, b, handle] = Edge(source=f"n{a}", target=f"n{b}", handle=handle, when=when)
    nodes = list[Node]()
    for position, kind in enumerate(chosen):
        incoming = sum(b == position for _, b, _ in edges)
        is_task = isinstance(kind, Task)
        has_timeout = isinstance(kind, Task | Subgraph)
        nodes.append(
            Node(
                id=f"n{position}",
                kind=kind,
                input=draw(st.sampled_from([None, None, "3", '"broken"']))
                if not isinstance(kind, Condition | Switch)
                else None,
                join=draw(joins(incoming, races=races)) if incoming else None,
                retry=RetryPolicy(
                    max_attempts=draw(st.integers(1, 3)),
                    max_lost_attempts=draw(st.integers(0, 2)),
                    retryable_codes=draw(
                        st.sampled_from([(), ("UNAVAILABLE",), ("UNAVAILABLE", "DEADLINE_EXCEEDED")])
                    ),
                )
                if is_task and draw(st.booleans())
                else None,
                timeouts=draw(st.sampled_from(TIMEOUTS if is_task else TIMEOUTS[:-2]))
                if has_timeout
                else None,
                on_timeout=draw(st.sampled_from([None, *OnTimeout])) if has_timeout else None,
                on_error=draw(st.sampled_from([OnError.UNSPECIFIED, *OnError])),
                priority=draw(st.sampled_from([0, 0, 0, 1])),
                locked=draw(st.integers(0, 7)) == 0,
                locked_output=draw(st.sampled_from([None, "true", '"x"', "5"])),
            ),
        )
    order = draw(st.permutations(nodes))
    return Graph(
        nodes=tuple(order),
        edges=tuple(draw(st.permutations(list(edges.values())))),
        policy=Policy(
            on_failure=draw(st.sampled_from(policies)),
            min_success_rate=draw(RATES),
            timeout_s=draw(st.sampled_from([0.0, 0.0, 0.0, 5.0])),
            max_concurrency=draw(st.sampled_from([0, 1, 2, 10])),
        ),
        scheduling=draw(st.sampled_from(Scheduling)),
        output=draw(st.sampled_from(["", "", "", "1", "broken"])),
    )


FATES = st.sampled_from(
    [
        *["SUCCEEDED"] * 8,
        *["FAILED BAD"] * 3,
        *["FAILED UNAVAILABLE"] * 2,
        "FAILED NOT_FOUND",
        *["LOST"] * 2,
        "TIMED_OUT DEADLINE_EXCEEDED",
        "LOST",
        "RETURNED",
    ],
)
OUTPUTS = st.sampled_from(["null", "1", '"x"', "true"])


NESTED = graphs(size=5, depth=3)


@COMMON
@given(st.one_of(graphs(), NESTED), st.data())
def test_machine_does_what_the_law_says(graph: Graph, data: st.DataObject) -> None:
    """Sections 4 to 10: every event is the one that the slow model wants, in its order."""
    both = SideBySide(graph)
    driver = both.driver
    both.start()
    for _ in range(200):
        if driver.execution.is_ended or driver.execution.is_cancelling:
            break
        running = driver.running()
        acts = (
            ["end"] * 12 * bool(running)
            + ["tick", "restart"]
            + ["capacity"] * (2 - both.has_capacity)
            + ["cancel"] * (data.draw(st.integers(0, 9)) == 0)
        )
        match data.draw(st.sampled_from(acts)):
            case "end":
                path = data.draw(st.sampled_from(running))
                word = data.draw(st.sampled_from([None, None, None, True, False]))
                both.end_attempt(path, data.draw(FATES), data.draw(OUTPUTS), word)
            case "tick":
                both.tick()
            case "cancel":
                both.cancel()
            case "capacity":
                both.turn_capacity()
            case _:
                both.restart()
    if driver.execution.is_cancelling:
        while both.tick():
            pass
        for path, attempt in list(driver.execution.receipts):
            assert not driver.execution.is_ended
            stage = data.draw(st.sampled_from([CancelStage.EXITED, CancelStage.ABANDONED]))
            both.receipt(path, stage, attempt)
    assume(driver.execution.is_ended)
    event(driver.ended)
    assert sum(isinstance(e.detail, ExecutionEnded) for e in driver.events) == 1
    assert all(state.is_ended or state is NodeState.IDLE for state in driver.rules.states.values())
    while both.tick():
        pass
    both.cancel()
    assert isinstance(driver.events[-1].detail, ExecutionEnded), "A5"


def paths_of(graph: Graph, scope_path: str = "") -> list[str]:
    """The paths of all nodes of a graph and of those inside it."""
    paths = list[str]()
    for node in graph.nodes:
        path = f"{scope_path}/{node.id}" if scope_path else node.id
        inner = node.kind.graph if isinstance(node.kind, Subgraph) else None
        paths += [path, *(paths_of(inner, path) if inner is not None else ())]
    return paths


def without_clocks(graph: Graph) -> Graph:
    """The graph without timeouts and limits, and those inside it alike."""
    nodes = list[Node]()
    for node in graph.nodes:
        inner = node.kind.graph if isinstance(node.kind, Subgraph) else None
        kind = Subgraph(graph=without_clocks(inner)) if inner is not None else node.kind
        nodes.append(replace(node, kind=kind, timeouts=None))
    policy = Policy(on_failure=graph.policy.on_failure, min_success_rate=graph.policy.min_success_rate)
    return replace(graph, nodes=tuple(nodes), policy=policy)


def run_in_order(
    graph: Graph, fates: dict[str, list[str]], pick: Callable[[int], int], driven_by: type[Driver] = Driver
) -> Driver:
    """Run to the end: attempts have fixed fates, and `pick` says which running node comes next."""
    driver = driven_by(graph).start()
    followed: dict[str, int] = {}
    while not driver.execution.is_ended:
        running = driver.running()
        if not running:
            assert driver.fire_next()
            continue
        path = running[pick(len(running))]
        number = followed[path] = followed.get(path, 0) + 1
        outcome, _, code = (fates[path] + ["SUCCEEDED"])[min(number - 1, len(fates[path]))].partition(" ")
        match outcome:
            case "SUCCEEDED":
                driver.succeed(path, output="1")
            case "FAILED":
                driver.fail(path, code)
            case "TIMED_OUT":
                driver.time_out_attempt(path)
            case "LOST":
                driver.lose(path)
            case _:
                driver.hand_back(path)
    return driver


@COMMON
@given(
    st.one_of(
        graphs(races=False, policies=(OnFailure.CONTINUE,)),
        graphs(races=False, policies=(OnFailure.CONTINUE,), size=5, depth=2),
    ),
    st.data(),
)
def test_any_order_of_completions_ends_in_the_same_state(graph: Graph, data: st.DataObject) -> None:
    """Without races and clocks, under CONTINUE, the end depends on the fates alone (R1, sections 5 to 7)."""
    graph = without_clocks(graph)
    fates = {path: data.draw(st.lists(FATES, max_size=3)) for path in paths_of(graph)}
    first = run_in_order(graph, fates, lambda count: 0)
    second = run_in_order(graph, fates, lambda count: data.draw(st.integers(0, count - 1)))
    assert first.states() == second.states()
    assert first.edges() == second.edges()
    assert first.ended == second.ended
    assert first.output == second.output
    assert sorted(first.treatments()) == sorted(second.treatments())


@COMMON
@given(st.one_of(graphs(), NESTED), st.data())
def test_execution_that_is_resumed_at_every_step_ends_the_same(graph: Graph, data: st.DataObject) -> None:
    """A1: what is not durable follows from what is: a replay after every result changes nothing."""
    fates = {path: data.draw(st.lists(FATES, max_size=3)) for path in paths_of(graph)}
    picks = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=30))
    one = _steps(graph, fates, picks, restarts=False)
    other = _steps(graph, fates, picks, restarts=True)
    assert one.states() == other.states()
    assert (one.ended, one.named, one.output) == (other.ended, other.named, other.output)


def _steps(graph: Graph, fates: dict[str, list[str]], picks: list[int], *, restarts: bool) -> Driver:
    graph = without_clocks(graph)
    steps = [0]

    def pick(count: int) -> int:
        steps[0] += 1
        return picks[steps[0] % len(picks)] % count

    class Restarting(Driver):
        def do(self, what: object) -> None:
            super().do(what)  # type: ignore[arg-type]  # What comes in goes out.
            if restarts and not self.execution.is_ended:
                self.restart()

    driver = Restarting(graph)
    driver.start()
    done: dict[str, int] = {}
    while not driver.execution.is_ended:
        running = sorted(driver.running())
        if not running:
            assert driver.fire_next()
            continue
        path = running[pick(len(running))]
        number = done[path] = done.get(path, 0) + 1
        fate = (fates[path] + ["SUCCEEDED"])[min(number - 1, len(fates[path]))]
        outcome, _, code = fate.partition(" ")
        if outcome == "FAILED":
            driver.fail(path, code)
        elif outcome == "TIMED_OUT":
            driver.time_out_attempt(path)
        else:
            driver.result(path, AttemptOutcome[outcome])
    return driver


@COMMON
@given(st.one_of(graphs(), NESTED), st.data())
def test_replay_equals_live_at_every_prefix(graph: Graph, data: st.DataObject) -> None:
    """A1: equal after every event, and a machine resumed at any prefix comes to its end."""
    fates = {path: data.draw(st.lists(FATES, max_size=3)) for path in paths_of(graph)}
    driver = run_in_order(graph, fates, lambda count: data.draw(st.integers(0, count - 1)))
    cut = data.draw(st.integers(1, len(driver.events) - 1))
    other = Driver(graph)
    other.now_s = driver.events[cut - 1].time_s
    other.adopt(driver.events[:cut])
    for _ in range(300):
        if other.execution.is_ended:
            break
        if other.execution.state is ExecutionState.QUEUED:
            other.start()
        elif other.running():
            other.succeed(other.running()[0])
        else:
            assert other.fire_next()
    assert other.execution.is_ended


@COMMON
@given(st.one_of(graphs(), NESTED), st.data())
def test_questions_and_grants_may_come_in_any_order_and_late(graph: Graph, data: st.DataObject) -> None:
    """The driver's obligation b: questions are answered in any order, now or later; nothing sticks."""
    driver = Driver(graph, grants=False, answers=False).start()
    stopped = False
    for _ in range(150):
        if driver.execution.is_ended or driver.execution.is_cancelling:
            break
        stopped = stopped or bool(driver.in_reason("SIBLING_FAILED"))
        acts = ["answer"] * 4 * bool(driver.questions) + ["grant"] * 3 * bool(driver.offered) + ["tick"]
        acts += ["finish"] * 4 * bool(driver.running()) + ["cancel"] * (data.draw(st.integers(0, 9)) == 0)
        # A replay after the sweep of E4 has a test of its own.
        acts += ["restart"] * (not stopped)
        match data.draw(st.sampled_from(acts)):
            case "answer":
                driver.questions.insert(
                    0, driver.questions.pop(data.draw(st.integers(0, len(driver.questions) - 1)))
                )
                driver.answer()
            case "grant":
                driver.grant(data.draw(st.sampled_from(list(driver.offered))))
            case "finish":
                path = data.draw(st.sampled_from(driver.running()))
                outcome, _, code = data.draw(FATES).partition(" ")
                if outcome == "FAILED":
                    driver.fail(path, code)
                elif outcome == "TIMED_OUT":
                    driver.time_out_attempt(path)
                else:
                    driver.result(path, AttemptOutcome[outcome], output=Payload("1"))
            case "cancel":
                driver.cancel()
            case "restart":
                driver.restart()
            case _:
                driver.fire_next()
    for _ in range(300):
        if driver.execution.is_ended or driver.execution.is_cancelling:
            break
        if driver.questions:
            driver.answer()
        elif driver.offered:
            driver.grant(next(iter(driver.offered)))
        elif driver.running():
            driver.succeed(driver.running()[0])
        else:
            assert driver.fire_next(), f"nothing can move: {driver.states()}"
    assert driver.execution.is_ended or driver.execution.is_cancelling


@settings(COMMON, max_examples=100)
@given(NESTED, st.data())
def test_scope_folded_from_its_own_events_alone_is_the_live_one(graph: Graph, data: st.DataObject) -> None:
    """N2: of a scope that ended its events are left; folded alone they show what was there, after every event."""
    fates = {path: data.draw(st.lists(FATES, max_size=3)) for path in paths_of(graph)}

    class Folding(Driver):
        def do(self, what: object) -> None:
            super().do(what)  # type: ignore[arg-type]  # What comes in goes out.
            for path, scope in self.scopes.items():
                if path:
                    assert seen_of(folded(self.events, scope)) == seen_of(scope)

    driver = run_in_order(graph, fates, lambda count: data.draw(st.integers(0, count - 1)), Folding)
    for path, inner in driver.rules.graphs.items():
        if path:
            definition = compile_graph(inner, analysis_of(inner))
            for record in fold(driver.events, path, definition).records:
                assert record.state is driver.rules.states[record.path]
                assert record.state is NodeState.QUEUED or record.reason == driver.rules.reasons[record.path]


def folded(events: list[Event], live: Scope) -> Scope:
    """The scope that the events of a live one make."""
    return fold(events, live.path, live.definition)


def fold(events: list[Event], path: str, definition: Definition) -> Scope:
    """Fold the event that opened a scope and those of the nodes directly in it."""
    own = [e for e in events if e.node_path.rpartition("/")[0] == path and e.node_path != path]
    opening = next(e for e in events if isinstance(e.detail, ScopeOpened) and e.node_path == path)
    scope = finish(open_alone(definition, opening))
    for each in own:
        apply_alone(scope, each)
    return scope


def seen_of(scope: Scope) -> list[object]:
    """What lists and answers show of a scope's nodes."""
    return [
        scope.edge_states,
        scope.input,
        [failure.code for failure in scope.failures],
        *(
            (
                *(record.path, record.state, record.reason, record.verdict, record.active_edges),
                *(record.input, record.output, record.failure, record.started_s, record.sequence),
                *(scope.branch(record.index), [_attempt_of(each) for each in record.attempts]),
            )
            for record in scope.records
        ),
    ]


def _attempt_of(attempt: AttemptRecord) -> tuple[object, ...]:
    return attempt.number, attempt.outcome, attempt.worker_id, dict(attempt.usage)
