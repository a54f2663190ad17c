"""Settings of namespaces as plait.v1 messages, in which the store keeps them too."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from plait.v1 import namespace_service_pb2
from plait_server.core.namespace_settings import EffectiveSettings, NamespaceSettings, QueueOrder
from plait_server.encoding.event_codec import duration, seconds_of_duration
from plait_server.errors import StoreDamaged

Pb = namespace_service_pb2

_ORDERS: Final = frozenset(map(int, QueueOrder))


def settings_to_proto(settings: NamespaceSettings | EffectiveSettings) -> Pb.NamespaceSettings:
    """Write settings; those without a value are absent."""
    message = Pb.NamespaceSettings(
        running_max=settings.running_max,
        queue_max=settings.queue_max,
        order=int(settings.order or 0),  # type: ignore[arg-type] # the core's numbers are the contract's
        weight=settings.weight,
    )
    if settings.queue_timeout_s is not None:
        message.queue_timeout.CopyFrom(duration(settings.queue_timeout_s))
    if settings.retention_s is not None:
        message.retention.CopyFrom(duration(settings.retention_s))
    return message


def settings_from_proto(message: Pb.NamespaceSettings) -> NamespaceSettings:
    """Read settings. An order of a later version counts as absent."""
    order = int(message.order)
    return NamespaceSettings(
        running_max=message.running_max if message.HasField("running_max") else None,
        queue_max=message.queue_max if message.HasField("queue_max") else None,
        order=QueueOrder(order) if order in _ORDERS else None,
        queue_timeout_s=(
            seconds_of_duration(message.queue_timeout) if message.HasField("queue_timeout") else None
        ),
        weight=message.weight if message.HasField("weight") else None,
        retention_s=seconds_of_duration(message.retention) if message.HasField("retention") else None,
    )


def settings_to_bytes(settings: NamespaceSettings) -> bytes | None:
    """Write settings as the store keeps them; None if they are empty."""
    if settings.is_empty:
        return None
    return settings_to_proto(settings).SerializeToString(deterministic=True)


def settings_from_bytes(content: bytes) -> NamespaceSettings:
    """Read settings that the store kept.

    Raises:
        StoreDamaged: They are no such message.
    """
    try:
        return settings_from_proto(Pb.NamespaceSettings.FromString(content))
    except DecodeError as error:
        message = "the settings of a namespace are damaged; `plait store check` shows what is"
        raise StoreDamaged(message) from error
