"""The gRPC server: serves the methods over grpc.aio, whose asyncio loop runs within trio.

Each call is a grpc.aio task that crosses into trio once. Frames to a peer cross one by one, as calls of
`context.write`; those from a peer are read in asyncio and handed to trio (`frame_reader`). Errors become statuses
here and nowhere else: known ones by the table, a bug as INTERNAL with an id that is in the server's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import urllib.parse
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import grpc
import grpc.aio
import trio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from plait_server.api.access import AccessControl, Admission
from plait_server.api.call import Call, CallerGone
from plait_server.api.checks import request_fields
from plait_server.api.error_table import row_of, status_of
from plait_server.api.frame_reader import FrameReader
from plait_server.api.health import HealthServicer
from plait_server.api.methods import PARSED_BYTES_MAX, Method, MethodKind
from plait_server.api.reflection import REFLECTION_SERVICES, ReflectionServicer
from plait_server.api.roles import access_to
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX
from plait_server.errors import (
    AddressInUse,
    InvariantViolated,
    Overloaded,
    PlaitError,
    ShuttingDown,
    leaves_of,
)
from plait_server.ports.access import NO_CREDENTIALS, Credentials
from plait_server.ports.log_fields import LogFields
from plait_server.runtime.asyncio_bridge import callable_from_asyncio, callable_from_trio
from plait_server.runtime.pacing import Gate

logger = logging.getLogger(__name__)

T = TypeVar("T")
Check: TypeAlias = Callable[[], PlaitError | None]
"""Returns why a call has to end now; None if it may go on."""

STOP_S: Final = 0.5
"""Seconds for which calls may continue while the server stops; clients resume streams later or elsewhere."""
HEADERS_S: Final = 1.0
"""Seconds that the headers of a stream may take to send; no flow control delays them."""
LINGER_S: Final = 0.1
"""Seconds in which calls still get the right status; after that grpc itself ends them as CANCELLED."""

STARTS: Final = frozenset({"/plait.v1.ExecutionService/SubmitGraph"})
"""Methods that start new executions: they are refused from the moment when the server is told to stop."""
CHECKED_AT_ONCE: Final = 500
"""Calls whose access is checked without a break, which takes less than a millisecond."""
CALLS_MAX: Final = 20_000
"""Calls and streams served at once, at some 20 KiB each. More than the limits of watchers and workers together."""

_AUTHORIZATION: Final = "authorization"
_CERTIFICATE_NAMES: Final = "x509_subject_alternative_name"

_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Twice the limit, so that the servicer can refuse a message that is too large with a proper error.
    ("grpc.max_receive_message_length", 2 * GRAPH_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    # Half-open connections are found within 15 s; gRPC's defaults never check.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A connection's streams are bounded by their servicers, which refuse with a reason. gRPC's own bounds do not:
    # beyond `max_pending_requests` [1,000] it drops calls at random, which then end CANCELLED.
    ("grpc.max_concurrent_streams", 2 * CALLS_MAX),
    ("grpc.server.max_pending_requests", 2 * CALLS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", 2 * CALLS_MAX),
    # A second server on the same port would take half of the calls.
    ("grpc.so_reuseport", 0),
)


if TYPE_CHECKING:
    _Context = grpc.aio.ServicerContext[Any, Any]  # generic only in the stubs


class OpenCalls:
    """The calls in progress: when the server stops, they get an error that allows a retry."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, Check] = {}
        self._ended: dict[trio.CancelScope, PlaitError] = {}
        """The calls that `check` has ended, until they have been told."""
        self._is_closed = False
        self._has_starts = True
        self._streams = Gate()

    def check_start(self, path: str) -> None:
        """Refuse the call of a method that starts an execution, if no more are started.

        Raises:
            ShuttingDown: The server is stopping.
        """
        if path in STARTS and not self._has_starts:
            raise ShuttingDown

    def refuse_starts(self) -> None:
        """Refuse calls that start executions from now on; serve all others."""
        self._has_starts = False

    async def serve(
        self,
        function: Callable[[], Awaitable[T]],
        kind: MethodKind = MethodKind.UNARY,
        check: Check = lambda: None,
    ) -> T:
        """Serve a call. Few streams begin at once, so that a burst of them does not delay other calls.

        Args:
            function: Serves it.
            kind: Which directions have a stream.
            check: Returns why the call has to end, or None.

        Raises:
            ShuttingDown: The server is stopping.
            PlaitError: What `check` returned.
            Overloaded: Too many calls are in progress.
        """
        if self._is_closed:
            raise ShuttingDown
        if len(self._scopes) >= CALLS_MAX:
            raise Overloaded(f"{CALLS_MAX} calls are in progress, which is the limit; try again later")
        error: PlaitError | None = None
        with trio.CancelScope() as scope:
            self._scopes[scope] = check
            try:
                if kind is MethodKind.UNARY:
                    return await function()
                async with self._streams.passing():
                    return await function()
            finally:
                del self._scopes[scope]
                error = self._ended.pop(scope, None)
        raise error or ShuttingDown

    async def check(self) -> None:
        """End the calls whose callers have lost their access."""
        for count, (scope, check) in enumerate(list(self._scopes.items()), 1):
            if count % CHECKED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
            if scope in self._scopes and (error := check()) is not None:
                self._ended[scope] = error
                scope.cancel()

    def close(self) -> None:
        """End all calls, and accept no more."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()


class GrpcDoor(grpc.GenericRpcHandler):
    """Finds the handler of a method."""

    def __init__(
        self, methods: Iterable[Method], access: AccessControl, calls: OpenCalls, new_id: Callable[[], str]
    ) -> None:
        self._handlers = {method.path: _handler(method, access, calls, new_id) for method in methods}

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call; None if there is no such method."""
        return self._handlers.get(handler_call_details.method)


