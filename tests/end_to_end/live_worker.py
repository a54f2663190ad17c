"""The worker of the end-to-end tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

from plait_worker import Context, NodeFailure, Worker, connection
from plait_worker.backoff import Backoff

# Tests kill their servers, and would spend most of their time waiting for workers to come back.
setattr(connection, "Backoff", partial(Backoff, max_s=0.3))  # noqa: B010 # the stream's own waits alone

worker = Worker(slots=200)
running: Counter[str] = Counter()
"""Execution -> how many of its handlers run in this process."""


@worker.node("echo")
async def echo(context: Context, input: object) -> object:
    return input


@worker.node("thread.echo")
def thread_echo(context: Context, input: object) -> object:
    return input


@worker.node("spend")
async def spend(context: Context, input: dict[str, str]) -> dict[str, str]:
    """Use what the input says, twice."""
    for unit, amount in input.items():
        context.usage(unit, amount)
        context.usage(unit, amount)
    context.log("spent")
    context.progress(1.0, "done")
    return input


@worker.node("fail")
async def fail(context: Context, input: object) -> object:
    """Fail in every attempt but the one whose number the input is."""
    context.usage("tries", 1)
    if context.attempt == input:
        return {"attempt": context.attempt, "key": context.idempotency_key}
    raise NodeFailure("UNAVAILABLE", "the service is not there")


@worker.node("raise")
async def raise_(context: Context, input: str) -> object:
    raise LookupError(input)


@worker.node("large")
async def large(context: Context, input: int) -> str:
    """Return text whose JSON has as many bytes as the input says."""
    return "x" * (input - 2)


@worker.node("measure")
async def measure(context: Context, input: object) -> dict[str, object]:
    """Return the size of the input as JSON, and its SHA-256."""
    text = json.dumps(input, separators=(",", ":"), ensure_ascii=False).encode()
    return {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}


@worker.node("unfit")
async def unfit(context: Context, input: str) -> object:
    """Return what is no JSON."""
    values: dict[str, object] = {"set": {1}, "nan": float("nan"), "object": object(), "bytes": b"x"}
    return values[input]


@worker.node("know")
async def know(context: Context, input: object) -> dict[str, object]:
    """Return the fields of the context."""
    left = context.time_left
    return {
        "execution_id": context.execution_id,
        "node_path": context.node_path,
        "attempt": context.attempt,
        "run": context.run,
        "worker_id": context.worker_id,
        "idempotency_key": context.idempotency_key,
        "traceparent": context.traceparent,
        "time_left_s": None if left is None else left.total_seconds(),
    }


@worker.node("die")
async def die(context: Context, input: object) -> object:
    """Kill this worker."""
    os.kill(os.getpid(), 9)
    return None


@worker.node("staged")
async def staged(context: Context, input: object) -> object:
    """Do what the test says; see `stage`."""
    return await _perform(context, input, is_stubborn=False)


@worker.node("stubborn")
async def stubborn(context: Context, input: object) -> object:
    """As `staged`, and go on when cancelled."""
    return await _perform(context, input, is_stubborn=True)


async def _perform(context: Context, input: object, *, is_stubborn: bool) -> object:
    host, _, port = os.environ["STAGE"].rpartition(":")
    running[context.execution_id] += 1
    reader, writer = await asyncio.open_connection(host, int(port))

    def say(**words: object) -> None:
        writer.write((json.dumps(words) + "\n").encode())

    try:
        say(
            execution_id=context.execution_id,
            node=context.node_path,
            attempt=context.attempt,
            worker=context.worker_id,
            pid=os.getpid(),
            running=running[context.execution_id],
            input=input,
        )
        while True:
            try:
                line = await reader.readline()
            except asyncio.CancelledError:
                say(cancelled=True)
                if is_stubborn:
                    continue
                raise
            if not line:
                return None
            command: dict[str, Any] = json.loads(line)
            if "usage" in command:
                for unit, amount in command["usage"].items():
                    context.usage(unit, amount)
            elif "fail" in command:
                after = command.get("retry_after_s")
                raise NodeFailure(
                    command["fail"],
                    command["message"],
                    details=command.get("details"),
                    retryable=command.get("retryable"),
                    retry_after=None if after is None else timedelta(seconds=after),
                )
            else:
                return command["answer"]
    finally:
        running[context.execution_id] -= 1
        writer.close()
