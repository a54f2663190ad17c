"""What a check works on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from plait_server.ports.journal import Journal


class StoreUnderTest(Protocol):
    """One store, new and empty at first, which a check opens and opens again."""

    async def open(self) -> Journal:
        """Open it as a new start of a server does, under an owner of its own; the opening before is over."""
        ...

    async def crash(self, journal: Journal) -> None:
        """Drop an opening as kill -9 would; nothing may be written or flushed for it."""
        ...

    async def damage_event(self, namespace: str, execution_id: str, sequence: int) -> None:
        """Change one bit of a stored event, behind the store's back. No opening is in use."""
        ...

    async def damage_row(self, namespace: str, execution_id: str) -> None:
        """Change something of an execution's row other than its key, behind the store's back."""
        ...

    async def exchange(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        """Exchange all that is kept under two keys (namespace and execution id), behind the store's back."""
        ...

    async def fill_settings(self, count: int) -> None:
        """Add that many settings of the server, which has none. No opening is in use."""
        ...


Check: TypeAlias = Callable[[StoreUnderTest], Awaitable[None]]
"""Raises AssertionError, or what the store raises, if the store breaks a rule."""
