"""Checks of requests: each names the field, the cause and the remedy, and all problems are reported together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import duration_pb2
from google.protobuf.message import Message

from plait.v1 import payload_pb2
from plait_server.core.limits import ID_PATTERN, LABEL_CHARS_MAX, LABELS_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX
from plait_server.encoding.event_codec import seconds_of_duration
from plait_server.encoding.fingerprint import fingerprint_of
from plait_server.errors import FieldViolation, InvalidRequest, TooLarge
from plait_server.ports.journal import RequestRecord
from plait_server.ports.log_fields import LogFields, key_fields

DEFAULT_NAMESPACE: Final = "default"
PAGE_SIZE: Final = 100
PAGE_SIZE_MAX: Final = 1_000
_ID: Final = re.compile(ID_PATTERN)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{0,128}")
_REASON_CHARS_MAX: Final = 1_024
_MASK_PATHS_MAX: Final = 100


class Checks:
    """Collects the problems of one request."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, message: str) -> None:
        """Add a problem."""
        self._violations.append(FieldViolation(field=field, message=message))

    def finish(self) -> None:
        """End the checks.

        Raises:
            InvalidRequest: The request has problems.
        """
        if self._violations:
            raise InvalidRequest(self._violations)

    def namespace(self, value: str) -> str:
        """Check a namespace; empty means `default`."""
        if value and not _ID.fullmatch(value):
            self.add("namespace", "must match [A-Za-z0-9_.-]{1,128}, or be empty for `default`")
        return value or DEFAULT_NAMESPACE

    def execution_id(self, value: str, *, optional: bool = False) -> str:
        """Check an execution's id."""
        if not (optional and not value) and not _ID.fullmatch(value):
            self.add("execution_id", "must match [A-Za-z0-9_.-]{1,128}")
        return value

    def node_type(self, field: str, value: str) -> str:
        """Check a node type."""
        if not _ID.fullmatch(value):
            self.add(field, "must be a node type: [A-Za-z0-9_.-]{1,128}")
        return value

    def request_id(self, value: str) -> str:
        """Check a request id."""
        if not _REQUEST_ID.fullmatch(value):
            self.add("request_id", "must be at most 128 printable ASCII characters without spaces")
        return value

    def labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Check labels."""
        if len(labels) > LABELS_MAX:
            self.add("labels", f"{len(labels)} labels exceed the limit of {LABELS_MAX}; give fewer")
        for key, value in labels.items():
            if not 0 < len(key) <= LABEL_CHARS_MAX or len(value) > LABEL_CHARS_MAX:
                self.add(
                    "labels", f"the label {key[:40]!r} must have a key and a value of at most 128 characters"
                )
        return dict(labels)

    def input(self, message: payload_pb2.Payload, *, is_given: bool, problem: str = "") -> str:
        """Check the input of an execution and return its JSON text; `problem` is a problem found earlier.

        Raises:
            TooLarge: The input is over 1 MiB.
        """
        if not is_given or not message.WhichOneof("content"):
            return "null"
        if message.digest:
            self.add("input.digest", "an input is given as JSON text in `input.json`")
            return "null"
        size = len(message.json.encode())
        if size > PAYLOAD_BYTES_MAX:
            text = f"input is {size} bytes, over the limit of {PAYLOAD_BYTES_MAX}; pass an address instead"
            raise TooLarge(text, size=size, limit=PAYLOAD_BYTES_MAX)
        if problem:
            self.add("input.json", problem)
        return message.json

    def page_size(self, value: int) -> int:
        """Check a page size; 0 means 100, more than 1,000 counts as 1,000."""
        if value < 0:
            self.add("page_size", "must be 0 to 1,000; 0 means 100")
        return min(value or PAGE_SIZE, PAGE_SIZE_MAX)

    def wait_s(
        self, message: duration_pb2.Duration, *, default_s: float, max_s: float, is_given: bool
    ) -> float:
        """Check a wait in seconds."""
        if not is_given:
            return default_s
        wait_s = seconds_of_duration(message)
        if not 0 <= wait_s <= max_s:
            self.add("wait", f"must be 0 to {max_s:g} seconds")
        return wait_s

    def digest(self, value: str) -> str:
        """Check a digest."""
        if not _DIGEST.fullmatch(value):
            self.add("digest", "must be 64 lower-case hexadecimal characters")
        return value

    def priority(self, field: str, value: int) -> int:
        """Check the priority of an execution."""
        if abs(value) > PRIORITY_MAX:
            self.add(field, f"must be from {-PRIORITY_MAX:,} to {PRIORITY_MAX:,}, not {value:,}")
        return value

    def update_mask(self, paths: Sequence[str], known: Sequence[str]) -> list[str]:
        """Check the paths of `update_mask`, and return each that is known once; `known` has those that there are."""
        # Before each is looked at, because 300,000 take a second.
        if len(paths) > _MASK_PATHS_MAX:
            self.add(
                "update_mask.paths", f"{len(paths):,} paths exceed the limit of {_MASK_PATHS_MAX}; give fewer"
            )
            return []
        for position, path in enumerate(paths):
            if path not in known:
                self.add(
                    f"update_mask.paths[{position}]", f"{path[:64]!r} is no setting; give {', '.join(known)}"
                )
        return [path for path in dict.fromkeys(paths) if path in known]

    def reason(self, value: str) -> str:
        """Check a reason, which is free text."""
        if len(value) > _REASON_CHARS_MAX:
            self.add("reason", f"must be at most {_REASON_CHARS_MAX} characters")
        return value


def target_of(namespace: str, execution_id: str) -> tuple[str, str]:
    """Check and return the namespace and the id of an execution.

    Raises:
        InvalidRequest: One of them is invalid.
    """
    checks = Checks()
    target = checks.namespace(namespace), checks.execution_id(execution_id)
    checks.finish()
    return target


def request_fields(request: Message | None) -> LogFields:
    """Return the log fields of a request: the execution that it names, if any."""
    namespace = getattr(request, "namespace", "") or DEFAULT_NAMESPACE
    execution_id = getattr(request, "execution_id", "")
    is_valid = _ID.fullmatch(namespace) and _ID.fullmatch(execution_id)
    return key_fields((namespace, execution_id)) if is_valid else {}


def request_record(method: str, request_id: str, request: Message, execution_id: str) -> RequestRecord | None:
    """Return the record of a request with an id; None without one."""
    if not request_id:
        return None
    return RequestRecord(
        method=method,
        request_id=request_id,
        fingerprint=fingerprint_of(request),
        execution_id=execution_id,
    )
