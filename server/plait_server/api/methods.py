"""The methods of the service: which trio function serves which RPC, for every transport.

A unary function takes (request, call) and returns a message, or bytes that are one; a server stream takes
(request, call, send); a bidirectional one (call, receive, send). The table is built from the descriptors, so
a missing function is found when the server starts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from plait.v1 import (
    audit_service_pb2,
    execution_service_pb2,
    graph_service_pb2,
    insight_service_pb2,
    limit_service_pb2,
    namespace_service_pb2,
    system_service_pb2,
    worker_hub_service_pb2,
)
from plait_server.api.roles import Access, access_to
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, KIB, MESSAGE_BYTES_MAX
from plait_server.errors import FieldViolation, InvalidRequest, TooLarge

SERVICES: Final[Mapping[str, ServiceDescriptor]] = {
    "graph": graph_service_pb2.DESCRIPTOR.services_by_name["GraphService"],
    "execution": execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"],
    "insight": insight_service_pb2.DESCRIPTOR.services_by_name["InsightService"],
    "limit": limit_service_pb2.DESCRIPTOR.services_by_name["LimitService"],
    "namespace": namespace_service_pb2.DESCRIPTOR.services_by_name["NamespaceService"],
    "audit": audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
    "worker_hub": worker_hub_service_pb2.DESCRIPTOR.services_by_name["WorkerHubService"],
    "system": system_service_pb2.DESCRIPTOR.services_by_name["SystemService"],
}

_CARRY_GRAPHS: Final = frozenset({"SubmitGraph", "ValidateGraph", "PlanGraph"})
PARSED_BYTES_MAX: Final = 64 * KIB
"""The size up to which requests with a graph are parsed on the event loop, where even hostile ones take only some
5 ms. Larger ones are passed to their function as bytes."""
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")


class MethodKind(enum.Enum):
    """Which directions have a stream of messages."""

    UNARY = "UNARY"
    SERVER_STREAM = "SERVER_STREAM"
    BIDI_STREAM = "BIDI_STREAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One RPC and the function that serves it."""

    path: str
    """The full name, such as `/plait.v1.ExecutionService/SubmitGraph`."""
    kind: MethodKind
    request_type: type[Message]
    request_bytes_max: int
    parsed_bytes_max: int
    """Larger requests are not parsed here, but passed to the function as bytes."""
    access: Access
    """Who may call it."""
    function: Callable[..., Awaitable[Message | bytes | None]]

    def read(self, content: bytes) -> Message | bytes:
        """Parse the one request of a call, or return its bytes if it is too large to be parsed on the event loop.

        Raises:
            TooLarge: The request is larger than its method allows.
            InvalidRequest: The bytes are not such a message.
        """
        if self.parsed_bytes_max < len(content) <= self.request_bytes_max:
            return content
        return self.parse(content)

    def parse(self, content: bytes) -> Message:
        """Parse a request.

        Raises:
            TooLarge: The request is larger than its method allows.
            InvalidRequest: The bytes are not such a message.
        """
        if len(content) > self.request_bytes_max:
            text = (
                f"the request is {len(content)} bytes, over the limit of {self.request_bytes_max}; "
                "send less, or addresses in place of content"
            )
            raise TooLarge(text, size=len(content), limit=self.request_bytes_max)
        try:
            return self.request_type.FromString(content)
        except DecodeError as error:
            name = self.request_type.DESCRIPTOR.full_name
            violation = FieldViolation(
                field="request", message=f"is not a valid {name}; is its client up to date?"
            )
            raise InvalidRequest([violation]) from error


def methods_of(servicers: Mapping[str, Sequence[object]]) -> list[Method]:
    """Build the table.

    Args:
        servicers: The objects that serve each service together, by the names of `SERVICES`.

    Raises:
        LookupError: A method has no row in the table of roles, or not exactly one object that serves it.
    """
    return [
        _method(servicers[name], service.full_name, descriptor)
        for name, service in SERVICES.items()
        for descriptor in service.methods
    ]


def _method(servicers: Sequence[object], service: str, descriptor: MethodDescriptor) -> Method:
    kind = MethodKind.UNARY
    if descriptor.client_streaming:
        kind = MethodKind.BIDI_STREAM
    elif descriptor.server_streaming:
        kind = MethodKind.SERVER_STREAM
    carries_graph = descriptor.name in _CARRY_GRAPHS
    path = f"/{service}/{descriptor.name}"
    name = _CAPITAL.sub("_", descriptor.name).lower()
    serving = [servicer for servicer in servicers if hasattr(servicer, name)]
    if len(serving) != 1:
        message = f"{len(serving)} objects serve {service}/{descriptor.name}; please report this"
        raise LookupError(message)
    return Method(
        path=path,
        kind=kind,
        request_type=message_factory.GetMessageClass(descriptor.input_type),
        request_bytes_max=GRAPH_MESSAGE_BYTES_MAX if carries_graph else MESSAGE_BYTES_MAX,
        parsed_bytes_max=PARSED_BYTES_MAX if carries_graph else MESSAGE_BYTES_MAX,
        access=access_to(path),
        function=getattr(serving[0], name),
    )
