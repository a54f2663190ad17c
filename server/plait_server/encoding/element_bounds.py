"""Bounds on how often fields are repeated in a message, checked on its bytes before it is parsed.

An empty node or code takes two bytes on the wire and 16 to 150 bytes when parsed, so 16 MB could become
gigabytes. Each repeated field of a request with a graph therefore has a bound here, and `check_bounds` walks
over the bytes and stops at the first field that exceeds its bound.

Rules:

1. Counts belong to the message that holds the field, as the parser will merge it: if a singular
   message field occurs several times on the wire, its occurrences are one message and counted together. Nodes
   and edges are counted over all graphs of a request together, because nodes may contain graphs.
2. A message within a repeated field is examined only if it is long enough to exceed a bound: a node of up
   to 128 bytes cannot hold 65 codes. A shorter one is only searched for the tag of a graph, which C code does.
   So the walk over a legal graph is one step for each node and edge, and some more for a node with a graph.
3. Graphs are nested at most 16 deep. The walk refuses deeper ones, so the parser never meets them.
4. Unknown fields, groups included, are skipped and counted as fields. The total number of fields in a walk is
   bounded too.
5. Malformed bytes end the walk: the parser refuses them with an error of its own, and everything before them
   has been counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from plait_server.core.definition.node_rules import too_deep
from plait_server.core.limits import (
    EDGES_MAX,
    LABELS_MAX,
    NODES_MAX,
    RETRYABLE_CODES_MAX,
    SCOPES_DEEP_MAX,
    SWITCH_CASES_MAX,
)

BOUNDS: Final[Mapping[str, tuple[int, str]]] = {
    "plait.v1.Graph.nodes": (NODES_MAX, "nodes"),
    "plait.v1.Graph.edges": (EDGES_MAX, "edges"),
    "plait.v1.Graph.labels": (LABELS_MAX, "labels"),
    "plait.v1.RetryPolicy.retryable_codes": (RETRYABLE_CODES_MAX, "codes"),
    "plait.v1.Switch.cases": (SWITCH_CASES_MAX, "cases"),
    "plait.v1.SubmitGraphRequest.labels": (LABELS_MAX, "labels"),
}
"""Full name of a repeated field -> how many elements it may have, and the noun for them in messages."""

COUNTED_TOGETHER: Final = frozenset({"plait.v1.Graph.nodes", "plait.v1.Graph.edges"})
"""The fields whose bound applies to all graphs of a request together."""

FIELDS_MAX: Final = 3_000_000
"""The most fields in one walk: more than 16 MiB of nodes large enough to be examined can have. It bounds the time
that unknown fields can take to a second.
"""

_GRAPH: Final = "plait.v1.Graph"
# The first byte of the tag of Node.subgraph, in its shortest form or in a longer one, which parsers accept.
_SUBGRAPH_TAG: Final = re.compile(rb"[\x3a\xba]")
_LENGTH_DELIMITED: Final = 2
_START_GROUP: Final = 3
_END_GROUP: Final = 4
_FIXED_BYTES: Final = {1: 8, 5: 4}
_VARINT_BYTES_MAX: Final = 10


class TooManyElements(Exception):
    """A repeated field has too many elements, or graphs are nested too deep."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        """The path of the field, such as `graph.nodes[3].retry.retryable_codes`."""
        self.message = message
        """What is wrong and what to do."""


def check_bounds(type_: type[Message], content: bytes) -> None:
    """Check an encoded message of a type against `BOUNDS` without parsing it.

    Raises:
        TooManyElements: A field has too many elements, or graphs are nested too deep.
    """
    try:
        _Walk(content).message(_plan_of(_descriptor_of(type_), {}), 0, len(content), "", {}, -1)
    except IndexError:  # The bytes end in the middle of a field.
        return


@dataclass(slots=True)
class _Rule:
    """How to treat a field that is bounded or contains bounded fields."""

    name: str
    full_name: str
    limit: int
    """How many elements it may have; 0 if it is singular."""
    noun: str
    is_graph: bool
    """Whether it is a graph, in a request or in a node of another graph."""
    child: dict[int, _Rule]
    """The rules for the fields of its message; empty if there are none. Those of graphs refer to themselves."""
    child_bytes_max: int
    """Messages of up to this many bytes cannot break a rule unless they contain a graph."""


def _descriptor_of(type_: type[Message]) -> Descriptor:
    return cast("Descriptor", type_.DESCRIPTOR)


def _plan_of(descriptor: Descriptor, plans: dict[str, dict[int, _Rule]]) -> dict[int, _Rule]:
    """Return the rules for the fields of a message, by their numbers; `plans` has the plans made so far, by message."""
    known = plans.get(descriptor.full_name)
    if known is not None:
        return known
    plan = plans[descriptor.full_name] = {}
    for field in descriptor.fields:
        limit, noun = BOUNDS.get(field.full_name, (0, ""))
        child: dict[int, _Rule] = {}
        is_graph = False
        if field.type == FieldDescriptor.TYPE_MESSAGE and field.message_type is not None:
            is_graph = field.message_type.full_name == _GRAPH
            child = _plan_of(field.message_type, plans)
        if limit or child or is_graph:
            rule = _Rule(field.name, field.full_name, limit, noun, is_graph, child, 2 * _lowest(child))
            plan[field.number] = rule
    return plan


def _lowest(plan: Mapping[int, _Rule]) -> int:
    """Return the lowest limit of a message's fields, without those of a graph in it; 0 if there is none."""
    limits = [rule.limit or _lowest(rule.child) for rule in plan.values() if not rule.is_graph]
    return min([limit for limit in limits if limit], default=0)


