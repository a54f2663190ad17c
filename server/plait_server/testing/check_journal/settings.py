"""Checks of settings and of the audit (rule 10)."""

from __future__ import annotations

from dataclasses import replace

from plait_server.errors import InvariantViolated
from plait_server.ports.audit import ActionRecord, AuditEntry
from plait_server.ports.journal import (
    SETTING_BYTES_MAX,
    SETTINGS_MAX,
    RequestConflict,
    SettingsFull,
    SettingWritten,
)
from plait_server.testing.check_journal.items import (
    ALL,
    NAMESPACE,
    OTHER_NAMESPACE,
    append,
    go_on,
    make,
    make_audit,
    make_request,
)
from plait_server.testing.check_journal.store import StoreUnderTest


def make_action(mark: str, *, execution_id: str = "") -> ActionRecord:
    """Make an action that a mark tells from others."""
    return ActionRecord(
        time_s=2.5,
        principal=mark,
        is_verified=mark < "n",
        method="SetLimit",
        execution_id=execution_id,
        target="t",
        detail="{}",
        is_refused=mark == "refused",
    )


async def check_settings_are_kept(store: StoreUnderTest) -> None:
    """Check that settings survive a crash, are replaced and removed, by namespace and name (10)."""
    journal = await store.open()
    assert await journal.read_settings() == {}
    largest = b"x" * SETTING_BYTES_MAX
    writes = (
        ("", "b", b"1"),
        ("", "b", b"2"),
        (NAMESPACE, "b", largest),
        (NAMESPACE, "a", b""),
        ("", "c", b"3"),
    )
    for namespace, name, value in writes:
        written = await journal.write_setting(namespace, name, value, make_action("a"), None)
        assert written == SettingWritten()
    for name in ("c", "missing"):
        assert await journal.write_setting("", name, None, make_action("a"), None) == SettingWritten()
    await store.crash(journal)
    journal = await store.open()
    expected = {("", "b"): b"2", (NAMESPACE, "a"): b"", (NAMESPACE, "b"): largest}
    assert await journal.read_settings() == expected


async def check_settings_are_bounded(store: StoreUnderTest) -> None:
    """Check that a setting that is too large, or one too many, is refused and changes nothing (10)."""
    journal = await store.open()
    try:
        await journal.write_setting("", "n", b"x" * (SETTING_BYTES_MAX + 1), make_action("a"), None)
    except InvariantViolated:
        pass
    else:
        raise AssertionError("a value that is too large was written")
    assert await journal.read_settings() == {}
    await journal.aclose()
    await store.fill_settings(SETTINGS_MAX)
    journal = await store.open()
    settings = await journal.read_settings()
    assert len(settings) == SETTINGS_MAX
    request = make_request("r", "")
    assert await journal.write_setting("", "one more", b"x", make_action("a"), request) == SettingsFull()
    assert await journal.namespace("").find_request(request.method, request.request_id) is None
    assert await journal.read_settings() == settings
    namespace, name = next(iter(settings))
    assert await journal.write_setting(namespace, name, b"new", make_action("a"), None) == SettingWritten()
    assert (await journal.read_settings())[namespace, name] == b"new"


async def check_a_setting_s_request_is_recorded(store: StoreUnderTest) -> None:
    """Check that a setting's request id is taken together with it, in its namespace (10)."""
    journal = await store.open()
    request = make_request("r", "", method="SetLimit")
    assert await journal.write_setting(NAMESPACE, "n", b"1", make_action("a"), request) == SettingWritten()
    again = await journal.write_setting(NAMESPACE, "n", b"2", make_action("b"), request)
    assert again == RequestConflict(record=request)
    assert await journal.read_settings() == {(NAMESPACE, "n"): b"1"}
    assert await journal.namespace(NAMESPACE).find_request("SetLimit", "r") == request
    assert await journal.namespace(OTHER_NAMESPACE).find_request("SetLimit", "r") is None
    entries = await journal.namespace(NAMESPACE).list_audit(execution_id=None, before=None, limit=ALL)
    assert [entry.record for entry in entries] == [make_action("a")]


async def check_actions_are_listed_newest_first(store: StoreUnderTest) -> None:
    """Check that actions and audit records are listed together, newest first, in pages (10)."""
    journal = await store.open()
    submitted = make_action("a", execution_id="x")
    await append(journal, replace(make("x"), action=submitted), make("y"))
    await append(journal, replace(go_on("x", 1), audit=(make_audit("1"), make_audit("2"))))
    await journal.write_actions([(NAMESPACE, make_action("refused")), (OTHER_NAMESPACE, make_action("b"))])
    await store.crash(journal)
    journal = await store.open()
    cancelled = make_action("z", execution_id="x")
    await append(journal, replace(make("z"), audit=(make_audit("3"),)))
    await journal.write_setting(NAMESPACE, "n", b"", cancelled, None)
    handle = journal.namespace(NAMESPACE)
    expected = [
        ("x", cancelled),
        ("z", make_audit("3")),
        ("", make_action("refused")),
        ("x", make_audit("2")),
        ("x", make_audit("1")),
        ("x", submitted),
    ]
    entries = await handle.list_audit(execution_id=None, before=None, limit=ALL)
    assert [(entry.execution_id, entry.record) for entry in entries] == expected
    paged: list[AuditEntry] = []
    before = None
    while page := await handle.list_audit(execution_id=None, before=before, limit=4):
        assert len(page) <= 4
        paged += page
        before = page[-1].position
    assert paged == list(entries)
    of_x = await handle.list_audit(execution_id="x", before=None, limit=ALL)
    assert of_x == [entry for entry in entries if entry.execution_id == "x"]
    assert await handle.list_audit(execution_id="x", before=of_x[1].position, limit=1) == [of_x[2]]
    assert await handle.list_audit(execution_id="missing", before=None, limit=ALL) == []


async def check_a_refused_item_records_no_action(store: StoreUnderTest) -> None:
    """Check that the action of a refused item is not recorded (10)."""
    journal = await store.open()
    await append(journal, make("x"))
    await journal.append_many([replace(make("x"), action=make_action("a", execution_id="x"))])
    assert await journal.namespace(NAMESPACE).list_audit(execution_id=None, before=None, limit=ALL) == []


async def check_the_audit_is_of_its_namespace(store: StoreUnderTest) -> None:
    """Check that the audit shows nothing of another namespace, also by the id of an execution (8)."""
    journal = await store.open()
    item = replace(make("x"), action=make_action("a", execution_id="x"), audit=(make_audit("1"),))
    await append(journal, item, make("x", namespace=OTHER_NAMESPACE))
    for execution_id in (None, "x"):
        handle = journal.namespace(OTHER_NAMESPACE)
        assert await handle.list_audit(execution_id=execution_id, before=None, limit=ALL) == []
