"""NamespaceService: shows and changes the settings of namespaces."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar, assert_never

import trio
from google.protobuf import duration_pb2

from plait.v1 import namespace_service_pb2
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.checks import Checks, request_record
from plait_server.api.pages import PageTokens
from plait_server.core.namespace_settings import (
    NamespaceSettings,
    QueueOrder,
    SettingSource,
    problems_of,
)
from plait_server.encoding.namespace_codec import (
    settings_from_bytes,
    settings_from_proto,
    settings_to_bytes,
    settings_to_proto,
)
from plait_server.errors import EtagMismatch, JournalUnavailable, Overloaded
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import Journal, RequestConflict, RequestRecord, SettingsFull, SettingWritten
from plait_server.runtime.admission import Admission
from plait_server.runtime.intake import check_fingerprint, find_request
from plait_server.runtime.namespace_registry import NamespaceRegistry

SETTING_NAME: Final = "namespace"
"""The name under which the store keeps the settings of a namespace."""
_FIELDS: Final = {
    "running_max": "running_max",
    "queue_max": "queue_max",
    "order": "order",
    "queue_timeout": "queue_timeout_s",
    "weight": "weight",
    "retention": "retention_s",
}
"""Field of the message -> that of the core's value."""

Pb = namespace_service_pb2
T = TypeVar("T")


class NamespaceServicer:
    """Serves NamespaceService."""

    def __init__(
        self,
        registry: NamespaceRegistry,
        admission: Admission,
        journal: Journal,
        tokens: PageTokens,
        actions: Actions,
    ) -> None:
        self._registry = registry
        self._admission = admission
        self._journal = journal
        self._tokens = tokens
        self._actions = actions
        self._writing = trio.Lock()

    async def get_namespace(self, request: Pb.GetNamespaceRequest, call: Call) -> Pb.GetNamespaceResponse:
        """Return the settings of a namespace."""
        del call
        checks = Checks()
        name = checks.namespace(request.namespace)
        checks.finish()
        return Pb.GetNamespaceResponse(namespace=self._describe(name))

    async def list_namespaces(
        self, request: Pb.ListNamespacesRequest, call: Call
    ) -> Pb.ListNamespacesResponse:
        """List namespaces by name."""
        del call
        checks = Checks()
        size = checks.page_size(request.page_size)
        checks.finish()
        after = self._tokens.read(request.page_token, "ListNamespaces")
        kept = await self._journal.deletions.list_namespaces()
        names = sorted({*self._registry.names(), *kept})
        begin = bisect_right(names, after) if after is not None else 0
        page = names[begin : begin + size]
        response = Pb.ListNamespacesResponse(namespaces=map(self._describe, page))
        if begin + size < len(names):
            response.next_page_token = self._tokens.make(page[-1], "ListNamespaces")
        return response

    async def update_namespace(
        self, request: Pb.UpdateNamespaceRequest, call: Call
    ) -> Pb.UpdateNamespaceResponse:
        """Change settings of a namespace."""
        checks = Checks()
        name = checks.namespace(request.namespace)
        checks.request_id(request.request_id)
        wanted, fields = _read_settings(request, checks)
        checks.finish()
        record = request_record("UpdateNamespace", request.request_id, request, "")
        action = self._actions.accepted(call, target=name, detail=_changes_of(wanted, fields))
        # Settings are read and written by one call at a time. What is durable is put into force, even if the caller
        # is gone.
        async with self._writing:
            with trio.CancelScope(shield=True):
                known = record and await find_request(self._journal.namespace(name), record)
                if known is None:
                    if request.etag not in ("", etag := self._etag(name)):
                        message = (
                            "the settings of the namespace were changed since they were read; read them again"
                        )
                        raise EtagMismatch(message, etag=etag)
                    settings = _merged(self._registry.set_by_call(name), wanted, fields)
                    await self._write(name, settings, action, record)
        return Pb.UpdateNamespaceResponse(namespace=self._describe(name))

    async def _write(
        self, name: str, settings: NamespaceSettings, action: ActionRecord, record: RequestRecord | None
    ) -> None:
        """Make settings durable, and put them into force."""
        content = settings_to_bytes(settings)
        try:
            result = await self._journal.write_setting(name, SETTING_NAME, content, action, record)
        except JournalUnavailable:
            # It is unknown whether they were written, and what is durable has to be in force.
            stored = (await self._journal.read_settings()).get((name, SETTING_NAME))
            self._registry.set(name, settings_from_bytes(stored or b""))
            raise
        match result:
            case SettingWritten():
                self._registry.set(name, settings)
            case RequestConflict(record=other):
                check_fingerprint(other, record)
            case SettingsFull():
                message = "the store holds as many settings as it may; remove some that are not needed"
                raise Overloaded(message)
            case _:
                assert_never(result)

    def _describe(self, name: str) -> Pb.Namespace:
        given = self._registry.set_by_call(name), self._registry.configured(name)
        counts = self._admission.counts(name)
        message = Pb.Namespace(
            name=name,
            settings=settings_to_proto(self._registry.of(name)),
            running_count=counts.running,
            queued_count=counts.waiting,
            etag=self._etag(name),
        )
        for field, attribute in _FIELDS.items():
            message.sources[field] = int(_source_of(attribute, *given))  # type: ignore[assignment]
        return message

    def _etag(self, name: str) -> str:
        content = settings_to_bytes(self._registry.set_by_call(name)) or b""
        return hashlib.sha256(content).hexdigest()[:16]


