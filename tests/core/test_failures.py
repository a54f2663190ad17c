"""E1: a failure is a value; its causes and its message are bounded."""

import json

from plait_server.core.failures import Failure, bounded, bounded_message, failure_to_json
from plait_server.core.payload import Payload


def test_json_of_a_failure_says_all_of_it() -> None:
    """E1: code, message, details, cause chain, retryable or not, the node and attempt."""
    cause = Failure(code="UNKNOWN", message='say "no"', node_path="b", attempt=1)
    failure = Failure(
        code="ALL_BRANCHES_FAILED",
        message="none",
        details=Payload('{"x":1}'),
        causes=(cause,),
        retryable=True,
        node_path="a",
        attempt=2,
    )
    assert json.loads(failure_to_json(failure)) == {
        "code": "ALL_BRANCHES_FAILED",
        "message": "none",
        "details": {"x": 1},
        "retryable": True,
        "node_path": "a",
        "attempt": 2,
        "causes": [
            {"code": "UNKNOWN", "message": 'say "no"', "node_path": "b", "attempt": 1, "retryable": False}
        ],
    }


def test_bounded_keeps_fifty_causes_eight_deep() -> None:
    deep = Failure(code="X")
    for _ in range(20):
        deep = Failure(code="X", causes=(deep,))
    whole = Failure(code="X", causes=bounded([deep] * 60))
    assert len(whole.causes) == 50
    depth = 0
    here: Failure | None = whole
    while here is not None:
        depth += 1
        here = here.causes[0] if here.causes else None
    assert depth == 8


def test_bounded_message_is_cut_at_the_end_of_a_character() -> None:
    assert bounded_message("short") == "short"
    cut = bounded_message("ä" * 5000)
    assert len(cut.encode()) <= 4096
    assert cut.endswith("ä…")
