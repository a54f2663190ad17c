"""Attach, spoken by hand: what a worker of any language may send, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from plait.v1 import state_pb2, worker_hub_service_pb2
from tests.end_to_end.attaching import Attached
from tests.end_to_end.service import CALL_S, Service, outcome, refusal_of, until

Pb = worker_hub_service_pb2
ONE = "nodes: [{id: a, task: {type: hand}, input: {x: 1}}]"


def test_result_is_taken_once(alone: Service) -> None:
    """A4, FAILURES 16: the second is told ALREADY_RECORDED, and one event says how the attempt ended."""
    execution_id = alone.submit(ONE)
    with Attached(alone, "hand") as worker:
        assign = worker.next_assign()
        assert (assign.execution_id, assign.node_path, assign.attempt, assign.run) == (
            execution_id,
            "a",
            1,
            1,
        )
        assert (assign.type, assign.input.json) == ("hand", '{"x":1}')
        assert assign.idempotency_key == f"{alone.namespace}/{execution_id}/a"
        worker.say(accept={"token": assign.token})
        worker.complete(assign.token, "41", usage={"amounts": {"usd": "0.10"}})
        assert worker.next_recorded() == (assign.token, "RECORDED")
        worker.complete(assign.token, "42")
        assert worker.next_recorded() == (assign.token, "ALREADY_RECORDED")
    execution = alone.wait(execution_id)
    assert (outcome(execution), execution.output.json) == ("SUCCEEDED", "41")
    assert dict(execution.usage) == {"usd": "0.10"}
    assert [event.sequence for event in alone.events(execution_id) if event.HasField("attempt_ended")] == [4]


def test_cut_stream_loses_nothing(alone: Service) -> None:
    """T2: the same instance attaches again, names what it runs, and its result counts."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    token = first.next_assign().token
    first.cut()
    with Attached(alone, "hand", instance_id=first.instance_id, in_flight={token: False}) as second:
        second.complete(token, '"late"')
        assert second.next_recorded() == (token, "RECORDED")
    execution = alone.wait(execution_id)
    assert execution.output.json == '"late"'
    assert alone.node(execution_id, "a").attempt_count == 1


def test_attempt_that_the_worker_lacks_is_assigned_again(alone: Service) -> None:
    """FAILURES 3: the same attempt, to an instance whose in-flight list lacks it."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    token = first.next_assign().token
    first.cut()
    with Attached(alone, "hand", instance_id=first.instance_id) as second:
        again = second.next_assign()
        assert (again.token, again.attempt) == (token, 1)
        second.complete(token)
        assert second.next_recorded() == (token, "RECORDED")
    assert outcome(alone.wait(execution_id)) == "SUCCEEDED"


def test_result_of_a_lost_attempt_is_stale(alone: Service) -> None:
    """T2, FAILURES 19: a new instance of the worker loses what the old one had; its late result changes nothing."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    old = first.next_assign()
    first.cut()
    with Attached(alone, "hand") as second:
        new = second.next_assign()
        assert (new.attempt, new.token != old.token) == (2, True)
        assert new.idempotency_key == old.idempotency_key
        with Attached(
            alone, "other", worker_id="zombie", instance_id=first.instance_id, in_flight={old.token: False}
        ) as zombie:
            assert zombie.next("cancel").cancel.reason == Pb.CANCEL_REASON_STALE
            zombie.complete(old.token, '"too late"')
            assert zombie.next_recorded() == (old.token, "STALE")
        assert outcome(alone.get(execution_id)) == "RUNNING"
        second.complete(new.token, '"right"')
        assert second.next_recorded() == (new.token, "RECORDED")
    assert alone.wait(execution_id).output.json == '"right"'
    attempts = alone.node(execution_id, "a").attempts
    assert [attempt.outcome for attempt in attempts] == [
        state_pb2.ATTEMPT_OUTCOME_LOST,
        state_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
    ]


@pytest.mark.parametrize("token", ["", "nonsense", "0" * 32 + "/default/x/1/1/a", "é/" * 500])
def test_forged_token_is_stale(alone: Service, token: str) -> None:
    with Attached(alone, "hand") as worker:
        worker.complete(token)
        assert worker.next_recorded() == (token, "STALE")
        for message in ("accept", "progress", "log", "usage", "heartbeat", "cancel_ack", "exited"):
            worker.say(**{message: {"token": token}})
        worker.say(reject={"token": token, "code": "REJECT_CODE_DRAINING"})
        worker.complete(token)
        assert worker.next_recorded() == (token, "STALE")


