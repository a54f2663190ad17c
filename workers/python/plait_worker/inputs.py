"""Large inputs: an assign names them by digest, and they are fetched before the handler is called."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final

import grpc
import grpc.aio

from plait.v1 import execution_service_pb2 as execution_service
from plait_worker.access import Access
from plait_worker.backoff import Backoff

_TRIES_MAX: Final = 8
"""About ten seconds of a server out of reach; then the attempt is better given to another worker."""

_TRANSIENT: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
)


class InputUnavailable(Exception):
    """The input of an attempt could not be fetched.

    Args:
        message: what happened.
        is_transient: whether another worker, or another time, may have more luck.
    """

    def __init__(self, message: str, *, is_transient: bool) -> None:
        super().__init__(message)
        self.message = message
        self.is_transient = is_transient


class Inputs:
    """Fetches inputs by digest.

    Args:
        channel: the channel of the worker's stream.
        access: the token that each call carries.
        namespace: the namespace served.
        jitter: draws a number in [0, 1).
    """

    def __init__(
        self, channel: grpc.aio.Channel, access: Access, namespace: str, jitter: Callable[[], float]
    ) -> None:
        self._access = access
        self._get_payload = channel.unary_stream(
            "/plait.v1.ExecutionService/GetPayload",
            request_serializer=execution_service.GetPayloadRequest.SerializeToString,
            response_deserializer=execution_service.GetPayloadResponse.FromString,
        )
        self._namespace = namespace
        self._jitter = jitter

    async def fetch(self, digest: str) -> str:
        """Fetch the JSON text of a digest; tries again for some seconds if the server is out of reach.

        Raises:
            InputUnavailable: if the server does not have it, will not give it, cannot be reached, or gave
                something else.
        """
        backoff = Backoff(self._jitter)
        for _ in range(_TRIES_MAX - 1):
            try:
                return await self._fetch_once(digest)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    raise _unavailable(error, is_transient=False) from error
            await asyncio.sleep(backoff.next_delay_s())
        try:
            return await self._fetch_once(digest)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error, is_transient=error.code() in _TRANSIENT) from error

    async def _fetch_once(self, digest: str) -> str:
        request = execution_service.GetPayloadRequest(namespace=self._namespace, digest=digest)
        try:
            metadata = self._access.metadata()
        except (OSError, ValueError) as error:
            raise InputUnavailable(f"the input could not be fetched: {error}", is_transient=True) from error
        call = self._get_payload(request, metadata=metadata)
        chunks = [response.chunk async for response in call]
        data = b"".join(chunks)
        if hashlib.sha256(data).hexdigest() != digest:
            message = "the input that the server sent is not the one that the attempt names"
            raise InputUnavailable(message, is_transient=True)
        return data.decode()


def _unavailable(error: grpc.aio.AioRpcError, *, is_transient: bool) -> InputUnavailable:
    message = f"the input could not be fetched: {error.code().name}: {error.details()}"
    return InputUnavailable(message, is_transient=is_transient)
