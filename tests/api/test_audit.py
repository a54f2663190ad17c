"""Who did what: the list of a namespace's actions, refusals and late records (A5, T6)."""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from plait.v1 import audit_service_pb2
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.api.audit import Actions, AuditServicer
from plait_server.api.call import Call, Principal
from plait_server.api.pages import PageTokens
from plait_server.errors import InvalidPageToken, InvalidRequest
from plait_server.ports.audit import AuditRecord
from plait_server.ports.journal import AppendItem, ExecutionRow
from plait_server.runtime.refused_calls import BATCH_MAX, RefusedCalls
from tests.runtime.gated_journal import Gate, GatedJournal

Pb = audit_service_pb2
BY_ADA = Call(
    method="/plait.v1.ExecutionService/SubmitGraph",
    peer="ipv4:10.0.0.1:2",
    principal=Principal(name="ada", is_verified=True),
)
ACTIONS = Actions(lambda: 12.5)


class Audit:
    """A servicer over a journal in memory."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(MemoryStore(), owner="o")
        self.servicer = AuditServicer(self.journal, PageTokens(b"key"))

    async def submit(self, execution_id: str, *, namespace: str = "default", records: int = 0) -> None:
        late = AuditRecord(
            time_s=13.0, kind="STALE_RESULT", node_path="a", attempt=2, worker_id="w", detail='{"run":1}'
        )
        item = AppendItem(
            namespace=namespace,
            execution_id=execution_id,
            expected_sequence=0,
            owner_epoch=1,
            events=[b"1"],
            row=ExecutionRow(summary=b"", is_open=True),
            action=ACTIONS.accepted(BY_ADA, execution_id=execution_id),
            audit=[late] * records,
        )
        await self.journal.append_many([item])

    async def list(self, **fields: object) -> Pb.ListAuditEntriesResponse:
        return await self.servicer.list_audit_entries(Pb.ListAuditEntriesRequest(**fields), BY_ADA)  # type: ignore[arg-type] # The fields of the request.


async def test_an_entry_tells_who_did_what_to_which_execution() -> None:
    audit = Audit()
    await audit.submit("x")
    (entry,) = (await audit.list()).entries
    assert entry.time.ToMilliseconds() == 12_500
    assert (entry.principal, entry.verified, entry.kind) == ("ada", True, "SubmitGraph")
    assert (entry.execution_id, entry.outcome) == ("x", Pb.AUDIT_OUTCOME_ACCEPTED)


async def test_a_result_against_a_timeout_goes_to_the_audit_and_changes_nothing() -> None:
    """T6, A5: the loser of the race is kept, with attempt and worker."""
    audit = Audit()
    await audit.submit("x", records=1)
    late, submitted = (await audit.list(execution_id="x")).entries
    assert (late.kind, late.node_path, late.attempt, late.worker_id) == ("STALE_RESULT", "a", 2, "w")
    assert (late.execution_id, late.detail_json, late.outcome) == ("x", '{"run":1}', Pb.AUDIT_OUTCOME_KEPT)
    assert submitted.kind == "SubmitGraph"


async def test_pages_go_on_where_the_one_before_ended() -> None:
    audit = Audit()
    for number in range(150):
        await audit.submit(f"x{number}", records=number % 2)
    whole = (await audit.list(page_size=1_000)).entries
    assert len(whole) == 225
    paged: list[Pb.AuditEntry] = []
    token = ""
    while True:
        page = await audit.list(page_size=110, page_token=token)
        paged += page.entries
        token = page.next_page_token
        if not token:
            break
        await audit.submit(f"new{len(paged)}")
    assert paged == list(whole)
    with pytest.raises(InvalidPageToken):
        await audit.list(page_token=(await audit.list(page_size=1)).next_page_token, execution_id="x1")


async def test_another_namespace_shows_nothing() -> None:
    audit = Audit()
    await audit.submit("x", records=1)
    assert not (await audit.list(namespace="other")).entries
    assert not (await audit.list(namespace="other", execution_id="x")).entries
    with pytest.raises(InvalidRequest, match="execution_id"):
        await audit.list(execution_id="a b")


async def test_refused_calls_are_recorded_in_batches_and_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    gate = Gate()
    journal = GatedJournal(MemoryStore(), gate)
    refused = RefusedCalls(journal)
    servicer = AuditServicer(journal, PageTokens(b"key"))
    action = ACTIONS.refused(BY_ADA)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused.run)
        for _ in range(BATCH_MAX + 7):
            refused.note("", action)
        await trio.sleep(0.5)
        refused.note("", action)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    listed = await servicer.list_audit_entries(
        Pb.ListAuditEntriesRequest(namespace="*", page_size=1_000), BY_ADA
    )
    assert len(listed.entries) == BATCH_MAX + 1
    assert all(entry.outcome == Pb.AUDIT_OUTCOME_REFUSED for entry in listed.entries)
    assert json.loads(listed.entries[0].detail_json) == {"left_out_before": 7}
    assert not (
        await servicer.list_audit_entries(Pb.ListAuditEntriesRequest(namespace="default"), BY_ADA)
    ).entries
