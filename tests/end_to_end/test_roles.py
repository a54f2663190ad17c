"""Who may do what: every method, with every role, in the caller's namespace and in another's, over real gRPC.

What is looked at is only whether a call was let in: what it answers then is the business of other tests.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from typing import Any, cast

import grpc
import pytest

from plait.v1 import audit_service_pb2
from plait_server.adapters.access.tokens_file import read_entries
from plait_server.api.roles import ACCESS
from plait_server.ports.access import Role
from tests.end_to_end.guarding import (
    BRIEF,
    DESCRIPTORS,
    NOBODY,
    OTHER,
    OWN,
    SERVER_WIDE,
    Guarded,
    call,
    request_of,
)
from tests.end_to_end.processes import Server
from tests.end_to_end.service import CALL_S, Refusal, read_refusal, until

CALLERS = [*(role.value for role in Role), SERVER_WIDE, NOBODY]

# What each role may call in its namespace. It says again what `ACCESS` says, the other way round.
READING = {
    *("ValidateGraph", "PlanGraph", "GetExecution", "ListExecutions", "ListNodes", "GetNode", "GetPayload"),
    *("WaitExecution", "WatchExecution", "ListEvents", "ExportTrace", "ListWorkers", "GetNamespace"),
    *("CountExecutions", "WatchExecutions", "ReadLogs", "ListLimits"),
}
OPERATING = {"CancelExecution", "PauseExecution", "ResumeExecution", "UpdateExecution", "DeleteExecution"} | {
    *("SetLimit", "RemoveLimit"),
}
MAY: Mapping[str, set[str]] = {
    "read": READING,
    "submit": READING | {"SubmitGraph"},
    "operate": READING | OPERATING,
    "work": {"Attach", "GetPayload"},
    "admin": READING | OPERATING | {"SubmitGraph", "Attach", "ListAuditEntries", "UpdateNamespace"},
}
EVERYONE = {"Check", "Watch"}
ANYBODY_KNOWN = {"GetServerInfo", "ServerReflectionInfo"}
OF_THE_SERVER = {"ListNamespaces"}
"""What needs a role in all namespaces."""


@pytest.fixture(scope="module")
def channel(guarded_server: Server) -> Generator[grpc.Channel]:
    with grpc.insecure_channel(guarded_server.address) as channel:
        yield channel


def is_let_in(path: str, caller: str, namespace: str) -> bool:
    name = path.rpartition("/")[2]
    if name in EVERYONE and "Health" in path:
        return True
    if caller == NOBODY:
        return False
    if name in ANYBODY_KNOWN or caller == SERVER_WIDE:
        return True
    return namespace == OWN and name in MAY[caller]


@pytest.mark.parametrize("path", ACCESS, ids=str)
def test_each_role_is_let_in_where_it_may_and_nowhere_else(
    channel: grpc.Channel, guarded: Guarded, path: str
) -> None:
    name = path.rpartition("/")[2]
    for caller in CALLERS:
        for namespace in (OWN, OTHER):
            token = guarded.tokens.get(caller)
            found = call(channel, path, request_of(path, namespace, f"{caller}-{namespace}"), token)
            where = f"{caller} in {namespace}: {found}"
            if is_let_in(path, caller, namespace):
                assert found.reason not in ("UNAUTHENTICATED", "PERMISSION_DENIED"), where
            elif caller == NOBODY:
                # The failures of one host are limited.
                if found.reason == "OVERLOADED":
                    assert (found.code, found.retry_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 10), where
                else:
                    assert (found.code, found.reason) == (
                        grpc.StatusCode.UNAUTHENTICATED,
                        "UNAUTHENTICATED",
                    ), where
                    assert "PLAIT_TOKEN" in found.message, where
            else:
                needed = ACCESS[path].roles[0].value
                in_all = name in OF_THE_SERVER
                shown = "all namespaces ('*')" if in_all else f"the namespace {namespace}"
                assert found == Refusal(
                    code=grpc.StatusCode.PERMISSION_DENIED,
                    message=f"{name} needs the role {needed} in {shown}, which {caller} lacks; "
                    "ask for a token with it",
                    reason="PERMISSION_DENIED",
                    domain="plait.v1",
                    metadata={"role": needed, "namespace": "*" if in_all else namespace},
                ), where


def test_every_method_of_the_contract_is_walked() -> None:
    assert DESCRIPTORS.keys() <= ACCESS.keys()
    named = set[str]().union(*MAY.values(), ANYBODY_KNOWN, OF_THE_SERVER)
    assert {path.rpartition("/")[2] for path in DESCRIPTORS} <= named


def test_a_large_request_is_refused_by_its_bytes(channel: grpc.Channel, guarded: Guarded) -> None:
    """One that is parsed elsewhere is admitted before that."""
    path = "/plait.v1.ExecutionService/SubmitGraph"
    large = b"\x12\x82\x80\x08" + b"\x0a\xfe\xff\x07" + bytes(0x1FFFE)
    found = call(channel, path, request_of(path, OTHER) + large, guarded.tokens["submit"])
    assert found.reason == "PERMISSION_DENIED"
    found = call(channel, path, request_of(path, OWN) + large, guarded.tokens["submit"])
    assert found.reason not in ("UNAUTHENTICATED", "PERMISSION_DENIED")
    found = call(
        channel, path, request_of(path, OWN) + large + request_of(path, OTHER), guarded.tokens["submit"]
    )
    assert found.reason == "PERMISSION_DENIED", "the last namespace counts"


def test_refused_calls_are_in_the_audit(channel: grpc.Channel, guarded: Guarded) -> None:
    """Of whom, as far as is known; those without good credentials belong to no namespace."""
    path = "/plait.v1.ExecutionService/CancelExecution"
    assert call(channel, path, request_of(path, OTHER), guarded.tokens["read"]).reason == "PERMISSION_DENIED"
    call(channel, path, request_of(path, OTHER), None)
    list_audit = channel.unary_unary(
        "/plait.v1.AuditService/ListAuditEntries",
        request_serializer=audit_service_pb2.ListAuditEntriesRequest.SerializeToString,
        response_deserializer=audit_service_pb2.ListAuditEntriesResponse.FromString,
    )
    metadata = (("authorization", f"Bearer {guarded.tokens[SERVER_WIDE]}"),)
    found: dict[str, list[audit_service_pb2.AuditEntry]] = {}

    def is_recorded() -> bool:
        for namespace in (OTHER, "*"):
            request = audit_service_pb2.ListAuditEntriesRequest(namespace=namespace)
            found[namespace] = list(list_audit(request, timeout=CALL_S, metadata=metadata).entries)
        return all(found.values())

    until(is_recorded)
    denied, failed = found[OTHER][0], found["*"][0]
    assert denied.outcome == failed.outcome == audit_service_pb2.AUDIT_OUTCOME_REFUSED
    assert (denied.principal, denied.verified) == ("read", True)
    assert '"reason":"PERMISSION_DENIED"' in denied.detail_json
    assert failed.principal.startswith("ipv4:127.0.0.1:")
    assert not failed.verified
    assert '"reason":"UNAUTHENTICATED"' in failed.detail_json


def test_streams_end_when_their_token_is_revoked(channel: grpc.Channel, guarded: Guarded) -> None:
    """With the reason; those of others go on."""
    over = threading.Event()

    def attach(caller: str) -> Any:  # noqa: ANN401 # gRPC's call
        path = "/plait.v1.WorkerHubService/Attach"

        def requests() -> Generator[bytes]:
            yield request_of(path, OWN, f"long-{caller}")
            over.wait()

        metadata = [("authorization", f"Bearer {guarded.tokens[caller]}")]
        stub = cast("Any", channel).stream_stream(path)
        answers = stub(requests(), timeout=CALL_S, metadata=metadata)
        next(answers)
        return answers

    revoked, kept = attach(BRIEF), attach("work")
    guarded.write([each for each in read_entries(guarded.path) if each.name != BRIEF])
    with pytest.raises(grpc.RpcError) as raised:
        list(revoked)
    found = read_refusal(raised.value)
    assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert f"the access of {BRIEF} was revoked" in found.message
    assert kept.is_active()
    kept.cancel()
    over.set()


def test_no_token_is_written_anywhere(
    channel: grpc.Channel, guarded: Guarded, guarded_server: Server
) -> None:
    """Canary: neither good nor bad tokens are in logs, answers or errors."""
    bad = f"plait_{'0' * 12}_{'c' * 43}"
    answers = [
        str(call(channel, path, request_of(path, OTHER), token))
        for path in DESCRIPTORS
        for token in (guarded.tokens["read"], guarded.tokens["admin"], bad, f"Basic {bad}")
    ]
    said = "".join([*answers, guarded_server.stderr()])
    assert "refused /plait.v1." in said
    for secret in [bad, *guarded.tokens.values()]:
        assert secret[-20:] not in said
