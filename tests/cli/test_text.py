"""Values that are newer than the command line that shows them."""

from plait.v1 import state_pb2
from plait_server.cli.text import name_of


def test_a_state_that_is_newer_than_the_client_is_shown_by_its_number() -> None:
    assert name_of(state_pb2.NodeState, state_pb2.NODE_STATE_IDLE, "NODE_STATE_") == "IDLE"
    assert name_of(state_pb2.NodeState, 47, "NODE_STATE_") == "47"
