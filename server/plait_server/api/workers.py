"""WorkerHubService: serves the streams of workers, and lists them."""

from __future__ import annotations

from plait.v1 import worker_hub_service_pb2
from plait_server.api.call import Call, Receive, Send
from plait_server.api.checks import Checks
from plait_server.api.pages import ANSWER_BYTES_MAX, PageTokens, fill
from plait_server.encoding.event_codec import timestamp
from plait_server.ports.workers import AttachStreams, WorkerSnapshot

Pb = worker_hub_service_pb2


class WorkerHubServicer:
    """Serves WorkerHubService."""

    def __init__(self, workers: AttachStreams, tokens: PageTokens) -> None:
        self._workers = workers
        self._tokens = tokens

    async def attach(self, call: Call, receive: Receive, send: Send) -> None:
        """Serve one worker's stream."""
        await self._workers.attach(receive, send, call.admit)

    async def list_workers(self, request: Pb.ListWorkersRequest, call: Call) -> Pb.ListWorkersResponse:
        """List the workers of a namespace."""
        del call
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        size = checks.page_size(request.page_size)
        checks.finish()
        of_list = "ListWorkers", namespace
        position = self._tokens.read(request.page_token, *of_list)
        workers = self._workers.list_workers(namespace)
        if position is not None:
            worker_id, instance_id = position.split("/")
            workers = [
                each for each in workers if (each.worker_id, each.instance_id) > (worker_id, instance_id)
            ]
        page = fill(map(_describe, workers[:size]), ANSWER_BYTES_MAX)
        response = Pb.ListWorkersResponse(workers=page)
        if len(page) < len(workers):
            response.next_page_token = self._tokens.make(
                f"{page[-1].worker_id}/{page[-1].instance_id}", *of_list
            )
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
