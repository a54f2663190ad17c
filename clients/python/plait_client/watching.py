"""Where a watch stands, so that it goes on there after its stream broke. No I/O: both clients drive it."""

from __future__ import annotations

from typing import assert_never

from plait.v1 import execution_service_pb2
from plait_client.requests import Requests

FROM_END = -1
"""The sequence that stands for the newest event."""


class Watch:
    """One watch over as many streams as it takes.

    The driver opens a stream with `request`, hands on each frame that `take` lets through, and ends when
    `is_over`. A stream that ends or breaks before is opened again.

    Args:
        requests: makes the requests.
        execution_id: the execution.
        after_sequence: the sequence after which to begin; 0 is the beginning, -1 the end.
        include_snapshot: whether the state comes first, as it is now; the events after it follow.
    """

    def __init__(
        self, requests: Requests, execution_id: str, after_sequence: int, *, include_snapshot: bool
    ) -> None:
        self._requests = requests
        self._execution_id = execution_id
        self._wants_snapshot = include_snapshot
        self.after_sequence = FROM_END if include_snapshot else after_sequence
        """The newest sequence that came, or where to begin."""
        self.is_over = False
        """Whether the final frame came."""

    def request(self) -> execution_service_pb2.WatchExecutionRequest:
        """Return the request of the next stream."""
        return self._requests.watch(
            self._execution_id, self.after_sequence, include_snapshot=self._wants_snapshot
        )

    def take(self, frame: execution_service_pb2.WatchExecutionResponse) -> bool:
        """Note a frame, and tell whether it is for the caller: heartbeats and unknown frames are not."""
        match frame.WhichOneof("frame"):
            case "events":
                if frame.events.events:
                    self.after_sequence = frame.events.events[-1].sequence
            case "snapshot":
                if frame.snapshot.last:
                    self._wants_snapshot = False
                    self.after_sequence = frame.snapshot.sequence
            case "caught_up":
                # Of a watch from the end on, it is the first to say where that was.
                if not self._wants_snapshot:
                    self.after_sequence = max(self.after_sequence, frame.caught_up.sequence)
            case "end":
                self.is_over = True
            case "heartbeat" | None:  # None: of a kind that is newer than this client.
                return False
            case unknown:
                assert_never(unknown)
        return True


class ListWatch:
    """One watch of a namespace over as many streams as it takes. The driver sets `watch_token` from each frame.

    Args:
        requests: makes the requests.
        filter: which executions.
        watch_token: where to go on; empty: from now on.
        include_initial: whether all executions come first, if there is no token.
    """

    def __init__(self, requests: Requests, filter: str, watch_token: str, *, include_initial: bool) -> None:
        self._requests = requests
        self._filter = filter
        self._include_initial = include_initial
        self.watch_token = watch_token
        """That of the newest frame."""

    def request(self) -> execution_service_pb2.WatchExecutionsRequest:
        """Return the request of the next stream."""
        return self._requests.watch_list(
            self._filter, self.watch_token, include_initial=self._include_initial
        )
