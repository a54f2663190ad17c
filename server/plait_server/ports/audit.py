"""The records of an audit: who did what, and what came too late to change anything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An input that changed nothing but is kept: a stale result, a late receipt."""

    time_s: float
    """Wall time, seconds since 1970."""
    kind: str
    """Such as `STALE_RESULT` or `CANCEL_RECEIPT`."""
    node_path: str
    attempt: int
    worker_id: str
    detail: str
    """JSON text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecord:
    """Who did what: a mutation that was accepted, or a call that was refused."""

    time_s: float
    """Wall time, seconds since 1970."""
    principal: str
    """The name of the caller; the peer's address if it is not verified."""
    is_verified: bool
    """Whether a token or certificate proved the principal."""
    method: str
    """The gRPC method's short name, such as `CancelExecution`."""
    execution_id: str
    """Empty if it was not about one execution."""
    target: str
    """What else it was about, such as a node path or the name of a setting; empty if nothing."""
    detail: str
    """JSON text."""
    is_refused: bool = False
    """Whether the call was refused for want of authentication or of a role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An entry of the audit of a namespace."""

    position: int
    """Grows with every entry of the store; pages go on before it."""
    execution_id: str
    """Empty if it is not about one execution."""
    record: ActionRecord | AuditRecord | None
    """An action, or a record of an execution; None if it is damaged."""
