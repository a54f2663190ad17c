"""What single nodes do, over a real server and a real worker: edges, expressions, timeouts, payloads."""

from __future__ import annotations

import pytest

from plait.v1 import event_pb2, state_pb2
from tests.end_to_end.service import Service, outcome, refusal_of
from tests.end_to_end.stage import Stage

STARTED = event_pb2.EVENT_TYPE_ATTEMPT_STARTED
ENDED = event_pb2.EVENT_TYPE_ATTEMPT_ENDED


def test_error_edge_handles_a_failure(service: Service) -> None:
    """Section 5: the handler gets the failure, the plain path is dead, the execution succeeds."""
    execution = service.run(
        """
        nodes:
          - {id: bad, task: {type: raise}, input: paper}
          - {id: plain, task: {type: echo}}
          - {id: rescue, task: {type: echo}}
          - {id: other, task: {type: echo}}
        edges:
          - {source: bad, target: plain}
          - {source: bad, handle: error, target: rescue, when: "nodes.bad.failure.code == 'UNKNOWN'"}
          - {source: bad, handle: error, target: other, when: "nodes.bad.failure.code == 'ELSE'"}
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    failure = service.output(execution.execution_id, "rescue")
    assert (failure["code"], failure["node_path"]) == ("UNKNOWN", "bad")
    states = service.states(execution.execution_id)
    assert (states["plain"], states["other"]) == ("SKIPPED/DEAD_PATH", "SKIPPED/DEAD_PATH")
    assert [each.node_path for each in execution.failures] == ["bad"]
    assert not execution.HasField("failure"), "a handled failure is listed, never named"


def test_ignored_failure_gives_null(service: Service) -> None:
    """Section 5"""
    execution = service.run(
        """
        nodes:
          - {id: bad, task: {type: raise}, input: x, on_error: ignore}
          - {id: next, task: {type: echo}}
        edges: [{source: bad, target: next}]
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) is None


@pytest.mark.parametrize(
    ("kind", "taken"), [("image", "render"), ("text", "print"), ("sound", "ask"), ("error", "ask")]
)
def test_switch_takes_the_chosen_branch_alone(service: Service, kind: str, taken: str) -> None:
    """Section 5; S4: only the chosen handle's branch runs."""
    execution = service.run(
        """
        nodes:
          - {id: kind, switch: {expression: "execution.input.kind", cases: [image, text]}}
          - {id: render, task: {type: echo}}
          - {id: print, task: {type: echo}}
          - {id: ask, task: {type: echo}}
        edges:
          - {source: kind, handle: image, target: render}
          - {source: kind, handle: text, target: print}
          - {source: kind, handle: default, target: ask}
        """,
        {"kind": kind},
    )
    states = service.states(execution.execution_id)
    assert {path for path, state in states.items() if state == "SUCCEEDED"} == {"kind", taken}
    assert service.value(execution.output) == {taken: kind}


def test_switch_that_gives_no_string_fails(service: Service) -> None:
    """Section 5, S2.1"""
    execution = service.run("nodes: [{id: kind, switch: {expression: '1 + 1', cases: [a]}}]")
    assert outcome(execution) == "FAILED/EXPRESSION"
    assert execution.failure.node_path == "kind"


def test_templates_keep_types_and_render_text(service: Service) -> None:
    """J2, DESIGN.md 7: a string that is one expression gives its value; numbers stay what they are."""
    execution = service.run(
        """
        nodes:
          - id: t
            transform:
            input:
              whole: "{{ execution.input.big }}"
              text: "n={{ execution.input.n }}, {{ execution.input.words[1] }}"
              nested: [{deep: "{{ execution.input.words }}"}]
              half: "{{ execution.input.n / 2.0 }}"
              plain: "no expression"
        """,
        {"n": 3.0, "big": 9_007_199_254_740_993, "words": ["a", "ü🎈"]},
    )
    assert outcome(execution) == "SUCCEEDED"
    output = service.value(execution.output)
    assert output["whole"] == 9_007_199_254_740_993
    assert output["nested"] == [{"deep": ["a", "ü🎈"]}]
    assert (output["half"], output["plain"]) == (1.5, "no expression")
    assert output["text"].endswith(", ü🎈")


