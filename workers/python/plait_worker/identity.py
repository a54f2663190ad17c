"""The identity of a worker, as it is sent in `hello`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.limits import ID_PATTERN, LABELS_MAX, PROTOCOL_VERSION, SLOTS_MAX

_ID: Final = re.compile(ID_PATTERN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What stays the same from stream to stream.

    Raises:
        ValueError: if a field is out of its bounds; the message says which.
    """

    worker_id: str
    """The worker's id, stable over restarts."""
    instance_id: str
    """The process instance, new at each start."""
    namespace: str
    """The namespace served."""
    types: Mapping[str, int]
    """Node type to how many attempts of it are taken at once; 0: bounded by the slots alone. Not empty."""
    slots: int
    """How many attempts are taken at once, 1 to 10,000."""
    labels: Mapping[str, str]
    """Labels for people, at most 64."""
    sdk: str
    """Names the driver and its version."""

    def __post_init__(self) -> None:
        check_id("worker_id", self.worker_id)
        check_id("instance_id", self.instance_id)
        check_id("namespace", self.namespace)
        if not self.types:
            raise ValueError("a worker serves at least one node type")
        for type_, count in self.types.items():
            check_id("the node type", type_)
            check_count(f"max_concurrency of {type_}", count, low=0)
        check_count("slots", self.slots, low=1)
        if len(self.labels) > LABELS_MAX:
            raise ValueError(f"a worker has at most {LABELS_MAX} labels: {len(self.labels)}")

    def hello(self, slots: int, in_flight: Iterable[hub.InFlight]) -> hub.WorkerMessage:
        """Introduce the worker.

        Args:
            slots: how many attempts it takes at once now; 0, which `hello` cannot say, counts as what it
                was made with.
            in_flight: the attempts whose end the server has not acknowledged.
        """
        hello = hub.Hello(
            protocol_version=PROTOCOL_VERSION,
            worker_id=self.worker_id,
            instance_id=self.instance_id,
            namespace=self.namespace,
            types=[hub.ServedType(type=type_, max_concurrency=count) for type_, count in self.types.items()],
            slots=slots or self.slots,
            labels=self.labels,
            in_flight=in_flight,
            sdk=self.sdk,
        )
        return hub.WorkerMessage(hello=hello)


def check_id(name: str, value: str) -> None:
    """Check an id or a name.

    Raises:
        ValueError: if it does not match `[A-Za-z0-9_.-]{1,128}`.
    """
    if not _ID.fullmatch(value):
        raise ValueError(f"{name} must match {ID_PATTERN}: {value!r}")


def check_count(name: str, count: int, *, low: int) -> None:
    """Check a number of slots.

    Raises:
        ValueError: if it is not within `low` to 10,000.
    """
    if not low <= count <= SLOTS_MAX:
        raise ValueError(f"{name} must be within {low} to {SLOTS_MAX}: {count}")
