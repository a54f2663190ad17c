"""The stage: handlers of live workers come on, say who they are, and do what the test says.

A handler of type `staged` opens a connection here. The test takes it as an actor, by its execution, and tells
it what to return or raise, whenever it likes: nothing depends on time, and a worker keeps its actors while
servers come and go.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections import defaultdict
from typing import Any, TextIO

HANG_S = 60.0
"""A test that waits so long for what does not come is stopped; none depends on it."""


class Actor:
    """One running handler."""

    def __init__(self, connection: socket.socket, lines: TextIO, hello: dict[str, Any]) -> None:
        self._connection = connection
        self._lines = lines
        self.execution_id: str = hello["execution_id"]
        self.node: str = hello["node"]
        self.attempt: int = hello["attempt"]
        self.input: Any = hello["input"]
        self.hello: dict[str, Any] = hello

    def __repr__(self) -> str:
        return f"<Actor {self.execution_id}/{self.node} attempt {self.attempt}>"

    def answer(self, value: object = None) -> None:
        """Return a value from the handler."""
        self.tell(answer=value)

    def fail(self, code: str, message: str = "told to", **advice: object) -> None:
        """Raise a `NodeFailure` in the handler."""
        self.tell(fail=code, message=message, **advice)

    def tell(self, **command: object) -> None:
        self._connection.sendall((json.dumps(command) + "\n").encode())

    def wait_for(self, word: str) -> dict[str, Any]:
        """Wait until the handler says a word, such as `cancelled`."""
        while line := self._lines.readline():
            said: dict[str, Any] = json.loads(line)
            if word in said:
                return said
        raise AssertionError(f"{self!r} ended without saying {word}")

    def wait_gone(self) -> None:
        """Wait until the handler, or its worker, is gone."""
        try:
            while self._lines.readline():
                pass
        except ConnectionError:
            pass

    def close(self) -> None:
        self._lines.close()
        self._connection.close()


class Stage:
    """Accepts the connections of handlers, which a test then directs."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1_000)
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        self._waiting: defaultdict[str, queue.Queue[Actor]] = defaultdict(queue.Queue)
        self._actors: list[Actor] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def next(self, execution_id: str) -> Actor:
        """Wait for the next handler of an execution."""
        return self._waiting[execution_id].get(timeout=HANG_S)

    def take(self, execution_id: str, count: int) -> dict[str, Actor]:
        """Wait for the next handlers of an execution; by node."""
        actors = [self.next(execution_id) for _ in range(count)]
        return {actor.node: actor for actor in actors}

    def is_empty(self, execution_id: str) -> bool:
        """Whether no handler of an execution waits to be taken."""
        return self._waiting[execution_id].empty()

    def close(self) -> None:
        """End; handlers still on the stage find their connection closed, and return."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for actor in self._actors:
            actor.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(HANG_S)
            lines = connection.makefile("r", encoding="utf-8")
            try:
                hello = lines.readline()
            except ConnectionError:
                hello = ""
            if not hello:  # Its worker was killed before it could speak.
                lines.close()
                connection.close()
                continue
            actor = Actor(connection, lines, json.loads(hello))
            self._actors.append(actor)
            self._waiting[actor.execution_id].put(actor)