class _Walk:
    """One walk over the bytes of a message."""

    __slots__ = ("_content", "_fields_left", "_together")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._fields_left = FIELDS_MAX
        self._together = dict.fromkeys(COUNTED_TOGETHER, 0)

    def message(
        self,
        plan: Mapping[int, _Rule],
        position: int,
        end: int,
        path: str,
        counts: dict[str, int],
        depth: int,
    ) -> None:
        """Walk over one message.

        Args:
            plan: The rules for its fields.
            position: The position of its first byte.
            end: The position after its last byte.
            path: The path of its field.
            counts: The counts so far in the same message, by path.
            depth: How many graphs enclose the one that it belongs to; -1 outside of any graph.
        """
        content = self._content
        groups = 0
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                text = f"there are more than {FIELDS_MAX:,} fields in the message; send less"
                raise TooManyElements("request", text)
            tag = content[position]
            position += 1
            if tag > 127:
                tag, position = self._varint(position - 1)
            wire_type = tag & 7
            if wire_type == _LENGTH_DELIMITED:
                length = content[position]
                position += 1
                if length > 127:
                    length, position = self._varint(position - 1)
                rule = plan.get(tag >> 3)
                if rule is not None and not groups:
                    self._enter(rule, position, length, path, counts, depth)
                position += length
            elif not wire_type:
                _, position = self._varint(position)
            elif wire_type in _FIXED_BYTES:
                position += _FIXED_BYTES[wire_type]
            elif wire_type == _START_GROUP:
                groups += 1
            elif wire_type == _END_GROUP:
                groups -= 1
            else:
                raise IndexError

    def _enter(
        self, rule: _Rule, position: int, length: int, path: str, counts: dict[str, int], depth: int
    ) -> None:
        field = f"{path}.{rule.name}" if path else rule.name
        if not rule.limit:
            if rule.is_graph:
                depth += 1
                if depth > SCOPES_DEEP_MAX:
                    raise TooManyElements(path, too_deep())
            self.message(rule.child, position, position + length, field, counts, depth)
            return
        count = counts[field] = counts.get(field, 0) + 1
        if rule.full_name in COUNTED_TOGETHER:
            together = self._together[rule.full_name] = self._together[rule.full_name] + 1
            if together > rule.limit:
                where = " in all graphs together" if count != together else ""
                text = f"there are more than {rule.limit:,} {rule.noun}{where}; at most {rule.limit:,} are allowed"
                raise TooManyElements(field, text)
        elif count > rule.limit:
            text = f"there are more than {rule.limit:,} {rule.noun}; at most {rule.limit:,} are allowed"
            raise TooManyElements(field, text)
        if not rule.child:
            return
        end = position + length
        if length > rule.child_bytes_max or _SUBGRAPH_TAG.search(self._content, position, end):
            self.message(rule.child, position, end, f"{field}[{count - 1}]", {}, depth)

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while shift < 7 * _VARINT_BYTES_MAX:
            byte = self._content[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
        raise IndexError
