"""The limits of the contract, each with its reason; GetServerInfo advertises them (DESIGN: limits)."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

GRAPH_MESSAGE_BYTES_MAX: Final = 16 * MIB
"""A graph of 100,000 nodes takes 3 to 5 MB on the wire, above gRPC's own 4 MiB."""
MESSAGE_BYTES_MAX: Final = 4 * MIB
"""gRPC's own default, for every call that sends no graph."""
PAYLOAD_BYTES_MAX: Final = 1 * MIB
"""Larger results belong in a blob store, with their address in the payload."""
JOINED_INPUT_BYTES_MAX: Final = 16 * MIB
"""A join splices the outputs of its sources: sixteen of the largest."""
INLINE_BYTES_MAX: Final = 32 * KIB
"""Larger content is stored once by digest, so that events and frames stay small."""
EVENT_BYTES_MAX: Final = 256 * KIB
"""One event: the largest has a failure with its causes, an output and a bit for each of 500,000 edges."""
NODES_MAX: Final = 100_000
EDGES_MAX: Final = 500_000
SCOPES_DEEP_MAX: Final = 16
"""Scopes inside each other below an execution, so that recursion over them is bounded (L4)."""
EXECUTION_NODES_MAX: Final = 1_000_000
"""Nodes of all scopes of an execution together (L4): 100,000 items of 10 nodes."""
ID_CHARS_MAX: Final = 128
EXPRESSION_BYTES_MAX: Final = 4 * KIB
VALUE_DEPTH_MAX: Final = 64
LABELS_MAX: Final = 64
LABEL_CHARS_MAX: Final = 128
"""Keys and values of labels of executions and workers, which stand in lists."""
LABEL_KEY_CHARS_MAX: Final = 128
"""The same as for an id."""
LABEL_VALUE_CHARS_MAX: Final = 1_024
"""All labels of a graph or an execution together stay well below a payload."""
BRANCH_NAME_CHARS_MAX: Final = 128
"""A branch's name is shown in lists and traces."""
RETRYABLE_CODES_MAX: Final = 64
"""Each is compared with the code of every failure."""
SWITCH_CASES_MAX: Final = 10_000
"""Each is a handle, searched linearly; half a millisecond."""
WATCHERS_MAX: Final = 10_000
WORKERS_MAX: Final = 5_000
"""Attached workers; each is pinged every few seconds."""
SERVED_TYPES_MAX: Final = 1_000
"""Node types of one worker; the allocator looks at each when the worker's slots change."""
HELD_ATTEMPTS_MAX: Final = 20_000
"""The attempts a worker may report when it re-attaches: one for each slot, and as many unrecorded results."""
HEARTBEAT_DETAILS_BYTES_MAX: Final = 32 * KIB
"""They stand in an event and in an assign, so they are as large as what is kept inline."""
EXTENSIONS_MAX: Final = 1_000
"""Extensions of one attempt; each is an event."""
KEY_CHARS_MAX: Final = 128
"""A concurrency key; it stands in lists of limits."""
TOKEN_BYTES_MAX: Final = 4 * KIB
"""An attempt's token holds ids of at most 128 characters and a node path; workers send it back unchanged."""
PROBLEMS_MAX: Final = 50
"""Problems of a graph that are reported; V5."""
MAX_CONCURRENCY_MAX: Final = 10_000
ATTEMPTS_MAX: Final = 1_000
LOST_ATTEMPTS_MAX: Final = 100
PRIORITY_MAX: Final = 1_000
DURATION_S_MAX: Final = 10 * 366 * 86_400.0
"""Ten years: more than a wall clock is ever wrong by, and far from the overflow of a timestamp."""
BACKOFF_S_MAX: Final = 86_400.0
MULTIPLIER_MAX: Final = 100.0
FAILURE_MESSAGE_BYTES_MAX: Final = 4 * KIB
FAILURE_CAUSES_MAX: Final = 50
"""Causes of one failure."""
FAILURE_CAUSES_BYTES_MAX: Final = 64 * KIB
"""All causes of a failure together, with their own causes: one or two screens of text."""
EDGES_NAMED_MAX: Final = 64
"""Edges that one event names: with the longest ids they take 17 KiB."""
FAILURE_DEPTH_MAX: Final = 8
"""Failures nest; protobuf readers stop at 100 levels of messages."""
ID_PATTERN: Final = r"[A-Za-z0-9_.-]{1,128}"