def test_token_of_another_namespace_is_stale(alone: Service) -> None:
    execution_id = alone.submit(ONE)
    with Attached(alone, "hand") as worker, Service(alone.address, f"{alone.namespace}-x") as other:
        token = worker.next_assign().token
        with Attached(other, "hand") as thief:
            thief.complete(token, '"stolen"')
            assert thief.next_recorded() == (token, "STALE")
        worker.complete(token, '"own"')
        assert worker.next_recorded() == (token, "RECORDED")
    assert alone.wait(execution_id).output.json == '"own"'


def test_rejected_attempt_is_given_out_again(alone: Service) -> None:
    """T3: RETURNED costs no attempt."""
    execution_id = alone.submit(ONE)
    with Attached(alone, "hand", worker_id="one") as one:
        token = one.next_assign().token
        with Attached(alone, "hand", worker_id="two") as two:
            one.say(drain={})
            one.say(reject={"token": token, "code": "REJECT_CODE_DRAINING", "message": "I leave"})
            assign = two.next_assign()
            assert assign.attempt == 2
            states = {worker.worker_id: worker.state for worker in alone.workers()}
            assert states == {
                "one": Pb.WORKER_STATE_DRAINING,
                "two": Pb.WORKER_STATE_ATTACHED,
            }
            two.complete(assign.token)
            two.next_recorded()
    assert outcome(alone.wait(execution_id)) == "SUCCEEDED"
    attempts = alone.node(execution_id, "a").attempts
    assert attempts[0].outcome == state_pb2.ATTEMPT_OUTCOME_RETURNED


def test_slots_are_never_exceeded(alone: Service) -> None:
    """Q1: neither those of the worker nor those of a type; credit changes them."""
    nodes = ", ".join(f"{{id: n{n}, task: {{type: hand}}}}" for n in range(6))
    execution_id = alone.submit(f"nodes: [{nodes}]")
    with Attached(alone, slots=4, types=[Pb.ServedType(type="hand", max_concurrency=2)]) as worker:
        tokens = [worker.next_assign().token for _ in range(2)]
        reasons = [state for state in alone.states(execution_id).values() if state.startswith("QUEUED")]
        assert reasons == 4 * ["QUEUED/WORKER_SLOTS"]
        worker.say(credit={"slots": 1})
        for done in range(2, 6):
            worker.complete(tokens.pop(0))
            worker.next_recorded()
            if done > 2:
                tokens.append(worker.next_assign().token)
            (listed,) = alone.workers()
            assert listed.slots_in_use == len(tokens)
        worker.complete(tokens.pop())
        worker.next_recorded()
        last = worker.next_assign()
        worker.complete(last.token)
        worker.next_recorded()
    assert outcome(alone.wait(execution_id)) == "SUCCEEDED"


def test_large_input_is_assigned_by_digest(alone: Service) -> None:
    execution_id = alone.submit("nodes: [{id: a, task: {type: hand}}]", "x" * 40_000)
    with Attached(alone, "hand") as worker:
        assign = worker.next_assign()
        assert (assign.input.json, assign.input.size_bytes) == ("", 40_002)
        assert alone.value(assign.input) == "x" * 40_000
        worker.complete(assign.token)
        worker.next_recorded()
    alone.wait(execution_id)


@pytest.mark.parametrize(
    ("output", "code", "word"),
    [
        ({"json": "{broken"}, "INVALID_RESULT", "JSON"),
        ({"json": '{"a":1,"a":2}'}, "INVALID_RESULT", "a"),
        ({"json": "NaN"}, "INVALID_RESULT", "NaN"),
        ({"json": '"' + "x" * (1024 * 1024) + '"'}, "TOO_LARGE", "1048576"),
        ({"json": "[" * 100 + "]" * 100}, "INVALID_RESULT", "deep"),
        ({"digest": "0" * 64}, "INVALID_RESULT", "digest"),
    ],
    ids=["broken", "duplicate", "nan", "large", "deep", "digest"],
)
def test_result_that_is_no_payload_fails_the_attempt(
    alone: Service, output: dict[str, str], code: str, word: str
) -> None:
    """FAILURES 24, 46: not retried; the worker has been told, for it can do nothing about it."""
    execution_id = alone.submit("nodes: [{id: a, task: {type: hand}, retry: {max_attempts: 5}}]")
    with Attached(alone, "hand") as worker:
        token = worker.next_assign().token
        worker.say(complete={"token": token, "output": output})
        assert worker.next_recorded() == (token, "RECORDED")
    execution = alone.wait(execution_id)
    assert outcome(execution) == f"FAILED/{code}"
    assert word in execution.failure.message
    assert alone.node(execution_id, "a").attempt_count == 1