def test_expression_that_fails_names_the_node(service: Service) -> None:
    """F3, S2.1: an absent output fails the node that names it, without an attempt."""
    execution = service.run(
        """
        nodes:
          - {id: choose, condition: {expression: "false"}}
          - {id: dead, task: {type: echo}}
          - {id: bad, task: {type: echo}, input: "{{ nodes.dead.output }}"}
        edges:
          - {source: choose, handle: "true", target: dead}
          - {source: dead, target: bad}
          - {source: choose, handle: "false", target: bad}
        """
    )
    assert outcome(execution) == "FAILED/EXPRESSION"
    assert (execution.failure.node_path, execution.failure.attempt) == ("bad", 0)
    assert service.node(execution.execution_id, "bad").attempt_count == 0


def test_when_sees_the_output_of_its_own_source(service: Service) -> None:
    """J2, V6: by its name, and as `output`."""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: echo}, input: {n: 2}}
          - {id: taken, task: {type: echo}}
          - {id: not-taken, task: {type: echo}}
          - {id: short, task: {type: echo}}
        edges:
          - {source: a, target: taken, when: "nodes.a.output.n > 1"}
          - {source: a, target: not-taken, when: "nodes.a.output.n > 2"}
          - {source: a, target: short, when: "output.n == 2 && execution.input == null"}
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    assert service.states(execution.execution_id) == {
        "a": "SUCCEEDED",
        "taken": "SUCCEEDED",
        "not-taken": "SKIPPED/DEAD_PATH",
        "short": "SUCCEEDED",
    }


def test_when_that_fails_fails_its_node(service: Service) -> None:
    """F2"""
    execution = service.run(
        """
        nodes: [{id: a, task: {type: echo}, input: {n: 1}}, {id: b, task: {type: echo}}]
        edges: [{source: a, target: b, when: "nodes.a.output.missing > 1"}]
        """
    )
    assert outcome(execution) == "FAILED/EXPRESSION"
    assert execution.failure.node_path == "a"


def test_delay_waits_and_passes_its_input_on(service: Service) -> None:
    """Section 5"""
    execution_id = service.submit(
        """
        nodes:
          - {id: wait, delay: {duration: 50ms}, input: {n: "{{ execution.input }}"}}
          - {id: for-ever, delay: {duration: 1h}}
          - {id: first, transform: , join: {mode: any}}
        edges: [{source: wait, target: first}, {source: for-ever, target: first}]
        """,
        9,
    )
    execution = service.wait(execution_id)
    assert service.value(execution.output) == {"winner": "wait", "output": {"n": 9}}
    waiting = [e for e in service.events(execution_id) if e.type == event_pb2.EVENT_TYPE_NODE_WAITING]
    assert [event.node_path for event in waiting] == ["wait", "for-ever"]
    assert waiting[1].node_waiting.due_time.seconds - waiting[1].time.seconds in (3599, 3600)
    assert service.states(execution_id)["for-ever"] == "CANCELLED/RACE_LOST"


def test_attempt_timeout_is_a_failure_with_its_own_code(service: Service, stage: Stage) -> None:
    """T4, T5: retried when the policy lists DEADLINE_EXCEEDED; the handler is told."""
    execution_id = service.submit(
        """
        nodes:
          - id: slow
            task: {type: staged}
            timeouts: {attempt: 100ms}
            retry: {max_attempts: 2, initial_backoff: 1ms}
        """
    )
    first, second = stage.next(execution_id), stage.next(execution_id)
    first.wait_for("cancelled")
    second.wait_for("cancelled")
    execution = service.wait(execution_id)
    assert outcome(execution) == "FAILED/DEADLINE_EXCEEDED"
    node = service.node(execution_id, "slow")
    assert node.state == state_pb2.NODE_STATE_TIMED_OUT
    assert [each.outcome for each in node.attempts] == 2 * [state_pb2.ATTEMPT_OUTCOME_TIMED_OUT]


def test_node_timeout_that_continues_gives_null(service: Service, stage: Stage) -> None:
    """T4, T5, E1: it is no failure."""
    execution_id = service.submit(
        """
        nodes:
          - {id: slow, task: {type: staged}, timeouts: {node: 100ms}, on_timeout: continue}
          - {id: next, task: {type: echo}}
          - {id: dropped, task: {type: staged}, timeouts: {node: 100ms}, on_timeout: cancel}
          - {id: behind, task: {type: echo}}
        edges: [{source: slow, target: next}, {source: dropped, target: behind}]
        """
    )
    execution = service.wait(execution_id)
    assert outcome(execution) == "SUCCEEDED"
    assert execution.failure_count == 0
    assert service.states(execution_id) == {
        "slow": "TIMED_OUT/DEADLINE_EXCEEDED",
        "next": "SUCCEEDED",
        "dropped": "TIMED_OUT/DEADLINE_EXCEEDED",
        "behind": "SKIPPED/DEAD_PATH",
    }
    assert service.output(execution_id, "next") is None


