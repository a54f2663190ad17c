"""The one table of access: which roles each method needs, and where its request names the namespace.

`api/methods` takes each method's row from here when the server starts, so that a method without a row is found
then. `api/access` enforces the rows before a method's function runs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plait_server.ports.access import Role


class Scope(enum.Enum):
    """Where a caller needs the role."""

    OPEN = "open"
    """Nowhere: whoever reaches the server may call."""
    ANYWHERE = "anywhere"
    """Nowhere in particular: whoever is authenticated may call."""
    NAMESPACE = "namespace"
    """In the namespace that the request names."""
    NAMESPACE_OR_SERVER = "namespace or server"
    """In the namespace that the request names; in all if it names none, which means the server."""
    SERVER = "server"
    """In all namespaces."""
    HELLO = "hello"
    """In the namespace that the first message of the stream names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a method needs."""

    scope: Scope
    roles: tuple[Role, ...] = ()
    """Each of these suffices; the first is named to those who lack them."""
    field: str = "namespace"
    """The path of the request's field with the namespace."""


def _in_namespace(*roles: Role, field: str = "namespace") -> Access:
    return Access(scope=Scope.NAMESPACE, roles=(*roles, Role.ADMIN), field=field)


def _or_server(access: Access) -> Access:
    return Access(scope=Scope.NAMESPACE_OR_SERVER, roles=access.roles, field=access.field)


_READ: Final = _in_namespace(Role.READ, Role.SUBMIT, Role.OPERATE)
_SUBMIT: Final = _in_namespace(Role.SUBMIT)
_OPERATE: Final = _in_namespace(Role.OPERATE)
_ADMIN: Final = _in_namespace()
_OPEN: Final = Access(scope=Scope.OPEN)
_ANYWHERE: Final = Access(scope=Scope.ANYWHERE)

ACCESS: Final[Mapping[str, Access]] = {
    "/plait.v1.GraphService/ValidateGraph": _READ,
    "/plait.v1.GraphService/PlanGraph": _READ,
    "/plait.v1.ExecutionService/SubmitGraph": _SUBMIT,
    "/plait.v1.ExecutionService/GetExecution": _READ,
    "/plait.v1.ExecutionService/ListExecutions": _READ,
    "/plait.v1.ExecutionService/CountExecutions": _READ,
    "/plait.v1.ExecutionService/WatchExecutions": _READ,
    "/plait.v1.ExecutionService/ListNodes": _READ,
    "/plait.v1.ExecutionService/GetNode": _READ,
    # Workers fetch large inputs by their digest.
    "/plait.v1.ExecutionService/GetPayload": _in_namespace(Role.READ, Role.SUBMIT, Role.OPERATE, Role.WORK),
    "/plait.v1.ExecutionService/WaitExecution": _READ,
    "/plait.v1.ExecutionService/WatchExecution": _READ,
    "/plait.v1.ExecutionService/ReadLogs": _READ,
    "/plait.v1.ExecutionService/ListEvents": _READ,
    "/plait.v1.ExecutionService/DeleteExecution": _OPERATE,
    "/plait.v1.ExecutionService/CancelExecution": _OPERATE,
    "/plait.v1.ExecutionService/PauseExecution": _OPERATE,
    "/plait.v1.ExecutionService/ResumeExecution": _OPERATE,
    "/plait.v1.ExecutionService/UpdateExecution": _OPERATE,
    "/plait.v1.InsightService/ExportTrace": _READ,
    "/plait.v1.WorkerHubService/Attach": Access(scope=Scope.HELLO, roles=(Role.WORK, Role.ADMIN)),
    "/plait.v1.WorkerHubService/ListWorkers": _READ,
    # No namespace means the limits of all.
    "/plait.v1.LimitService/ListLimits": _or_server(_READ),
    "/plait.v1.LimitService/SetLimit": _or_server(_OPERATE),
    "/plait.v1.LimitService/RemoveLimit": _or_server(_OPERATE),
    "/plait.v1.NamespaceService/GetNamespace": _READ,
    # It tells the names of all.
    "/plait.v1.NamespaceService/ListNamespaces": Access(
        scope=Scope.SERVER, roles=(Role.READ, Role.SUBMIT, Role.OPERATE, Role.ADMIN)
    ),
    "/plait.v1.NamespaceService/UpdateNamespace": _ADMIN,
    # `*` for a namespace means the server.
    "/plait.v1.AuditService/ListAuditEntries": _ADMIN,
    "/plait.v1.SystemService/GetServerInfo": _ANYWHERE,
    # Probes have no credentials.
    "/grpc.health.v1.Health/Check": _OPEN,
    "/grpc.health.v1.Health/Watch": _OPEN,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _ANYWHERE,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _ANYWHERE,
}
"""A method's full name -> what it needs."""


def access_to(path: str) -> Access:
    """Return what a method needs.

    Raises:
        LookupError: The method has no row.
    """
    access = ACCESS.get(path)
    if access is None:
        raise LookupError(f"{path} has no row in api/roles.ACCESS, so nobody could be allowed to call it")
    return access
