"""A scope rebuilt by itself: a scope that has ended, whose nodes its execution dropped, folded from its events (N2).

Its nodes look as they did when it ended. The scope around it is absent, nothing is decided here, and the scopes
inside it are known only from the events of their nodes.
"""

from __future__ import annotations

from typing import assert_never

from plait_server.core.definition.compiled import Definition
from plait_server.core.run.agenda import Agenda
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    Event,
    ExecutionDetail,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.scope import Scope
from plait_server.core.run.scope_branches import ScopeBranches
from plait_server.core.run.totals import Totals
from plait_server.core.slices import Slices
from plait_server.errors import InvariantViolated


def open_alone(definition: Definition, event: Event) -> Slices[Scope]:
    """Build a scope from the event that opened it, in slices.

    Raises:
        InvariantViolated: The event opened none.
    """
    opened = event.detail
    if not isinstance(opened, ScopeOpened):
        raise _unfit(event)
    scope = Scope(
        definition,
        agenda=Agenda(),
        totals=Totals(),
        branches=ScopeBranches(definition.branches, event.branch, opened.branches_before),
        path=opened.scope_path,
    )
    yield from scope.fill_in_slices()
    scope.input = opened.input
    scope.first_sequence, scope.started_s = event.sequence, event.time_s
    scope.open_sources()
    return scope


def apply_alone(scope: Scope, event: Event) -> None:
    """Apply an event about one of the scope's nodes.

    Raises:
        InvariantViolated: The event does not follow from those before it.
    """
    scope_path, _, node_id = event.node_path.rpartition("/")
    record = scope.find(node_id)
    if record is None or scope_path != scope.path:
        raise _unfit(event)
    record.sequence = scope.sequence = event.sequence
    state, detail = event.node_state, event.detail
    if isinstance(detail, ExecutionDetail):
        raise _unfit(event)
    match detail:
        case AttemptStarted():
            scope.apply_started(record, event.time_s, event.run, detail)
        case AttemptExtended() if record.attempts:
            record.attempts[-1].apply_extended(detail)
        case AttemptEnded() if state is not None and record.attempts:
            scope.apply_attempt_ended(record, state, event.reason, event.time_s, detail)
        case NodeEnded() if state is not None:
            scope.apply_ended(record, state, event.reason, event.time_s, detail)
        case NodeWaiting():
            scope.apply_waiting(record, event.time_s, detail)
        case NodeIdled():
            scope.apply_idled(record, event.reason, event.time_s)
        case ScopeOpened():
            scope.apply_scope_opened(record, event.time_s, detail.input)
        case UsageReported() if 0 < event.attempt <= len(record.attempts):
            record.attempts[event.attempt - 1].usage = detail.usage
        case ScopeEnded() | CancelReceipt():
            pass
        case AttemptExtended() | AttemptEnded() | NodeEnded() | UsageReported():
            raise _unfit(event)
        case _:
            assert_never(detail)


def _unfit(event: Event) -> InvariantViolated:
    return InvariantViolated(f"event {event.sequence} is not the next one of a scope; please report this")
