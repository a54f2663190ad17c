"""In which order nodes run, and how many at once (SEMANTICS.md 4, 11, 13)."""

from __future__ import annotations

from plait.v1 import event_pb2
from tests.end_to_end.service import Service, outcome
from tests.end_to_end.stage import Stage

STARTED = event_pb2.EVENT_TYPE_ATTEMPT_STARTED
ENDED = event_pb2.EVENT_TYPE_ATTEMPT_ENDED


def test_diamond_merges_outputs_by_source(service: Service) -> None:
    """J2, S2.3, R3; S4's defect: the join runs once, with what all of its sources gave."""
    execution = service.run(
        """
        nodes:
          - {id: start, task: {type: echo}}
          - {id: left, task: {type: echo}, input: {side: left, of: "{{ input.n }}"}}
          - {id: right, task: {type: thread.echo}, input: [right, "{{ nodes.start.output.n + 1 }}"]}
          - {id: join, task: {type: echo}}
        edges:
          - {source: start, target: left}
          - {source: start, target: right}
          - {source: left, target: join}
          - {source: right, target: join}
        """,
        {"n": 7},
    )
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) == {"left": {"side": "left", "of": 7}, "right": ["right", 8]}
    events = service.events(execution.execution_id)
    started = [event.node_path for event in events if event.type == STARTED]
    assert sorted(started) == ["join", "left", "right", "start"]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_independent_nodes_run_together(service: Service, stage: Stage) -> None:
    """R1, R5; S1, S4, S5: all start before one ends, and a slow one holds nobody back who does not need it."""
    nodes = "".join(
        f"""
          - {{id: in-{n}, task: {{type: staged}}}}
          - {{id: out-{n}, task: {{type: staged}}}}"""
        for n in range(10)
    )
    edges = "".join(f"\n          - {{source: in-{n}, target: out-{n}}}" for n in range(10))
    execution_id = service.submit(f"nodes:{nodes}\nedges:{edges}\npolicy: {{max_concurrency: 10}}")
    first = stage.take(execution_id, 10)
    assert sorted(first) == sorted(f"in-{n}" for n in range(10))
    for n in range(1, 10):
        first[f"in-{n}"].answer(n)
    second = stage.take(execution_id, 9)
    assert "out-0" not in second, "it started before the node it depends on had ended"
    first["in-0"].answer(0)
    second |= stage.take(execution_id, 1)
    for name, actor in second.items():
        assert actor.input == int(name.removeprefix("out-"))
        actor.answer()
    assert outcome(service.wait(execution_id)) == "SUCCEEDED"


def test_limit_of_an_execution_is_never_exceeded(service: Service, stage: Stage) -> None:
    """Q1; S1: 8 nodes at limit 3; the worker counts what runs at once, and a free permit is used at once."""
    nodes = ", ".join(f"{{id: n{n}, task: {{type: staged}}}}" for n in range(8))
    execution_id = service.submit(f"nodes: [{nodes}]\npolicy: {{max_concurrency: 3}}")
    running = [stage.next(execution_id) for _ in range(3)]
    counts = service.get(execution_id).node_counts
    assert (counts.running, counts.queued) == (3, 5)
    assert {state for state in service.states(execution_id).values() if "QUEUED" in state} == {
        "QUEUED/EXECUTION_LIMIT"
    }
    for _ in range(5):
        running.pop(0).answer()
        running.append(stage.next(execution_id))
    assert stage.is_empty(execution_id)
    for actor in running:
        assert actor.hello["running"] <= 3
        actor.answer()
    assert outcome(service.wait(execution_id)) == "SUCCEEDED"


def test_levels_wait_for_all_lower_levels(service: Service, stage: Stage) -> None:
    """R2"""
    execution_id = service.submit(
        """
        scheduling: levels
        nodes:
          - {id: a, task: {type: staged}}
          - {id: b, task: {type: staged}}
          - {id: after-a, task: {type: staged}}
          - {id: after-b, task: {type: staged}}
        edges: [{source: a, target: after-a}, {source: b, target: after-b}]
        """
    )
    actors = stage.take(execution_id, 2)
    actors["a"].answer()
    service.wait_until(execution_id, lambda event: event.type == ENDED)
    assert service.states(execution_id)["after-a"] == "QUEUED/LEVEL"
    actors["b"].answer()
    second = stage.take(execution_id, 2)
    assert sorted(second) == ["after-a", "after-b"]
    for actor in second.values():
        actor.answer()
    assert outcome(service.wait(execution_id)) == "SUCCEEDED"


def test_locked_nodes_are_replaced_by_their_output(service: Service) -> None:
    """C4: locked nodes hold nobody up, and those on a dead path end as if unlocked."""
    execution = service.run(
        """
        nodes:
          - {id: locked, task: {type: nobody.serves.it}, locked: true, locked_output: {kept: 1}}
          - {id: empty, task: {type: nobody.serves.it}, locked: true}
          - {id: choose, condition: {expression: "true"}}
          - {id: dead, task: {type: echo}, locked: true}
          - {id: join, task: {type: echo}}
        edges:
          - {source: locked, target: join}
          - {source: empty, target: join}
          - {source: choose, handle: "false", target: dead}
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    assert service.output(execution.execution_id, "join") == {"locked": {"kept": 1}, "empty": None}
    states = service.states(execution.execution_id)
    assert [states["locked"], states["empty"], states["dead"]] == [
        "SKIPPED/LOCKED",
        "SKIPPED/LOCKED",
        "SKIPPED/DEAD_PATH",
    ]