def test_execution_timeout_ends_it_at_once(service: Service, stage: Stage) -> None:
    """T5: every node not ended is cancelled, and workers are told."""
    execution_id = service.submit(
        """
        policy: {timeout: 200ms}
        nodes: [{id: slow, task: {type: staged}}, {id: next, task: {type: echo}}]
        edges: [{source: slow, target: next}]
        """
    )
    actor = stage.next(execution_id)
    assert outcome(service.wait(execution_id)).startswith("TIMED_OUT")
    actor.wait_for("cancelled")
    assert service.states(execution_id) == {
        "slow": "CANCELLED/EXECUTION_TIMEOUT",
        "next": "CANCELLED/EXECUTION_TIMEOUT",
    }


def test_cancel_is_told_to_each_worker_with_receipts(service: Service, stage: Stage) -> None:
    """C1, A5: the receipts are events, and the last of them ends the execution; a second cancel changes nothing."""
    execution_id = service.submit(
        """
        nodes:
          - {id: a, task: {type: staged}}
          - {id: b, task: {type: staged}}
          - {id: next, task: {type: echo}}
          - {id: wait, delay: {duration: 1h}}
        edges: [{source: a, target: next}]
        """
    )
    actors = stage.take(execution_id, 2)
    answer = service.cancel(execution_id, "not wanted")
    assert outcome(answer) in ("CANCELLING/not wanted", "CANCELLED/not wanted")
    for actor in actors.values():
        actor.wait_for("cancelled")
    execution = service.wait(execution_id)
    assert outcome(execution) == "CANCELLED/not wanted"
    assert not execution.HasField("output")
    events = service.events(execution_id)
    stages = event_pb2.CancelStage
    for path in ("a", "b"):
        receipts = [
            e.cancel_receipt.stage for e in events if e.node_path == path and e.HasField("cancel_receipt")
        ]
        assert receipts == [
            stages.CANCEL_STAGE_REQUESTED,
            stages.CANCEL_STAGE_DELIVERED,
            stages.CANCEL_STAGE_ACKNOWLEDGED,
            stages.CANCEL_STAGE_EXITED,
        ]
    assert set(service.states(execution_id).values()) == {"CANCELLED"}
    assert outcome(service.cancel(execution_id, "again")) == "CANCELLED/not wanted"
    assert len(service.events(execution_id)) == len(events)


