"""Why nodes of an execution wait: lines for people, also beside a command that waits itself."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from plait.v1 import execution_pb2, state_pb2, worker_hub_service_pb2
from plait_client import Client, PlaitError, has_ended
from plait_server.cli.connecting import Target
from plait_server.cli.text import complain, count, one_line
from plait_server.core.definition.nearest import nearest

LOOK_S: Final = 1.25
"""Two looks are within the 3 s after which a command tells why nothing happens."""
NODES_READ_MAX: Final = 5_000
"""Nodes that are searched for those that wait: a few pages."""
WORKERS_READ_MAX: Final = 5_000
LINES_MAX: Final = 10
SERVERS_SHOWN_MAX: Final = 3

_WAITS: Final[Mapping[str, str]] = {
    "WORKER_SLOTS": "all slots of the workers that serve {type} are taken",
    "NODE_TYPE_LIMIT": "the limit of the node type {type} is reached",
    "KEY_LIMIT": "another node has its concurrency key",
    "EXECUTION_LIMIT": "the limit of the execution is reached, with {running} running",
    "NAMESPACE_LIMIT": "the limit of the namespace is reached",
    "SERVER_LIMIT": "the limit of the server is reached",
    "LEVEL": "nodes of lower levels have not ended",
    "PAUSED": "the execution is paused",
}
"""The reasons of queued nodes, but for NO_WORKER."""


def waiting_lines(client: Client, execution: execution_pb2.Execution) -> Iterator[str]:
    """Tell which nodes of an open execution are ready and wait, and for what; a line for each reason and type."""
    if has_ended(execution) or not (execution.node_counts.queued or execution.unserved_types):
        return
    names: dict[tuple[str, str], list[str]] = {("NO_WORKER", type_): [] for type_ in execution.unserved_types}
    for node in itertools.islice(client.nodes(execution.execution_id, page_size=1_000), NODES_READ_MAX):
        if node.state == state_pb2.NODE_STATE_QUEUED and node.reason:
            names.setdefault((node.reason, node.type), []).append(node.path)
    served = _served_types(client) if any(reason == "NO_WORKER" for reason, _ in names) else {}
    running = count(execution.node_counts.running, "node")
    for (reason, type_), paths in itertools.islice(names.items(), LINES_MAX):
        if reason == "NO_WORKER":
            why = f"no worker serves {type_}{_advice(type_, served, client.namespace)}"
        else:
            why = _WAITS.get(reason, reason).format(type=type_, running=running)
        yield one_line(f"{_waiters(paths)}: {why}")


class Lookout:
    """Tells on stderr why an execution waits, while the command that shows it waits too.

    What lacks a worker is told at the next look. Other reasons are told when nothing has happened between two looks and
    nothing runs. The same is not told twice in a row. Use it as a context manager.
    """

    def __init__(self, target: Target, execution_id: str) -> None:
        self._target = target
        self._execution_id = execution_id
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="plait-lookout", daemon=True)
        self._last = 0
        self._told: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"<Lookout for {self._execution_id}>"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        # A look takes milliseconds; one that waits for a server that is away is not waited for.
        self._thread.join(timeout=1.0)

    def _look(self) -> None:
        if self._is_over.wait(LOOK_S):
            return
        with self._target.open_beside() as client:
            while not self._is_over.is_set():
                try:
                    execution = client.get(self._execution_id)
                    lines: Sequence[str] = tuple(self._lines(client, execution))
                except PlaitError:
                    lines = self._told  # The command itself tells what is wrong.
                if not self._is_over.is_set() and lines != self._told:
                    for line in lines:
                        complain(line)
                self._told = lines
                self._is_over.wait(LOOK_S)

    def _lines(self, client: Client, execution: execution_pb2.Execution) -> Iterator[str]:
        is_still = execution.last_sequence == self._last and not execution.node_counts.running
        self._last = execution.last_sequence
        if is_still or execution.unserved_types:
            yield from waiting_lines(client, execution)


def _waiters(paths: Sequence[str]) -> str:
    match paths:
        case []:
            return "nodes wait"
        case [path]:
            return f"{path} waits"
        case [first, second]:
            return f"{first} and {second} wait"
        case _:
            return f"{paths[0]} and {len(paths) - 1:,} others wait"


def _served_types(client: Client) -> dict[str, list[str]]:
    """Return the types that attached workers serve, each with the ids of the workers."""
    served: dict[str, list[str]] = {}
    for worker in itertools.islice(client.workers(page_size=1_000), WORKERS_READ_MAX):
        if worker.state == worker_hub_service_pb2.WORKER_STATE_ATTACHED:
            for type_ in worker.types:
                served.setdefault(type_.type, []).append(worker.worker_id)
    return served


def _advice(type_: str, served: Mapping[str, Sequence[str]], namespace: str) -> str:
    """Return which type was probably meant, and who serves it."""
    if not served:
        return f"; no worker is attached in namespace {namespace}"
    meant = nearest(type_, served)
    if meant is None:
        return ""
    ids = served[meant]
    more = len(ids) - SERVERS_SHOWN_MAX
    return f"; {meant} is served by {', '.join(ids[:SERVERS_SHOWN_MAX])}{f' and {more} more' if more > 0 else ''}"
