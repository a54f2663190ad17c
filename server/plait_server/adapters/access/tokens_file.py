"""The tokens file: who may call a server, and what they may do in which namespace.

    {
      "version": 1,
      "entries": [
        {"id": "0f3a9c41d2b7", "name": "ci", "sha256": "...", "roles": {"shop": ["submit"]},
         "created": "2026-01-05T10:00:00Z", "expires": "2026-04-05T10:00:00Z"},
        {"id": "b81e77c05a9d", "name": "renderers", "certificate": "spiffe://example.org/render",
         "roles": {"*": ["work"]}, "created": "2026-01-05T10:00:00Z"}
      ]
    }

A token is `plait_ID_SECRET`. Its secret is 256 random bits, so an unsalted hash of one round is as safe as a slow one:
there is nothing to guess. An entry with `certificate` recognizes clients by a subject alternative name of the
certificate that they prove to hold.

Whoever writes takes a lock on the file beside it, `*.lock`, and replaces the file whole, so that readers see the old
entries or the new ones. The file is `plait token`'s, but people may edit it: what is wrong is named with its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from plait_server.core.limits import ID_PATTERN, MIB
from plait_server.errors import InvalidTokensFile
from plait_server.ports.access import EVERY_NAMESPACE, Identity, Role

VERSION: Final = 1
FILE_BYTES_MAX: Final = MIB
"""A bound on the time to read it, on the event loop: a MiB takes 20 ms, and has some 4,000 entries."""
NAME_CHARS_MAX: Final = 128
TOKEN_CHARS_MAX: Final = 256
"""Ours have 65; the rest is for other forms in later versions."""
_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_ID: Final = re.compile(r"[0-9a-z]{4,32}")
_TOKEN: Final = re.compile(r"plait_([0-9a-z]{4,32})_([A-Za-z0-9_-]{43})")
_NAMESPACE: Final = re.compile(ID_PATTERN)
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_CERTIFICATE: Final = re.compile(r"[\x21-\x7e]{1,1024}")
_REQUIRED: Final = frozenset({"id", "name", "roles"})
_KEYS: Final = _REQUIRED | {"sha256", "certificate", "created", "expires"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the file."""

    id: str
    name: str
    sha256: str
    """The hash of the token's secret; empty if the entry is for a certificate."""
    certificate: str
    """The subject alternative name; empty if the entry is for a token."""
    roles: Mapping[str, frozenset[Role]]
    created: str
    expires_s: float | None

    def identity(self) -> Identity:
        """Return the identity of whoever shows what the entry asks for."""
        proof = self.sha256 or self.certificate
        return Identity(id=self.id, name=self.name, proof=proof, roles=self.roles, expires_s=self.expires_s)


def new_entry(
    *,
    name: str,
    roles: Mapping[str, frozenset[Role]],
    now_s: float,
    expires_s: float | None = None,
    certificate: str = "",
) -> tuple[Entry, str]:
    """Make an entry, and the token that it is for; the token is empty if the entry is for a certificate."""
    id_, token, digest = secrets.token_hex(_ID_BYTES), "", ""
    if not certificate:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        token, digest = f"plait_{id_}_{secret}", hash_of(secret)
    entry = Entry(
        id=id_,
        name=name,
        sha256=digest,
        certificate=certificate,
        roles=roles,
        created=_text_of(now_s),
        expires_s=expires_s,
    )
    return entry, token


def split_token(token: str) -> tuple[str, str] | None:
    """Return the id and the secret of a token; None if the text is no token."""
    found = _TOKEN.fullmatch(token) if len(token) <= TOKEN_CHARS_MAX else None
    return (found[1], found[2]) if found else None


