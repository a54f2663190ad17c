"""SystemService: information about the server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plait.v1 import system_service_pb2
from plait_server.api.call import Call
from plait_server.api.watching import FRAME_BYTES_MAX
from plait_server.core import limits
from plait_server.core.run.machine import SEMANTICS_VERSION
from plait_server.encoding.event_codec import timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Facts that do not change while a server runs."""

    version: str
    instance_id: str
    start_time_s: float
    store: str
    insecure: bool


class SystemServicer:
    """Serves SystemService.

    Args:
        facts: What does not change.
        attempts_max: Returns the server's limit on concurrent attempts.
    """

    def __init__(self, facts: ServerFacts, attempts_max: Callable[[], int]) -> None:
        self._facts = facts
        self._attempts_max = attempts_max

    async def get_server_info(
        self, request: system_service_pb2.GetServerInfoRequest, call: Call
    ) -> system_service_pb2.GetServerInfoResponse:
        """Return the server's version, limits and store."""
        del request, call
        facts = self._facts
        return system_service_pb2.GetServerInfoResponse(
            version=facts.version,
            start_time=timestamp(facts.start_time_s),
            instance_id=facts.instance_id,
            semantics_version=SEMANTICS_VERSION,
            store=facts.store,
            insecure=facts.insecure,
            limits={
                "graph_message_bytes_max": limits.GRAPH_MESSAGE_BYTES_MAX,
                "message_bytes_max": limits.MESSAGE_BYTES_MAX,
                "event_bytes_max": limits.EVENT_BYTES_MAX,
                "frame_bytes_max": FRAME_BYTES_MAX,
                "payload_bytes_max": limits.PAYLOAD_BYTES_MAX,
                "joined_input_bytes_max": limits.JOINED_INPUT_BYTES_MAX,
                "nodes_max": limits.NODES_MAX,
                "edges_max": limits.EDGES_MAX,
                "scopes_deep_max": limits.SCOPES_DEEP_MAX,
                "execution_nodes_max": limits.EXECUTION_NODES_MAX,
                "id_chars_max": limits.ID_CHARS_MAX,
                "expression_bytes_max": limits.EXPRESSION_BYTES_MAX,
                "value_depth_max": limits.VALUE_DEPTH_MAX,
                "labels_max": limits.LABELS_MAX,
                "watchers_max": limits.WATCHERS_MAX,
                "workers_max": limits.WORKERS_MAX,
                "attempts_max": self._attempts_max(),
            },
        )