def standard_methods(health: HealthServicer) -> list[Method]:
    """Return the methods of grpc.health.v1 and of server reflection."""
    reflection = ReflectionServicer()
    methods = [
        Method(
            path="/grpc.health.v1.Health/Check",
            access=access_to("/grpc.health.v1.Health/Check"),
            kind=MethodKind.UNARY,
            request_type=health_pb2.HealthCheckRequest,
            request_bytes_max=MESSAGE_BYTES_MAX,
            parsed_bytes_max=MESSAGE_BYTES_MAX,
            function=health.check,
        ),
        Method(
            path="/grpc.health.v1.Health/Watch",
            access=access_to("/grpc.health.v1.Health/Watch"),
            kind=MethodKind.SERVER_STREAM,
            request_type=health_pb2.HealthCheckRequest,
            request_bytes_max=MESSAGE_BYTES_MAX,
            parsed_bytes_max=MESSAGE_BYTES_MAX,
            function=health.watch,
        ),
    ]
    methods += [
        Method(
            path=f"/{service}/ServerReflectionInfo",
            access=access_to(f"/{service}/ServerReflectionInfo"),
            kind=MethodKind.BIDI_STREAM,
            # The two versions have the same messages, in different packages.
            request_type=reflection_pb2.ServerReflectionRequest,
            request_bytes_max=MESSAGE_BYTES_MAX,
            parsed_bytes_max=MESSAGE_BYTES_MAX,
            function=reflection.server_reflection_info,
        )
        for service in REFLECTION_SERVICES
    ]
    return methods


async def serve_grpc(
    address: str,
    methods: Iterable[Method],
    access: AccessControl,
    tls: grpc.ServerCredentials | None,
    new_id: Callable[[], str],
    calls: OpenCalls,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen until cancelled; report the port when started.

    Args:
        address: HOST:PORT.
        methods: What is served.
        access: Decides who may call.
        tls: The server's side of TLS; None: plain text.
        new_id: Makes ids of errors.
        calls: Holds the calls in progress; they are closed at the end.
        task_status: Told the port.

    Raises:
        AddressInUse: Listening on the address failed.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((GrpcDoor(methods, access, calls, new_id),))
    try:
        port = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls)
    except RuntimeError as error:
        text = (
            f"cannot listen on {address}: it is in use, or not of this machine; choose another with --listen"
        )
        raise AddressInUse(text) from error
    await callable_from_trio(server.start)()
    try:
        task_status.started(port)
        await access.run(calls.check)
        await trio.sleep_forever()
    finally:
        calls.close()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * STOP_S):
            await trio.sleep(LINGER_S)
            await callable_from_trio(server.stop)(STOP_S)


def _handler(
    method: Method, access: AccessControl, calls: OpenCalls, new_id: Callable[[], str]
) -> grpc.RpcMethodHandler[Any, Any]:
    if method.kind is MethodKind.UNARY:

        async def unary(content: bytes, context: _Context) -> bytes:
            admission = _admission(access, method, context)

            async def serve() -> bytes:
                admission.authenticate()
                request = method.read(content)
                admission.admit(request)
                calls.check_start(method.path)
                return _encode(await method.function(request, _call(method, context, admission)))

            return await _guarded(serve, calls, method, context, admission, new_id, content) or b""

        return grpc.unary_unary_rpc_method_handler(unary)

    if method.kind is MethodKind.SERVER_STREAM:

        async def server_stream(content: bytes, context: _Context) -> None:
            admission = _admission(access, method, context)

            async def serve() -> None:
                admission.authenticate()
                request = method.parse(content)
                admission.admit(request)
                await method.function(request, _call(method, context, admission), _sender(context, admission))

            await _guarded(serve, calls, method, context, admission, new_id, content)

        return grpc.unary_stream_rpc_method_handler(server_stream)

    async def bidi_stream(_: object, context: _Context) -> None:
        reader = FrameReader(context.read)
        admission = _admission(access, method, context)

        async def serve() -> None:
            admission.authenticate()
            call = _call(method, context, admission)
            await method.function(call, reader.receive, _sender(context, admission))

        reading = asyncio.create_task(reader.run())
        try:
            await _guarded(serve, calls, method, context, admission, new_id)
        finally:
            reading.cancel()

    return grpc.stream_stream_rpc_method_handler(bidi_stream)


