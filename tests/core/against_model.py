"""The machine and the slow model, driven side by side: after each input they must agree on everything that shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS, Graph, Node
from plait_server.core.json_text import JsonValue
from plait_server.core.run.commands import OfferNode, TimerKind
from plait_server.core.run.events import Event, ScopeEnded
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import AttemptOutcome, CancelStage, NodeState, Treatment
from plait_server.testing.slow_model import Change, NoValue, ScopeEnd, SlowModel, without_words
from plait_server.testing.slow_model.nodes import ModelScope
from tests.core.driver import Driver
from tests.core.evaluator import read_graph

_ROUNDING_S = 1e-5
"""Events keep microseconds."""
_PARTS_MAX = 8
"""B1: parts of a branch's path that are shown; of a longer one the first and the last."""


class Literals:
    """Expressions that are JSON, or `broken`: those cannot be evaluated."""

    def when(self, source: str, carried: JsonValue) -> JsonValue:
        return _literal(source)

    def value(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        return _literal(node.kind.expression)  # type: ignore[union-attr]  # A condition or a switch.

    def input(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        assert node.input is not None
        return _literal(node.input.strip('"') if node.input == '"broken"' else node.input)

    def output(self, scope_path: str, graph: Graph) -> JsonValue:
        return _literal(graph.output)

    def graph(self, path: str, output: JsonValue) -> Graph:
        graph = read_graph(json.dumps(output))
        if isinstance(graph, str):
            raise NoValue
        return graph


class SideBySide:
    """A driver and a model of one graph. Tasks are given out by R4, as permits allow (Q1)."""

    def __init__(self, graph: Graph) -> None:
        self.driver = Driver(graph, grants=False)
        self.model = SlowModel(graph, Literals(), is_next=self._is_next)
        self._seen = len(self.driver.events)
        self._now_s = self.driver.now_s
        self.has_capacity = True
        """Whether nodes that wait are given out."""

    def turn_capacity(self) -> None:
        """Give out nothing from now on, or again what waits."""
        self.has_capacity = not self.has_capacity
        self._do(lambda: None, list)

    def start(self) -> None:
        self._do(self.driver.start, self.model.start)

    def end_attempt(self, path: str, fate: str, output: str = "null", retryable: bool | None = None) -> None:
        """End the running attempt of a node: `SUCCEEDED`, `FAILED CODE`, `TIMED_OUT`, `LOST` or `RETURNED`."""
        name, _, code = fate.partition(" ")
        outcome = AttemptOutcome[name]
        word = retryable if outcome is AttemptOutcome.FAILED else None
        result = Payload(output) if outcome is AttemptOutcome.SUCCEEDED else None
        failure: Failure | None = None
        if outcome is AttemptOutcome.FAILED:
            failure = Failure(code=code, message=f"{path} failed", node_path=path)
        elif outcome is AttemptOutcome.TIMED_OUT:
            failure = Failure(code="DEADLINE_EXCEEDED", node_path=path)
        self._do(
            lambda: self.driver.result(
                path, outcome, output=result, failure=failure, retryable=word, jitter=0.5
            ),
            lambda: self.model.end_attempt(
                path, outcome, output=json.loads(output), failure=failure, retryable=word
            ),
        )

    def tick(self) -> bool:
        """Let the earliest timer fire; tell whether there was one."""
        timer = self.driver.next_timer()
        if timer is None:
            return False
        path = timer.node_path
        inputs: dict[TimerKind, Callable[[], list[Change | ScopeEnd]]] = {
            TimerKind.BACKOFF: lambda: self.model.end_backoff(path),
            TimerKind.WAIT: lambda: self.model.end_delay(path),
            TimerKind.NODE_TIMEOUT: lambda: self._time_out_node(path),
            TimerKind.QUEUE_TIMEOUT: lambda: self._time_out_wait(path),
            TimerKind.SCOPE_TIMEOUT: lambda: self._time_out_scope(path),
        }
        self._do(self.driver.fire_next, inputs[timer.kind])
        return True

    def cancel(self) -> None:
        self._do(self.driver.cancel, self.model.cancel)

    def receipt(self, path: str, stage: CancelStage, attempt: int) -> None:
        self._do(
            lambda: self.driver.receipt(path, stage, attempt),
            lambda: self.model.exit_attempt(path) if stage.is_final else [],
        )

    def restart(self) -> None:
        """Throw the machine away and go on from the journal (A1)."""
        self.driver.restart()
        for path in self.model.nodes_to_give_out():
            # That a backoff was over is not in the journal (A1): its timer is set again, and is due.
            if self.driver.in_state(NodeState.BACKING_OFF).count(path):
                self.driver.fire(TimerKind.BACKOFF, path)
        self._compare([])

    def _time_out_node(self, path: str) -> list[Change | ScopeEnd]:
        node = self.model.node(path)
        assert node.node.timeouts is not None
        # A timer may be of an attempt that went back to wait for a worker: that wait is not counted (T4).
        is_due = node.clock_s >= node.node.timeouts.node_s - _ROUNDING_S and not any(
            (timer.kind, timer.node_path) == (TimerKind.NODE_TIMEOUT, path) and due_s <= self._now_s
            for due_s, _, timer in self.driver._timers
        )
        return self.model.time_out_node(path) if is_due else []

    def _time_out_wait(self, path: str) -> list[Change | ScopeEnd]:
        node = self.model.node(path)
        assert node.node.timeouts is not None
        over_s = node.waited_s - node.node.timeouts.queue_s
        is_due = node.wants_worker and over_s >= -_ROUNDING_S
        assert not is_due or over_s <= _ROUNDING_S, f"T4: the wait of {path} ended late"
        return self.model.time_out_node(path) if is_due else []

    def _time_out_scope(self, path: str) -> list[Change | ScopeEnd]:
        return self.model.time_out_node(path) if path else self.model.time_out_execution()

    def _do(self, act: Callable[[], object], follow: Callable[[], list[Change | ScopeEnd]]) -> None:
        act()
        self.model.pass_time(self.driver.now_s - self._now_s)
        self._now_s = self.driver.now_s
        self._compare(follow())
        while self.has_capacity and (path := self.model.next_to_give_out()) is not None:
            offers = [offer for offer in self.driver.offered.values() if self._is_permitted(offer)]
            first = min(offers, key=lambda offer: offer.places)
            assert first.node_path == path, f"R4: {first.node_path} goes first, not {path}"
            self.driver.grant(path)
            self._compare(self.model.give_out(path))
            given: JsonValue = json.loads(self.driver.inputs[path].json)
            assert without_words(given) == without_words(self.model.node(path).input), (
                f"J2: the input of {path}"
            )

    def _is_permitted(self, offer: OfferNode) -> bool:
        """Tell whether the scopes that the machine limits have a permit left (N1, Q1)."""
        running = self.driver.running()
        return all(
            sum(path.startswith(f"{scope}/") for path in running) < self.driver.limits[scope]
            for scope in offer.scope_limits
        )

    def _is_next(self, path: str) -> bool:
        """Tell whether the machine's next event is of a node: N4 leaves the order of equally deep scopes open."""
        told = [event for event in self.driver.events if _change(event) is not None]
        count = self.model.change_count
        return count < len(told) and told[count].node_path == path

    def _compare(self, wanted: list[Change | ScopeEnd]) -> None:
        driver, model = self.driver, self.model
        events = driver.events[self._seen :]
        self._seen = len(driver.events)
        got = [change for event in events if (change := _change(event)) is not None]
        assert got == [_comparable(change) for change in wanted]
        for scope_path, scope in driver.scopes.items():
            _compare_scopes(scope, model.scopes[scope_path])
        for event in events:
            if event.node_path:
                assert event.branch == _branch(model, event.node_path), (
                    f"B1, N6: the branch of {event.node_path}"
                )
        assert sorted(driver.offered) == sorted(model.nodes_to_give_out())
        assert driver.execution.state is model.state
        for node in model.nodes():
            node_s = (node.node.timeouts or DEFAULT_TIMEOUTS).node_s
            is_over = node_s and node.clock_s > node_s + _ROUNDING_S and not node.state.is_ended
            assert not is_over, f"T4: the timeout of {node.path} did not fire"
            queue_s = (node.node.timeouts or DEFAULT_TIMEOUTS).queue_s
            assert not queue_s or node.waited_s <= queue_s + _ROUNDING_S, f"T4: {node.path} waits too long"
        if model.outcome is not None:
            named = driver.execution.failure
            assert (named and (named.node_path, named.code)) == (
                model.outcome.failure and (model.outcome.failure.node_path, model.outcome.failure.code)
            )
            assert without_words(cast("JsonValue", driver.output)) == without_words(model.outcome.output)


def _literal(source: str) -> JsonValue:
    if source == "broken":
        raise NoValue
    value: JsonValue = json.loads(source)
    return value


def _compare_scopes(scope: Scope, mine: ModelScope) -> None:
    assert scope.edge_states == mine.edges
    kept = [
        (failure.node_path, failure.code, treatment, _causes(failure))
        for failure, treatment in zip(scope.failures, scope.treatments, strict=True)
    ]
    assert kept == [
        (k.failure.node_path, k.failure.code, k.treatment, _causes(k.failure)) for k in mine.failures
    ]
    for failure, known in zip(scope.failures, mine.failures, strict=True):
        if failure.code != "INVALID_ARGUMENT":  # What is wrong with a graph is the engine's words (N7).
            assert _details(failure) == _details(known.failure)


def _change(event: Event) -> tuple[object, ...] | None:
    """Return what an event says became of a node or a scope."""
    if isinstance(event.detail, ScopeEnded):
        failure = event.detail.failure
        return event.detail.scope_path, event.detail.state, failure and (failure.node_path, failure.code)
    if event.node_state is None:
        return None
    treatment = getattr(event.detail, "treatment", Treatment.NONE)
    return _comparable(Change(event.node_path, event.node_state, event.reason, treatment))


def _comparable(change: Change | ScopeEnd) -> tuple[object, ...]:
    if isinstance(change, ScopeEnd):
        failure = change.outcome.failure
        return change.scope_path, change.outcome.state, failure and (failure.node_path, failure.code)
    # A1: the reason of QUEUED is the allocator's.
    return change._replace(reason="") if change.state is NodeState.QUEUED else change


def _branch(model: SlowModel, path: str) -> str:
    """Return the branch of a node, cut in the middle past 8 parts (B1)."""
    node = model.node(path)
    parts = node.scope.tree.of_nodes[node.node.id].split("-")
    return "-".join(parts if len(parts) <= _PARTS_MAX else [*parts[:4], "…", *parts[-3:]])


def _causes(failure: Failure) -> list[tuple[str, str]]:
    return [(cause.node_path, cause.code) for cause in failure.causes]


def _details(failure: Failure) -> JsonValue:
    return None if failure.details is None else without_words(json.loads(failure.details.json))
