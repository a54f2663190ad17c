"""How an executor ends."""

from __future__ import annotations

from enum import Enum


class ExecutionDropped(Exception):
    """The state in memory is ahead of the journal, or the execution has another owner; read it again."""


class Exit(Enum):
    """Why an executor stopped."""

    ENDED = "ENDED"
    ASLEEP = "ASLEEP"
    QUEUED = "QUEUED"
    """It has not begun, and nobody wants anything of it now."""
