"""A server with tokens, and calls of any of its methods by any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from plait.v1 import worker_hub_service_pb2
from plait_server.adapters.access.tokens_file import Entry, locked, new_entry, write_entries
from plait_server.api.methods import SERVICES
from plait_server.api.roles import ACCESS, Scope
from plait_server.ports.access import Role
from tests.end_to_end.service import CALL_S, Refusal, read_refusal

OWN, OTHER = "shop", "lab"
NOBODY, SERVER_WIDE = "nobody", "server-wide"
BRIEF = "brief"
"""A worker whose token is revoked."""
DESCRIPTORS = {
    f"/{service.full_name}/{method.name}": method
    for service in SERVICES.values()
    for method in service.methods
}
LET_IN = Refusal(code=grpc.StatusCode.OK, message="")


class Guarded:
    """A server with a token for each role."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self.tokens: dict[str, str] = {}
        entries = [self._entry(role.value, {OWN: frozenset({role})}) for role in Role]
        entries.append(self._entry(BRIEF, {OWN: frozenset({Role.WORK})}))
        entries.append(self._entry(SERVER_WIDE, {"*": frozenset({Role.ADMIN})}))
        self.write(entries)

    def _entry(self, name: str, roles: Mapping[str, frozenset[Role]]) -> Entry:
        entry, self.tokens[name] = new_entry(name=name, roles=roles, now_s=0)
        return entry

    def write(self, entries: list[Entry]) -> None:
        with locked(self.path):
            write_entries(self.path, entries)


def call(channel: grpc.Channel, path: str, request: bytes, token: str | None) -> Refusal:
    """Call any method as far as to know whether the call was let in."""
    metadata = [("authorization", f"Bearer {token}")] if token is not None else []
    stub = cast("Any", channel).stream_stream(path)
    answers = stub(iter([request]), timeout=CALL_S, metadata=metadata)
    try:
        next(answers)
    except StopIteration:
        return LET_IN
    except grpc.RpcError as error:
        return read_refusal(error)
    finally:
        answers.cancel()
    return LET_IN


def request_of(path: str, namespace: str, worker_id: str = "w") -> bytes:
    """Return a request that names a namespace, and otherwise as little as may be."""
    if path.endswith("/Attach"):
        hello = worker_hub_service_pb2.Hello(
            protocol_version=1,
            worker_id=worker_id,
            instance_id=f"of-{worker_id}",
            namespace=namespace,
            slots=1,
        )
        hello.types.add(type="t")
        message = worker_hub_service_pb2.WorkerMessage(hello=hello)
        return worker_hub_service_pb2.AttachRequest(messages=[message]).SerializeToString()
    if path in DESCRIPTORS:
        request = message_factory.GetMessageClass(DESCRIPTORS[path].input_type)()
        if ACCESS[path].scope not in (Scope.ANYWHERE, Scope.SERVER):
            set_text(request, ACCESS[path].field, namespace)
        return request.SerializeToString()
    if path.endswith("/ServerReflectionInfo"):
        return reflection_pb2.ServerReflectionRequest(list_services="*").SerializeToString()
    return health_pb2.HealthCheckRequest().SerializeToString()


def set_text(message: Message, path: str, text: str) -> None:
    *outer, last = path.split(".")
    for name in outer:
        message = getattr(message, name)
    setattr(message, last, text)
