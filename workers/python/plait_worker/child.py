"""One process of a worker: it serves until it is drained, and ends when its parent is gone.

Its stdin is a socket to the parent. The child writes READY once its module is imported, and at its end END
with what the parent should print: a process that ends without END was ended by something else (a signal, a
handler that called os._exit), whatever its exit code. When the socket ends, the parent is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from datetime import timedelta
from typing import Final

from plait_worker.event_loop import run_in_loop
from plait_worker.exporting import export_spans
from plait_worker.failures import WorkerRefused
from plait_worker.logs import log_to_stderr
from plait_worker.targets import BadTarget, explain_import, load_worker

logger = logging.getLogger("plait_worker")

READY: Final = b"R"
END: Final = b"E"

EXIT_BAD_TARGET: Final = 2
"""The target names no worker, or an argument is wrong; also argparse's code for wrong usage."""
EXIT_REFUSED: Final = 3
"""The server will not have the worker."""
EXIT_ORPHANED: Final = 4
"""The parent is gone."""
EXIT_S: Final = 5.0
"""How long threads that handlers started may keep a process that has done everything."""
_TEXT_BYTES_MAX: Final = 32 * 1024
"""The socket holds this without a reader: the parent reads when the child has ended."""


def run_child(
    target: str,
    connect: str,
    namespace: str | None,
    worker_id: str | None,
    ordinal: int,
    drain_timeout_s: float | None = None,
) -> int:
    """Serve until drained, or until the parent is gone; return the exit code.

    Args:
        target: the worker, as `package.module:worker`.
        connect: the server, as HOST:PORT.
        namespace: the namespace served; None: the worker's own.
        worker_id: the worker's id; None: its own.
        ordinal: added to the id, as `-` and the number; 0: nothing is added.
        drain_timeout_s: how long attempts may run on once the worker drains; None: the worker's own.
    """
    parent = _Parent()
    try:
        worker = load_worker(target)
    except BadTarget as error:
        return parent.say_end(EXIT_BAD_TARGET, str(error))
    except BaseException as error:  # noqa: BLE001 - whatever a module raises, it cannot be imported.
        return parent.say_end(EXIT_BAD_TARGET, explain_import(target, error))
    # After the import: the module may have set up logging and tracing itself.
    log_to_stderr()
    flush_spans = export_spans(os.environ, is_first=ordinal <= 1)
    parent.say_ready()
    own_id = worker.worker_id if worker_id is None else worker_id
    full_id = f"{own_id}-{ordinal}" if ordinal else own_id
    code, text = 0, ""
    try:
        # After twice the lease the server has long given to others what it ran.
        drain_timeout = None if drain_timeout_s is None else timedelta(seconds=drain_timeout_s)
        serving = worker.run(connect, namespace=namespace, worker_id=full_id, drain_timeout=drain_timeout)
        run_in_loop(serving, lambda: 2.0 * worker.lease_s)
    except WorkerRefused as error:
        code, text = EXIT_REFUSED, str(error)
    except (ValueError, OSError) as error:
        code, text = EXIT_BAD_TARGET, str(error)
    flush_spans()
    return parent.say_end(code, text)


class _Parent:
    """The parent, seen from the child. From its making on the process ends when the parent is gone."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(0))
        # A handler that reads stdin finds its end there, not the socket.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        threading.Thread(target=self._watch, name="plait-parent", daemon=True).start()

    def say_ready(self) -> None:
        self._socket.sendall(READY)

    def say_end(self, code: int, text: str = "") -> int:
        """Report that this exit is intended; return the exit code, and ensure that the process ends with it."""
        self._socket.sendall(END + text.encode(errors="backslashreplace")[:_TEXT_BYTES_MAX])
        threading.Thread(target=_exit_late, args=(code,), name="plait-exit", daemon=True).start()
        return code

    def _watch(self) -> None:
        # A reset: the parent went without having read READY.
        with contextlib.suppress(ConnectionResetError):
            self._socket.recv(1)
        # As if it had been killed with its parent: nobody would start it again, and another worker of its
        # id would be refused as long as it drained.
        os._exit(EXIT_ORPHANED)


def _exit_late(code: int) -> None:
    # Python waits for threads that are no daemons.
    time.sleep(EXIT_S)
    logger.warning("threads of handlers, or exit functions, are still running; the process ends without them")
    os._exit(code)
