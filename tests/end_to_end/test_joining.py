"""Joins (SEMANTICS.md 6)."""

from __future__ import annotations

from plait.v1 import event_pb2
from tests.end_to_end.service import Service, outcome
from tests.end_to_end.stage import Stage

ENDED = event_pb2.EVENT_TYPE_ATTEMPT_ENDED


def test_any_takes_the_first_and_cancels_the_losers(service: Service, stage: Stage) -> None:
    """J1, section 6: a failed branch loses nothing, the slow one is told to stop."""
    execution_id = service.submit(
        """
        nodes:
          - {id: broken, task: {type: staged}}
          - {id: fast, task: {type: staged}}
          - {id: slow, task: {type: staged}}
          - {id: answer, task: {type: echo}, join: {mode: any}}
        edges:
          - {source: broken, target: answer}
          - {source: fast, target: answer}
          - {source: slow, target: answer}
        """
    )
    actors = stage.take(execution_id, 3)
    actors["broken"].fail("BROKEN")
    service.wait_until(execution_id, lambda event: event.node_path == "broken" and event.type == ENDED)
    actors["fast"].answer(42)
    execution = service.wait(execution_id)
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) == {"winner": "fast", "output": 42}
    actors["slow"].wait_for("cancelled")
    assert service.states(execution_id)["slow"] == "CANCELLED/RACE_LOST"


def test_any_fails_when_all_branches_failed(service: Service) -> None:
    """Section 6, J3: the failed join is named, with the failures behind its edges as causes."""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: fail}}
          - {id: b, task: {type: raise}, input: x}
          - {id: answer, task: {type: echo}, join: {mode: any}}
        edges: [{source: a, target: answer}, {source: b, target: answer}]
        """
    )
    assert outcome(execution) == "FAILED/ALL_BRANCHES_FAILED"
    assert execution.failure.node_path == "answer"
    assert [(each.node_path, each.code) for each in execution.failure.causes] == [
        ("a", "UNAVAILABLE"),
        ("b", "UNKNOWN"),
    ]


def test_quorum_runs_as_soon_as_enough_succeeded(service: Service, stage: Stage) -> None:
    """Section 6"""
    execution_id = service.submit(
        """
        nodes:
          - {id: a, task: {type: staged}}
          - {id: b, task: {type: staged}}
          - {id: c, task: {type: staged}}
          - {id: vote, task: {type: echo}, join: {mode: quorum, count: 2}}
        edges: [{source: a, target: vote}, {source: b, target: vote}, {source: c, target: vote}]
        """
    )
    actors = stage.take(execution_id, 3)
    actors["c"].answer("no")
    service.wait_until(execution_id, lambda event: event.node_path == "c" and event.type == ENDED)
    actors["a"].answer("yes")
    execution = service.wait(execution_id)
    assert service.value(execution.output) == {"a": "yes", "c": "no"}
    assert service.states(execution_id)["b"] == "CANCELLED/RACE_LOST"


def test_quorum_that_cannot_be_reached_fails(service: Service) -> None:
    """Section 6"""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: fail}}
          - {id: b, task: {type: echo}}
          - {id: vote, task: {type: echo}, join: {mode: quorum, rate: 0.9}}
        edges: [{source: a, target: vote}, {source: b, target: vote}]
        """
    )
    assert outcome(execution) == "FAILED/QUORUM_UNREACHABLE"
    assert execution.failure.causes[0].node_path == "a"


def test_collect_takes_successes_and_failures(service: Service) -> None:
    """Section 6, J4; S3's shape, S4's all-settled."""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: echo}, input: 1}
          - {id: b, task: {type: raise}, input: x}
          - {id: off, condition: {expression: "false"}}
          - {id: c, task: {type: echo}}
          - {id: all, task: {type: echo}, join: {mode: collect}}
        edges:
          - {source: a, target: all}
          - {source: b, target: all}
          - {source: off, handle: "true", target: c}
          - {source: c, target: all}
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    output = service.value(execution.output)
    assert (output["success_count"], output["failure_count"]) == (1, 1)
    good, bad = output["results"]
    assert (good["source"], good["success"], good["data"]) == ("a", True, 1)
    assert (bad["source"], bad["success"], bad["error"]["code"]) == ("b", False, "UNKNOWN")
    assert good["branch"] != bad["branch"]


def test_collect_below_its_rate_fails_with_what_it_has(service: Service) -> None:
    """Section 6"""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: echo}, input: 1}
          - {id: b, task: {type: raise}, input: x}
          - {id: all, task: {type: echo}, join: {mode: collect, min_success_rate: 0.8}}
        edges: [{source: a, target: all}, {source: b, target: all}]
        """
    )
    assert outcome(execution) == "FAILED/MIN_SUCCESS_RATE"
    assert service.value(execution.failure.details)["success_count"] == 1
