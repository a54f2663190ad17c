"""E1: a failure is a value; its causes and its message are bounded."""

from __future__ import annotations

import json
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.limits import FAILURE_CAUSES_BYTES_MAX
from plait_server.core.run.failures import (
    Failure,
    bounded_message,
    caused_by,
    cut_failure,
    failure_size,
    failure_to_json,
)
from plait_server.core.run.payload import Payload
from plait_server.encoding.failure_codec import failure_to_proto

BY_DIGEST = Payload("", "ab" * 32, 100_000)


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


def depth_of(failure: Failure) -> int:
    return 1 + max(map(depth_of, failure.causes), default=0)


def count_of(failure: Failure) -> int:
    return 1 + sum(map(count_of, failure.causes))


def chain(length: int, message: str = "") -> Failure:
    failure = Failure(code="X", message=message)
    for _ in range(length - 1):
        failure = Failure(code="X", message=message, causes=(failure,))
    return failure


def test_a_failure_keeps_fifty_causes_eight_deep_and_counts_the_others() -> None:
    whole = caused_by(Failure(code="X"), [chain(20)] * 60)
    assert (len(whole.causes), whole.causes_omitted) == (50, 10)
    assert depth_of(whole) == 8
    deepest = whole
    while deepest.causes:
        deepest = deepest.causes[0]
    assert deepest.causes_omitted == 1


def test_causes_stay_whole_and_shared_where_there_is_room() -> None:
    cause = Failure(code="X", details=Payload("[1]"), causes=(Failure(code="Y"),))
    assert caused_by(Failure(code="X"), [cause]).causes[0] is cause


def test_causes_come_before_what_is_behind_them() -> None:
    """The failures behind a join's edges are what its reader looks for first (E1)."""
    wide = caused_by(Failure(code="X"), [chain(7, "m" * 1_000)] * 50)
    assert len(wide.causes) == 50
    assert sum(len(cause.causes) for cause in wide.causes) == sum(not c.causes_omitted for c in wide.causes)


def test_details_of_causes_give_way_and_say_so() -> None:
    large = Failure(code="X", details=Payload('"' + "d" * 30_000 + '"'))
    whole = caused_by(Failure(code="X"), [large] * 5)
    assert len(whole.causes) == 5
    assert [cause.details_omitted for cause in whole.causes] == [False, False, True, True, True]


def test_a_failure_is_cut_down_to_its_code_and_message() -> None:
    failure = Failure(code="X", message="m", details=Payload("[1]"), causes=(Failure(code="Y"),))
    assert cut_failure(failure, 1_000) is failure
    assert cut_failure(failure, 0) == Failure(code="X", message="m", causes_omitted=1, details_omitted=True)


class Shape(NamedTuple):
    """A failure by its sizes, for the failure itself would be too long to show."""

    message_chars: int
    details_bytes: int
    path_chars: int
    causes: list[Shape]

    def make(self) -> Failure:
        details = Payload('"' + "d" * self.details_bytes + '"') if self.details_bytes else None
        return Failure(
            code="c" * 128,
            message="\u20ac" * self.message_chars,
            details=BY_DIGEST if self.details_bytes == 1 else details,
            node_path="p" * self.path_chars,
            causes=tuple(cause.make() for cause in self.causes),
        )


def shapes(causes: st.SearchStrategy[list[Shape]]) -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape,
        message_chars=st.integers(0, 1_365),
        details_bytes=st.integers(0, 2) | st.integers(0, 32_000),
        path_chars=st.integers(0, 2_000),
        causes=causes,
    )


SHAPES = st.recursive(shapes(st.just([])), lambda inner: shapes(st.lists(inner, max_size=60)), max_leaves=60)


@given(st.lists(SHAPES, max_size=60), st.integers(0, 100_000))
def test_a_failure_is_within_its_bounds_whatever_led_to_it(shaped: list[Shape], room: int) -> None:
    causes = [shape.make() for shape in shaped]
    whole = caused_by(Failure(code="X"), causes)
    assert len(whole.causes) + whole.causes_omitted == len(causes)
    assert failure_to_proto(whole).ByteSize() <= FAILURE_CAUSES_BYTES_MAX + 64
    assert depth_of(whole) <= 8
    assert failure_to_proto(cut_failure(whole, room)).ByteSize() <= room + 64


def test_json_splices_details_that_are_kept_by_digest() -> None:
    """J2: an error edge carries the failure as an object, all of it."""
    failure = Failure(code="X", details=BY_DIGEST, causes=(Failure(code="Y", details=BY_DIGEST),))
    written = json.loads(failure_to_json(failure, lambda payload: f'"{payload.digest}"'))
    assert written["details"] == written["causes"][0]["details"] == BY_DIGEST.digest


def test_json_leaves_the_details_of_causes_out_where_it_would_be_too_large() -> None:
    failure = Failure(code="X", details=Payload("1"), causes=(Failure(code="Y", details=BY_DIGEST),))
    limit = failure_size(failure, bytes_max=1_000_000)
    assert "details_omitted" not in failure_to_json(failure, lambda _: "2", bytes_max=limit)
    written = json.loads(failure_to_json(failure, lambda payload: payload.json, bytes_max=limit - 1))
    assert written["details"] == 1
    assert written["causes"][0]["details_omitted"] is True


def test_bounded_message_is_cut_at_the_end_of_a_character() -> None:
    assert bounded_message("short") == "short"
    cut = bounded_message("ä" * 5000)
    assert len(cut.encode()) <= 4096
    assert cut.endswith("ä…")
