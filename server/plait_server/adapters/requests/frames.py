"""The frames between the server and a helper process: a line of JSON, then the bytes that it announces.

The server trusts a helper with the content of an answer, which comes from a caller anyway, and with nothing else:
lengths are bounded, and answers are parsed by readers that accept hostile input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from plait_server.adapters.requests.reading import TYPES, refusal_of
from plait_server.core.limits import MIB
from plait_server.errors import FieldViolation, InvalidRequest
from plait_server.ports.graph_requests import CheckedGraph, GraphRequest, GraphText, Want

TEXT: Final = "TEXT"

HEADER_BYTES_MAX: Final = 1 * MIB
"""The most bytes of problems: 50 with their quotations take some 20 KiB, the message about a cycle some more."""
PART_BYTES_MAX: Final = 64 * MIB
"""The most bytes of an answer; the plan of the largest graph takes 40 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request to a helper; the request's bytes follow."""

    want: str
    """The name of a `Want`, or `TEXT`: then the bytes are a text to read as a graph."""
    size: int
    """The number of bytes that follow."""
    cpu_s: int
    """Seconds of processor time that it may take."""


def write_order(order: Order) -> bytes:
    """Write the line of an order."""
    return json.dumps(asdict(order)).encode() + b"\n"


def read_order(line: bytes) -> Order:
    """Read the line of an order."""
    return Order(**json.loads(line))


def write_answer(answer: GraphRequest) -> list[bytes]:
    """Write an answer: its line and its parts."""
    graph = answer.graph
    parts = [answer.head.SerializeToString(), answer.answer]
    if graph is not None:
        parts += [graph.content, graph.analysis_content]
    header = {
        "has_graph": answer.has_graph,
        "fingerprint": answer.fingerprint.hex(),
        "input_problem": answer.input_problem,
        "violations": [[each.field, each.message] for each in answer.violations],
        "violation_count": answer.violation_count,
        "digests": [graph.digest, graph.analysis_digest] if graph is not None else [],
        "sizes": [len(part) for part in parts],
    }
    return [json.dumps(header).encode() + b"\n", *parts]


def write_text_answer(answer: GraphText) -> list[bytes]:
    """Write the result of reading a text."""
    graph = answer.graph
    parts = [graph.content, graph.analysis_content] if graph is not None else []
    header = {
        "violations": [[each.field, each.message] for each in answer.violations],
        "violation_count": answer.violation_count,
        "digests": [graph.digest, graph.analysis_digest] if graph is not None else [],
        "sizes": [len(part) for part in parts],
    }
    return [json.dumps(header).encode() + b"\n", *parts]


def write_refusal(refusal: InvalidRequest) -> list[bytes]:
    """Write that a request was refused."""
    violations = [[each.field, each.message] for each in refusal.violations]
    return [json.dumps({"refused": violations, "sizes": []}).encode() + b"\n"]


def write_too_costly(why: str) -> list[bytes]:
    """Write that a request exceeds the limits of time or memory."""
    return [json.dumps({"too_costly": why, "sizes": []}).encode() + b"\n"]


class BadAnswer(Exception):
    """The answer of a helper is malformed."""


class TooCostlyAnswer(Exception):
    """The helper could not read the content within its bounds; the message says why."""


def read_header(line: bytes) -> tuple[dict[str, Any], list[int]]:
    """Read the line of an answer; return it and the sizes of the parts that follow.

    Raises:
        BadAnswer: The line is malformed.
        TooCostlyAnswer: The helper reports that there is no answer.
    """
    try:
        header = cast("dict[str, Any]", json.loads(line))
        sizes = [int(size) for size in header["sizes"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadAnswer(repr(error)) from None
    if len(sizes) > 4 or not all(0 <= size <= PART_BYTES_MAX for size in sizes):
        raise BadAnswer(repr(sizes))
    if "too_costly" in header:
        raise TooCostlyAnswer(header["too_costly"])
    return header, sizes


def read_answer(want: Want, header: dict[str, Any], parts: Sequence[bytes]) -> GraphRequest | InvalidRequest:
    """Build the answer to a request."""
    if "refused" in header:
        return refusal_of(_violations(header["refused"]))
    return GraphRequest(
        head=TYPES[want].FromString(parts[0]),
        has_graph=header["has_graph"],
        fingerprint=bytes.fromhex(header["fingerprint"]),
        input_problem=header["input_problem"],
        violations=_violations(header["violations"]),
        violation_count=header["violation_count"],
        graph=_graph(header, parts[2:]),
        answer=parts[1],
    )


def read_text_answer(header: dict[str, Any], parts: Sequence[bytes]) -> GraphText:
    """Build the answer to a text."""
    return GraphText(
        violations=_violations(header["violations"]),
        violation_count=header["violation_count"],
        graph=_graph(header, parts),
    )


def _graph(header: dict[str, Any], parts: Sequence[bytes]) -> CheckedGraph | None:
    if not header["digests"]:
        return None
    content, analysis_content = parts
    digest, analysis_digest = header["digests"]
    return CheckedGraph(
        content=content, digest=digest, analysis_content=analysis_content, analysis_digest=analysis_digest
    )


def _violations(pairs: Sequence[Sequence[str]]) -> tuple[FieldViolation, ...]:
    return tuple([FieldViolation(field=field, message=message) for field, message in pairs])
