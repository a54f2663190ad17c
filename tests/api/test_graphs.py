"""GraphService's answers: a plan that a default client cannot take is refused with the remedy."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import trio
from google.protobuf.message import Message

from plait.v1 import graph_service_pb2
from plait_server.api.call import Call
from plait_server.api.graphs import GraphServicer
from plait_server.core.limits import MESSAGE_BYTES_MAX
from plait_server.errors import TooLarge
from plait_server.ports.graph_requests import GraphRequest, GraphText, Want

CALL = Call(method="PlanGraph", peer="test")


@dataclass
class Answers:
    """Reads every graph as one whose plan has a size."""

    size: int

    async def read(self, want: Want, request: Message | bytes) -> GraphRequest:
        await trio.lowlevel.checkpoint()
        head = graph_service_pb2.PlanGraphRequest()
        return GraphRequest(head=head, has_graph=True, fingerprint=b"", answer=bytes(self.size))

    async def read_text(self, namespace: str, text: str) -> GraphText:
        raise AssertionError


async def test_a_plan_of_four_mebibytes_is_the_answer() -> None:
    assert len(await GraphServicer(Answers(MESSAGE_BYTES_MAX)).plan_graph(b"", CALL)) == MESSAGE_BYTES_MAX


async def test_a_larger_plan_is_refused_with_the_remedy() -> None:
    with pytest.raises(TooLarge, match="plait plan FILE") as refused:
        await GraphServicer(Answers(MESSAGE_BYTES_MAX + 1)).plan_graph(b"", CALL)
    assert refused.value.fields == {"size": MESSAGE_BYTES_MAX + 1, "limit": MESSAGE_BYTES_MAX}
