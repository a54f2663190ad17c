"""Places: share the few helpers fairly, between namespaces first, then between executions.

Free places go to the waiting namespaces in rotation, and within one to its executions: a thousand waiters of one
execution delay the first of another namespace by one turn. No waiter is refused. The queue is bounded because each
execution has only a few waiters, which hold nothing while they wait.
"""

from __future__ import annotations

from collections import OrderedDict, deque

import trio


class _Waiter:
    __slots__ = ("granted",)

    def __init__(self) -> None:
        self.granted = trio.Event()


class Places:
    """Assigns places to waiters.

    Args:
        places: How many may be in use at once.
    """

    def __init__(self, places: int) -> None:
        self._places = self._free = places
        self._queues: OrderedDict[str, OrderedDict[str, deque[_Waiter]]] = OrderedDict()
        """Namespace -> execution -> its waiters; the next in turn first, none of them empty."""
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<Places {self.running}/{self._places}, {self._waiting} waiting>"

    @property
    def running(self) -> int:
        """How many are in use."""
        return self._places - self._free

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return self._waiting

    async def acquire(self, namespace: str, execution_id: str) -> None:
        """Take a place, once it is this execution's turn. If cancelled, no place is taken."""
        if self._free:
            self._free -= 1
            return
        waiter = _Waiter()
        executions = self._queues.setdefault(namespace, OrderedDict())
        executions.setdefault(execution_id, deque()).append(waiter)
        self._waiting += 1
        try:
            await waiter.granted.wait()
        except trio.Cancelled:
            if waiter.granted.is_set():
                self.release()
            else:
                self._forget(namespace, execution_id, waiter)
            raise

    def release(self) -> None:
        """Release a place; it goes to the waiter whose turn it is, if there is one."""
        if not self._queues:
            self._free += 1
            return
        namespace, executions = next(iter(self._queues.items()))
        execution_id, waiters = next(iter(executions.items()))
        waiter = waiters[0]
        self._queues.move_to_end(namespace)
        executions.move_to_end(execution_id)
        self._forget(namespace, execution_id, waiter)
        waiter.granted.set()

    def _forget(self, namespace: str, execution_id: str, waiter: _Waiter) -> None:
        executions = self._queues[namespace]
        waiters = executions[execution_id]
        waiters.remove(waiter)
        self._waiting -= 1
        if not waiters:
            del executions[execution_id]
        if not executions:
            del self._queues[namespace]
