"""Access: who calls, and whether they may. `grpc_server` asks here before the function of a method runs.

The order of a call:

1. `AccessControl.open` begins, before anything of the request is read.
2. `Admission.authenticate` recognizes the caller, or refuses.
3. The request is parsed. `Admission.admit` looks up its namespace in the field that the table of roles names,
   and refuses whoever lacks the role there. Whether the things that a request names exist is not looked at, so a
   refusal shows nothing of them. A worker's stream is admitted by its `hello`, the first message (`admit_namespace`).
4. While the call runs it may lose its access: the entry is revoked, changed, or expires. `check` is asked
   at each change of the tokens file, and the call is ended with what it returns.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, assert_never

import trio
from google.protobuf.message import DecodeError, Message

from plait_server.api.call import Principal
from plait_server.api.checks import DEFAULT_NAMESPACE
from plait_server.api.failed_tries import Allowance, host_of
from plait_server.api.methods import Method
from plait_server.api.roles import Access, Scope
from plait_server.core.limits import ID_PATTERN
from plait_server.encoding.last_text import last_text
from plait_server.errors import (
    FieldViolation,
    InvalidRequest,
    InvariantViolated,
    PermissionDenied,
    PlaitError,
    TooManyFailures,
    Unauthenticated,
)
from plait_server.ports.access import EVERY_NAMESPACE, Authenticator, Credentials, Identity

logger = logging.getLogger(__name__)

REFRESH_S: Final = 2.0
"""How often the tokens file is looked at, in seconds. Calls of revoked tokens end that late."""
RECORDS_BURST: Final = 100
RECORDS_RATE: Final = 1.0
"""Refusals that are recorded, of all callers together: so many at once, and so many a second. At most 20 MB a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that was refused for want of credentials or of a role."""

    peer: str
    principal: Principal
    """The caller as far as known: unverified if the credentials were not good."""
    method: str
    namespace: str
    """The namespace that was asked for; empty if it is none, or the call did not come so far."""
    error: PlaitError


def log_refusal(refusal: Refusal) -> None:
    """Record a refusal in the log."""
    name = refusal.principal.name
    who = refusal.peer if name == refusal.peer else f"{name} ({refusal.peer})"
    logger.warning("refused %s by %s: %s", refusal.method, who, refusal.error)


class AccessControl:
    """Recognizes callers and admits their calls.

    Args:
        authenticator: Recognizes callers; None: everyone may do everything.
        on_refusal: Records a refusal; called at a bounded rate.
    """

    def __init__(
        self, authenticator: Authenticator | None, on_refusal: Callable[[Refusal], None] = log_refusal
    ) -> None:
        self.authenticator: Final = authenticator
        """Recognizes callers; None: everyone may do everything."""
        self._on_refusal = on_refusal
        self._failures = Allowance(trio.current_time)
        self._records = Allowance(trio.current_time, burst=RECORDS_BURST, rate=RECORDS_RATE)
        self._has_changed = False

    def open(self, method: Method, peer: str, credentials: Credentials) -> Admission:
        """Begin a call."""
        return Admission(self, method, peer, credentials)

    def identify(self, credentials: Credentials) -> Identity | None:
        """Return whose credentials these are; None if nobody is asked for any.

        Raises:
            Unauthenticated: They are missing, unknown, revoked or expired.
        """
        if self.authenticator is None:
            return None
        try:
            return self.authenticator.identify(credentials)
        except Unauthenticated:
            # A token may be used as soon as it was made.
            if not self.authenticator.refresh():
                raise
            self._has_changed = True
            return self.authenticator.identify(credentials)

    def refused(self, refusal: Refusal) -> PlaitError:
        """Record a refusal, unless too many were; return the error for the caller."""
        error = refusal.error
        if isinstance(error, Unauthenticated) and not self._failures.take(host_of(refusal.peer)):
            return TooManyFailures()
        if self._records.take(""):
            self._on_refusal(refusal)
        return error

    async def run(self, on_change: Callable[[], Awaitable[None]]) -> None:
        """Read the entries again when they change, until cancelled.

        Args:
            on_change: Called when an identity may have ended or changed.
        """
        while self.authenticator is not None:
            await trio.sleep(REFRESH_S)
            if self.authenticator.refresh() or self._has_changed:
                self._has_changed = False
                await on_change()


class Admission:
    """The admission of one call."""

    __slots__ = ("_control", "_credentials", "_identity", "_method", "_namespace", "_peer")

    def __init__(self, control: AccessControl, method: Method, peer: str, credentials: Credentials) -> None:
        self._control = control
        self._method = method
        self._peer = peer
        self._credentials = credentials
        self._identity: Identity | None = None
        self._namespace: str | None = None
        """The namespace in which the call was admitted; None before."""

    def __repr__(self) -> str:
        return f"<Admission {self._method.path} {self.principal.name} {self._namespace}>"

    @property
    def principal(self) -> Principal:
        """The caller: the identity's name, else the peer's address, which nobody verified."""
        if self._identity is None:
            return Principal(name=self._peer, is_verified=False)
        return Principal(name=self._identity.name, is_verified=True)

    def authenticate(self) -> None:
        """Recognize the caller.

        Raises:
            Unauthenticated: The credentials are missing, unknown, revoked or expired.
            TooManyFailures: They are, and were too often at this peer.
        """
        if self._method.access.scope is Scope.OPEN:
            return
        try:
            self._identity = self._control.identify(self._credentials)
        except Unauthenticated as error:
            raise self._refused(error, "") from None

    def admit(self, request: Message | bytes) -> None:
        """Admit the request of a call.

        Raises:
            PermissionDenied: The caller lacks the role.
            InvalidRequest: Its bytes are not those of a request.
        """
        if self._control.authenticator is None:
            return
        access = self._method.access
        match access.scope:
            case Scope.OPEN | Scope.ANYWHERE | Scope.HELLO:
                return
            case Scope.SERVER:
                namespace = EVERY_NAMESPACE
            case Scope.NAMESPACE:
                namespace = namespace_in(access, request, self._method) or DEFAULT_NAMESPACE
            case Scope.NAMESPACE_OR_SERVER:
                namespace = namespace_in(access, request, self._method) or EVERY_NAMESPACE
            case _:
                assert_never(access.scope)
        self.admit_namespace(namespace)

    def admit_namespace(self, namespace: str) -> None:
        """Admit a call in a namespace.

        Raises:
            PermissionDenied: The caller lacks the role there.
        """
        if self._identity is not None and (error := self._lack(self._identity, namespace)) is not None:
            raise self._refused(error, namespace)
        self._namespace = namespace

    def check_greeted(self) -> None:
        """Check that a stream that is admitted by its first message was, before anything is sent on it."""
        if self._method.access.scope is Scope.HELLO and self._namespace is None:
            raise InvariantViolated(f"{self._method.path} answers before its caller was admitted")

    def check(self) -> PlaitError | None:
        """Return why the call has to end now; None if it may go on."""
        authenticator, identity = self._control.authenticator, self._identity
        if authenticator is None or identity is None:
            return None
        try:
            self._identity = authenticator.renew(identity)
        except Unauthenticated as error:
            return error
        return None if self._namespace is None else self._lack(self._identity, self._namespace)

    def _lack(self, identity: Identity, namespace: str) -> PermissionDenied | None:
        """Return an error if an identity lacks the role in a namespace."""
        roles = self._method.access.roles
        # Not by `set.intersection`: the roles of the table are a tuple, in the order in which they are named.
        if not roles or any(role in identity.roles_in(namespace) for role in roles):
            return None
        needed = roles[0].value
        is_all = namespace == EVERY_NAMESPACE
        where = "all namespaces ('*')" if is_all else f"the namespace {namespace[:128]}"
        name = self._method.path.rpartition("/")[2]
        text = (
            f"{name} needs the role {needed} in {where}, which {identity.name} lacks; ask for a token with it"
        )
        return PermissionDenied(text, role=needed, namespace=namespace)

    def _refused(self, error: PlaitError, namespace: str) -> PlaitError:
        is_one = re.fullmatch(ID_PATTERN, namespace) is not None
        return self._control.refused(
            Refusal(
                peer=self._peer,
                principal=self.principal,
                method=self._method.path,
                namespace=namespace if is_one else "",
                error=error,
            )
        )


def namespace_in(access: Access, request: Message | bytes, method: Method) -> str:
    """Return the namespace that a request names; empty if it names none.

    Raises:
        InvalidRequest: The bytes are not those of a request, or have too many fields.
    """
    if isinstance(request, Message):
        value: object = attrgetter(access.field)(request)
        if not isinstance(value, str):
            raise InvariantViolated(f"{method.path} has no text {access.field}")
        return value
    # Requests with a graph are too large to be parsed here; all of them have the namespace at the top.
    number = method.request_type.DESCRIPTOR.fields_by_name[access.field].number
    try:
        return last_text(request, number)
    except DecodeError as error:
        message = f"{error}; is its client up to date?"
        raise InvalidRequest([FieldViolation(field="request", message=message)]) from None