@pytest.mark.parametrize(
    ("fail", "code", "details"),
    [
        ({"code": "POISON"}, "UNKNOWN", {"original_code": "POISON"}),
        (
            {"code": "two words", "details": {"json": "[1]"}},
            "UNKNOWN",
            {"original_code": "two words", "original_details": [1]},
        ),
        ({"code": "TOO_LARGE", "result_problem": "RESULT_PROBLEM_TOO_LARGE"}, "TOO_LARGE", None),
        ({"code": "DATA_LOSS", "details": {"json": "[1]"}}, "DATA_LOSS", [1]),
        ({"code": "own.code"}, "own.code", None),
    ],
    ids=["engine's", "malformed", "result", "gRPC's", "own"],
)
def test_code_of_a_failure_is_the_workers_to_give_or_the_engines(
    alone: Service, fail: dict[str, object], code: str, details: object
) -> None:
    """S2.1"""
    execution_id = alone.submit("nodes: [{id: a, task: {type: hand}}]")
    with Attached(alone, "hand") as worker:
        worker.say(fail={"token": worker.next_assign().token, **fail})
        worker.next_recorded()
    assert outcome(alone.wait(execution_id)) == f"FAILED/{code}"
    failure = alone.node(execution_id, "a").failure
    assert (failure.code, failure.attempt) == (code, 1)
    assert (alone.value(failure.details) if failure.HasField("details") else None) == details


def test_usage_that_is_no_decimal_is_refused(alone: Service) -> None:
    execution_id = alone.submit(ONE)
    with Attached(alone, "hand") as worker:
        token = worker.next_assign().token
        worker.complete(token, usage={"amounts": {"usd": "1e999"}})
        worker.next_recorded()
    execution = alone.wait(execution_id)
    assert outcome(execution) == "FAILED/INVALID_RESULT"
    assert "1e999" in execution.failure.message


def test_usage_of_a_stream_counts_when_the_attempt_is_lost(alone: Service) -> None:
    """U1: an attempt's usage counts once, those of lost ones included as far as it was told."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    token = first.next_assign().token
    first.say(usage={"token": token, "unit": "usd", "amount": "0.25"})
    first.say(usage={"token": token, "unit": "usd", "amount": "0.5"})
    first.say(complete={"token": "nobody's"})
    first.next_recorded()  # What was said before has been heard.
    first.cut()
    with Attached(alone, "hand") as second:
        token = second.next_assign().token
        second.complete(token, usage={"amounts": {"usd": "1"}})
        second.next_recorded()
    assert dict(alone.wait(execution_id).usage) == {"usd": "1.75"}


def test_usage_of_a_handler_that_ends_after_its_execution_is_shown_beside_the_totals(alone: Service) -> None:
    """U1, A5: what its handler reports while it is being stopped is late once the run has ended."""
    execution_id = alone.submit("nodes: [{id: a, task: {type: hand}}, {id: b, task: {type: hand}}]")
    with Attached(alone, "hand", slots=2) as worker:
        tokens = {assign.node_path: assign.token for assign in (worker.next_assign(), worker.next_assign())}
        worker.say(usage={"token": tokens["b"], "unit": "usd", "amount": "1"})
        worker.say(fail={"token": tokens["a"], "code": "BROKEN"})
        worker.next_recorded()
        assert worker.next("cancel").cancel.token == tokens["b"]
        execution = alone.wait(execution_id)
        assert (outcome(execution), dict(execution.usage)) == ("FAILED/BROKEN", {"usd": "1"})
        worker.say(exited={"token": tokens["b"], "usage": {"amounts": {"usd": "3.5"}}})
        until(lambda: bool(alone.get(execution_id).late_usage))
    execution = alone.get(execution_id)
    assert (dict(execution.usage), dict(execution.late_usage)) == ({"usd": "1"}, {"usd": "2.5"})
    (attempt,) = alone.node(execution_id, "b").attempts
    assert (dict(attempt.usage), dict(attempt.late_usage)) == ({"usd": "1"}, {"usd": "2.5"})


HELLO: list[tuple[dict[str, Any], str]] = [
    ({"worker_id": "no spaces"}, "hello.worker_id"),
    ({"worker_id": ""}, "hello.worker_id"),
    ({"namespace": "/"}, "hello.namespace"),
    ({"types": []}, "hello.types"),
    ({"types": [Pb.ServedType(type="a b")]}, "hello.types[0].type"),
    ({"types": [Pb.ServedType(type="a", max_concurrency=-1)]}, "hello.types[0].max_concurrency"),
    ({"slots": -1}, "hello.slots"),
    ({"slots": 10_001}, "hello.slots"),
    ({"labels": {str(n): "" for n in range(65)}}, "hello.labels"),
]


@pytest.mark.parametrize(("fields", "field"), HELLO)
def test_malformed_hello_is_refused(alone: Service, fields: dict[str, Any], field: str) -> None:
    refusal = refusal_of(lambda: Attached(alone, "hand", **fields))
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert list(refusal.fields) == [field]


def test_other_protocol_version_is_refused(alone: Service) -> None:
    refusal = refusal_of(lambda: Attached(alone, "hand", protocol_version=2))
    assert (refusal.code.name, refusal.reason) == ("FAILED_PRECONDITION", "PROTOCOL_VERSION")
    assert "2" in refusal.message
    assert "upgrade" in refusal.message


def test_stream_that_does_not_begin_with_hello_is_refused(alone: Service) -> None:
    worker = Attached(alone, greet=False)
    worker.complete("x")
    refusal = refusal_of(worker.read_to_end)
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "PROTOCOL_VIOLATION")
    assert "complete" in refusal.message


def test_second_hello_is_refused(alone: Service) -> None:
    worker = Attached(alone, "hand")
    worker.say(hello={})
    assert refusal_of(worker.read_to_end).reason == "PROTOCOL_VIOLATION"


def test_what_is_sent_before_welcome_counts(alone: Service) -> None:
    """A worker need not wait: a result of a stream before goes out right behind hello."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    token = first.next_assign().token
    first.cut()
    second = Attached(alone, greet=False)
    hello = Pb.Hello(
        protocol_version=1,
        worker_id="hand",
        instance_id=first.instance_id,
        namespace=alone.namespace,
        types=[Pb.ServedType(type="hand")],
        slots=1,
        in_flight=[Pb.InFlight(token=token, finished=True)],
    )
    second.say(hello=hello)
    second.complete(token, "41")
    with second:
        assert second.next("welcome").welcome.protocol_version == 1
        assert second.next_recorded() == (token, "RECORDED")
    assert alone.wait(execution_id).output.json == "41"


