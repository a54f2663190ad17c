"""A worker without the SDK that writes a frame a message, as a simple one in another language would.

`python -m plait_server.bench.plain_worker ADDRESS WORKERS SLOTS` attaches that many workers from one process.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterable
from typing import cast

import grpc
import grpc.aio

from plait.v1 import payload_pb2, worker_hub_service_pb2
from plait_server.bench.graphs import NOOP

Hub = worker_hub_service_pb2
_OUTPUT = payload_pb2.Payload(json="null")


async def _attach(channel: grpc.aio.Channel, number: int, slots: int) -> None:
    call = cast(
        "grpc.aio.StreamStreamCall[bytes, bytes]",
        channel.stream_stream("/plait.v1.WorkerHubService/Attach")(),
    )
    hello = Hub.Hello(
        protocol_version=1,
        worker_id=f"plain-{number}",
        instance_id=uuid.uuid4().hex,
        types=[Hub.ServedType(type=NOOP)],
        slots=slots,
    )
    await call.write(_frame(Hub.WorkerMessage(hello=hello)))
    while isinstance(content := await call.read(), bytes):
        for message in Hub.AttachResponse.FromString(content).messages:
            for answer in _answers(message):
                await call.write(_frame(answer))


def _answers(message: Hub.ServerMessage) -> Iterable[Hub.WorkerMessage]:
    match message.WhichOneof("message"):
        case "assign":
            token = message.assign.token
            yield Hub.WorkerMessage(accept=Hub.Accept(token=token))
            yield Hub.WorkerMessage(complete=Hub.Complete(token=token, output=_OUTPUT))
        case "cancel":
            yield Hub.WorkerMessage(exited=Hub.Exited(token=message.cancel.token))
        case "ping":
            yield Hub.WorkerMessage(pong=Hub.Pong(number=message.ping.number))
        case _:
            pass


def _frame(message: Hub.WorkerMessage) -> bytes:
    return Hub.AttachRequest(messages=[message]).SerializeToString()


async def _main(address: str, workers: int, slots: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel, asyncio.TaskGroup() as tasks:
        for number in range(workers):
            tasks.create_task(_attach(channel, number, slots))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