def _source_of(attribute: str, by_call: NamespaceSettings, configured: NamespaceSettings) -> SettingSource:
    if getattr(by_call, attribute) is not None:
        return SettingSource.SET
    if getattr(configured, attribute) is not None:
        return SettingSource.CONFIGURATION
    return SettingSource.DEFAULT


def _read_settings(request: Pb.UpdateNamespaceRequest, checks: Checks) -> tuple[NamespaceSettings, list[str]]:
    """Read the settings of a request, and which of them it changes."""
    message = request.settings
    fields = checks.update_mask(request.update_mask.paths, tuple(_FIELDS))
    if not request.update_mask.paths:
        fields = [field.name for field, _ in message.ListFields()]
        if not fields:
            checks.add("settings", "change nothing; give a setting, or name one in update_mask")
    if message.order not in (0, *QueueOrder):
        checks.add(
            "settings.order", "must be QUEUE_ORDER_FIFO (1), QUEUE_ORDER_LIFO (2) or QUEUE_ORDER_PRIORITY (3)"
        )
    for field in ("queue_timeout", "retention"):
        if message.HasField(field) and not _is_well_formed(getattr(message, field)):
            checks.add(
                f"settings.{field}", "the nanos of a duration are less than a second and have its sign"
            )
    settings = settings_from_proto(message)
    for field, problem in problems_of(settings):
        checks.add(f"settings.{field}", problem)
    return settings, fields


def _changes_of(wanted: NamespaceSettings, fields: Iterable[str]) -> Mapping[str, str]:
    """Return what the audit says of an update: the new values, and what goes back to the configuration."""
    detail: dict[str, str] = {}
    for field in fields:
        value = getattr(wanted, _FIELDS[field])
        match value:
            case None:
                detail[field] = "reset"
            case QueueOrder():
                detail[field] = value.name
            case float():
                detail[field] = f"{value:.15g} s"
            case _:
                detail[field] = str(value)
    return detail


def _is_well_formed(message: duration_pb2.Duration) -> bool:
    return abs(message.nanos) < 1_000_000_000 and message.seconds * message.nanos >= 0


def _merged(
    present: NamespaceSettings, wanted: NamespaceSettings, fields: Iterable[str]
) -> NamespaceSettings:
    changed = set(fields)

    def chosen(field: str, new: T | None, old: T | None) -> T | None:
        return new if field in changed else old

    return NamespaceSettings(
        running_max=chosen("running_max", wanted.running_max, present.running_max),
        queue_max=chosen("queue_max", wanted.queue_max, present.queue_max),
        order=chosen("order", wanted.order, present.order),
        queue_timeout_s=chosen("queue_timeout", wanted.queue_timeout_s, present.queue_timeout_s),
        weight=chosen("weight", wanted.weight, present.weight),
        retention_s=chosen("retention", wanted.retention_s, present.retention_s),
    )
