"""How a stream begins: hello and welcome, what is refused, and what the allocator and operators are told."""

from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.errors import InvalidRequest, ProtocolVersionUnsupported, ProtocolViolation, leaves_of
from tests.adapters.attached_stage import (
    EPOCH_S,
    INSTANCE,
    LEASE_S,
    PING_S,
    QUIET_S,
    credit,
    drain,
    hello,
    open_hub,
    pong,
)


async def test_hello_is_answered_with_welcome(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = stage.open(hello())
        (message,) = await far.quiet()
        welcome = message.welcome
        assert welcome.protocol_version == 1
        assert welcome.server_version == "1.2.3"
        assert welcome.server_instance_id == "server-1"
        assert welcome.ping_interval.ToSeconds() == PING_S
        assert welcome.lease.ToSeconds() == LEASE_S
        assert welcome.payload_bytes_max == 1024 * 1024
        assert stage.capacity.said == [("attach", INSTANCE, 4)]
        assert stage.capacity.types[INSTANCE] == {"t": 2}


async def test_a_stream_that_says_nothing_is_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = stage.open()
        far.close()
        await far.ended.wait()
        assert far.error is None
        assert stage.capacity.said == []


@pytest.mark.parametrize("first", [pong(), hub.WorkerMessage()], ids=["pong", "empty"])
async def test_the_first_message_is_hello(
    first: hub.WorkerMessage, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_hub() as stage:
        far = stage.open(first)
        await far.ended.wait()
        assert isinstance(far.error, ProtocolViolation)
        assert far.heard() == []


async def test_a_second_hello_ends_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        far.say(hello())
        await far.ended.wait()
        assert isinstance(far.error, ExceptionGroup)
        (leaf,) = leaves_of(cast("BaseExceptionGroup[BaseException]", far.error))
        assert isinstance(leaf, ProtocolViolation)
        assert stage.workers.list_workers("default") == []


@pytest.mark.parametrize("version", [0, 2])
async def test_another_protocol_version_is_refused(
    version: int, autojump_clock: trio.testing.MockClock
) -> None:
    def change(message: hub.Hello) -> None:
        message.protocol_version = version

    async with open_hub() as stage:
        far = stage.open(hello(change=change))
        await far.ended.wait()
        assert isinstance(far.error, ProtocolVersionUnsupported)
        assert stage.capacity.said == []


async def test_a_malformed_hello_is_told_all_that_is_wrong(autojump_clock: trio.testing.MockClock) -> None:
    def change(message: hub.Hello) -> None:
        message.worker_id = "a b"
        message.instance_id = ""
        message.namespace = "x/y"
        message.slots = 10_001
        message.labels.update({str(number): "" for number in range(65)})
        message.types.add(type="", max_concurrency=-1)

    async with open_hub() as stage:
        far = stage.open(hello(change=change))
        await far.ended.wait()
        assert isinstance(far.error, InvalidRequest)
        assert [violation.field for violation in far.error.violations] == [
            "hello.worker_id",
            "hello.instance_id",
            "hello.namespace",
            "hello.slots",
            "hello.labels",
            "hello.types[1].type",
            "hello.types[1].max_concurrency",
        ]
        assert stage.capacity.said == []


async def test_a_worker_serves_at_least_one_type(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = stage.open(hello(change=lambda message: message.ClearField("types")))
        await far.ended.wait()
        assert isinstance(far.error, InvalidRequest)
        assert [violation.field for violation in far.error.violations] == ["hello.types"]


async def test_an_instance_is_not_taken_over_by_another_worker_or_namespace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A worker knows no more than its own ids; what another instance holds stays that one's."""

    def other_namespace(message: hub.Hello) -> None:
        message.namespace = "other"

    def other_worker(message: hub.Hello) -> None:
        message.worker_id = "v"

    changes: list[Callable[[hub.Hello], None]] = [other_namespace, other_worker]
    for change in changes:
        async with open_hub() as stage:
            far = await stage.attach()
            intruder = stage.open(hello(change=change))
            await intruder.ended.wait()
            assert isinstance(intruder.error, InvalidRequest)
            assert [violation.field for violation in intruder.error.violations] == ["hello.instance_id"]
            call = stage.execute()
            assert await far.kinds() == ["assign"]
            assert not call.done.is_set()


async def test_credit_changes_the_slots(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        for slots, counted in ((7, 7), (0, 0), (-5, 0), (20_000, 10_000), (2, 2)):
            far.say(credit(slots))
            await far.quiet()
            assert stage.capacity.slots[INSTANCE] == counted


async def test_a_worker_that_drains_takes_nothing_new(autojump_clock: trio.testing.MockClock) -> None:
    """T3."""
    async with open_hub() as stage:
        far = await stage.attach()
        far.say(drain())
        await far.quiet()
        assert stage.capacity.slots[INSTANCE] == 0
        (worker,) = stage.workers.list_workers("default")
        assert worker.is_draining
        # What it says of its credit later, it says of what runs.
        far.say(credit(3))
        await far.quiet()
        assert stage.capacity.slots[INSTANCE] == 0
        (worker,) = stage.workers.list_workers("default")
        assert worker.is_draining


async def test_messages_behind_hello_in_its_frame_count(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        await stage.attach(hello(), credit(1))
        assert stage.capacity.slots[INSTANCE] == 1


async def test_operators_see_who_is_there(autojump_clock: trio.testing.MockClock) -> None:
    def other_worker(message: hub.Hello) -> None:
        message.worker_id = "a"
        message.labels.clear()

    async with open_hub() as stage:
        await trio.sleep(100)
        start_s = EPOCH_S + trio.current_time()
        far = await stage.attach()
        other = await stage.attach(hello(instance_id="w-0", change=other_worker))
        await stage.attach(
            hello(instance_id="z-1", change=lambda message: setattr(message, "namespace", "other"))
        )
        far.say(pong())
        await far.quiet()
        first, second = stage.workers.list_workers("default")
        assert (first.worker_id, first.instance_id, first.labels) == ("a", "w-0", {})
        assert (second.worker_id, second.instance_id, second.labels) == ("w", INSTANCE, {"zone": "a"})
        assert (second.slots, second.slots_in_use, second.types, second.sdk) == (4, 3, {"t": 2}, "hand/1")
        assert second.is_attached
        assert not second.is_draining
        assert second.attached_time_s == pytest.approx(start_s, rel=0, abs=0.01)
        assert second.heard_time_s == pytest.approx(start_s + 3 * QUIET_S, rel=0, abs=0.01)
        assert [worker.instance_id for worker in stage.workers.list_workers("other")] == ["z-1"]
        assert stage.workers.list_workers("nobody") == []
        other.close()
        await other.ended.wait()
        assert [worker.instance_id for worker in stage.workers.list_workers("default")] == [INSTANCE]


async def test_a_detached_worker_that_holds_attempts_is_still_shown(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        stage.execute()
        await far.quiet()
        far.close()
        await far.ended.wait()
        (worker,) = stage.workers.list_workers("default")
        assert not worker.is_attached
        assert stage.capacity.slots[INSTANCE] == 0


async def test_messages_of_a_later_protocol_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        later = hub.WorkerMessage.FromString(b"\xfa\x01\x00")  # field 31, empty
        far.say(later, credit(6))
        await far.quiet()
        assert stage.capacity.slots[INSTANCE] == 6
