"""K1: what is deleted is gone everywhere, and what is kept is whole."""

from __future__ import annotations

from plait_server.errors import ExecutionNotFound
from plait_server.ports.journal import NamespaceJournal
from plait_server.testing.simulation.store import NAMESPACE, Stores

_ALL = 1_000_000


async def problem_of_deletions(stores: Stores) -> str:
    """Return what is wrong with a store after its server has ended; empty if nothing is."""
    records = stores.records
    if records.open_deleted:
        return f"{records.open_deleted[0]} was deleted before it had ended"
    journal = stores.open_untapped("the judge of deletions")
    try:
        while not await journal.deletions.delete_some(rows_max=_ALL, bytes_max=_ALL):
            pass
        handle = journal.namespace(NAMESPACE)
        used: dict[str, None] = {}
        for durable in records.executions.values():
            is_found = await handle.read_row(durable.execution_id) is not None
            if is_found == durable.is_deleted:
                found = "found" if is_found else "not found"
                return f"{durable.execution_id} is {found}, and deleted: {durable.is_deleted}"
            entries = await handle.list_audit(execution_id=durable.execution_id, before=None, limit=_ALL)
            late = [entry for entry in entries if entry.record in durable.audit]
            if len(late) != (0 if durable.is_deleted else len(durable.audit)):
                return (
                    f"the audit of {durable.execution_id} shows {len(late)} of {len(durable.audit)} records"
                )
            if not durable.is_deleted:
                used.update(durable.given)
            elif await _has_events(handle, durable.execution_id):
                return f"there are events of {durable.execution_id}, which was deleted"
        for digest in records.contents:
            is_kept = await handle.read_content(digest) is not None
            if is_kept != (digest in used):
                return f"the content {digest} is kept: {is_kept}, and used: {digest in used}"
    finally:
        await journal.aclose()
    return ""


async def _has_events(handle: NamespaceJournal, execution_id: str) -> bool:
    try:
        page = await handle.read(execution_id, after=0, events_max=1, bytes_max=1)
    except ExecutionNotFound:
        return False
    return bool(page.events)