async def _guarded(
    serve: Callable[[], Awaitable[T]],
    calls: OpenCalls,
    method: Method,
    context: _Context,
    admission: Admission,
    new_id: Callable[[], str],
    content: bytes = b"",
) -> T | None:
    """Cross into trio, and turn errors into statuses; return None if the caller is gone."""
    try:
        return await callable_from_asyncio(calls.serve)(serve, method.kind, admission.check)
    except (PlaitError, CallerGone) as error:
        await _end(context, method, error, content)
    except BaseExceptionGroup as group:
        errors = leaves_of(group)
        known = [error for error in errors if isinstance(error, (PlaitError, CallerGone))]
        if known and all(isinstance(error, (PlaitError, CallerGone, trio.Cancelled)) for error in errors):
            first = next((each for each in known if isinstance(each, CallerGone)), known[0])
            await _end(context, method, first, content)
        elif all(isinstance(error, trio.Cancelled) for error in errors):
            raise
        else:
            await _abort_bug(context, method, group, new_id(), content)
    except Exception as error:  # noqa: BLE001 # the boundary: no traceback reaches a user
        await _abort_bug(context, method, error, new_id(), content)
    return None  # Otherwise `abort` has raised.


async def _end(context: _Context, method: Method, error: PlaitError | CallerGone, content: bytes) -> None:
    if isinstance(error, CallerGone):
        if logger.isEnabledFor(logging.DEBUG):
            fields = _subject(method, content)
            logger.debug("%s: the caller left while it was written to", method.path, extra=fields)
    else:
        await _abort(context, error)


async def _abort_bug(
    context: _Context, method: Method, error: BaseException, error_id: str, content: bytes
) -> None:
    fields = _subject(method, content)
    logger.error("%s failed by a bug, error id %s", method.path, error_id, exc_info=error, extra=fields)
    text = f"Plait has a bug; please report it with the error id {error_id}, which is in the server's log"
    await _abort(context, InvariantViolated(text, error_id=error_id))


def _subject(method: Method, content: bytes) -> LogFields:
    """Return the log fields of a call whose request has been parsed before."""
    # Requests that name an execution are small, since they contain no graph.
    return request_fields(method.parse(content) if len(content) <= PARSED_BYTES_MAX else None)


async def _abort(context: _Context, error: PlaitError) -> None:
    status = status_of(error)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    with contextlib.suppress(grpc.aio.InternalError, grpc.aio.UsageError):  # The caller is gone.
        await context.abort(row_of(error).code, status.message, details)


def _sender(context: _Context, admission: Admission) -> Callable[[Message | bytes], Any]:
    send_headers = callable_from_trio(context.send_initial_metadata)
    write = callable_from_trio(context.write)
    has_headers = False

    async def send(message: Message | bytes) -> None:
        nonlocal has_headers
        try:
            if not has_headers:
                has_headers = True
                admission.check_greeted()
                # grpc.aio sends the headers with the first message, and again with the status if that message is
                # cancelled under way; the second time fails, and the peer never hears how the stream ended.
                with trio.CancelScope(shield=True, deadline=trio.current_time() + HEADERS_S):
                    await send_headers(())
            await write(_encode(message))
        except (grpc.aio.InternalError, grpc.aio.UsageError) as error:
            # The errors that grpc.aio raises for a call that is over. Of the two writes that may meet its
            # end, the one that began before it fails as internal, the one that begins after it as a wrong use.
            raise CallerGone from error

    return send


def _encode(message: Message | bytes | None) -> bytes:
    if isinstance(message, Message):
        return message.SerializeToString()
    return message or b""


def _admission(access: AccessControl, method: Method, context: _Context) -> Admission:
    credentials = NO_CREDENTIALS if access.authenticator is None else _credentials(context)
    return access.open(method, _peer(context), credentials)


def _peer(context: _Context) -> str:
    """Return the caller's address as people write it: gRPC escapes the brackets of `ipv6:[::1]:4711`."""
    return urllib.parse.unquote(context.peer())


def _credentials(context: _Context) -> Credentials:
    names = tuple(
        name.decode(errors="replace") for name in context.auth_context().get(_CERTIFICATE_NAMES, ())
    )
    values = [value for key, value in context.invocation_metadata() or () if key == _AUTHORIZATION]
    if not values:
        return Credentials(certificate_names=names)
    scheme, _, token = str(values[0]).partition(" ")
    is_bearer = len(values) == 1 and scheme.lower() == "bearer"
    # What is no bearer token is none that is known.
    return Credentials(token=token.strip() if is_bearer else "", certificate_names=names)


def _call(method: Method, context: _Context, admission: Admission) -> Call:
    metadata = {
        key: value
        for key, value in context.invocation_metadata() or ()
        if isinstance(value, str) and key != _AUTHORIZATION
    }
    return Call(
        method=method.path,
        peer=_peer(context),
        metadata=metadata,
        principal=admission.principal,
        admit=admission.admit_namespace,
    )
