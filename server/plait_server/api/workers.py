"""WorkerHubService: where workers attach, and their list."""

from __future__ import annotations

from plait.v1 import worker_hub_service_pb2
from plait_server.api.call import Call, Receive, Send
from plait_server.api.checks import Checks, page_token, read_page_token
from plait_server.encoding.event_codec import timestamp
from plait_server.ports.workers import AttachStreams, WorkerSnapshot

Pb = worker_hub_service_pb2


class WorkerHubServicer:
    """Serves WorkerHubService."""

    def __init__(self, workers: AttachStreams) -> None:
        self._workers = workers

    async def attach(self, call: Call, receive: Receive, send: Send) -> None:
        """Serve one worker's stream."""
        del call
        await self._workers.attach(receive, send)

    async def list_workers(self, request: Pb.ListWorkersRequest, call: Call) -> Pb.ListWorkersResponse:
        """List the workers of a namespace."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        size = checks.page_size(request.page_size)
        checks.finish()
        begin = read_page_token("workers", request.page_token) or 0
        workers = self._workers.list_workers(namespace)
        response = Pb.ListWorkersResponse(workers=[_describe(each) for each in workers[begin : begin + size]])
        if begin + size < len(workers):
            response.next_page_token = page_token("workers", begin + size)
        return response


def _describe(snapshot: WorkerSnapshot) -> Pb.Worker:
    state = Pb.WORKER_STATE_DETACHED
    if snapshot.is_attached:
        state = Pb.WORKER_STATE_DRAINING if snapshot.is_draining else Pb.WORKER_STATE_ATTACHED
    message = Pb.Worker(
        worker_id=snapshot.worker_id,
        instance_id=snapshot.instance_id,
        state=state,
        types=[Pb.ServedType(type=name, max_concurrency=limit) for name, limit in snapshot.types.items()],
        slots=snapshot.slots,
        slots_in_use=snapshot.slots_in_use,
        labels=snapshot.labels,
        last_heard_time=timestamp(snapshot.heard_time_s),
        sdk=snapshot.sdk,
    )
    if snapshot.attached_time_s:
        message.attach_time.CopyFrom(timestamp(snapshot.attached_time_s))
    return message
