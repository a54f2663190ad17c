"""What the checks append, and how they look whether it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from plait_server.errors import ExecutionNotFound
from plait_server.ports.audit import AuditRecord
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow, Journal, RequestRecord

NAMESPACE: Final = "namespace-a"
OTHER_NAMESPACE: Final = "namespace-b"
ALL: Final = 1_000_000
OPEN: Final = ExecutionRow(summary=b"open", is_open=True)
ENDED: Final = ExecutionRow(summary=b"ended", is_open=False)


def make(
    execution_id: str,
    *events: bytes,
    namespace: str = NAMESPACE,
    epoch: int = 1,
    row: ExecutionRow = OPEN,
    request: RequestRecord | None = None,
) -> AppendItem:
    """Make an item that makes an execution."""
    return AppendItem(
        namespace=namespace,
        execution_id=execution_id,
        expected_sequence=0,
        owner_epoch=epoch,
        events=events or (b"submitted",),
        row=row,
        request=request,
    )


def go_on(execution_id: str, expected: int, *events: bytes, epoch: int = 1) -> AppendItem:
    """Make an item that adds events to an execution of `NAMESPACE`."""
    return AppendItem(
        namespace=NAMESPACE,
        execution_id=execution_id,
        expected_sequence=expected,
        owner_epoch=epoch,
        events=events,
    )


def everything(execution_id: str, *, expected: int = 0, epoch: int = 1, mark: str = "x") -> AppendItem:
    """Make an item with all that an item may have, told from others by its mark."""
    content = f"content {mark}".encode()
    return AppendItem(
        namespace=NAMESPACE,
        execution_id=execution_id,
        expected_sequence=expected,
        owner_epoch=epoch,
        events=(f"event {mark}".encode(), f"another {mark}".encode()),
        row=ExecutionRow(summary=f"row {mark}".encode(), is_open=True, due_time_s=12.5),
        contents={digest_of(content): content},
        request=make_request(f"request {mark}", execution_id),
        audit=(make_audit(mark),),
    )


def make_request(request_id: str, execution_id: str, *, method: str = "SubmitGraph") -> RequestRecord:
    """Make a request record with a fingerprint that is no text."""
    return RequestRecord(
        method=method, request_id=request_id, fingerprint=b"\x00\xfffingerprint", execution_id=execution_id
    )


def make_audit(mark: str) -> AuditRecord:
    """Make an audit record that a mark tells from others."""
    return AuditRecord(
        time_s=1.25,
        kind="STALE_RESULT",
        node_path="a/b",
        attempt=2,
        worker_id="w",
        detail=f'{{"mark":"{mark}"}}',
    )


def digest_of(content: bytes) -> str:
    """Return the digest under which a content is kept."""
    return hashlib.sha256(content).hexdigest()


async def append(journal: Journal, *items: AppendItem) -> None:
    """Append items of which none may be refused."""
    results = await journal.append_many(items)
    assert all(isinstance(result, Appended) for result in results), results


async def read_events(
    journal: Journal, execution_id: str, *, namespace: str = NAMESPACE, after: int = 0
) -> Sequence[bytes]:
    """Read all events after a sequence."""
    page = await journal.namespace(namespace).read(execution_id, after=after, events_max=ALL, bytes_max=ALL)
    assert page.last_sequence == after + len(page.events)
    return list(page.events)


async def is_missing(journal: Journal, execution_id: str, *, namespace: str = NAMESPACE) -> bool:
    """Return whether there is no such execution in the namespace."""
    try:
        await read_events(journal, execution_id, namespace=namespace)
    except ExecutionNotFound:
        return True
    return False


async def require_everything(journal: Journal, item: AppendItem) -> None:
    """Assert that an item of `everything` is there, whole."""
    handle = journal.namespace(item.namespace)
    assert await read_events(journal, item.execution_id, after=item.expected_sequence) == list(item.events)
    listed = await handle.read_row(item.execution_id)
    assert listed is not None
    assert listed.row == item.row
    for digest, content in item.contents.items():
        assert await handle.read_content(digest) == content
    assert item.request is not None
    assert await handle.find_request(item.request.method, item.request.request_id) == item.request
    assert list(await handle.read_audit(item.execution_id, limit=ALL))[-1:] == list(item.audit)


async def require_nothing(journal: Journal, item: AppendItem) -> None:
    """Assert that nothing of a refused item of `everything` is there."""
    handle = journal.namespace(item.namespace)
    listed = await handle.read_row(item.execution_id)
    assert listed is None or listed.row != item.row
    if listed is not None:
        assert not set(await read_events(journal, item.execution_id)) & set(item.events)
    for digest in item.contents:
        assert await handle.read_content(digest) is None
    assert item.request is not None
    assert await handle.find_request(item.request.method, item.request.request_id) != item.request
    assert item.audit[0] not in await handle.read_audit(item.execution_id, limit=ALL)
