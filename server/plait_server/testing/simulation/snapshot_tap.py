"""The snapshots of a simulated store, and how many of their parts its servers have read (K2)."""

from __future__ import annotations

from collections.abc import Callable

from plait_server.ports.snapshots import Snapshots, StoredSnapshot


class TappedSnapshots:
    """Keeps snapshots as the store within does.

    Args:
        inner: The snapshots of that store.
        on_read: Called when a part was read, which only the reading of an execution does.
    """

    def __init__(self, inner: Snapshots, on_read: Callable[[], None]) -> None:
        self._inner = inner
        self._on_read = on_read

    def __repr__(self) -> str:
        return f"<TappedSnapshots {self._inner!r}>"

    async def write(
        self, namespace: str, execution_id: str, *, sequence: int, number: int, content: bytes
    ) -> bool:
        """Write a part."""
        return await self._inner.write(
            namespace, execution_id, sequence=sequence, number=number, content=content
        )

    async def find(self, namespace: str, execution_id: str) -> StoredSnapshot | None:
        """Return the newest snapshot."""
        return await self._inner.find(namespace, execution_id)

    async def read(self, namespace: str, execution_id: str, *, sequence: int, number: int) -> bytes:
        """Read a part."""
        content = await self._inner.read(namespace, execution_id, sequence=sequence, number=number)
        self._on_read()
        return content

    async def drop_some(self, namespace: str, execution_id: str, *, keep: int, limit: int) -> bool:
        """Delete some parts."""
        return await self._inner.drop_some(namespace, execution_id, keep=keep, limit=limit)
