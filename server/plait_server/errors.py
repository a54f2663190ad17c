"""Errors, sorted by who must act. The docstring is the default message: what happened and what to do.

`api/error_table.py` maps every class to a gRPC code and a reason. A failure of a node's work is data
(`core.run.failures.Failure`), not an exception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast


class PlaitError(Exception):
    """Something went wrong."""

    retry_after_s: ClassVar[float | None] = None
    """Seconds after which the caller may retry; None if a retry does not help."""

    def __init__(self, message: str | None = None, **fields: object) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.fields: Mapping[str, object] = fields
        super().__init__(self.message)


# The caller must act.


class CallerError(PlaitError):
    """The request cannot be carried out as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """One thing wrong with a request."""

    field: str
    """Path of the field, such as `graph.edges[3].target`."""
    message: str
    """What is wrong and what to do."""


class InvalidRequest(CallerError):
    """A field of the request is missing or malformed."""

    def __init__(self, violations: Sequence[FieldViolation], message: str | None = None) -> None:
        self.violations = tuple(violations)
        super().__init__(message or "; ".join(f"{v.field}: {v.message}" for v in violations[:3]))


class InvalidGraph(InvalidRequest):
    """The graph is invalid."""

    def __init__(self, violations: Sequence[FieldViolation], count: int) -> None:
        self.count = count
        first = violations[0]
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(violations, f"the graph is invalid: {first.field}: {first.message}{more}")


class TooLarge(CallerError):
    """The message or payload is larger than its limit."""


class TooCostly(CallerError):
    """To read the request takes more time or memory than one may have. Send a smaller graph."""


class ExecutionNotFound(CallerError):
    """No execution has this id in this namespace. It may have been deleted; `plait list` shows what there is."""


class NodeNotFound(CallerError):
    """The execution has no node of this path. `plait nodes` lists them."""


class PayloadNotFound(CallerError):
    """No payload of this digest is kept in this namespace."""


class LimitNotFound(CallerError):
    """No call has set this limit. `plait limits` shows the limits, and where each comes from."""


class Unauthenticated(CallerError):
    """The caller is not known here. Make a token with `plait token create`, and pass it in PLAIT_TOKEN."""


class PermissionDenied(CallerError):
    """The caller lacks the role that this call needs. Ask whoever runs the server for it."""


class RequestIdReused(CallerError):
    """The request id was used with other content. Use a new one for a new request."""


class ExecutionExists(CallerError):
    """The execution id is taken. Choose another, or leave it empty to get one."""


class ExecutionOver(CallerError):
    """The execution has ended, or is being cancelled. Only an open one can be paused, resumed or updated."""


class ExecutionNotEnded(CallerError):
    """The execution has not ended, so it cannot be deleted. Cancel it first, and wait for its end."""


class ExecutionNotPaused(CallerError):
    """The execution is not paused, so it cannot be resumed. Pause it first, or read its state again."""


class EtagMismatch(CallerError):
    """The settings of the execution were changed since they were read. Read them again, and decide anew."""


class InvalidPageToken(CallerError):
    """The page token is not one that this list gave. Begin again without one."""


class InvalidFilter(InvalidRequest):
    """The filter cannot be read."""

    def __init__(self, violations: Sequence[FieldViolation], position: int = 0) -> None:
        self.position = position
        super().__init__(violations)


class InvalidWatchToken(CallerError):
    """The watch token is not one that a watch of this namespace with this filter gave. Watch again without one."""


class WatchTokenExpired(CallerError):
    """The watch token is too old: deletions after it are no longer known. List the executions, and watch anew."""


class SequenceOutOfRange(CallerError):
    """The sequence lies beyond the newest event. Resume after one that was received."""


class QueueFull(CallerError):
    """The queue of the namespace is full, and nothing was accepted. Try again later."""

    retry_after_s = 5.0


class ProtocolVersionUnsupported(CallerError):
    """The worker speaks another protocol version. Upgrade the older side."""


class ProtocolViolation(CallerError):
    """The worker broke the Attach protocol."""


class WorkerIdInUse(CallerError):
    """Another process serves under this worker id. Stop it, or give this worker an id of its own."""

    retry_after_s = 5.0


class ServiceUnknown(CallerError):
    """The server has no service of this name. Ask its reflection which there are."""


class SlowConsumer(CallerError):
    """The stream was read too slowly. A watcher resumes after the last sequence received; a worker attaches again."""

    retry_after_s = 1.0


class LeaseExpired(CallerError):
    """The worker answered no ping for a whole lease, and what it held is lost. Attach again."""

    retry_after_s = 1.0


class InstanceReplaced(CallerError):
    """Another instance has the worker id now, since this one did not answer; what it held is lost. Attach again."""

    retry_after_s = 1.0


class StreamReplaced(CallerError):
    """The same instance has opened another stream, which replaces this one. Go on with that."""


# The environment must change.


class EnvironmentFault(PlaitError):
    """Something around the server does not work."""


class JournalUnavailable(EnvironmentFault):
    """The store could not be written or read. Nothing was answered; try again with the same request id."""

    retry_after_s = 1.0


class JournalFull(EnvironmentFault):
    """The store's disk is full, and nothing was written. Free space; the server goes on by itself."""

    retry_after_s = 5.0


class StoreLocked(EnvironmentFault):
    """Another server uses this store. Stop it, or name another store."""


class StoreMissing(EnvironmentFault):
    """There is no store at this path. Pass --create to make one, or name the one that there is."""


class StoreExists(CallerError):
    """There is something where the copy of a store shall be made. Name a path where there is nothing."""


class BackupFailed(EnvironmentFault):
    """The backup could not be made. Run the command again."""


class StoreLost(EnvironmentFault):
    """The store was deleted, moved or replaced under the server. Put its files back, and start the server again."""


class StoreTooNew(EnvironmentFault):
    """The store was written by a newer version of Plait. Upgrade Plait, or name another store."""


class StoreTooOld(EnvironmentFault):
    """The store was written by an older version of Plait. Finish its executions with that, or name another store."""


class StoreDamaged(EnvironmentFault):
    """The store is damaged. `plait store check` shows what, `plait store salvage` saves what is whole."""


class EventDamaged(EnvironmentFault):
    """Something that is stored of this execution is damaged. The execution is quarantined; others go on."""


class Overloaded(EnvironmentFault):
    """Too much is going on. Try again later."""

    retry_after_s = 1.0


class TooManyFailures(EnvironmentFault):
    """Too many calls from this address failed to authenticate. Correct the credentials, then try again later."""

    retry_after_s = 10.0


class ShuttingDown(EnvironmentFault):
    """The server shuts down. Try again."""

    retry_after_s = 1.0


class AddressInUse(EnvironmentFault):
    """The address to listen on is taken. Stop what uses it, or choose another with --listen."""


class InvalidAddress(EnvironmentFault):
    """The address to listen on is not HOST:PORT."""


class InsecureAddress(EnvironmentFault):
    """Other machines reach the address, and calls are not protected. Set TLS and tokens up, or pass --insecure."""


class InvalidTokensFile(EnvironmentFault):
    """The tokens file is missing or wrong. Correct it, or make a new one with `plait token create`."""


class InvalidTlsFiles(EnvironmentFault):
    """A file of TLS is missing or wrong. Correct it, or name another."""


# Plait itself is wrong.


class InvariantViolated(PlaitError):
    """Plait has a bug. Please report it, with what is in the server's log."""


def leaves_of(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the exceptions of a group, those of groups within it included, in order."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            leaves += leaves_of(cast("BaseExceptionGroup[BaseException]", error))
        else:
            leaves.append(error)
    return leaves
