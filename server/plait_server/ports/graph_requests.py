"""The port that reads graphs from requests and outputs: it counts elements, parses, validates and analyzes.

A graph of the largest legal size takes seconds to read, and a hostile one longer, so this happens in a process
that can be killed; small requests are read in place. The result needs no further work on the event loop, except that
the values of a large graph have to be read from the bytes in `CheckedGraph`.

The contract:

1. A request is refused by `GraphRequest.violations`, or by one of the errors of `read`; a refused
   request is read no further than necessary.
2. All implementations return equal results for equal requests, except for `CheckedGraph.values`.
3. `read` may wait for its turn. The number of waiting requests is bounded, and namespaces take turns. `read_text`
   waits in the same queues without a bound: its caller has to bound how many wait.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from plait_server.core.definition.graph import Analysis, Graph
from plait_server.errors import FieldViolation


class Want(enum.Enum):
    """The purpose of a request with a graph."""

    SUBMIT = "SUBMIT"
    """A plait.v1.SubmitGraphRequest, whose graph is to be executed."""
    VALIDATE = "VALIDATE"
    """A plait.v1.ValidateGraphRequest."""
    PLAN = "PLAN"
    """A plait.v1.PlanGraphRequest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedGraph:
    """A valid graph and its analysis, in the form in which the store keeps them."""

    content: bytes
    """The plait.v1.Graph, serialized deterministically."""
    digest: str
    """SHA-256 of `content`, hexadecimal."""
    analysis_content: bytes
    """The plait.journal.v1.GraphAnalysis."""
    analysis_digest: str
    """SHA-256 of `analysis_content`, hexadecimal."""
    values: tuple[Graph, Analysis] | None = None
    """The graph as the core's values; None for a large graph, which is read from the bytes in slices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphRequest:
    """A request that carries a graph, read and checked."""

    head: Message
    """The request without its graph; its fields are unchecked except for the text of `input`."""
    has_graph: bool
    """Whether there is a graph; without one only `fingerprint` and `input_problem` are meaningful."""
    fingerprint: bytes
    """SHA-256 of the whole parsed request, because protobuf bytes are not canonical."""
    input_problem: str = ""
    """What is wrong with the text of `input`; SUBMIT only."""
    violations: tuple[FieldViolation, ...] = ()
    """What is wrong with the graph: the first 50 problems (V5)."""
    violation_count: int = 0
    """How many problems there are."""
    graph: CheckedGraph | None = None
    """The graph; SUBMIT only, and only if it is valid."""
    answer: bytes = b""
    """The encoded answer of VALIDATE, and of PLAN if the graph is valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphText:
    """A text that was read as a graph (N7)."""

    violations: tuple[FieldViolation, ...] = ()
    """What is wrong with it: the first 50 problems (V5)."""
    violation_count: int = 0
    """How many problems there are; 0 if and only if there is a graph."""
    graph: CheckedGraph | None = None
    """The graph, if the text is a valid one."""


class GraphRequests(Protocol):
    """Reads requests that carry a graph, and texts that are one."""

    async def read(self, want: Want, request: Message | bytes) -> GraphRequest:
        """Read a request.

        Args:
            want: What it is for, and so its type.
            request: The message, or its bytes if it is large.

        Raises:
            InvalidRequest: it is no such message, or holds too many elements.
            TooCostly: it takes more time or memory than a request may.
            Overloaded: too many requests wait already.
        """
        ...

    async def read_text(self, namespace: str, text: str) -> GraphText:
        """Read the output of a node as the graph that is to run (L4, N7).

        The text is the JSON of a graph file: the proto JSON mapping of plait.v1.Graph, where `input` and
        `locked_output` may be the values themselves. Whatever is wrong with it, the time and the memory that it takes
        included, is a violation.

        Args:
            namespace: Whose turn it takes.
            text: JSON.
        """
        ...
