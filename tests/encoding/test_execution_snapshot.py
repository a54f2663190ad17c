"""K2: the state of an execution, written while it goes on and read back, is the one that all its events make."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_server.core.definition.compiled import Definition, compile_graph
from plait_server.core.definition.graph import Graph
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.commands import (
    Command,
    Pause,
    Resume,
    Update,
)
from plait_server.core.run.events import Event, NodeLock
from plait_server.core.run.execution import Execution
from plait_server.core.run.machine import Machine
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import PauseMode
from plait_server.core.slices import finish
from plait_server.encoding import snapshot_fields as fields
from plait_server.encoding.execution_snapshot import PART_BYTES, Snapshot, SnapshotWriter
from plait_server.encoding.snapshot_reading import SnapshotUnusable, graphs_of, read_head, restore_in_slices
from tests.core.driver import Driver
from tests.core.graph_shapes import fan_out
from tests.core.graph_text import build
from tests.core.test_machine_properties import COMMON, FATES, NESTED, graphs, paths_of, run_in_order
from tests.core.test_semantics_scopes_outputs import as_output

FORK = build("a -> b, c; b, c -> d")


def snapshot_of(execution: Execution) -> Snapshot:
    writer = SnapshotWriter(execution)
    writer.take_rest()
    return finish(writer.finish())


def restored(
    driver: Driver, snapshot: Snapshot, definitions: dict[tuple[str, str], Definition] | None = None
) -> Execution:
    definition = compile_graph(driver.graph, driver.analysis)
    head = read_head(snapshot.head)
    return finish(restore_in_slices(definition, definitions or {}, head, snapshot.parts))


def replayed(driver: Driver, count: int) -> Execution:
    execution = Execution(driver.graph, driver.analysis)
    go_on(driver, execution, count)
    return execution


def go_on(driver: Driver, execution: Execution, count: int) -> None:
    for event in driver.events[execution.sequence : count]:
        driver._apply(execution, event)
    execution.scope_index.take()


def what_follows(execution: Execution, now_s: float) -> tuple[list[Event], list[Command], str]:
    """Return what a machine decides that takes the execution up."""
    decision = Machine(execution).resume(now_s)
    return decision.events, decision.commands, execution.digest()


def waiting_in(execution: Execution) -> dict[str, list[int] | None]:
    waiting = {path: execution.scope_index.waiting(path) for path in execution.scopes}
    return {path: list(each) if each is not None else None for path, each in waiting.items()}


def assert_equal(one: Execution, other: Execution, now_s: float) -> None:
    assert one.digest() == other.digest()
    assert waiting_in(one) == waiting_in(other)
    assert what_follows(one, now_s) == what_follows(other, now_s)


class Interrupted:
    """Writes a snapshot of a running execution: some slices of it after each step of the machine."""

    def __init__(self, draw: Callable[[int], int]) -> None:
        self._draw = draw
        self._writer: SnapshotWriter | None = None
        self._round: object = None
        self.taken: list[Snapshot] = []

    def step(self, driver: Driver) -> None:
        if self._writer is None:
            self._writer = SnapshotWriter(driver.execution)
            self._slices = self._writer.write_round()
        for _ in range(self._draw(4)):
            if next(self._slices, self) is self:
                self._slices = self._writer.write_round()
        if self._draw(5) == 0:
            # What is in the middle of a round counts as written in part only.
            for _ in self._slices:
                pass
            self._writer.take_rest()
            self.taken.append(finish(self._writer.finish()))
            self._writer = None


@settings(COMMON, max_examples=60)
@given(st.one_of(graphs(), NESTED), st.data())
def test_snapshot_and_the_events_after_it_make_the_state_of_all_events(
    graph: Graph, data: st.DataObject
) -> None:
    """K2: at random sequences of random executions; the decisions that follow are equal, too."""
    fates = {path: data.draw(st.lists(FATES, max_size=3)) for path in paths_of(graph)}
    choices = data.draw(st.randoms(use_true_random=False))
    writing = Interrupted(choices.randrange)
    updates = [
        (3, None, ()),
        (None, replace(graph.policy, max_concurrency=3), ()),
        (None, None, (NodeLock(choices.choice(paths_of(graph)), True, Payload("4")),)),
    ]

    class Writing(Driver):
        def _take(self, decision: object) -> None:
            super()._take(decision)  # type: ignore[arg-type] # What comes in goes out.
            self.execution.scope_index.take()  # as the append after each decision does
            writing.step(self)

        def do(self, what: object) -> None:
            super().do(what)  # type: ignore[arg-type]
            if self.execution.is_under_way and choices.randrange(8) == 0:
                super().do(Pause(PauseMode(choices.randint(1, 2)), ""))
                super().do(Update(*choices.choice(updates)))
                super().do(Resume(Payload("2"), ""))

    driver = run_in_order(graph, fates, choices.randrange, Writing)
    for snapshot in writing.taken:
        cut = choices.randint(snapshot.sequence, len(driver.events))
        now_s = driver.events[cut - 1].time_s
        execution = restored(driver, snapshot)
        if cut == snapshot.sequence:
            assert_equal(execution, replayed(driver, cut), now_s)
            continue
        go_on(driver, execution, cut)
        assert_equal(execution, replayed(driver, cut), now_s)


def test_every_attribute_of_the_state_is_in_the_snapshot_or_derived() -> None:
    """Whoever adds an attribute names it in `snapshot_fields`, as one that is kept or as one that is derived."""
    driver = Driver(FORK).start()
    execution = driver.execution

    def named(table: tuple[fields.Field, ...], *others: tuple[str, ...]) -> list[str]:
        return sorted([*(field.name for field in table), *(name for each in others for name in each)])

    assert named(fields.NODE_FIELDS, fields.NODE_FIELDS_OF_OTHER_FORM, fields.NODE_FIELDS_DERIVED) == sorted(
        NodeRecord.__slots__
    )
    assert named(
        fields.ATTEMPT_FIELDS, fields.ATTEMPT_FIELDS_OF_OTHER_FORM, fields.ATTEMPT_FIELDS_DERIVED
    ) == sorted(AttemptRecord.__slots__)
    assert named(
        fields.SCOPE_FIELDS, fields.SCOPE_FIELDS_OF_OTHER_FORM, fields.SCOPE_FIELDS_DERIVED
    ) == sorted(vars(execution.root))
    assert named(
        fields.EXECUTION_FIELDS, fields.EXECUTION_FIELDS_OF_OTHER_FORM, fields.EXECUTION_FIELDS_DERIVED
    ) == sorted(vars(execution))


def test_defaults_are_those_of_a_node_without_events() -> None:
    """What a snapshot leaves out is as the restored scope makes it."""
    record = Driver(FORK).execution.root.records[0]
    assert [(field.name, getattr(record, field.name)) for field in fields.NODE_FIELDS] == [
        (field.name, field.default) for field in fields.NODE_FIELDS
    ]


def test_scope_whose_graph_was_an_output_is_restored() -> None:
    """N7: the graph is found by the digests that the snapshot names, for open scopes and for closed ones."""
    driver = Driver(
        build("g -> x, y; node x kind=output_of:g; node y kind=output_of:g; policy CONTINUE")
    ).start()
    driver.succeed("g", output=as_output(build("a")))
    driver.time_out_attempt("x/a")
    assert (list(driver.scopes), list(driver.execution.closed)) == (["", "y"], ["x"])
    assert list(driver.execution.stopped) == [("x/a", 1)]
    driver.execution.scope_index.take()
    snapshot = snapshot_of(driver.execution)
    needed = graphs_of(snapshot.parts[0])
    definitions = {(graph, analysis): driver._definitions[graph] for graph, analysis in needed}
    assert len(definitions) == 1
    execution = restored(driver, snapshot, definitions)
    assert_equal(execution, replayed(driver, len(driver.events)), driver.now_s)


@pytest.mark.parametrize("what", ["version", "hash", "part", "missing", "sequence"])
def test_snapshot_that_does_not_fit_is_not_used(what: str) -> None:
    """K2: a cache, never the truth."""
    driver = Driver(FORK).start()
    snapshot = snapshot_of(driver.execution)
    head, parts = json.loads(snapshot.head), list(snapshot.parts)
    match what:
        case "version":
            head["version"] += 1
        case "hash":
            head["hash"] = "0" * 64
        case "part":
            parts[0] = parts[0].replace(b"RUN", b"run").replace(b"e1", b"e2")
        case "missing":
            del parts[0]
        case _:
            head["sequence"] += 1
    definition = compile_graph(FORK, driver.analysis)
    with pytest.raises(SnapshotUnusable):
        finish(restore_in_slices(definition, {}, read_head(json.dumps(head).encode()), parts))


def test_nodes_are_written_in_parts_of_bounded_size() -> None:
    """Reading or storing a part takes some milliseconds, however large outputs are."""
    driver = Driver(fan_out(40)).start()
    driver.succeed("n0")
    for path in driver.running()[1:]:
        driver.succeed(path, output=f'"{"x" * 30_000}"')
    snapshot = snapshot_of(driver.execution)
    assert len(snapshot.parts) > 5
    assert max(map(len, snapshot.parts)) < 3 * PART_BYTES
    assert restored(driver, snapshot).digest() == driver.execution.digest()
