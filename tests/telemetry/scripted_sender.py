"""A sender whose answers a test chooses, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from plait_server.ports.span_sender import SendFailed, Sent

AWAY = SendFailed("the collector is away", is_retryable=True)
REFUSED = SendFailed("PERMISSION_DENIED", is_retryable=False)


class ScriptedSender:
    """Answers by `answer`, which may be changed while it runs."""

    def __init__(self, answer: Callable[[bytes], Awaitable[Sent]] | None = None) -> None:
        self.answer = answer or takes
        self.asked: list[tuple[float, bytes]] = []
        """When, in virtual seconds, and what."""
        self.under_way = self.under_way_max = 0
        self.is_closed = False

    async def send(self, request: bytes) -> Sent:
        self.asked.append((trio.current_time(), request))
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            return await self.answer(request)
        finally:
            self.under_way -= 1

    async def aclose(self) -> None:
        self.is_closed = True

    @property
    def times(self) -> list[float]:
        return [at_s for at_s, _ in self.asked]


async def takes(_: bytes) -> Sent:
    await trio.lowlevel.checkpoint()
    return Sent()


async def never_answers(_: bytes) -> Sent:
    await trio.sleep_forever()
    raise AssertionError


def fails(failure: Exception) -> Callable[[bytes], Awaitable[Sent]]:
    async def answer(_: bytes) -> Sent:
        await trio.lowlevel.checkpoint()
        raise failure

    return answer


def says(sent: Sent) -> Callable[[bytes], Awaitable[Sent]]:
    async def answer(_: bytes) -> Sent:
        await trio.lowlevel.checkpoint()
        return sent

    return answer
