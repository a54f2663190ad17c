"""Limits that change while a graph runs, and keys that executions share (SEMANTICS.md 11)."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from plait.v1 import limit_service_pb2
from plait_client import Client
from tests.end_to_end.service import Service, outcome
from tests.end_to_end.stage import Stage

TYPE = limit_service_pb2.LIMIT_KIND_TYPE
KEY = limit_service_pb2.LIMIT_KIND_KEY


@pytest.fixture
def client(service: Service) -> Generator[Client]:
    with Client(service.address, namespace=service.namespace) as client:
        yield client


def waiting(service: Service, execution_id: str) -> set[str]:
    return {state for state in service.states(execution_id).values() if "QUEUED" in state}


def test_a_limit_of_a_type_is_lowered_and_raised_while_its_nodes_run(
    service: Service, stage: Stage, client: Client
) -> None:
    """Q2, Q6: lowering aborts nothing, raising wakes; it is told which limit is lacking, and who holds it."""
    client.set_limit(TYPE, "staged", max_concurrency=2)
    try:
        nodes = ", ".join(f"{{id: n{n}, task: {{type: staged}}}}" for n in range(4))
        execution_id = service.submit(f"nodes: [{nodes}]")
        actors = stage.take(execution_id, 2)
        assert waiting(service, execution_id) == {"QUEUED/NODE_TYPE_LIMIT"}
        (limit,) = [each for each in client.list_limits(TYPE) if each.name == "staged"]
        assert {holder.node_path for holder in limit.holders} == set(actors)
        assert (limit.in_use, limit.waiting) == (2, 2)
        assert client.set_limit(TYPE, "staged", max_concurrency=1).in_use == 2
        name, actor = actors.popitem()
        actor.answer()
        service.wait_until(
            execution_id, lambda event: event.node_path == name and event.HasField("attempt_ended")
        )
        assert waiting(service, execution_id) == {"QUEUED/NODE_TYPE_LIMIT"}
        client.set_limit(TYPE, "staged", max_concurrency=3)
        for actor in (*actors.values(), *stage.take(execution_id, 2).values()):
            actor.answer()
        assert outcome(service.wait(execution_id)) == "SUCCEEDED"
    finally:
        client.remove_limit(TYPE, "staged")


def test_nodes_of_two_executions_with_one_key_run_one_at_a_time(
    service: Service, stage: Stage, client: Client
) -> None:
    """Q1: a key's limit is 1 unless one is set; the executions of a namespace share it."""
    graph = "nodes: [{id: only, task: {type: staged}, concurrency_key: '\"db-\" + input.db'}]"
    first, second = (service.submit(graph, {"db": "7"}) for _ in range(2))
    actor = stage.next(first)
    assert waiting(service, second) == {"QUEUED/KEY_LIMIT"}
    (limit,) = [each for each in client.list_limits(KEY) if each.name == "db-7"]
    assert [(holder.execution_id, holder.attempt) for holder in limit.holders] == [(first, 1)]
    actor.answer()
    stage.next(second).answer()
    assert outcome(service.wait(first)) == outcome(service.wait(second)) == "SUCCEEDED"