def test_large_payloads_travel_by_digest(service: Service) -> None:
    """Item 7: over 32 KiB by digest, in events and to workers, who fetch it."""
    size = 200_000
    execution = service.run(
        f"""
        nodes:
          - {{id: big, task: {{type: large}}, input: {size}}}
          - {{id: small, task: {{type: large}}, input: 1000}}
          - {{id: measure, task: {{type: measure}}}}
        edges: [{{source: big, target: measure}}, {{source: small, target: measure}}]
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    big = service.node(execution.execution_id, "big").output
    assert (big.json, big.size_bytes, len(big.digest)) == ("", size, 64)
    assert service.text(big) == '"' + "x" * (size - 2) + '"'
    small = service.node(execution.execution_id, "small").output
    assert (len(small.json), small.digest) == (1000, "")
    measured = service.value(execution.output)
    assert measured["bytes"] == size + 1000 + len('{"big":,"small":}')
    (ended,) = [e for e in service.events(execution.execution_id) if e.type == ENDED and e.node_path == "big"]
    assert ended.attempt_ended.output.digest == big.digest


def test_large_input_of_an_execution_travels_by_digest(service: Service) -> None:
    text = "y" * 100_000
    execution = service.run("nodes: [{id: m, task: {type: measure}}]", {"text": text})
    assert execution.input.digest
    assert service.value(execution.input) == {"text": text}
    assert service.value(execution.output)["bytes"] == 100_011


def test_payload_limit_is_one_mebibyte(service: Service) -> None:
    """A result may be 1 MiB and no more; the failure says so, and is not retried."""
    limit = 1024 * 1024
    execution = service.run(
        f"""
        policy: {{on_failure: continue}}
        nodes:
          - {{id: fits, task: {{type: large}}, input: {limit}}}
          - {{id: over, task: {{type: large}}, input: {limit + 1}, retry: {{max_attempts: 3}}}}
        """
    )
    assert outcome(execution) == "PARTIALLY_SUCCEEDED/TOO_LARGE"
    assert service.node(execution.execution_id, "fits").output.size_bytes == limit
    over = service.node(execution.execution_id, "over")
    assert (over.failure.code, over.attempt_count) == ("TOO_LARGE", 1)
    assert str(limit) in over.failure.message.replace(",", "")


def test_input_over_the_limit_is_refused(service: Service) -> None:
    text = "x" * (1024 * 1024)
    refusal = refusal_of(lambda: service.submit("nodes: [{id: a, transform: }]", text))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert refusal.metadata == {"size": "1048578", "limit": "1048576"}


def test_usage_adds_up_exactly(service: Service) -> None:
    """U1: totals equal the sum of the attempts."""
    execution = service.run(
        """
        nodes:
          - {id: a, task: {type: spend}, input: {usd: "0.1", tokens: "812"}}
          - {id: b, task: {type: spend}, input: {usd: "0.2"}}
        """
    )
    assert dict(service.node(execution.execution_id, "a").attempts[0].usage) == {
        "usd": "0.2",
        "tokens": "1624",
    }
    assert dict(execution.usage) == {"usd": "0.6", "tokens": "1624"}


def test_trace_of_the_caller_goes_on(service: Service) -> None:
    """B2: the execution is a child of the caller's traceparent, and the attempt of the execution."""
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    execution = service.run(
        "nodes: [{id: a, task: {type: know}, timeouts: {attempt: 1h}}]", metadata=(("traceparent", caller),)
    )
    version, trace, span, flags = execution.traceparent.split("-")
    assert (version, trace, flags) == ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01")
    known = service.value(execution.output)
    assert known["traceparent"].split("-")[1] == trace
    assert len({span, known["traceparent"].split("-")[2], "00f067aa0ba902b7"}) == 3
    assert (known["node_path"], known["attempt"], known["run"], known["worker_id"]) == ("a", 1, 1, "live")
    assert known["execution_id"] == execution.execution_id
    assert 3500 < known["time_left_s"] <= 3600


def test_bad_traceparent_gets_a_trace_of_its_own(service: Service) -> None:
    """B2"""
    execution = service.run("nodes: [{id: a, transform: }]", metadata=(("traceparent", "00-nonsense"),))
    _, trace, span, _ = execution.traceparent.split("-")
    assert (len(trace), len(span)) == (32, 16)


def test_output_expression_of_the_graph(service: Service) -> None:
    """S2.3"""
    execution = service.run(
        """
        output: "{'sum': nodes.a.output + nodes.b.output}"
        nodes: [{id: a, transform: , input: 1}, {id: b, transform: , input: 2}]
        """
    )
    assert service.value(execution.output) == {"sum": 3}
    execution = service.run(
        """
        output: "nodes.a.output.missing"
        nodes: [{id: a, transform: , input: 1}]
        """
    )
    assert outcome(execution) == "FAILED/EXPRESSION"


def test_branches_are_named_by_ordinal(service: Service) -> None:
    """B1; S3"""
    execution = service.run(
        """
        nodes:
          - {id: start, transform: }
          - {id: a, transform: }
          - {id: b, transform: }
          - {id: end, transform: }
        edges:
          - {source: start, target: a}
          - {source: start, target: b, branch_name: second}
          - {source: a, target: end}
          - {source: b, target: end}
        """
    )
    branches = {path: node.branch for path, node in service.nodes(execution.execution_id).items()}
    assert branches == {"start": "0", "a": "0-001", "b": "0-002", "end": "0"}


def test_handlers_that_return_what_is_no_json_fail(service: Service) -> None:
    execution = service.run(
        """
        policy: {on_failure: continue}
        nodes:
          - {id: set, task: {type: unfit}, input: set}
          - {id: nan, task: {type: unfit}, input: nan}
          - {id: object, task: {type: unfit}, input: object}
          - {id: bytes, task: {type: unfit}, input: bytes}
        """
    )
    assert outcome(execution) == "FAILED/INVALID_RESULT"
    nodes = service.nodes(execution.execution_id)
    assert {node.failure.code for node in nodes.values()} == {"INVALID_RESULT"}
    assert all("unfit" in node.failure.message for node in nodes.values())


def test_unknown_type_waits_visibly(alone: Service) -> None:
    """S2.1, FAILURES 23: NO_WORKER is shown, and the execution can be cancelled."""
    execution_id = alone.submit("nodes: [{id: a, task: {type: nobody.serves.it}}]")
    assert alone.states(execution_id) == {"a": "QUEUED/NO_WORKER"}
    assert alone.node(execution_id, "a").reason == "NO_WORKER"
    assert alone.get(execution_id).node_counts.queued == 1
    assert outcome(alone.cancel(execution_id)) == "CANCELLED"
