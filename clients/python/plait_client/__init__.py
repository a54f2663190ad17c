"""Plait's Python client: submits graphs, follows executions; builds graphs, or reads them from files."""

from plait_client.access import Access
from plait_client.async_client import AsyncClient
from plait_client.client import Client
from plait_client.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    PlaitError,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Violation,
)
from plait_client.graph_builder import GraphBuilder, any_of, cel, collect, policy, quorum, retry
from plait_client.graph_file import GraphFileError, load_graph, parse_graph
from plait_client.graph_value import graph_value
from plait_client.requests import has_ended

__all__ = [
    "Access",
    "AlreadyExists",
    "AsyncClient",
    "Client",
    "DeadlineExceeded",
    "GraphBuilder",
    "GraphFileError",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PlaitError",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Violation",
    "any_of",
    "cel",
    "collect",
    "graph_value",
    "has_ended",
    "load_graph",
    "parse_graph",
    "policy",
    "quorum",
    "retry",
]
