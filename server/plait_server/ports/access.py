"""The access port: who calls, and what they may do where.

An identity comes from an entry of the tokens file, found by the secret of a token or by a name in a client's
certificate. An identity is a value: whether it still counts is asked again (`renew`), because entries are
revoked, changed and expire while calls run.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

EVERY_NAMESPACE: Final = "*"
"""In an identity's roles: all namespaces, and the server itself."""


class Role(enum.Enum):
    """What an identity may do in a namespace."""

    READ = "read"
    """See executions, nodes, events, logs, workers and limits."""
    SUBMIT = "submit"
    """Submit graphs, and read."""
    OPERATE = "operate"
    """Pause, cancel, update and delete executions, change limits, and read."""
    WORK = "work"
    """Attach workers, and fetch the payloads of their attempts."""
    ADMIN = "admin"
    """Everything, settings and audits included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller who was recognized."""

    id: str
    """The id of the entry; unique in its file."""
    name: str
    """The name for people."""
    proof: str
    """What the entry recognizes callers by: the hash of a secret, or a name in a certificate."""
    roles: Mapping[str, frozenset[Role]]
    """The roles by namespace; EVERY_NAMESPACE stands for all."""
    expires_s: float | None
    """Wall time from which the entry no longer counts; None: never."""

    def roles_in(self, namespace: str) -> frozenset[Role]:
        """Return the roles in a namespace, or with EVERY_NAMESPACE those in all."""
        everywhere = self.roles.get(EVERY_NAMESPACE, frozenset())
        return everywhere | self.roles.get(namespace, frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a caller shows."""

    token: str | None = field(default=None, repr=False)
    """The token, not yet checked; None without one."""
    certificate_names: tuple[str, ...] = ()
    """The subject alternative names of the client's certificate, which the transport has verified."""


NO_CREDENTIALS: Final = Credentials()


class Authenticator(Protocol):
    """Recognizes callers."""

    def identify(self, credentials: Credentials) -> Identity:
        """Return whose credentials these are.

        Raises:
            Unauthenticated: They are missing, unknown, revoked or expired.
        """
        ...

    def renew(self, identity: Identity) -> Identity:
        """Return an identity as it is now: its roles may have changed.

        Raises:
            Unauthenticated: It was revoked or has expired.
        """
        ...

    def refresh(self) -> bool:
        """Read the entries again if they have changed; return whether an identity may have ended or changed."""
        ...
