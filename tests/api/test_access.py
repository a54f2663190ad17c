"""Access: the table of roles, and how a call is admitted by it. What callers see is in end_to_end/test_roles.py."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from plait.v1 import execution_service_pb2, limit_service_pb2, worker_hub_service_pb2
from plait_server.api.access import AccessControl, Refusal, log_refusal
from plait_server.api.call import Principal
from plait_server.api.failed_tries import BURST, PEERS_MAX, Allowance, host_of
from plait_server.api.grpc_server import standard_methods
from plait_server.api.health import HealthServicer
from plait_server.api.methods import SERVICES, Method, methods_of
from plait_server.api.roles import ACCESS, Scope, access_to
from plait_server.errors import (
    InvalidRequest,
    InvariantViolated,
    PermissionDenied,
    TooManyFailures,
    Unauthenticated,
)
from plait_server.ports.access import Credentials, Identity, Role


class Servicer:
    """Has every method that is asked for."""

    def __getattr__(self, name: str) -> object:
        async def serve(*_: object) -> None:
            raise AssertionError(name)

        return serve


METHODS: Mapping[str, Method] = {
    method.path.rpartition("/")[2]: method
    for method in [
        *methods_of({name: [Servicer()] for name in SERVICES}),
        *standard_methods(HealthServicer()),
    ]
}
PEER = "ipv4:10.0.0.1:4711"


class OneToken:
    """Knows one token."""

    def __init__(self, **roles: frozenset[Role]) -> None:
        self.identity: Identity | None = Identity(
            id="1", name="ci", proof="", roles={"shop": frozenset({Role.SUBMIT})} | roles, expires_s=None
        )
        self.has_changed = False

    def identify(self, credentials: Credentials) -> Identity:
        if credentials.token != "good" or self.identity is None:
            raise Unauthenticated("who?")
        return self.identity

    def renew(self, identity: Identity) -> Identity:
        if self.identity is None:
            raise Unauthenticated("revoked")
        return self.identity

    def refresh(self) -> bool:
        return self.has_changed


def submit(namespace: str) -> execution_service_pb2.SubmitGraphRequest:
    return execution_service_pb2.SubmitGraphRequest(namespace=namespace)


# The table.


def test_the_table_has_every_method_and_no_other() -> None:
    standard = {method.path for method in standard_methods(HealthServicer())}
    ours = {
        f"/{service.full_name}/{method.name}" for service in SERVICES.values() for method in service.methods
    }
    assert ACCESS.keys() == standard | ours


def test_a_method_without_a_row_is_found_at_the_start() -> None:
    with pytest.raises(LookupError, match=r"/plait\.v1\.New/Method has no row"):
        access_to("/plait.v1.New/Method")


@pytest.mark.parametrize("path", ACCESS, ids=str)
def test_whoever_may_do_more_may_do_what_less_may(path: str) -> None:
    access = ACCESS[path]
    if access.scope in (Scope.OPEN, Scope.ANYWHERE):
        assert access.roles == ()
        return
    assert Role.ADMIN in access.roles
    if Role.READ in access.roles:
        assert {Role.SUBMIT, Role.OPERATE} <= set(access.roles)


@pytest.mark.parametrize("name", METHODS, ids=str)
def test_the_namespace_stands_once_in_a_request(name: str) -> None:
    """FAILURES, security: an outer namespace must not be authorized for an inner one that is used."""
    method = METHODS[name]
    fields = [
        ".".join(path)
        for path in text_fields(method.request_type.DESCRIPTOR)
        if path[-1].endswith("namespace") and "graph" not in path
    ]
    if method.access.scope in (Scope.NAMESPACE, Scope.NAMESPACE_OR_SERVER):
        assert fields == [method.access.field]
    elif method.access.scope is Scope.HELLO:
        assert fields == ["messages.hello.namespace"]
    else:
        assert fields == []


def text_fields(descriptor: object, depth: int = 6) -> list[tuple[str, ...]]:
    """Return the paths of the text fields of a message, messages in it included."""
    found: list[tuple[str, ...]] = []
    for field in getattr(descriptor, "fields"):  # noqa: B009 # descriptors have no types
        if field.message_type is not None and depth:
            found += [(field.name, *rest) for rest in text_fields(field.message_type, depth - 1)]
        elif field.type == field.TYPE_STRING:
            found.append((field.name,))
    return found


# Admission.


async def test_without_an_authenticator_everyone_may_do_everything() -> None:
    admission = AccessControl(None).open(METHODS["SubmitGraph"], PEER, Credentials(token="what"))
    admission.authenticate()
    admission.admit(submit("shop"))
    admission.admit(b"\xff")
    assert (admission.principal.name, admission.principal.is_verified) == (PEER, False)
    assert admission.check() is None


async def test_the_roles_of_the_namespace_decide() -> None:
    told: list[Refusal] = []
    control = AccessControl(OneToken(), told.append)
    admission = control.open(METHODS["SubmitGraph"], PEER, Credentials(token="good"))
    admission.authenticate()
    assert (admission.principal.name, admission.principal.is_verified) == ("ci", True)
    admission.admit(submit("shop"))
    with pytest.raises(PermissionDenied) as raised:
        admission.admit(submit(""))
    assert str(raised.value) == (
        "SubmitGraph needs the role submit in the namespace default, which ci lacks; ask for a token with it"
    )
    assert raised.value.fields == {"role": "submit", "namespace": "default"}
    (refusal,) = told
    assert (refusal.principal.name, refusal.namespace, refusal.error) == ("ci", "default", raised.value)


async def test_a_role_everywhere_is_one_in_each_namespace() -> None:
    control = AccessControl(OneToken(**{"*": frozenset({Role.READ})}))
    admission = control.open(METHODS["GetExecution"], PEER, Credentials(token="good"))
    admission.authenticate()
    admission.admit(execution_service_pb2.GetExecutionRequest(namespace="any"))


async def test_a_namespace_named_like_all_gives_nothing() -> None:
    control = AccessControl(OneToken())
    admission = control.open(METHODS["SubmitGraph"], PEER, Credentials(token="good"))
    admission.authenticate()
    with pytest.raises(PermissionDenied):
        admission.admit(submit("*"))


async def test_what_belongs_to_the_server_needs_the_role_everywhere() -> None:
    """A limit without a namespace binds all of them."""
    request = limit_service_pb2.SetLimitRequest(kind=limit_service_pb2.LIMIT_KIND_SERVER, max_concurrency=1)
    operate = frozenset({Role.OPERATE})
    for roles, may in (({"default": operate, "shop": operate}, False), ({"*": operate}, True)):
        admission = AccessControl(OneToken(**roles)).open(
            METHODS["SetLimit"], PEER, Credentials(token="good")
        )
        admission.authenticate()
        if may:
            admission.admit(request)
            continue
        with pytest.raises(
            PermissionDenied, match=r"the role operate in all namespaces \('\*'\), which ci lacks"
        ):
            admission.admit(request)
        request.namespace = "shop"
        admission.admit(request)
        request.namespace = ""


async def test_a_large_request_is_admitted_by_its_bytes() -> None:
    control = AccessControl(OneToken())
    admission = control.open(METHODS["SubmitGraph"], PEER, Credentials(token="good"))
    admission.authenticate()
    admission.admit(submit("shop").SerializeToString())
    with pytest.raises(PermissionDenied):
        admission.admit(submit("shop").SerializeToString() + submit("other").SerializeToString())
    with pytest.raises(InvalidRequest, match="more than 1000 fields; is its client up to date"):
        admission.admit(b"\x08\x01" * 1_001)


async def test_a_stream_answers_only_after_its_first_message_was_admitted() -> None:
    control = AccessControl(OneToken(shop=frozenset({Role.WORK})))
    admission = control.open(METHODS["Attach"], PEER, Credentials(token="good"))
    admission.authenticate()
    admission.admit(worker_hub_service_pb2.AttachRequest())
    with pytest.raises(InvariantViolated):
        admission.check_greeted()
    with pytest.raises(PermissionDenied):
        admission.admit_namespace("other")
    admission.admit_namespace("shop")
    admission.check_greeted()


async def test_a_call_ends_when_its_access_does() -> None:
    tokens = OneToken()
    control = AccessControl(tokens)
    admission = control.open(METHODS["SubmitGraph"], PEER, Credentials(token="good"))
    admission.authenticate()
    admission.admit(submit("shop"))
    assert admission.check() is None
    tokens.identity = Identity(
        id="1", name="ci", proof="", roles={"shop": frozenset({Role.READ})}, expires_s=None
    )
    assert isinstance(admission.check(), PermissionDenied)
    tokens.identity = None
    assert isinstance(admission.check(), Unauthenticated)


async def test_a_new_token_counts_at_once(autojump_clock: trio.testing.MockClock) -> None:
    tokens = OneToken()
    good, tokens.identity = tokens.identity, None
    control = AccessControl(tokens)
    admission = control.open(METHODS["GetServerInfo"], PEER, Credentials(token="good"))

    def refresh() -> bool:
        is_new, tokens.identity = tokens.identity is None, good
        return is_new

    tokens.refresh = refresh  # type: ignore[method-assign] # the file changes meanwhile
    admission.authenticate()
    assert admission.principal.name == "ci"
    changes: list[None] = []

    async def note() -> None:
        await trio.lowlevel.checkpoint()
        changes.append(None)

    with trio.move_on_after(5):
        await control.run(note)
    assert len(changes) == 1, "open calls are looked at once, too"


# Failures.


async def test_failures_of_a_peer_are_limited(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Refusal] = []
    control = AccessControl(OneToken(), told.append)

    def fail(peer: str, token: str = "bad") -> None:
        control.open(METHODS["GetServerInfo"], peer, Credentials(token=token)).authenticate()

    for port in range(BURST):
        with pytest.raises(Unauthenticated):
            fail(f"ipv4:10.0.0.1:{port + 1}")
    with pytest.raises(TooManyFailures) as raised:
        fail(PEER)
    assert raised.value.retry_after_s
    assert len(told) == BURST
    assert told[0].principal.is_verified is False
    fail(PEER, "good")
    with pytest.raises(Unauthenticated):
        fail("ipv4:10.0.0.2:1")
    await trio.sleep(raised.value.retry_after_s)
    with pytest.raises(Unauthenticated):
        fail(PEER)


def test_an_allowance_remembers_a_bounded_number_of_keys() -> None:
    allowance = Allowance(lambda: 0.0, burst=1, rate=0)
    for number in range(PEERS_MAX + 1):
        assert allowance.take(str(number))
    assert not allowance.take(str(PEERS_MAX))
    assert allowance.take("0"), "it was forgotten"
    assert str(PEERS_MAX) in repr(allowance)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "2001:db8:1:2::/64"),
        ("ipv6:[::1]:4711", "::/64"),
        ("ipv6:what:1", "what"),
        ("unix:/tmp/x", "unix"),
    ],
)
def test_a_peer_is_its_host(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_the_log_names_an_unverified_caller_once(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("ipv6:[::1]:4711", "ci"):
        principal = Principal(name=name, is_verified=name == "ci")
        refusal = Refusal(
            peer="ipv6:[::1]:4711", principal=principal, method="M", namespace="", error=Unauthenticated("no")
        )
        log_refusal(refusal)
    assert caplog.messages == ["refused M by ipv6:[::1]:4711: no", "refused M by ci (ipv6:[::1]:4711): no"]
