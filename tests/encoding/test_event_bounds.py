"""DESIGN 4: an event is at most 256 KiB, whatever its fields may hold at once."""

from __future__ import annotations

from typing import Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.api.controls import LOCKS_MAX, TEXTS_BYTES_MAX
from plait_server.core import limits
from plait_server.core.definition.graph import Policy
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    CancelRequested,
    Detail,
    EdgeName,
    Event,
    ExecutionEnded,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSubmitted,
    ExecutionUpdated,
    NodeEnded,
    NodeIdled,
    NodeLock,
    NodeWaiting,
    PauseRequested,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.failures import Failure, caused_by
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
)
from plait_server.encoding.event_codec import decode_event, encode_event
from plait_server.errors import InvariantViolated

ID: Final = "i" * limits.ID_CHARS_MAX
PATH: Final = "/".join([f"{ID}[99999]"] * 16)
"""A node sixteen scopes deep, which is as deep as they will nest."""
PAYLOAD: Final = Payload('"' + "p" * (limits.INLINE_BYTES_MAX - 2) + '"')
MESSAGE: Final = "\u20ac" * (limits.FAILURE_MESSAGE_BYTES_MAX // 3)
ONE: Final = Failure(
    code=ID,
    message=MESSAGE,
    details=PAYLOAD,
    node_path=PATH,
    attempt=2**31 - 1,
    causes_omitted=2**30,
    retryable=True,
    details_omitted=True,
)
FAILURE: Final = caused_by(ONE, [caused_by(ONE, [ONE] * 60)] * 60)
FALSE: Final = tuple(range(limits.EDGES_MAX))
NAMED: Final = (EdgeName(ID, ID),) * limits.EDGES_NAMED_MAX
AMOUNT: Final = "9" * 40 + "." + "9" * 40
USAGE: Final = {f"{number:0128}": AMOUNT for number in range(64)}
LABELS: Final = {
    f"{number:03}" + "\U0001f9f6" * 125: "\U0001f9f6" * 128 for number in range(limits.LABELS_MAX)
}
LATE_S: Final = 250_000_000_000.123456
REASON: Final = "\U0001f9f6" * 1_024

LARGEST: Final[dict[type, Detail]] = {
    ExecutionSubmitted: ExecutionSubmitted(
        ID, ID, "f" * 64, "f" * 64, PAYLOAD, LABELS, 2**31 - 1, "0" * 55, limits.NODES_MAX
    ),
    ExecutionStarted: ExecutionStarted(),
    AttemptStarted: AttemptStarted(ID, ID, LATE_S, PAYLOAD, "\U0001f9f6" * limits.KEY_CHARS_MAX),
    AttemptExtended: AttemptExtended(LATE_S),
    AttemptEnded: AttemptEnded(
        AttemptOutcome.LOST, None, FAILURE, USAGE, LATE_S, FALSE, Treatment.UNHANDLED, NAMED, PAYLOAD
    ),
    NodeEnded: NodeEnded(PAYLOAD, FAILURE, FALSE, Treatment.UNHANDLED, NAMED),
    NodeWaiting: NodeWaiting(LATE_S, PAYLOAD),
    NodeIdled: NodeIdled(),
    CancelRequested: CancelRequested(REASON),
    PauseRequested: PauseRequested(PauseMode.ABORT, REASON),
    ExecutionPaused: ExecutionPaused(),
    ExecutionResumed: ExecutionResumed(PAYLOAD, REASON),
    ExecutionUpdated: ExecutionUpdated(
        1_000,
        Policy(timeout_s=1e9, max_concurrency=10_000),
        tuple(
            NodeLock("n" * (TEXTS_BYTES_MAX // LOCKS_MAX), is_locked=True, output=Payload("1"))
            for _ in range(LOCKS_MAX)
        ),
    ),
    CancelReceipt: CancelReceipt(CancelStage.ABANDONED, ID),
    UsageReported: UsageReported(USAGE),
    ScopeOpened: ScopeOpened(PATH, PAYLOAD, limits.NODES_MAX, 2**31 - 1, "f" * 64, "f" * 64),
    ScopeEnded: ScopeEnded(PATH, ExecutionState.PARTIALLY_SUCCEEDED, FAILURE),
    ExecutionEnded: ExecutionEnded(PAYLOAD, FAILURE, 2**31 - 1),
}


def largest(detail: Detail) -> Event:
    return Event(
        sequence=2**63 - 1,
        time_s=LATE_S,
        run=2**31 - 1,
        node_path=PATH,
        attempt=2**31 - 1,
        branch="-".join(["500000"] * 9),
        node_state=NodeState.CANCELLED,
        execution_state=ExecutionState.TIMED_OUT,
        reason=REASON,
        detail=detail,
    )


def test_there_is_a_largest_of_every_kind() -> None:
    assert set(LARGEST) == set(get_args(Detail))


@pytest.mark.parametrize("detail", LARGEST.values(), ids=[each.__name__ for each in LARGEST])
def test_the_largest_event_of_each_kind_is_within_its_bound(detail: Detail) -> None:
    event = largest(detail)
    content = encode_event(event)
    assert len(content) <= limits.EVENT_BYTES_MAX
    assert decode_event(content) == event


@given(st.sets(st.integers(0, 200) | st.integers(0, limits.EDGES_MAX - 1), max_size=50))
def test_edges_that_count_as_false_come_back(places: set[int]) -> None:
    event = largest(NodeEnded(edges_false=tuple(sorted(places))))
    assert decode_event(encode_event(event)) == event


def test_an_event_over_the_bound_is_a_bug() -> None:
    event = largest(CancelRequested("x" * limits.EVENT_BYTES_MAX))
    with pytest.raises(InvariantViolated, match="please report"):
        encode_event(event)
