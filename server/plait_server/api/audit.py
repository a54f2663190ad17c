"""AuditService: who did what. And the records of actions, which every mutation makes by `Actions.accepted`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Final, assert_never

import trio

from plait.v1 import audit_service_pb2
from plait_server.api.call import Call
from plait_server.api.checks import Checks
from plait_server.api.pages import ANSWER_BYTES_MAX, PageTokens
from plait_server.encoding.event_codec import timestamp
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.journal import Journal

SERVER: Final = "*"
"""What a request names in place of a namespace, for the entries that belong to none."""
ENTRIES_READ_MAX: Final = 100
"""Entries read from the store at a time: a few milliseconds."""
_WORD_CHARS_MAX: Final = 256

Pb = audit_service_pb2


class Actions:
    """Makes the records of actions.

    Args:
        now_s: The wall clock, in seconds since 1970.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s

    def accepted(
        self, call: Call, *, execution_id: str = "", target: str = "", detail: Mapping[str, str] | None = None
    ) -> ActionRecord:
        """Return the record of a mutation, to be appended with its effect.

        Args:
            call: The call that asked for it.
            execution_id: The execution that it changes; empty if none.
            target: What else it is about, such as the name of a limit.
            detail: What else is worth knowing, each value cut to 256 characters; without the contents of payloads and
                without secrets.
        """
        return ActionRecord(
            time_s=round(self._now_s(), 6),
            principal=call.principal.name[:_WORD_CHARS_MAX],
            is_verified=call.principal.is_verified,
            method=call.method.rpartition("/")[2],
            execution_id=execution_id,
            target=target[:_WORD_CHARS_MAX],
            detail=json.dumps(_cut(detail or {}), separators=(",", ":")),
        )

    def refused(self, call: Call, *, detail: Mapping[str, str] | None = None) -> ActionRecord:
        """Return the record of a call that was refused for want of credentials or of a role."""
        return dataclasses.replace(self.accepted(call, detail=detail), is_refused=True)


class AuditServicer:
    """Serves AuditService."""

    def __init__(self, journal: Journal, tokens: PageTokens) -> None:
        self._journal = journal
        self._tokens = tokens

    async def list_audit_entries(
        self, request: Pb.ListAuditEntriesRequest, call: Call
    ) -> Pb.ListAuditEntriesResponse:
        """List the audit of a namespace, or of one execution, newest first."""
        del call
        checks = Checks()
        namespace = "" if request.namespace == SERVER else checks.namespace(request.namespace)
        execution_id = checks.execution_id(request.execution_id, optional=True)
        size = checks.page_size(request.page_size)
        checks.finish()
        of_list = ["ListAuditEntries", namespace, execution_id]
        position = self._tokens.read(request.page_token, *of_list)
        before = int(position) if position is not None else None
        response = Pb.ListAuditEntriesResponse()
        left = ANSWER_BYTES_MAX
        while True:
            # One extra entry shows whether that is all.
            limit = min(ENTRIES_READ_MAX, size - len(response.entries) + 1)
            entries = await self._journal.namespace(namespace).list_audit(
                execution_id=execution_id or None, before=before, limit=limit
            )
            for entry in entries:
                shown = _show(entry)
                left -= shown.ByteSize() + 8
                if len(response.entries) == size or (left < 0 and response.entries):
                    response.next_page_token = self._tokens.make(str(before), *of_list)
                    return response
                response.entries.append(shown)
                before = entry.position
            if len(entries) < limit:
                return response
            await trio.lowlevel.checkpoint()


def _cut(detail: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text if len(text) <= _WORD_CHARS_MAX else f"{text[: _WORD_CHARS_MAX - 1]}…"
        for name, text in detail.items()
    }


def _show(entry: AuditEntry) -> Pb.AuditEntry:
    match entry.record:
        case ActionRecord() as action:
            outcome = Pb.AUDIT_OUTCOME_REFUSED if action.is_refused else Pb.AUDIT_OUTCOME_ACCEPTED
            return Pb.AuditEntry(
                time=timestamp(action.time_s),
                principal=action.principal,
                verified=action.is_verified,
                kind=action.method,
                execution_id=action.execution_id,
                target=action.target,
                detail_json=action.detail,
                outcome=outcome,
            )
        case AuditRecord() as record:
            return Pb.AuditEntry(
                time=timestamp(record.time_s),
                kind=record.kind,
                execution_id=entry.execution_id,
                node_path=record.node_path,
                attempt=record.attempt,
                worker_id=record.worker_id,
                detail_json=record.detail,
                outcome=Pb.AUDIT_OUTCOME_KEPT,
            )
        case None:
            return Pb.AuditEntry(execution_id=entry.execution_id, outcome=Pb.AUDIT_OUTCOME_DAMAGED)
        case _:
            assert_never(entry.record)
