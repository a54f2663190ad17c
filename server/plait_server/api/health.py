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
        self._changes = 0
        self._changed = trio.Event()
        # For each watcher the number of the change that it has been sent.
        self._sent: dict[object, int] = {}
        self._behind = 0
        self._all_told = trio.Event()
        self._names = {"", *(service.full_name for service in SERVICES.values())}

    def set_serving(self, *, is_serving: bool) -> None:
        """Change the status and notify watchers."""
        self._is_serving = is_serving
        self._changes += 1
        self._behind = len(self._sent)
        self._all_told = trio.Event()
        self._note_behind(0)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def wait_told(self) -> None:
        """Wait until all who watched at the last change have been sent the new status, or have left."""
        await self._all_told.wait()

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
        watcher = object()
        self._sent[watcher] = self._changes
        try:
            while True:
                changed, change = self._changed, self._changes
                await send(self._answer(request.service))
                self._note_behind(self._sent[watcher] < change == self._changes)
                self._sent[watcher] = change
                await changed.wait()
        finally:
            self._note_behind(self._sent.pop(watcher) < self._changes)

    def _note_behind(self, fewer: int) -> None:
        self._behind -= fewer
        if not self._behind:
            self._all_told.set()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        if service not in self._names:
            return Status(status=Status.SERVICE_UNKNOWN)
        return Status(status=Status.SERVING if self._is_serving else Status.NOT_SERVING)
