"""What the contract lists by name is what the core knows, no more and no less."""

import enum
import re
from typing import get_args

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from plait.v1 import engine_code_pb2, event_pb2, graph_pb2, state_pb2
from plait_server.core.definition.graph import Kind
from plait_server.core.run.failures import ENGINE_CODES
from plait_server.core.run.states import (
    REASONS,
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    Treatment,
)


@pytest.mark.parametrize(
    ("contract", "prefix", "core"),
    [
        (state_pb2.ExecutionState, "EXECUTION_STATE_", ExecutionState),
        (state_pb2.NodeState, "NODE_STATE_", NodeState),
        (state_pb2.AttemptOutcome, "ATTEMPT_OUTCOME_", AttemptOutcome),
        (event_pb2.CancelStage, "CANCEL_STAGE_", CancelStage),
        (event_pb2.FailureTreatment, "FAILURE_TREATMENT_", Treatment),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_numbers_of_the_core_are_those_of_the_contract(
    contract: EnumTypeWrapper, prefix: str, core: type[enum.IntEnum]
) -> None:
    listed = {name.removeprefix(prefix): number for name, number in contract.items() if number}
    assert listed == {value.name: int(value) for value in core if value}


def test_kinds_of_nodes_are_the_same_everywhere() -> None:
    fields = {
        field.name.upper(): field.number for field in graph_pb2.Node.DESCRIPTOR.oneofs_by_name["kind"].fields
    }
    listed = {
        name.removeprefix("NODE_KIND_"): number for name, number in graph_pb2.NodeKind.items() if number
    }
    assert listed == fields
    assert set(fields) == {kind.__name__.upper() for kind in get_args(Kind)}


def test_codes_of_the_engine_are_published() -> None:
    """S2.1: what a worker may not give is below 200; above is what only the allocator says."""
    names = {name.removeprefix("ENGINE_CODE_"): n for name, n in engine_code_pb2.EngineCode.items() if n}
    assert {name for name, number in names.items() if number < 200} == ENGINE_CODES
    assert {name for name, number in names.items() if 100 <= number < 200} == REASONS
    assert all(re.fullmatch("[A-Z0-9_]+", name) for name in names)


def test_the_number_of_a_state_tells_whether_it_has_ended() -> None:
    """Clients know states that are newer than they are by this rule alone."""
    for execution_state in ExecutionState:
        assert execution_state.is_ended == (32 <= execution_state < 64)
    for node_state in NodeState:
        assert node_state.is_ended == (node_state >= 32)
    assert ExecutionState.CORRUPT >= 64
