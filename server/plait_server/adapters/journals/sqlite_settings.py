"""The settings in a SQLite store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait_server.adapters.journals.sqlite_lookup import find_record
from plait_server.adapters.journals.sqlite_rows import setting_of
from plait_server.adapters.journals.verification import checksum_of_setting
from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import REQUESTS_KEPT_S
from plait_server.ports.journal import (
    SETTINGS_MAX,
    RequestConflict,
    RequestRecord,
    SettingResult,
    SettingsFull,
    SettingWritten,
)

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal
    from plait_server.adapters.journals.sqlite_batch import Batch


def read_settings(journal: SqliteJournal) -> dict[tuple[str, str], bytes]:
    """Read all settings, within `SqliteJournal.read`.

    Raises:
        UnexpectedRow: one is damaged.
    """
    settings = map(setting_of, journal.execute("list_settings"))
    return {(namespace, name): value for namespace, name, value in settings}


def write_setting(
    journal: SqliteJournal,
    batch: Batch,
    namespace: str,
    name: str,
    value: bytes | None,
    audit: ActionRecord,
    request: RequestRecord | None,
) -> SettingResult:
    """Write a setting in the caller's transaction, and add the records to the batch, unless it is refused."""
    if request is not None:
        record = find_record(journal.connection, namespace, request.method, request.request_id)
        if record is not None:
            return RequestConflict(record=record)
    is_full = value is not None and journal.execute("count_settings") == [(SETTINGS_MAX,)]
    if is_full and (namespace, name) not in read_settings(journal):
        return SettingsFull()
    if value is None:
        journal.execute("remove_setting", namespace, name)
    else:
        journal.execute("write_setting", namespace, name, value, checksum_of_setting(namespace, name, value))
    if request is not None:
        batch.add_request(namespace, request, audit.time_s + REQUESTS_KEPT_S)
    batch.add_action(namespace, audit)
    return SettingWritten()
