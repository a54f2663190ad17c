"""Bounds on repeated fields, judged before anything is parsed (DESIGN 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from plait.v1 import execution_service_pb2, graph_pb2, graph_service_pb2
from plait_server.core.limits import LABELS_MAX, NODES_MAX, RETRYABLE_CODES_MAX, SWITCH_CASES_MAX
from plait_server.encoding.element_bounds import BOUNDS, TooManyElements, check_bounds

Submit = execution_service_pb2.SubmitGraphRequest
UNKNOWN = {
    "varint": b"\x98\x06\x96\x01",
    "fixed64": b"\x99\x06" + bytes(8),
    "bytes": b"\x9a\x06\x03abc",
    "group": b"\x9b\x06\x12\x00\x9b\x06\x12\x00\x9c\x06\x9c\x06",
    "fixed32": b"\x9d\x06" + bytes(4),
}


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def refusal(content: bytes, type_: type[Message] = Submit) -> str:
    with pytest.raises(TooManyElements) as raised:
        check_bounds(type_, content)
    return f"{raised.value.field}: {raised.value.message}"


def node(*fields: bytes) -> bytes:
    return field(2, b"".join(fields))


def retry(codes: int) -> bytes:
    return field(12, field(5, b"") * codes)


def test_every_repeated_field_of_a_request_with_a_graph_has_its_bound() -> None:
    types = (Submit, graph_service_pb2.ValidateGraphRequest, graph_service_pb2.PlanGraphRequest)
    repeated = {name for type_ in types for name in repeated_fields(type_.DESCRIPTOR)}
    assert repeated == BOUNDS.keys()


def repeated_fields(descriptor: Any, *around: str) -> Iterator[str]:  # noqa: ANN401 # the stubs know two classes of it
    if descriptor.GetOptions().map_entry or descriptor.full_name in around:
        return
    for each in descriptor.fields:
        if each.is_repeated:
            yield each.full_name
        if each.message_type is not None:
            yield from repeated_fields(each.message_type, descriptor.full_name, *around)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (field(2, node() * (NODES_MAX + 1)), "graph.nodes: there are more than 100,000 nodes"),
        (field(2, field(3, b"") * 500_001), "graph.edges: there are more than 500,000 edges"),
        (
            field(2, node() + node(retry(RETRYABLE_CODES_MAX + 1))),
            "graph.nodes[1].retry.retryable_codes: there are more than 64 codes",
        ),
        (
            field(2, node(field(4, field(2, b"") * (SWITCH_CASES_MAX + 1)))),
            "graph.nodes[0].switch.cases: there are more than 10,000 cases",
        ),
        (field(2, field(7, b"") * (LABELS_MAX + 1)), "graph.labels: there are more than 64 labels"),
        (field(6, b"") * (LABELS_MAX + 1), "labels: there are more than 64 labels"),
    ],
    ids=["nodes", "edges", "codes", "cases", "labels of the graph", "labels"],
)
def test_one_too_many_is_refused_by_its_field(content: bytes, text: str) -> None:
    assert text in refusal(content)


def test_as_many_as_are_allowed_pass() -> None:
    check_bounds(Submit, field(2, node() * NODES_MAX + node(retry(RETRYABLE_CODES_MAX)) * 0))
    check_bounds(Submit, field(2, node(retry(RETRYABLE_CODES_MAX)) * 1_000))
    check_bounds(Submit, field(6, b"") * LABELS_MAX)


def test_what_a_parser_merges_is_counted_together() -> None:
    """A singular message that stands on the wire several times is one."""
    half = field(2, node() * (NODES_MAX // 2 + 1))
    assert "graph.nodes" in refusal(half + half)
    assert "graph.nodes[0].retry" in refusal(field(2, node(*[retry(1)] * (RETRYABLE_CODES_MAX + 1))))


# Graphs in graphs.


def holding(*graph: bytes, tag: bytes = b"\x3a") -> bytes:
    """A node with a graph in it, whose fields are given."""
    content = field(1, b"".join(graph))
    return node(tag + varint(len(content)) + content)


def test_nodes_are_counted_over_all_graphs() -> None:
    half = node() * (NODES_MAX // 2)
    check_bounds(Submit, field(2, half[2:] + holding(half[2:])))
    assert refusal(field(2, half + holding(half))) == (
        "graph.nodes[50000].subgraph.graph.nodes: there are more than 100,000 nodes in all graphs together; "
        "at most 100,000 are allowed"
    )
    assert "graph.nodes: there are more than 100,000 nodes in all" in refusal(field(2, holding(half) + half))


def test_nodes_of_many_small_graphs_are_counted() -> None:
    """None of these nodes is long enough to break another bound."""
    assert "nodes[9090].subgraph.graph.nodes" in refusal(field(2, holding(node() * 10) * 10_000))
    assert "in all graphs together" in refusal(field(2, holding(node()) * (NODES_MAX // 2 + 1)))


def test_edges_are_counted_over_all_graphs() -> None:
    assert "500,000 edges in all graphs together" in refusal(field(2, holding(field(3, b"") * 300_000) * 2))


def test_a_tag_in_more_bytes_than_it_needs_hides_no_graph() -> None:
    for tag in (b"\xba\x00", b"\xba\x80\x00", b"\xba\x80\x80\x80\x00"):
        content = field(2, holding(node(), tag=tag) * (NODES_MAX // 2 + 1))
        assert (
            len(Submit.FromString(field(2, holding(node(), tag=tag))).graph.nodes[0].subgraph.graph.nodes)
            == 1
        )
        assert "in all graphs together" in refusal(content)


def test_a_graph_that_a_node_names_several_times_is_one() -> None:
    labels = field(7, b"") * LABELS_MAX
    kind = field(7, field(1, labels))
    assert "nodes[0].subgraph.graph.labels" in refusal(field(2, node(kind + kind)))
    check_bounds(Submit, field(2, node(kind) + node(kind)))


@pytest.mark.parametrize("depth", [17, 30, 1_000])
def test_graphs_are_nested_16_deep_and_what_is_deeper_is_not_looked_into(depth: int) -> None:
    graph = innermost = node(retry(RETRYABLE_CODES_MAX))
    for _ in range(16):
        graph = holding(graph)
    check_bounds(Submit, field(2, graph))
    graph = innermost
    for _ in range(depth):
        graph = holding(graph)
    assert refusal(field(2, graph)) == (
        "graph" + ".nodes[0].subgraph.graph" * 16 + ".nodes[0].subgraph: "
        "graphs are nested more than 16 deep here; put its nodes into the graph around it"
    )


@pytest.mark.parametrize("kind", UNKNOWN)
def test_unknown_fields_are_stepped_over(kind: str) -> None:
    unknown = UNKNOWN[kind]
    check_bounds(Submit, unknown + field(2, unknown + node(unknown) + unknown))
    codes = node(unknown, retry(RETRYABLE_CODES_MAX + 1))
    assert "retryable_codes" in refusal(unknown + field(2, unknown + codes))


def test_fields_without_end_are_refused_whatever_they_are() -> None:
    assert "more than 3,000,000 fields" in refusal(b"\x9a\x06\x00" * 3_000_001)
    assert "more than 3,000,000 fields" in refusal(b"\x9b\x06\x9c\x06" * 1_500_001)


@given(st.binary(max_size=200))
def test_any_bytes_are_walked_over(content: bytes) -> None:
    check_bounds(Submit, content)
    check_bounds(Submit, field(2, content))


@given(st.lists(st.integers(0, 130), max_size=4), st.lists(st.integers(0, 70), max_size=3))
def test_the_count_is_that_of_the_parsed_message(codes: list[int], labels: list[int]) -> None:
    """A message passes if and only if, parsed, none of its fields is past its bound."""
    graph = graph_pb2.Graph(nodes=[graph_pb2.Node(id=str(count)) for count in codes])
    for each, count in zip(graph.nodes, codes, strict=True):
        each.retry.retryable_codes.extend(["A"] * count)
    content = b"".join(
        Submit(graph=graph_pb2.Graph(labels={f"{part}-{n}": "" for n in range(count)})).SerializeToString()
        for part, count in enumerate(labels)
    )
    content += Submit(graph=graph).SerializeToString()
    fits = all(count <= RETRYABLE_CODES_MAX for count in codes) and sum(labels) <= LABELS_MAX
    try:
        check_bounds(Submit, content)
    except TooManyElements:
        assert not fits
    else:
        assert fits
