"""LimitService: limits are shown with their users, set, kept over a restart, and removed (Q1, Q2, Q6)."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from plait.v1 import limit_service_pb2, namespace_service_pb2
from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.api.audit import Actions
from plait_server.api.call import Call
from plait_server.api.limits import LimitServicer
from plait_server.api.pages import PageTokens
from plait_server.core.limit_values import SERVER, LimitKind, LimitName, LimitValue
from plait_server.core.run.commands import Place
from plait_server.encoding.limit_codec import limit_from_bytes
from plait_server.errors import (
    InvalidPageToken,
    InvalidRequest,
    JournalUnavailable,
    LimitNotFound,
    RequestIdReused,
    StoreDamaged,
)
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import RequestRecord, SettingResult
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.grant import Grant
from plait_server.runtime.limit_registry import LimitRegistry
from plait_server.runtime.waiting import PermitRequest

Pb = limit_service_pb2
DEFAULT = namespace_service_pb2.SETTING_SOURCE_DEFAULT
CONFIGURATION = namespace_service_pb2.SETTING_SOURCE_CONFIGURATION
SET = namespace_service_pb2.SETTING_SOURCE_SET
CALL = Call(method="/plait.v1.LimitService/SetLimit", peer="ipv4:10.0.0.1:2")
CONFIGURED = {
    LimitName(LimitKind.TYPE, "", "t"): LimitValue(max_concurrency=2, rate=5.0),
    LimitName(LimitKind.NAMESPACE, "*", ""): LimitValue(max_concurrency=50),
}


class Server:
    """A servicer over a journal in memory."""

    def __init__(self, store: MemoryStore | None = None, journal: MemoryJournal | None = None) -> None:
        self.store = store or MemoryStore()
        self.journal = journal or MemoryJournal(self.store, owner="o")
        self.allocator = Allocator(server_limit=1_000, limits=CONFIGURED)
        self.registry = LimitRegistry(self.allocator, 1_000, CONFIGURED)
        self.servicer = LimitServicer(
            self.registry,
            self.allocator,
            self.journal,
            PageTokens(b"key"),
            Actions(lambda: 1.0),
            lambda: 100.0,
        )
        self.grants: dict[str, Grant] = {}

    async def read(self) -> None:
        """Read what was set, as a server does at its start."""
        for content in (await self.journal.read_settings()).values():
            self.registry.set(*limit_from_bytes(content))

    def ask(self, path: str, *, namespace: str = "shop", key: str = "") -> None:
        """Have a node of the type `t` wait, and grant what can be granted."""
        self.allocator.attach_worker(namespace, "w", f"w.{namespace}", 100, {"t": 0})
        self.allocator.open_execution(namespace, "x", 100)

        def on_grant(grant: Grant) -> None:
            self.grants[path] = grant

        self.allocator.offer(
            PermitRequest(
                namespace, "x", path, "t", (Place(0, 0, 0),), "", trio.current_time(), on_grant, key
            )
        )
        self.allocator.dispatch()

    async def list(self, namespace: str = "", **fields: object) -> dict[tuple[int, str, str], Pb.Limit]:
        request = Pb.ListLimitsRequest(namespace=namespace, **fields)  # type: ignore[arg-type]
        limits = (await self.servicer.list_limits(request, CALL)).limits
        return {(limit.kind, limit.namespace, limit.name): limit for limit in limits}

    async def set(self, **fields: object) -> Pb.Limit:
        request = Pb.SetLimitRequest(**fields)  # type: ignore[arg-type]
        return (await self.servicer.set_limit(request, CALL)).limit

    async def remove(self, **fields: object) -> Pb.RemoveLimitResponse:
        return await self.servicer.remove_limit(Pb.RemoveLimitRequest(**fields), CALL)  # type: ignore[arg-type]


async def test_limits_show_their_source_their_use_and_who_holds_them(autojump_clock: MockClock) -> None:
    """Q6: it can be told which limit a node lacks, and who holds it."""
    server = Server()
    for path in ("a", "b", "c"):
        server.ask(path)
    server.ask("k", namespace="other", key="db")
    autojump_clock.jump(3)
    limits = await server.list()
    assert list(limits) == sorted(limits)
    the_type = limits[Pb.LIMIT_KIND_TYPE, "", "t"]
    assert (the_type.max_concurrency, the_type.rate, the_type.burst) == (2, 5.0, 5)
    assert (the_type.source, the_type.in_use, the_type.waiting) == (CONFIGURATION, 2, 2)
    assert [(each.namespace, each.execution_id, each.node_path) for each in the_type.holders] == [
        ("shop", "x", "a"),
        ("shop", "x", "b"),
    ]
    assert the_type.holders[0].start_time.seconds == 97
    assert limits[Pb.LIMIT_KIND_SERVER, "", ""].source == DEFAULT
    assert limits[Pb.LIMIT_KIND_SERVER, "", ""].waiting == 0, "it has permits free"
    key = limits[Pb.LIMIT_KIND_KEY, "other", "db"]
    assert (key.max_concurrency, key.source, key.in_use) == (1, DEFAULT, 0)
    assert limits[Pb.LIMIT_KIND_NAMESPACE, "shop", ""].max_concurrency == 50


async def test_a_namespace_sees_the_limits_that_bind_it_and_its_own_holders() -> None:
    """Who may read one namespace learns nothing of the executions of others."""
    server = Server()
    server.ask("a")
    server.ask("b", namespace="other", key="secret")
    limits = await server.list("shop")
    assert {namespace for _, namespace, _ in limits} == {"", "shop"}
    assert [each.node_path for limit in limits.values() for each in limit.holders] == 3 * ["a"]
    assert limits[Pb.LIMIT_KIND_TYPE, "", "t"].in_use == 2


async def test_a_limit_is_set_at_once_kept_over_a_restart_and_removed() -> None:
    """Q2: limits can be changed while executions run. One that is set wins over the configuration until removed."""
    server = Server()
    for path in ("a", "b", "c"):
        server.ask(path)
    limit = await server.set(kind=Pb.LIMIT_KIND_TYPE, name="t", max_concurrency=3)
    assert (limit.max_concurrency, limit.HasField("rate"), limit.source) == (3, False, SET)
    server.allocator.dispatch()
    assert set(server.grants) == {"a", "b", "c"}
    await server.set(kind=Pb.LIMIT_KIND_SERVER, max_concurrency=1)

    again = Server(server.store)
    await again.read()
    limits = await again.list()
    assert limits[Pb.LIMIT_KIND_TYPE, "", "t"].max_concurrency == 3
    assert limits[Pb.LIMIT_KIND_SERVER, "", ""].max_concurrency == 1
    for path in ("a", "b"):
        again.ask(path)
    assert set(again.grants) == {"a"}

    left = await again.remove(kind=Pb.LIMIT_KIND_TYPE, name="t")
    assert (left.limit.max_concurrency, left.limit.source) == (2, CONFIGURATION)
    left = await again.remove(kind=Pb.LIMIT_KIND_SERVER)
    assert (left.limit.max_concurrency, left.limit.source) == (1_000, DEFAULT)
    again.allocator.dispatch()
    assert set(again.grants) == {"a", "b"}
    await again.set(kind=Pb.LIMIT_KIND_TYPE, namespace="shop", name="t", rate=0.5)
    assert not (await again.remove(kind=Pb.LIMIT_KIND_TYPE, namespace="shop", name="t")).HasField("limit")
    assert await again.journal.read_settings() == {}


async def test_a_request_id_sets_and_removes_once_and_each_change_is_audited() -> None:
    server = Server()
    key = {"kind": Pb.LIMIT_KIND_KEY, "namespace": "shop", "name": "db"}
    for _ in range(2):
        await server.set(**key, max_concurrency=2, request_id="1")
    with pytest.raises(RequestIdReused):
        await server.set(**key, max_concurrency=3, request_id="1")
    for _ in range(2):
        await server.remove(**key, request_id="2")
    with pytest.raises(LimitNotFound):
        await server.remove(**key, request_id="3")
    entries = await server.journal.namespace("shop").list_audit(execution_id=None, before=None, limit=10)
    assert [getattr(each.record, "target", "") for each in entries] == 2 * ["KEY shop db"]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, ["kind"]),
        ({"kind": 9}, ["kind"]),
        ({"kind": 1}, ["max_concurrency"]),
        ({"kind": 1, "namespace": "shop", "name": "x", "max_concurrency": 1}, ["namespace", "name"]),
        ({"kind": 1, "max_concurrency": 0}, ["max_concurrency"]),
        ({"kind": 1, "max_concurrency": -1}, ["max_concurrency"]),
        ({"kind": 1, "max_concurrency": 1_000_001}, ["max_concurrency"]),
        ({"kind": 1, "max_concurrency": 1, "rate": 1.0}, ["rate"]),
        ({"kind": 2, "max_concurrency": 1}, ["namespace"]),
        ({"kind": 2, "namespace": "*", "max_concurrency": 1}, ["namespace"]),
        ({"kind": 3, "max_concurrency": 1}, ["name"]),
        ({"kind": 3, "name": "t/u", "max_concurrency": 1}, ["name"]),
        ({"kind": 3, "name": "t"}, ["max_concurrency"]),
        ({"kind": 3, "name": "t", "rate": 0.0}, ["rate"]),
        ({"kind": 3, "name": "t", "rate": -1.0}, ["rate"]),
        ({"kind": 3, "name": "t", "rate": math.nan}, ["rate"]),
        ({"kind": 3, "name": "t", "rate": math.inf}, ["rate"]),
        ({"kind": 3, "name": "t", "max_concurrency": 1, "burst": 2}, ["burst"]),
        ({"kind": 3, "name": "t", "rate": 1.0, "burst": -2}, ["burst"]),
        ({"kind": 4, "namespace": "shop", "max_concurrency": 1}, ["name"]),
        ({"kind": 4, "namespace": "shop", "name": "k" * 129, "max_concurrency": 1}, ["name"]),
        ({"kind": 4, "namespace": "shop", "name": "k\0", "max_concurrency": 1}, ["name"]),
        (
            {"kind": 4, "namespace": "shop", "name": "k", "max_concurrency": 1, "request_id": " "},
            ["request_id"],
        ),
    ],
)
async def test_what_cannot_be_set_is_refused_by_field_and_changes_nothing(
    fields: dict[str, object], wrong: list[str]
) -> None:
    server = Server()
    with pytest.raises(InvalidRequest) as caught:
        await server.set(**fields)
    assert [each.field for each in caught.value.violations] == wrong
    assert await server.journal.read_settings() == {}


async def test_a_retry_of_a_change_that_is_history_changes_nothing_and_is_answered() -> None:
    server = Server()
    name = {"kind": Pb.LIMIT_KIND_TYPE, "name": "other"}
    await server.set(**name, rate=2.0, request_id="1")
    await server.remove(**name, request_id="2")
    answer = await server.set(**name, rate=2.0, request_id="1")
    assert (answer.name, answer.rate, answer.source) == ("other", 2.0, 0)
    assert await server.journal.read_settings() == {}


class FailingJournal(MemoryJournal):
    """Fails after it has written a setting, as a store may."""

    fails = False

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        result = await super().write_setting(namespace, name, value, audit, request)
        if self.fails:
            self.fails = False
            raise JournalUnavailable
        return result


async def test_what_a_failing_store_has_written_comes_into_force() -> None:
    """A retry finds its request id, so it writes nothing; a list shows what is durable without a retry."""
    store = MemoryStore()
    journal = FailingJournal(store, owner="o")
    server = Server(store, journal)
    key = {"kind": Pb.LIMIT_KIND_KEY, "namespace": "shop", "name": "db"}
    for request_id in ("1", ""):
        journal.fails = True
        with pytest.raises(JournalUnavailable):
            await server.set(**key, max_concurrency=2, request_id=request_id)
        if request_id:
            assert (await server.set(**key, max_concurrency=2, request_id=request_id)).source == SET
        assert (await server.list())[Pb.LIMIT_KIND_KEY, "shop", "db"].source == SET
        journal.fails = True
        with pytest.raises(JournalUnavailable):
            await server.remove(**key, request_id=request_id)
        assert (Pb.LIMIT_KIND_KEY, "shop", "db") not in await server.list()


async def test_a_limit_of_zero_is_refused_with_the_remedy() -> None:
    with pytest.raises(InvalidRequest, match="pause executions, or remove the limit"):
        await Server().set(kind=Pb.LIMIT_KIND_TYPE, name="t", max_concurrency=0)


async def test_pages_show_each_limit_once_and_tokens_belong_to_their_list() -> None:
    server = Server()
    for name in ("a/b", "c", "a"):
        await server.set(kind=Pb.LIMIT_KIND_KEY, namespace="shop", name=name, max_concurrency=2)
    found, token = list[str](), ""
    request = Pb.ListLimitsRequest(namespace="shop", kind=Pb.LIMIT_KIND_KEY, page_size=1)
    while True:
        answer = await server.servicer.list_limits(request, CALL)
        found.extend(limit.name for limit in answer.limits)
        if not answer.next_page_token:
            break
        request.page_token = token = answer.next_page_token
    assert found == ["a", "a/b", "c"]
    with pytest.raises(InvalidPageToken):
        await server.servicer.list_limits(Pb.ListLimitsRequest(page_token=token), CALL)


async def test_a_limit_that_cannot_be_read_is_damage() -> None:
    with pytest.raises(StoreDamaged):
        limit_from_bytes(b"\xff")
    with pytest.raises(StoreDamaged):
        limit_from_bytes(b"")


async def test_the_servers_limit_is_of_the_configuration_if_it_is_not_the_default() -> None:
    value = LimitValue(max_concurrency=7)
    registry = LimitRegistry(Allocator(server_limit=7), 7, {SERVER: value})
    found = registry.find(SERVER)
    assert found is not None
    assert (found[0], int(found[1])) == (value, CONFIGURATION)