def hash_of(secret: str) -> str:
    """Return the hash of a secret, as it stands in the file."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_entries(path: Path) -> list[Entry]:
    """Read the entries of a file.

    Raises:
        InvalidTokensFile: It is not there, cannot be read, or is wrong; the error names the place.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        text = f"there is no tokens file {path}; make one with `plait token create --file {path}`"
        raise InvalidTokensFile(text) from error
    except OSError as error:
        raise InvalidTokensFile(f"the tokens file {path} cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        text = f"the tokens file {path} has more than {FILE_BYTES_MAX} bytes; revoke what is not used"
        raise InvalidTokensFile(text)
    return _Reader(path).read(content)


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep other writers of a tokens file out; waits for the one who writes."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_entries(path: Path, entries: Sequence[Entry]) -> None:
    """Replace a file, whole or not at all; durable on return. To be called within `locked`."""
    content = json.dumps({"version": VERSION, "entries": [_written(each) for each in entries]}, indent=2)
    if len(content) >= FILE_BYTES_MAX:
        text = f"the tokens file {path} would have more than {FILE_BYTES_MAX} bytes; revoke what is not used"
        raise InvalidTokensFile(text)
    # mkstemp's files are 0600.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written(entry: Entry) -> dict[str, object]:
    proof = {"sha256": entry.sha256} if entry.sha256 else {"certificate": entry.certificate}
    roles = {
        namespace: [role.value for role in Role if role in granted]
        for namespace, granted in entry.roles.items()
    }
    written: dict[str, object] = {"id": entry.id, "name": entry.name, **proof, "roles": roles}
    if entry.created:
        written["created"] = entry.created
    if entry.expires_s is not None:
        written["expires"] = _text_of(entry.expires_s)
    return written


def _text_of(time_s: float) -> str:
    return datetime.fromtimestamp(int(time_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Reader:
    """Reads a file, and names the place of what is wrong."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, content: bytes) -> list[Entry]:
        try:
            document: object = json.loads(content)
        except json.JSONDecodeError as error:
            raise self._error(f"line {error.lineno}, column {error.colno}", error.msg) from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise self._error("the file", "is no JSON") from error
        top = self._object(document, "the file")
        if top.get("version") != VERSION:
            raise self._error("version", f"must be {VERSION}; a newer file needs a newer Plait")
        self._keys(top, "the file", frozenset({"version", "entries"}))
        raw = top.get("entries")
        if not isinstance(raw, list):
            raise self._error("entries", "must be a list")
        entries = [
            self._entry(each, f"entries[{index}]") for index, each in enumerate(cast("list[object]", raw))
        ]
        self._unique([entry.id for entry in entries], "id")
        self._unique([entry.certificate for entry in entries], "certificate")
        return entries

    def _entry(self, value: object, place: str) -> Entry:
        entry = self._object(value, place)
        self._keys(entry, place, _KEYS)
        for key in sorted(_REQUIRED - entry.keys()):
            raise self._error(place, f"lacks {key!r}")
        if ("sha256" in entry) == ("certificate" in entry):
            raise self._error(place, "must have either 'sha256' or 'certificate'")
        name = self._text(entry, "name", place)
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise self._error(f"{place}.name", f"must be 1 to {NAME_CHARS_MAX} printable characters")
        return Entry(
            id=self._match(entry, "id", place, _ID, "must be 4 to 32 of a-z and 0-9"),
            name=name,
            sha256=self._match(entry, "sha256", place, _HASH, "must be 64 lower-case hexadecimal digits"),
            certificate=self._match(
                entry, "certificate", place, _CERTIFICATE, "must be a name without spaces"
            ),
            roles=self._roles(entry["roles"], f"{place}.roles"),
            created=self._text(entry, "created", place),
            expires_s=self._time(entry, "expires", place),
        )

    def _roles(self, value: object, place: str) -> Mapping[str, frozenset[Role]]:
        roles: dict[str, frozenset[Role]] = {}
        for namespace, names in self._object(value, place).items():
            if namespace != EVERY_NAMESPACE and not _NAMESPACE.fullmatch(namespace):
                raise self._error(place, f"{namespace!r} is neither a namespace nor '*'")
            if not isinstance(names, list) or not names:
                raise self._error(f"{place}[{namespace!r}]", "must be a list of roles")
            known = [role.value for role in Role]
            for name in cast("list[object]", names):
                if name not in known:
                    text = f"{name!r} is no role; there are {', '.join(known)}"
                    raise self._error(f"{place}[{namespace!r}]", text)
            roles[namespace] = frozenset(map(Role, cast("list[str]", names)))
        if not roles:
            raise self._error(place, "must name a namespace, or '*' for all")
        return roles

    def _time(self, entry: Mapping[str, Any], key: str, place: str) -> float | None:
        if key not in entry:
            return None
        try:
            time = datetime.fromisoformat(self._text(entry, key, place))
        except ValueError as error:
            raise self._error(f"{place}.{key}", "must be a time such as 2027-01-31T12:00:00Z") from error
        if time.tzinfo is None:
            raise self._error(f"{place}.{key}", "must name its time zone, such as Z")
        return time.timestamp()

    def _match(
        self, entry: Mapping[str, Any], key: str, place: str, pattern: re.Pattern[str], rule: str
    ) -> str:
        text = self._text(entry, key, place)
        if key in entry and not pattern.fullmatch(text):
            raise self._error(f"{place}.{key}", rule)
        return text

    def _text(self, entry: Mapping[str, Any], key: str, place: str) -> str:
        value: object = entry.get(key, "")
        if not isinstance(value, str):
            raise self._error(f"{place}.{key}", "must be a text")
        return value

    def _object(self, value: object, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(place, "must be an object")
        return cast("dict[str, Any]", value)

    def _keys(self, value: Mapping[str, Any], place: str, known: frozenset[str]) -> None:
        for key in value:
            if key not in known:
                raise self._error(place, f"{key!r} is unknown; there are {', '.join(sorted(known))}")

    def _unique(self, values: Sequence[str], key: str) -> None:
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if value and first.setdefault(value, index) != index:
                raise self._error(f"entries[{index}].{key}", f"is that of entries[{first[value]}]")

    def _error(self, place: str, problem: str) -> InvalidTokensFile:
        # What stands in the file may be a secret by mistake, so no value but short names is repeated.
        return InvalidTokensFile(f"the tokens file {self._path}: {place}: {problem}"[:500])
