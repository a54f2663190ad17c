"""Failures, retries, timeouts and cancels (SEMANTICS.md 5, 7, 8, 9)."""

from __future__ import annotations

from plait.v1 import event_pb2, state_pb2
from tests.end_to_end.service import Service, outcome
from tests.end_to_end.stage import Stage

ENDED = event_pb2.EVENT_TYPE_ATTEMPT_ENDED


def test_fail_fast_aborts_the_siblings(service: Service, stage: Stage) -> None:
    """E4, E1; S1, S4: the failing node is named, siblings are told and become idle, and nothing else starts."""
    execution_id = service.submit(
        """
        nodes:
          - {id: bad, task: {type: staged}}
          - {id: slow, task: {type: staged}}
          - {id: after, task: {type: staged}}
        edges: [{source: slow, target: after}]
        """
    )
    actors = stage.take(execution_id, 2)
    actors["bad"].fail("OUT_OF_PAPER", "the tray is empty", details={"tray": 2})
    execution = service.wait(execution_id)
    assert outcome(execution) == "FAILED/OUT_OF_PAPER"
    failure = execution.failure
    assert (failure.node_path, failure.attempt, failure.message) == ("bad", 1, "the tray is empty")
    assert service.value(failure.details) == {"tray": 2}
    assert execution.failure_count == 1
    actors["slow"].wait_for("cancelled")
    actors["slow"].wait_gone()
    assert service.states(execution_id) == {
        "bad": "FAILED/OUT_OF_PAPER",
        "slow": "IDLE/SIBLING_FAILED",
        "after": "IDLE/SIBLING_FAILED",
    }
    (attempt,) = service.node(execution_id, "slow").attempts
    assert attempt.outcome == state_pb2.ATTEMPT_OUTCOME_ABORTED
    assert not attempt.HasField("failure"), "an abort is no failure"


def test_stop_dispatch_lets_the_siblings_finish(service: Service, stage: Stage) -> None:
    """E4"""
    execution_id = service.submit(
        """
        policy: {on_failure: stop_dispatch}
        nodes:
          - {id: bad, task: {type: staged}}
          - {id: slow, task: {type: staged}}
          - {id: after, task: {type: staged}}
        edges: [{source: slow, target: after}]
        """
    )
    actors = stage.take(execution_id, 2)
    actors["bad"].fail("BROKEN")
    service.wait_until(execution_id, lambda event: event.type == ENDED)
    actors["slow"].answer("done")
    assert outcome(service.wait(execution_id)) == "FAILED/BROKEN"
    assert service.states(execution_id) == {
        "bad": "FAILED/BROKEN",
        "slow": "SUCCEEDED",
        "after": "IDLE/SIBLING_FAILED",
    }


def test_continue_gives_a_part_of_the_output(service: Service) -> None:
    """E4, E5, S2.3; S3: one sink fails, the other succeeds, and all errors are in the output."""
    execution = service.run(
        """
        policy: {on_failure: continue, collect_errors: true, min_success_rate: 0.5}
        nodes:
          - {id: good, task: {type: echo}, input: 1}
          - {id: bad, task: {type: raise}, input: "paper"}
          - {id: behind, task: {type: echo}}
        edges: [{source: bad, target: behind}]
        """
    )
    assert outcome(execution) == "PARTIALLY_SUCCEEDED/UNKNOWN"
    output = service.value(execution.output)
    assert output["output"] == {"good": 1}
    assert [(each["node_path"], each["code"]) for each in output["errors"]] == [("bad", "UNKNOWN")]
    assert service.states(execution.execution_id) == {
        "good": "SUCCEEDED",
        "bad": "FAILED/UNKNOWN",
        "behind": "SKIPPED/UPSTREAM_FAILED",
    }


def test_exception_of_a_handler_is_told_with_its_traceback(service: Service) -> None:
    execution = service.run("nodes: [{id: bad, task: {type: raise}, input: 'no such paper'}]")
    assert outcome(execution) == "FAILED/UNKNOWN"
    assert execution.failure.message == "LookupError: no such paper"
    details = service.value(execution.failure.details)
    assert details["exception"] == "LookupError"
    assert "raise LookupError(input)" in details["traceback"]


def test_retries_until_the_third_attempt(service: Service) -> None:
    """T1, E2, A4: the same idempotency key in each attempt; usage of failed attempts counts (U1)."""
    execution = service.run(
        """
        nodes:
          - id: flaky
            task: {type: fail}
            input: 3
            retry: {max_attempts: 5, initial_backoff: 1ms}
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    key = f"default/{execution.execution_id}/flaky"
    assert service.value(execution.output) == {"attempt": 3, "key": key}
    node = service.node(execution.execution_id, "flaky")
    assert [attempt.outcome for attempt in node.attempts] == [
        state_pb2.ATTEMPT_OUTCOME_FAILED,
        state_pb2.ATTEMPT_OUTCOME_FAILED,
        state_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
    ]
    assert execution.failure_count == 0
    assert dict(execution.usage) == {"tries": "3"}
    states = [e.node_state for e in service.events(execution.execution_id) if e.node_path]
    running, backing_off = state_pb2.NODE_STATE_RUNNING, state_pb2.NODE_STATE_BACKING_OFF
    assert states == [running, backing_off, running, backing_off, running, state_pb2.NODE_STATE_SUCCEEDED]


def test_retries_used_up_fail_the_node(service: Service) -> None:
    """E2, T1: only then, and only for the codes that the policy lists, if it lists any."""
    execution = service.run(
        """
        policy: {on_failure: continue}
        nodes:
          - {id: listed, task: {type: fail}, retry: {max_attempts: 2, initial_backoff: 1ms}}
          - id: not-listed
            task: {type: raise}
            input: x
            retry: {max_attempts: 2, initial_backoff: 1ms, retryable_codes: [UNAVAILABLE]}
        """
    )
    nodes = service.nodes(execution.execution_id)
    assert {path: node.attempt_count for path, node in nodes.items()} == {"listed": 2, "not-listed": 1}
    assert nodes["listed"].failure.attempt == 2


def test_worker_decides_on_its_retry(service: Service, stage: Stage) -> None:
    """T1: the worker's own word goes before the policy's codes, its retry_after before the computed delay."""
    execution_id = service.submit(
        "nodes: [{id: a, task: {type: staged}, retry: {max_attempts: 3, initial_backoff: 1h}}]"
    )
    stage.next(execution_id).fail("ODD", retryable=True, retry_after_s=0.001)
    stage.next(execution_id).fail("UNAVAILABLE", retryable=False)
    assert outcome(service.wait(execution_id)) == "FAILED/UNAVAILABLE"
    assert service.node(execution_id, "a").attempt_count == 2
