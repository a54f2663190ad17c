"""grpc.health.v1 as trio functions: SERVING once all open executions are known, NOT_SERVING while the server stops."""

from __future__ import annotations

import trio
from grpc_health.v1 import health_pb2

from plait_server.api.call import Call, Send
from plait_server.api.methods import SERVICES
from plait_server.errors import ServiceUnknown

Status = health_pb2.HealthCheckResponse


class HealthServicer:
    """Serves grpc.health.v1.Health."""

    def __init__(self) -> None:
        self._is_serving = False
        self._changed = trio.Event()
        self._names = {"", *(service.full_name for service in SERVICES.values())}

    def set_serving(self, *, is_serving: bool) -> None:
        """Change the status and notify watchers."""
        self._is_serving = is_serving
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def check(
        self, request: health_pb2.HealthCheckRequest, call: Call
    ) -> health_pb2.HealthCheckResponse:
        """Return whether a service, or the server (empty name), is serving."""
        del call
        if request.service not in self._names:
            raise ServiceUnknown(service=request.service[:200])
        return self._answer(request.service)

    async def watch(self, request: health_pb2.HealthCheckRequest, call: Call, send: Send) -> None:
        """Send whether a service is serving, now and at each change."""
        del call
        while True:
            changed = self._changed
            await send(self._answer(request.service))
            await changed.wait()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._names:
            return Status(status=Status.SERVICE_UNKNOWN)
        return Status(status=Status.SERVING if self._is_serving else Status.NOT_SERVING)
