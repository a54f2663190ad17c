"""Edges in columns are the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.definition.graph import Edge, EdgeColumns

FIELDS = ("source", "target", "handle", "when", "branch_name")
EDGES = st.lists(st.builds(Edge, **dict.fromkeys(FIELDS, st.text(max_size=2))), max_size=6)


def columns_of(edges: list[Edge]) -> EdgeColumns:
    return EdgeColumns([[getattr(edge, name) for edge in edges] for name in FIELDS])


@given(EDGES, EDGES, st.slices(6))
def test_columns_are_the_sequence_they_were_made_of(
    edges: list[Edge], others: list[Edge], cut: slice
) -> None:
    columns = columns_of(edges)
    assert list(columns) == edges
    assert [columns[position] for position in range(len(columns))] == edges
    assert columns[cut] == tuple(edges)[cut]
    assert columns == tuple(edges)
    assert (columns == columns_of(others)) == (edges == others)
    assert columns != 5


def test_a_position_beyond_the_end_is_an_error() -> None:
    with pytest.raises(IndexError):
        columns_of([])[0]
