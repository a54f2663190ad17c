"""GraphService: validates graphs and returns their plans."""

from __future__ import annotations

from plait.v1 import graph_service_pb2
from plait_server.api.call import Call
from plait_server.api.checks import Checks
from plait_server.core.limits import MESSAGE_BYTES_MAX
from plait_server.errors import InvalidGraph, TooLarge
from plait_server.ports.graph_requests import GraphRequest, GraphRequests, Want


def require_valid(read: GraphRequest) -> None:
    """Refuse an invalid graph.

    Raises:
        InvalidGraph: The graph is invalid; the error has the first 50 problems.
    """
    if read.violation_count:
        raise InvalidGraph(read.violations, read.violation_count)


class GraphServicer:
    """Serves GraphService."""

    def __init__(self, graph_requests: GraphRequests) -> None:
        self._graph_requests = graph_requests

    async def validate_graph(
        self, request: graph_service_pb2.ValidateGraphRequest | bytes, call: Call
    ) -> bytes:
        """Check a graph and report all its problems; return an encoded ValidateGraphResponse."""
        del call
        read = await self._graph_requests.read(Want.VALIDATE, request)
        assert isinstance(read.head, graph_service_pb2.ValidateGraphRequest)
        _check(read.head.namespace, is_given=read.has_graph)
        return read.answer

    async def plan_graph(self, request: graph_service_pb2.PlanGraphRequest | bytes, call: Call) -> bytes:
        """Plan a valid graph; return an encoded PlanGraphResponse of at most 4 MiB."""
        del call
        read = await self._graph_requests.read(Want.PLAN, request)
        assert isinstance(read.head, graph_service_pb2.PlanGraphRequest)
        _check(read.head.namespace, is_given=read.has_graph)
        require_valid(read)
        size = len(read.answer)
        if size > MESSAGE_BYTES_MAX:
            text = (
                f"the plan of this graph has {size} bytes, over the limit of {MESSAGE_BYTES_MAX} that clients accept; "
                "`plait plan FILE` makes the plan without a server, and shorter ids make it smaller"
            )
            raise TooLarge(text, size=size, limit=MESSAGE_BYTES_MAX)
        return read.answer


def _check(namespace: str, *, is_given: bool) -> None:
    checks = Checks()
    checks.namespace(namespace)
    if not is_given:
        checks.add("graph", "is missing; send the graph")
    checks.finish()
