"""Recognizes callers by the entries of a tokens file, which is read again when it changes."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from plait_server.adapters.access.tokens_file import Entry, hash_of, read_entries, split_token
from plait_server.errors import InvalidTokensFile, Unauthenticated
from plait_server.ports.access import Credentials, Identity

logger = logging.getLogger(__name__)

_NO_HASH: Final = "0" * 64
"""Compared with when there is no entry of an id, so that unknown ids cost what known ones do."""
_REMEDY: Final = "make one with `plait token create`, and pass it in PLAIT_TOKEN or PLAIT_TOKEN_FILE"


class FileAuthenticator:
    """An authenticator with the entries of a file.

    While the file is missing or wrong the last good entries stand, so that a slip of the editor locks nobody out.

    Args:
        path: The file.
        now_s: Returns the wall time.

    Raises:
        InvalidTokensFile: The file is missing or wrong.
    """

    def __init__(self, path: Path, now_s: Callable[[], float]) -> None:
        self._path = path
        self._now_s = now_s
        self._stamp = _stamp(path)
        self._next_end_s = 0.0
        self._tokens: dict[str, Identity] = {}
        """By the id in the token."""
        self._certificates: dict[str, Identity] = {}
        """By the name in the certificate."""
        self._take(read_entries(path))

    def __repr__(self) -> str:
        counts = f"{len(self._tokens)} tokens, {len(self._certificates)} certificates"
        return f"<FileAuthenticator {self._path}: {counts}>"

    def identify(self, credentials: Credentials) -> Identity:
        """Return whose credentials these are; a token counts before a certificate.

        Raises:
            Unauthenticated: They are missing, unknown, revoked or expired.
        """
        if credentials.token is not None:
            return self._unexpired(self._of_token(credentials.token))
        for name in credentials.certificate_names:
            if name in self._certificates:
                return self._unexpired(self._certificates[name])
        if credentials.certificate_names:
            shown = ", ".join(credentials.certificate_names)[:200]
            raise Unauthenticated(
                f"no entry is for a certificate of {shown}, and no token came with the call; add one with "
                "`plait token create --certificate NAME`"
            )
        raise Unauthenticated(f"the call has no token, and this server needs one; {_REMEDY}")

    def renew(self, identity: Identity) -> Identity:
        """Return an identity as it is now.

        Raises:
            Unauthenticated: It was revoked or has expired.
        """
        found = self._tokens.get(identity.id) or self._certificates.get(identity.proof)
        if found is None or (found.id, found.proof) != (identity.id, identity.proof):
            raise Unauthenticated(f"the access of {identity.name} was revoked; {_REMEDY}")
        return self._unexpired(found)

    def refresh(self) -> bool:
        """Read the file again if it has changed; return whether an identity may have ended or changed."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return self._has_expired()
        self._stamp = stamp
        try:
            entries = read_entries(self._path)
        except InvalidTokensFile as error:
            logger.error("%s; the entries read before still stand", error)  # noqa: TRY400 -- The message says it all.
            return self._has_expired()
        self._take(entries)
        logger.info("read %d entries of the tokens file %s", len(entries), self._path)
        return True

    def _of_token(self, token: str) -> Identity:
        id_, secret = split_token(token) or ("", "")
        found = self._tokens.get(id_)
        is_it = hmac.compare_digest(hash_of(secret), _NO_HASH if found is None else found.proof)
        if found is None or not is_it:
            raise Unauthenticated(f"the token is unknown or was revoked; {_REMEDY}")
        return found

    def _unexpired(self, identity: Identity) -> Identity:
        if identity.expires_s is not None and identity.expires_s <= self._now_s():
            kind = "token" if identity.id in self._tokens else "certificate's entry"
            raise Unauthenticated(f"the {kind} {identity.name} has expired; {_REMEDY}")
        return identity

    def _take(self, entries: list[Entry]) -> None:
        self._tokens = {entry.id: entry.identity() for entry in entries if entry.sha256}
        self._certificates = {entry.certificate: entry.identity() for entry in entries if entry.certificate}
        self._next_end_s = self._first_end_s()

    def _has_expired(self) -> bool:
        if self._now_s() < self._next_end_s:
            return False
        self._next_end_s = self._first_end_s()
        return True

    def _first_end_s(self) -> float:
        """Return when the next entry expires."""
        now_s = self._now_s()
        identities = [*self._tokens.values(), *self._certificates.values()]
        ends = [each.expires_s for each in identities if each.expires_s is not None]
        return min([end_s for end_s in ends if end_s > now_s], default=float("inf"))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with the file; None while it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
