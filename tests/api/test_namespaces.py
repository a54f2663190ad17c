"""The settings of namespaces: shown with their sources, changed by calls, kept over a restart (Q3)."""

from __future__ import annotations

import pytest
from google.protobuf import duration_pb2, field_mask_pb2

from plait.v1 import namespace_service_pb2
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.namespaces import SETTING_NAME, NamespaceServicer
from plait_server.api.pages import PageTokens
from plait_server.core.namespace_settings import NamespaceSettings, QueueOrder
from plait_server.encoding.namespace_codec import settings_from_bytes
from plait_server.errors import (
    EtagMismatch,
    InvalidPageToken,
    InvalidRequest,
    JournalUnavailable,
    QueueFull,
    RequestIdReused,
    StoreDamaged,
)
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import AppendItem, ExecutionRow, RequestRecord, SettingResult
from plait_server.runtime.admission import Admission
from plait_server.runtime.namespace_registry import NamespaceRegistry

Pb = namespace_service_pb2
CALL = Call(method="/plait.v1.NamespaceService/UpdateNamespace", peer="ipv4:10.0.0.1:2")
CONFIGURED = {"*": NamespaceSettings(queue_max=50), "shop": NamespaceSettings(running_max=7)}


class Server:
    """A servicer over a journal in memory."""

    def __init__(self, journal: MemoryJournal | None = None) -> None:
        self.journal = journal or MemoryJournal(MemoryStore(), owner="o")
        self.registry = NamespaceRegistry(CONFIGURED)
        self.admission = Admission(self.registry)
        self.servicer = NamespaceServicer(
            self.registry, self.admission, self.journal, PageTokens(b"key"), Actions(lambda: 1.0)
        )

    async def get(self, name: str) -> Pb.Namespace:
        return (await self.servicer.get_namespace(Pb.GetNamespaceRequest(namespace=name), CALL)).namespace

    async def update(
        self, name: str, settings: Pb.NamespaceSettings, *mask: str, etag: str = "", request_id: str = ""
    ) -> Pb.Namespace:
        request = Pb.UpdateNamespaceRequest(
            namespace=name,
            settings=settings,
            update_mask=field_mask_pb2.FieldMask(paths=mask) if mask else None,
            etag=etag,
            request_id=request_id,
        )
        return (await self.servicer.update_namespace(request, CALL)).namespace


async def test_a_namespace_that_nobody_configured_has_the_defaults() -> None:
    """Q3: [1,000] executions run, [100,000] wait, order FIFO, no timeout. K1: kept for 7 days."""
    server = Server()
    server.registry = NamespaceRegistry()
    server.servicer = NamespaceServicer(
        server.registry, Admission(server.registry), server.journal, PageTokens(b"key"), Actions(lambda: 1.0)
    )
    shown = await server.get("")
    assert shown.name == "default"
    assert shown.settings == Pb.NamespaceSettings(
        running_max=1_000,
        queue_max=100_000,
        order=Pb.QUEUE_ORDER_FIFO,
        queue_timeout=duration_pb2.Duration(),
        weight=1,
        retention=duration_pb2.Duration(seconds=7 * 86_400),
    )
    assert set(shown.sources.values()) == {Pb.SETTING_SOURCE_DEFAULT}


async def test_what_a_call_sets_wins_over_the_configuration_until_it_is_removed() -> None:
    server = Server()
    before = await server.get("shop")
    assert (before.settings.running_max, before.sources["running_max"]) == (
        7,
        Pb.SETTING_SOURCE_CONFIGURATION,
    )
    assert (before.settings.queue_max, before.sources["queue_max"]) == (50, Pb.SETTING_SOURCE_CONFIGURATION)
    changed = await server.update("shop", Pb.NamespaceSettings(running_max=9, order=Pb.QUEUE_ORDER_LIFO))
    assert (changed.settings.running_max, changed.sources["running_max"]) == (9, Pb.SETTING_SOURCE_SET)
    assert changed.settings.order == Pb.QUEUE_ORDER_LIFO
    assert changed.settings.queue_max == 50
    assert changed.etag != before.etag
    removed = await server.update("shop", Pb.NamespaceSettings(), "running_max", "order")
    assert removed == before
    assert await server.journal.read_settings() == {}


async def test_settings_are_kept_with_who_set_them() -> None:
    server = Server()
    await server.update(
        "shop", Pb.NamespaceSettings(weight=3, queue_timeout=duration_pb2.Duration(seconds=60))
    )
    content = (await server.journal.read_settings())["shop", SETTING_NAME]
    assert settings_from_bytes(content) == NamespaceSettings(weight=3, queue_timeout_s=60.0)
    audit = await server.journal.namespace("shop").list_audit(execution_id=None, before=None, limit=9)
    assert len(audit) == 1
    with pytest.raises(StoreDamaged):
        settings_from_bytes(b"\xff")


async def test_a_stale_etag_changes_nothing() -> None:
    server = Server()
    etag = (await server.get("shop")).etag
    changed = await server.update("shop", Pb.NamespaceSettings(weight=2), etag=etag)
    with pytest.raises(EtagMismatch) as caught:
        await server.update("shop", Pb.NamespaceSettings(weight=3), etag=etag)
    assert caught.value.fields["etag"] == changed.etag
    assert (await server.get("shop")).settings.weight == 2


