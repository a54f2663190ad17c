"""A process that opens streams, reads nothing of them, says so, and waits to be killed."""

from __future__ import annotations

import sys

import trio

from tests.end_to_end.attaching import Attached
from tests.end_to_end.service import Service

STREAMS = 5


def main(address: str, namespace: str, execution_id: str) -> None:
    """Watch an execution, or be a worker when there is none to watch."""
    services = [Service(address, namespace) for _ in range(STREAMS)]
    if execution_id:
        kept = [service.watch(execution_id) for service in services]
        for watch in kept:
            next(watch)
    else:
        workers = [Attached(each, "hand", slots=60, worker_id=f"w{i}") for i, each in enumerate(services)]
        for worker in workers:
            worker.next_assign()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    trio.run(trio.sleep_forever)


if __name__ == "__main__":
    main(*sys.argv[1:])
