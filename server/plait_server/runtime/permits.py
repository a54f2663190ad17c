"""The permits of one execution: its requests at the allocator, and the grants that its attempts hold.

A granted request gets a number, by which the core either takes the grant (an attempt starts) or refuses it (it came
too late). An attempt returns its grant in two parts: the engine's permits at the decision that ends it, the worker's
slot when the handler has ended or was abandoned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

import trio

from plait_server.core.run.commands import (
    ChangeCapacity,
    Granted,
    LimitScope,
    OfferNode,
    Place,
    RefuseGrant,
    UnlimitScope,
    WithdrawNode,
)
from plait_server.core.run.execution import Execution
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.grant import Grant
from plait_server.runtime.waiting import PermitRequest

AttemptId: TypeAlias = tuple[str, int]
"""Node path and attempt."""

CapacityCommand: TypeAlias = (
    OfferNode | WithdrawNode | RefuseGrant | LimitScope | UnlimitScope | ChangeCapacity
)

_NOWHERE: Final = (Place(0, 0, 0),)
"""Delay of the dispatch, for requests that are granted at once."""


class Permits:
    """The requests and grants of one execution. From `open` to `close` the allocator knows the execution."""

    def __init__(
        self, allocator: Allocator, namespace: str, execution_id: str, post: Callable[[Granted], None]
    ) -> None:
        self._allocator = allocator
        self._namespace = namespace
        self._execution_id = execution_id
        self._post = post
        self._granted: dict[int, Grant] = {}
        """Number -> a grant that the core has neither taken nor refused yet."""
        self._grants = 0
        self._held: dict[AttemptId, Grant] = {}

    def __repr__(self) -> str:
        return f"<Permits of {self._execution_id}, {len(self._held)} held>"

    @property
    def is_empty(self) -> bool:
        """Whether no attempt holds anything."""
        return not self._held

    def open(self, execution: Execution) -> None:
        """Add the execution to the allocator, with its limit and those of its open scopes."""
        self._allocator.open_execution(
            self._namespace,
            self._execution_id,
            execution.root.policy.execution_limit,
            execution.created_s,
            priority=execution.priority,
        )
        for scope in execution.scopes.values():
            if scope.path in scope.limits:
                limit = scope.policy.max_concurrency
                self._allocator.open_scope(self._namespace, self._execution_id, scope.path, limit)

    def close(self) -> None:
        """Return all grants and withdraw all requests, because the execution is no longer live here."""
        for grants in (self._granted, self._held):
            for grant in grants.values():
                grant.release()
            grants.clear()
        self._allocator.close_execution(self._namespace, self._execution_id)

    def carry_out(self, command: CapacityCommand) -> None:
        """Carry out the core's command; `Granted` is posted when an offered node may start."""
        match command:
            case OfferNode():
                self._offer(command)
            case WithdrawNode(node_path=path):
                self._allocator.withdraw(self._namespace, self._execution_id, path)
            case RefuseGrant(grant=number):
                self._granted.pop(number).release()
            case ChangeCapacity(limit=limit, priority=priority):
                self._allocator.change_execution(self._namespace, self._execution_id, limit, priority)
            case LimitScope(scope_path=path, limit=limit):
                self._allocator.open_scope(self._namespace, self._execution_id, path, limit)
            case UnlimitScope(scope_path=path):
                self._allocator.close_scope(self._namespace, self._execution_id, path)
            case _:
                assert_never(command)

    def dispatch(self) -> None:
        """Grant whatever can be granted now, to this execution and others."""
        self._allocator.dispatch()

    def reason(self, node_path: str) -> str:
        """Return why a request waits (Q6); empty if it does not wait."""
        return self._allocator.reason(self._namespace, self._execution_id, node_path)

    def unserved_s(self, node_path: str) -> float:
        """Return for how long no worker has served the type of a request: 0 if one does, or if it does not wait."""
        return self._allocator.unserved_s(self._namespace, self._execution_id, node_path)

    def unserved_types(self) -> list[str]:
        """Return the types that waiting requests need and no worker serves, sorted."""
        return self._allocator.unserved_types(self._namespace, self._execution_id)

    # Holding.

    def hold(self, grant: int, attempt: AttemptId) -> None:
        """Assign a grant to an attempt."""
        held = self._held[attempt] = self._granted.pop(grant)
        held.attempt = attempt[1]

    def take_back(
        self,
        attempt: AttemptId,
        node_type: str,
        worker_id: str,
        instance_id: str,
        *,
        limit_path: str,
        key: str,
        age_s: float,
        is_decided: bool,
    ) -> None:
        """Account for an attempt that has been at its worker since before the execution was read back.

        Args:
            attempt: The attempt.
            node_type: The type of its node.
            worker_id: Its worker.
            instance_id: The worker's process.
            limit_path: The path of the innermost scope around it that has a limit; empty without one.
            key: Its concurrency key; empty without one.
            age_s: How long it has run.
            is_decided: Whether it has ended as far as the core knows, so that it holds only the worker's slot.
        """
        request = PermitRequest(
            self._namespace,
            self._execution_id,
            attempt[0],
            node_type,
            _NOWHERE,
            limit_path,
            trio.current_time(),
            self._on_grant,
            key,
        )
        grant = self._held[attempt] = self._allocator.take_back(request, worker_id, instance_id, age_s=age_s)
        grant.attempt = attempt[1]
        if is_decided:
            grant.release_engine()

    def holds(self, attempt: AttemptId) -> bool:
        """Whether an attempt holds anything."""
        return attempt in self._held

    def release_engine(self, attempt: AttemptId) -> None:
        """Return the engine's permits of an attempt. Idempotent."""
        grant = self._held.get(attempt)
        if grant is not None:
            grant.release_engine()
            self._forget_if_empty(attempt, grant)

    def release_slot(self, attempt: AttemptId) -> None:
        """Return the worker's slot of an attempt. Idempotent."""
        grant = self._held.get(attempt)
        if grant is not None:
            grant.release_slot()
            self._forget_if_empty(attempt, grant)

    # Inside.

    def _offer(self, offer: OfferNode) -> None:
        self._allocator.offer(
            PermitRequest(
                self._namespace,
                self._execution_id,
                offer.node_path,
                offer.type,
                offer.places,
                offer.scope_limits[-1] if offer.scope_limits else "",
                trio.current_time(),
                self._on_grant,
                offer.key,
            )
        )

    def _on_grant(self, grant: Grant) -> None:
        worker = grant.worker
        assert worker is not None  # a fresh grant has its worker
        self._grants += 1
        self._granted[self._grants] = grant
        self._post(
            Granted(grant.node_path, self._grants, worker.worker_id, worker.instance_id, grant.queue_s)
        )

    def _forget_if_empty(self, attempt: AttemptId, grant: Grant) -> None:
        if grant.is_empty:
            del self._held[attempt]
