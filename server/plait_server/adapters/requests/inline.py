"""Reading in place: small requests, the simulator's, and the command line's."""

from __future__ import annotations

from google.protobuf.message import Message

from plait_server.adapters.requests.reading import read_bytes, read_message
from plait_server.adapters.requests.texts import read_text
from plait_server.ports.evaluator import Evaluator
from plait_server.ports.graph_requests import GraphRequest, GraphText, Want


class InlineGraphRequests:
    """Reads every request in place, however long it takes; implements the port."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    async def read(self, want: Want, request: Message | bytes) -> GraphRequest:
        """Read a request; see the port. There is no checkpoint in it."""
        if isinstance(request, bytes):
            return read_bytes(want, request, self._evaluator)
        return read_message(want, request, self._evaluator)

    async def read_text(self, namespace: str, text: str) -> GraphText:
        """Read an output as a graph; see the port. There is no checkpoint in it."""
        del namespace
        return read_text(text, self._evaluator)