async def test_a_repeated_request_is_carried_out_once() -> None:
    """K3: a request id lives with what it made."""
    server = Server()
    await server.update("shop", Pb.NamespaceSettings(weight=2), request_id="r")
    await server.update("shop", Pb.NamespaceSettings(weight=5))
    again = await server.update("shop", Pb.NamespaceSettings(weight=2), request_id="r")
    assert again.settings.weight == 5
    with pytest.raises(RequestIdReused):
        await server.update("shop", Pb.NamespaceSettings(weight=9), request_id="r")


@pytest.mark.parametrize(
    ("settings", "mask", "field"),
    [
        (Pb.NamespaceSettings(running_max=0), (), "settings.running_max"),
        (Pb.NamespaceSettings(running_max=100_001), (), "settings.running_max"),
        (Pb.NamespaceSettings(queue_max=-1), (), "settings.queue_max"),
        (Pb.NamespaceSettings(weight=0), (), "settings.weight"),
        (Pb.NamespaceSettings(weight=1_001), (), "settings.weight"),
        (Pb.NamespaceSettings(order=9), (), "settings.order"),  # type: ignore[arg-type] # of a later version
        (
            Pb.NamespaceSettings(queue_timeout=duration_pb2.Duration(seconds=-1)),
            (),
            "settings.queue_timeout",
        ),
        (
            Pb.NamespaceSettings(queue_timeout=duration_pb2.Duration(seconds=1, nanos=-1)),
            (),
            "settings.queue_timeout",
        ),
        (Pb.NamespaceSettings(retention=duration_pb2.Duration()), (), "settings.retention"),
        (
            Pb.NamespaceSettings(retention=duration_pb2.Duration(seconds=2**62)),
            (),
            "settings.retention",
        ),
        (Pb.NamespaceSettings(), (), "settings"),
        (Pb.NamespaceSettings(weight=1), ("wieght",), "update_mask.paths[0]"),
        (Pb.NamespaceSettings(weight=1), ("wieght",) * 300_000, "update_mask.paths"),
    ],
)
async def test_settings_out_of_range_are_refused_by_field(
    settings: Pb.NamespaceSettings, mask: tuple[str, ...], field: str
) -> None:
    server = Server()
    with pytest.raises(InvalidRequest) as caught:
        await server.update("shop", settings, *mask)
    assert [each.field for each in caught.value.violations] == [field]
    assert await server.journal.read_settings() == {}


async def test_namespaces_are_listed_by_name_in_pages() -> None:
    server = Server()
    await server.journal.append_many(
        [
            AppendItem(
                namespace="busy",
                execution_id="x",
                expected_sequence=0,
                owner_epoch=1,
                events=[b"1"],
                row=ExecutionRow(summary=b"", is_open=True),
            )
        ]
    )
    server.admission.hold(("busy", "x"))
    await server.update("own", Pb.NamespaceSettings(weight=2))
    names: list[str] = []
    token = ""
    while True:
        request = Pb.ListNamespacesRequest(page_size=2, page_token=token)
        page = await server.servicer.list_namespaces(request, CALL)
        names += [each.name for each in page.namespaces]
        token = page.next_page_token
        if not token:
            break
    assert names == ["busy", "own", "shop"]
    assert (await server.get("busy")).running_count == 1
    with pytest.raises(InvalidPageToken):
        await server.servicer.list_namespaces(Pb.ListNamespacesRequest(page_token="forged"), CALL)


async def test_a_change_reaches_admission_at_once() -> None:
    """Q2, Q3: a limit takes effect while executions run."""
    server = Server()
    await server.update("shop", Pb.NamespaceSettings(running_max=1, queue_max=0))
    with server.admission.reserve("shop") as place:
        assert place.has_slot
        with pytest.raises(QueueFull):
            server.admission.check_room("shop")
        await server.update("shop", Pb.NamespaceSettings(running_max=2, order=Pb.QUEUE_ORDER_PRIORITY))
        server.admission.check_room("shop")
    assert server.registry.of("shop").order is QueueOrder.PRIORITY


class LosingJournal(MemoryJournal):
    """A store that writes a setting, and whose answer is lost once."""

    has_answered = False

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        result = await super().write_setting(namespace, name, value, audit, request)
        if not self.has_answered:
            self.has_answered = True
            raise JournalUnavailable
        return result


async def test_what_is_durable_is_in_force_though_the_store_did_not_answer() -> None:
    """Rule 4 of the journal: the caller reads back before it goes on; the retry finds its request carried out."""
    server = Server(LosingJournal(MemoryStore(), owner="o"))
    with pytest.raises(JournalUnavailable):
        await server.update("shop", Pb.NamespaceSettings(weight=2), request_id="r")
    assert server.registry.of("shop").weight == 2
    again = await server.update("shop", Pb.NamespaceSettings(weight=2), request_id="r")
    assert again.settings.weight == 2