def test_second_stream_of_an_instance_ends_the_first_with_a_reason(alone: Service) -> None:
    first = Attached(alone, "hand")
    with Attached(alone, "hand", instance_id=first.instance_id):
        refusal = refusal_of(first.read_to_end)
        assert (refusal.code.name, refusal.reason) == ("ABORTED", "STREAM_REPLACED")


def test_stream_ends_with_ok_only_when_its_worker_has_ended_its_side(alone: Service) -> None:
    """The worker keeps its attempts for a lease, as when the stream is cut."""
    execution_id = alone.submit(ONE)
    first = Attached(alone, "hand")
    token = first.next_assign().token
    first.close()
    with Attached(alone, "hand", instance_id=first.instance_id, in_flight={token: False}) as second:
        second.complete(token)
        assert second.next_recorded() == (token, "RECORDED")
    assert outcome(alone.wait(execution_id)) == "SUCCEEDED"
    refusal = refusal_of(Attached(alone, greet=False).close)
    assert (refusal.code.name, refusal.reason) == ("INVALID_ARGUMENT", "PROTOCOL_VIOLATION")


def test_empty_frames_do_no_harm(alone: Service) -> None:
    with Attached(alone, "hand") as worker:
        worker.send([])
        worker.send([Pb.WorkerMessage()] * 10)
        worker.close()
    assert alone.is_serving()


def test_detached_worker_without_attempts_is_gone(alone: Service) -> None:
    worker = Attached(alone, "hand")
    assert [each.state for each in alone.workers()] == [Pb.WORKER_STATE_ATTACHED]
    worker.close()
    assert alone.workers() == []


def test_list_workers_pages_in_order(alone: Service) -> None:
    workers = [Attached(alone, "hand", worker_id=f"w{n}", labels={"zone": "b"}) for n in (2, 0, 1)]
    request = Pb.ListWorkersRequest(namespace=alone.namespace, page_size=2)
    first = alone.hub.ListWorkers(request, timeout=CALL_S)
    request.page_token = first.next_page_token
    second = alone.hub.ListWorkers(request, timeout=CALL_S)
    assert [each.worker_id for each in [*first.workers, *second.workers]] == ["w0", "w1", "w2"]
    assert dict(first.workers[0].labels) == {"zone": "b"}
    assert second.next_page_token == ""
    for worker in workers:
        worker.cut()
