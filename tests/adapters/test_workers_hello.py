"""How a stream begins: hello and welcome, what is refused, and what operators are told."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.commands import Disposition
from plait_server.errors import InvalidRequest, Overloaded, ProtocolViolation
from tests.adapters.workers_streams import (
    NAMESPACE,
    Stream,
    a_hub,
    complete,
    hello_message,
)


async def test_a_worker_is_welcomed_and_offers_its_slots(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial(slots=7, types=("t", "u"))
        (message,) = stream.heard
        assert message.welcome.protocol_version == 1
        assert message.welcome.server_version == "1.2.3"
        assert message.welcome.server_instance_id == "server.1"
        assert message.welcome.ping_interval.seconds == 5
        assert message.welcome.lease.seconds == 15
        assert message.welcome.payload_bytes_max == 1024 * 1024
        assert message.welcome.reject_pause.seconds == 1
        limits = {field.name: value for field, value in message.welcome.limits.ListFields()}
        assert limits == {
            "frame_bytes_max": 1024 * 1024,
            "frame_messages_max": 16_384,
            "fail_bytes_max": 1280 * 1024,
            "in_flight_max": 20_000,
            "unrecorded_bytes_max": 32 * 1024 * 1024,
            "usage_units_max": 64,
            "log_message_chars_max": 8192,
            "reports_per_second": 100,
            "report_bytes_per_second": 64 * 1024,
        }
        assert len(limits) == len(message.welcome.limits.DESCRIPTOR.fields)
        assert hub.capacity.slots == {"w.1": 7}
        assert hub.capacity.types == {"w.1": {"t": 0, "u": 0}}
        (snapshot,) = hub.workers.list_workers(NAMESPACE)
        assert (snapshot.worker_id, snapshot.is_attached, snapshot.slots) == ("w", True, 7)
        assert hub.workers.list_workers("other") == []


def no_types(hello: pb.Hello) -> None:
    hello.ClearField("types")


def many_labels(hello: pb.Hello) -> None:
    hello.labels.update({f"l{number}": "" for number in range(65)})


def bad_limit(hello: pb.Hello) -> None:
    hello.types[0].max_concurrency = -1


@pytest.mark.parametrize(
    ("hello", "field"),
    [
        ({"worker": ""}, "hello.worker_id"),
        ({"worker": "a b"}, "hello.worker_id"),
        ({"instance": "/"}, "hello.instance_id"),
        ({"namespace": "ä"}, "hello.namespace"),
        ({"slots": -1}, "hello.slots"),
        ({"slots": 10_001}, "hello.slots"),
        ({"types": ("t", "")}, "hello.types[1].type"),
        ({"change": no_types}, "hello.types"),
        ({"change": many_labels}, "hello.labels"),
        ({"change": bad_limit}, "hello.types[0].max_concurrency"),
    ],
    ids=[
        "no worker id",
        "worker id with a space",
        "instance id",
        "namespace",
        "slots below 0",
        "too many slots",
        "empty type",
        "no types",
        "labels",
        "limit of a type",
    ],
)
async def test_a_malformed_hello_is_refused(
    autojump_clock: MockClock, hello: dict[str, object], field: str
) -> None:
    async with a_hub() as hub:
        stream = await hub.dial(**hello)
        assert isinstance(stream.error, InvalidRequest)
        assert [violation.field for violation in stream.error.violations] == [field]
        assert hub.workers.list_workers(NAMESPACE) == []


@pytest.mark.parametrize("second", [False, True], ids=["no hello", "two hellos"])
async def test_a_hello_comes_first_and_once(autojump_clock: MockClock, second: bool) -> None:
    async with a_hub() as hub:
        stream = Stream(hub)
        hub.nursery.start_soon(stream.serve)
        await stream.tell(hello_message() if second else complete("token"))
        await stream.tell(hello_message())
        assert isinstance(stream.error, ProtocolViolation)


async def test_a_malformed_hello_is_told_all_that_is_wrong(autojump_clock: MockClock) -> None:
    def change(message: pb.Hello) -> None:
        message.labels.update({str(number): "" for number in range(65)})
        message.types.add(type="", max_concurrency=-1)

    async with a_hub() as hub:
        stream = await hub.dial(worker="a b", instance="", namespace="x/y", slots=10_001, change=change)
        assert isinstance(stream.error, InvalidRequest)
        assert [violation.field for violation in stream.error.violations] == [
            "hello.worker_id",
            "hello.instance_id",
            "hello.namespace",
            "hello.slots",
            "hello.labels",
            "hello.types[1].type",
            "hello.types[1].max_concurrency",
        ]
        assert hub.capacity.slots == {}


async def test_messages_behind_hello_in_its_frame_count(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = Stream(hub)
        hub.nursery.start_soon(stream.serve)
        await stream.tell()  # An empty frame is nothing.
        await stream.tell(hello_message(), pb.WorkerMessage(credit=pb.Credit(slots=1)))
        assert hub.capacity.slots == {"w.1": 1}


async def test_a_stream_without_hello_ends(autojump_clock: MockClock) -> None:
    """Nobody keeps a stream by saying nothing, or nothing but empty frames."""
    async with a_hub() as hub:
        silent = Stream(hub)
        hub.nursery.start_soon(silent.serve)
        await trio.sleep(6)
        await silent.tell()
        await trio.sleep(3.9)
        assert not silent.is_over
        await trio.sleep(0.2)
        assert isinstance(silent.error, ProtocolViolation)
        assert "hello" in silent.error.message


async def test_a_stream_that_ends_before_its_hello_is_refused(autojump_clock: MockClock) -> None:
    """A stream ends with OK only when its worker was attached and left."""
    async with a_hub() as hub:
        silent = Stream(hub)
        hub.nursery.start_soon(silent.serve)
        await silent.tell()
        await silent.close()
        assert isinstance(silent.error, ProtocolViolation)
        worker = await hub.dial()
        await worker.close()
        assert (worker.is_over, worker.error) == (True, None)


async def test_a_worker_may_begin_without_slots(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial(slots=0)
        assert hub.capacity.slots == {"w.1": 0}
        await stream.tell(pb.WorkerMessage(credit=pb.Credit(slots=2)))
        assert hub.capacity.slots == {"w.1": 2}


async def test_a_worker_that_ends_its_side_hears_nothing_more(autojump_clock: MockClock) -> None:
    """The worker keeps its attempts for a lease, and a result is acknowledged when it attaches again."""
    async with a_hub() as hub:
        stream = await hub.dial()
        done, runs = hub.execute("a"), hub.execute("b")
        await wait_all_tasks_blocked()
        await stream.complete(done)
        await stream.close()
        assert stream.is_over
        hub.workers.acknowledge(done.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert stream.recorded == []
        again = await hub.dial(running=[runs], finished=[done])
        await again.complete(done)
        hub.workers.acknowledge(done.key, Disposition.ALREADY_RECORDED, "w")
        await again.complete(runs)
        assert again.recorded == [(done.token, Disposition.ALREADY_RECORDED)]
        assert runs.result is not None
        assert again.assigned == []


async def test_operators_see_who_is_there(autojump_clock: MockClock) -> None:
    def with_labels(hello: pb.Hello) -> None:
        hello.labels["zone"] = "a"

    async with a_hub() as hub:
        await trio.sleep(100)
        stream = await hub.dial(change=with_labels)
        other = await hub.dial(worker="a", instance="a.1")
        await hub.dial(worker="z", instance="z.1", namespace="other")
        await trio.sleep(3)
        await stream.tell(pb.WorkerMessage(pong=pb.Pong()))
        first, second = hub.workers.list_workers(NAMESPACE)
        assert (first.worker_id, first.instance_id, first.labels) == ("a", "a.1", {})
        assert (second.worker_id, second.instance_id, second.labels) == ("w", "w.1", {"zone": "a"})
        assert (second.slots, second.types, second.sdk) == (4, {"t": 0}, "by hand")
        assert second.is_attached
        assert not second.is_draining
        start_s = 1_700_000_000.0
        assert (second.attached_time_s, second.heard_time_s) == (start_s + 100, start_s + 103)
        assert [worker.instance_id for worker in hub.workers.list_workers("other")] == ["z.1"]
        assert hub.workers.list_workers("nobody") == []
        await other.close()
        hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        (held,) = hub.workers.list_workers(NAMESPACE)
        assert (held.instance_id, held.is_attached) == ("w.1", False)
        assert hub.capacity.slots["w.1"] == 0


async def test_so_many_workers_are_attached_and_no_more(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait_server.adapters.workers.attached.WORKERS_MAX", 2)
    async with a_hub() as hub:
        streams = [await hub.dial(worker=f"w{n}", instance=f"w{n}.1") for n in range(3)]
        assert isinstance(streams[2].error, Overloaded)
        await streams[0].cut()
        assert (await hub.dial(worker="w2", instance="w2.1")).error is None


async def test_an_instance_cannot_be_taken_over_from_another_worker(autojump_clock: MockClock) -> None:
    """FAILURES, security: nothing of one namespace reaches a worker of another, whatever it says it is."""
    async with a_hub() as hub:
        honest = await hub.dial()
        attempt = hub.execute(input_json='"secret"')
        await wait_all_tasks_blocked()
        thief = await hub.dial(worker="thief")
        # In another namespace the id is another's, so that nothing is told of this one.
        stranger = await hub.dial(namespace="other")
        hub.execute("b", input_json='"secret"')
        await wait_all_tasks_blocked()
        assert isinstance(thief.error, InvalidRequest)
        assert stranger.error is None
        assert "secret" not in str(thief.frames) + str(stranger.frames)
        assert not honest.is_over
        await honest.complete(attempt)
        assert attempt.result is not None
