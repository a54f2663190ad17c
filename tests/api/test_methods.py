"""The table of methods: every RPC of the contract, its bounds, and requests of any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.api.methods import SERVICES, Method, MethodKind, methods_of
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX
from plait_server.errors import InvalidRequest, TooLarge


class Servicer:
    """Has every method that is asked for."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        async def serve(*_: object) -> None:
            raise AssertionError(name)

        return serve


METHODS = methods_of({name: [Servicer()] for name in SERVICES})


def named(name: str) -> Method:
    (method,) = (method for method in METHODS if method.path.endswith(f"/{name}"))
    return method


def test_every_rpc_of_every_service_has_its_method() -> None:
    wanted = {
        f"/{service.full_name}/{method.name}" for service in SERVICES.values() for method in service.methods
    }
    assert {method.path for method in METHODS} == wanted


def test_an_rpc_without_a_function_is_found_at_the_start() -> None:
    with pytest.raises(LookupError, match="0 objects serve"):
        methods_of({name: [object()] for name in SERVICES})


def test_an_rpc_with_two_functions_is_found_at_the_start() -> None:
    with pytest.raises(LookupError, match="2 objects serve"):
        methods_of({name: [Servicer(), Servicer()] for name in SERVICES})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SubmitGraph", MethodKind.UNARY),
        ("WatchExecution", MethodKind.SERVER_STREAM),
        ("GetPayload", MethodKind.SERVER_STREAM),
        ("Attach", MethodKind.BIDI_STREAM),
    ],
    ids=["unary", "watch", "payload", "attach"],
)
def test_kinds_are_those_of_the_contract(name: str, kind: MethodKind) -> None:
    assert named(name).kind is kind


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_a_request_over_its_limit_is_refused_before_it_is_read(method: Method) -> None:
    """DESIGN 7: 16 MiB where a graph is sent, 4 MiB elsewhere."""
    takes_graph = "graph" in method.request_type.DESCRIPTOR.fields_by_name
    limit = GRAPH_MESSAGE_BYTES_MAX if takes_graph else MESSAGE_BYTES_MAX
    assert method.request_bytes_max == limit
    with pytest.raises(TooLarge) as raised:
        method.parse(bytes(limit + 1))
    assert raised.value.fields == {"size": limit + 1, "limit": limit}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.path)
def test_any_bytes_are_a_request_or_refused(method: Method) -> None:
    """FAILURES 47: malformed protobuf is the caller's fault, and nothing else happens."""

    @given(st.binary(max_size=300))
    def fuzz(content: bytes) -> None:
        try:
            assert isinstance(method.parse(content), method.request_type)
        except InvalidRequest as error:
            assert error.violations[0].field == "request"  # noqa: PT017 # either outcome is right

    fuzz()


def test_messages_nested_without_end_are_refused() -> None:
    """FAILURES 48."""
    content = b""
    for _ in range(1_000):
        content = b"\x0a" + _varint(len(content)) + content
    method = named("SubmitGraph")
    with contextlib.suppress(InvalidRequest):
        method.parse(content)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))
