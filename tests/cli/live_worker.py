"""The worker of the live tests."""

from __future__ import annotations

import asyncio

from plait_worker import Context, NodeFailure, Worker

worker = Worker()


@worker.node("test.echo")
async def echo(context: Context, input: object) -> object:
    context.usage("calls", 1)
    return input


@worker.node("test.talk")
async def talk(context: Context, input: object) -> object:
    for number in range(3):
        context.log(f"line {number} \x1b[31m")
    context.progress(0.5, "half")
    return input


@worker.node("test.large")
async def large(context: Context, input: int) -> str:
    return "x" * input


@worker.node("test.fail")
async def fail(context: Context, input: object) -> object:
    raise NodeFailure("OUT_OF_PAPER", "the tray is \x1b[31mempty\nfill it")


@worker.node("test.raise")
async def raise_(context: Context, input: object) -> object:
    raise ValueError("a canary in the message")


@worker.node("test.hang")
async def hang(context: Context, input: object) -> object:
    await asyncio.get_running_loop().create_future()
    return None
