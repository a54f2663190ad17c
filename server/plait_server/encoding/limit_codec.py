"""Limits as plait.v1 messages, in which the store keeps them too."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from plait.v1 import limit_service_pb2
from plait_server.core.limit_values import LimitKind, LimitName, LimitValue
from plait_server.errors import StoreDamaged

SETTING_PREFIX: Final = "limit/"
"""The names of all settings that are limits begin with it."""

Pb = limit_service_pb2


def setting_name(name: LimitName) -> str:
    """Return the name under which the store keeps a limit, in the limit's namespace."""
    return f"{SETTING_PREFIX}{name.kind.name}/{name.name}"


def limit_to_proto(name: LimitName, value: LimitValue) -> Pb.Limit:
    """Write a limit, without its source and its use."""
    return Pb.Limit(
        kind=int(name.kind),  # type: ignore[arg-type] # the core's numbers are the contract's
        namespace=name.namespace,
        name=name.name,
        max_concurrency=value.max_concurrency,
        rate=value.rate,
        burst=value.burst,
    )


def limit_to_bytes(name: LimitName, value: LimitValue) -> bytes:
    """Write a limit as the store keeps it."""
    return limit_to_proto(name, value).SerializeToString(deterministic=True)


def limit_from_bytes(content: bytes) -> tuple[LimitName, LimitValue]:
    """Read a limit that the store kept.

    Raises:
        StoreDamaged: It is no such message.
    """
    try:
        message = Pb.Limit.FromString(content)
        name = LimitName(LimitKind(message.kind), message.namespace, message.name)
    except (DecodeError, ValueError) as error:
        raise StoreDamaged(f"a limit in the store cannot be read: {error}") from error
    return name, value_of(message)


def value_of(message: Pb.Limit | Pb.SetLimitRequest) -> LimitValue:
    """Read the value of a limit."""
    return LimitValue(
        max_concurrency=message.max_concurrency if message.HasField("max_concurrency") else None,
        rate=message.rate if message.HasField("rate") else None,
        burst=message.burst,
    )
