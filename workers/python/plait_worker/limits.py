"""The limits of the Attach protocol that a worker keeps by itself, each with its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

PROTOCOL_VERSION: Final = 1
FRAME_BYTES_MAX: Final = 1 * MIB
"""What the contract allows a frame; a single larger message travels alone."""
RECEIVED_BYTES_MAX: Final = 16 * MIB
"""A join's input may be 16 MiB, though it comes by digest; frames are far smaller."""
PAYLOAD_BYTES_MAX: Final = 1 * MIB
"""The largest result, until the server's welcome sets another limit."""
VALUE_DEPTH_MAX: Final = 64
"""How deep lists and objects of a result may nest."""
FAILURE_MESSAGE_BYTES_MAX: Final = 4 * KIB
TRACEBACK_BYTES_MAX: Final = 8 * KIB
"""The end of a traceback says what happened; the beginning is the SDK's own frames."""
TRACEBACK_FRAMES_MAX: Final = 100
"""More frames are a recursion; formatting thousands of them would hold up the event loop."""
TRACEBACK_LINE_BYTES_MAX: Final = 1 * KIB
"""The place where an exception was raised stands above its message, and is not to be pushed out by it."""
EXCEPTIONS_SHOWN_MAX: Final = 100
"""Of more that hang together (causes, groups) only the last is shown: formatting 50,000 takes seconds."""
DURATION_MAX: Final = timedelta(days=3660)
"""The contract's longest duration."""
CAUSES_MAX: Final = 8
"""The contract's depth of a failure's causes."""
LOG_MESSAGE_BYTES_MAX: Final = 8 * KIB
HEARTBEAT_BYTES_MAX: Final = 32 * KIB
"""What the contract allows the details of a heartbeat, which the server keeps for the next attempt."""
LOG_LINES_QUEUED_MAX: Final = 1_000
"""With 8 KiB a line at most 8 MiB of memory; older lines make room."""
LOG_TRAY_BYTES_MAX: Final = 256 * KIB
"""Log lines of one attempt between two times that they are fetched: 5 MiB a second."""
REPORT_INTERVAL_S: Final = 0.05
"""People do not read faster; and no handler makes the stream busy by what it says."""
SLOTS_MAX: Final = 10_000
LABELS_MAX: Final = 64
UNRECORDED_MAX: Final = 10_000
"""Results that wait to be recorded; beyond, assigns are turned away instead of filling the memory."""
ENDED_TOKENS_MAX: Final = 10_000
"""Ended attempts that are remembered, so that a late duplicate starts no second handler."""
USAGE_UNITS_MAX: Final = 64
"""Units of one attempt. They are named by code, not by data: more is a mistake, and would fill the memory."""
ID_PATTERN: Final = r"[A-Za-z0-9_.-]{1,128}"
