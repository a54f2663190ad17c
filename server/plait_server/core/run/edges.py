"""The table of section 5: how the end of a node changes its outgoing edges."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from plait_server.core.definition.graph import Condition, Node, OnTimeout, Switch
from plait_server.core.definition.node_rules import DEFAULT_HANDLE
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import EdgeState, NodeState, Reason, Treatment


class EdgeRow(enum.Enum):
    """The rows of the table, in its order."""

    SUCCEEDED = "SUCCEEDED"
    LOCKED = "LOCKED"
    TIMED_OUT_CONTINUE = "TIMED_OUT_CONTINUE"
    TIMED_OUT_CANCEL = "TIMED_OUT_CANCEL"
    HANDLED = "HANDLED"
    IGNORED = "IGNORED"
    BROKEN = "BROKEN"
    """FAILED or TIMED_OUT otherwise."""
    DROPPED = "DROPPED"
    """SKIPPED with all edges DEAD, or CANCELLED."""
    UPSTREAM_FAILED = "UPSTREAM_FAILED"


class Effect(NamedTuple):
    """One line of the table."""

    selected: EdgeState
    """Plain edges whose handle matches and whose `when` is true."""
    error: EdgeState
    """`error` edges whose `when` is true; those whose `when` is false are always DEAD (F1)."""
    other: EdgeState
    """Other plain edges."""
    asks_plain: bool
    """Whether the `when` of plain edges matters."""


_A, _D, _B = EdgeState.ACTIVE, EdgeState.DEAD, EdgeState.BROKEN

EFFECTS: Final[dict[EdgeRow, Effect]] = {
    EdgeRow.SUCCEEDED: Effect(_A, _D, _D, asks_plain=True),
    EdgeRow.LOCKED: Effect(_A, _D, _D, asks_plain=True),
    EdgeRow.TIMED_OUT_CONTINUE: Effect(_A, _D, _D, asks_plain=True),
    EdgeRow.TIMED_OUT_CANCEL: Effect(_D, _D, _D, asks_plain=False),
    EdgeRow.HANDLED: Effect(_D, _A, _D, asks_plain=False),
    EdgeRow.IGNORED: Effect(_A, _D, _D, asks_plain=True),
    EdgeRow.BROKEN: Effect(_B, _D, _B, asks_plain=False),
    EdgeRow.DROPPED: Effect(_D, _D, _D, asks_plain=False),
    EdgeRow.UPSTREAM_FAILED: Effect(_B, _D, _B, asks_plain=False),
}

_BY_TREATMENT: Final = {
    Treatment.HANDLED: EdgeRow.HANDLED,
    Treatment.IGNORED: EdgeRow.IGNORED,
    Treatment.TOLERATED: EdgeRow.BROKEN,
    Treatment.UNHANDLED: EdgeRow.BROKEN,
}


def row_of(node: Node, state: NodeState, reason: str, treatment: Treatment) -> EdgeRow:
    """Return the row that applies to a node that ended."""
    if treatment is not Treatment.NONE:
        return _BY_TREATMENT[treatment]
    if state is NodeState.SUCCEEDED:
        return EdgeRow.SUCCEEDED
    if state is NodeState.TIMED_OUT:
        return EdgeRow.TIMED_OUT_CANCEL if node.on_timeout is OnTimeout.CANCEL else EdgeRow.TIMED_OUT_CONTINUE
    if state is NodeState.SKIPPED:
        if reason == Reason.LOCKED:
            return EdgeRow.LOCKED
        if reason == Reason.UPSTREAM_FAILED:
            return EdgeRow.UPSTREAM_FAILED
    return EdgeRow.DROPPED


def chosen_handle(node: Node, output: Payload) -> str:
    """Return the plain handle that an output selects: '' except for conditions and switches."""
    if isinstance(node.kind, Condition):
        return "true" if output.json == "true" else "false"
    if isinstance(node.kind, Switch):
        # Case names hold nothing that JSON escapes, so the text between the quotes is the name.
        text = output.json
        name = text[1:-1] if text[:1] == '"' else ""
        return name if name in node.kind.cases else DEFAULT_HANDLE
    return ""
