"""Deletes a client's execution, at any moment, and looks whether it is gone (K1, K3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from plait.v1 import execution_service_pb2
from plait_server.errors import ExecutionNotEnded, ExecutionNotFound, RequestIdReused

if TYPE_CHECKING:
    from plait_server.testing.simulation.clients import Client

Pb = execution_service_pb2


class Deleter:
    """Deletes the execution of a client, if it does so at all."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._chance = client.world.chance("deleter", client.name)
        self._deletes = client.world.may_delete and self._chance.random() < 0.6
        self.is_early = self._deletes and self._chance.random() < 0.5
        """Whether it begins before the execution has ended."""

    def __repr__(self) -> str:
        return f"<Deleter of {self._client!r}>"

    async def run(self) -> None:
        """Delete the execution as soon as that is possible; the client's other calls may meet it halfway."""
        if not self._deletes:
            return
        client, chance = self._client, self._chance
        request = Pb.DeleteExecutionRequest(
            execution_id=client.execution_id,
            request_id=f"delete-{client.name}" if chance.random() < 0.7 else "",
        )
        while True:
            await trio.sleep(chance.random() * chance.choice((1, 6, 20)))
            durable = client.durable()
            had_ended = durable is not None and durable.is_ended
            try:
                await client.again(
                    lambda: client.host.call(
                        lambda server: server.servicers.controls.delete_execution,
                        request,
                        lose_answer=chance.random() < 0.1 and not client.world.healed.is_set(),
                    )
                )
            except ExecutionNotEnded:
                client.world.count("an open execution was not deleted")
                if had_ended:
                    client.fail("K1", "an ended execution could not be deleted")
                continue
            if not client.is_deleted():
                client.fail("K1", "a deletion was acknowledged, and is not durable")
            client.world.count("a client deleted an execution")
            # The others must see that, too.
            raise ExecutionNotFound(execution_id=client.execution_id)

    async def check_gone(self, submission: Pb.SubmitGraphRequest) -> None:
        """Look everywhere for the deleted execution."""
        client, id_ = self._client, self._client.execution_id
        client.world.count("an execution was deleted")
        try:
            shown = Pb.GetExecutionRequest(execution_id=id_)
            await client.again(
                lambda: client.host.call(lambda s: s.servicers.executions.get_execution, shown)
            )
            client.fail("K1", "a deleted execution is shown")
        except ExecutionNotFound:
            pass
        try:
            await client.again(
                lambda: client.host.call(lambda s: s.servicers.executions.submit_graph, submission)
            )
            client.fail("K3", "the submission of a deleted execution was carried out again")
        except ExecutionNotFound:
            pass
        except RequestIdReused:
            client.fail("K3", "the same submission counts as another")
        listed = await client.again(
            lambda: client.host.call(
                lambda s: s.servicers.executions.list_executions, Pb.ListExecutionsRequest(page_size=1_000)
            )
        )
        if id_ in [execution.execution_id for execution in listed.executions]:
            client.fail("K1", "a deleted execution is listed")
