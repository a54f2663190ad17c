"""Drawings are compared whole: what counts is what one sees. Run with -vv to see both."""

from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.v1.graph_service_pb2 import GraphPlan
from plait_server.cli.drawing import draw
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import Graph
from plait_server.core.definition.validation import Validation
from plait_server.encoding.graph_answers import plan_response
from tests.core.graph_shapes import chain, dags, fan_out
from tests.core.graph_text import build


def drawn(graph: Graph, width: int = 100) -> str:
    return draw(graph, plan_of(graph), width)


def plan_of(graph: Graph) -> GraphPlan:
    if not graph.nodes:
        return GraphPlan()
    return plan_response(graph, Validation(analysis=analyze(graph, build_adjacency(graph)))).plan


def check(picture: str, *lines: str, width: int = 100) -> None:
    assert drawn(build(*lines), width).split("\n") == dedent(picture).strip("\n").split("\n")


def test_the_contact_sheet() -> None:
    check(
        """
        prompt-1 ── generate-1 ─┐
        prompt-2 ── generate-2 ─┼─ sheet (collect)
        prompt-3 ── generate-3 ─┘
        """,
        *(f"prompt-{number} -> generate-{number}" for number in (1, 2, 3)),
        "generate-1,generate-2,generate-3 -> sheet",
        "node sheet join=COLLECT",
    )


def test_a_diamond() -> None:
    check(
        """
        a ─┬─ b ─┬─ d
           └─ c ─┘
        """,
        "a -> b,c",
        "b,c -> d",
    )


def test_an_edge_over_several_levels_goes_around() -> None:
    check(
        """
                         ┌───────────┐
                         │         ┌─┴─ report
               ┌─ parse ─┴─ clean ─┴─┬─ store
        fetch ─┴─────────────────────┘
        """,
        "fetch -> parse,store",
        "parse -> clean,report",
        "clean -> store,report",
    )


def test_handles_stand_on_their_edges() -> None:
    check(
        """
        order ── check ─┬─[true]─── ship ───┬─────────┬─ done
                        └─[false]── refund ─│─────────┘
                                            └─[error]─── alert
        """,
        "order -> check",
        "node check kind=condition:input",
        "check -true-> ship",
        "check -false-> refund",
        "ship,refund -> done",
        "ship -error-> alert",
    )


def test_a_when_stands_on_its_edge() -> None:
    check("a ──[if]── b", "a -> b when=true")
    check("a ──[error if]── b", "a -error-> b when=true")


def test_all_to_all_is_one_bar() -> None:
    check(
        """
        a ─┬─ x
        b ─┼─ y
        c ─┴─ z
        """,
        "a,b,c -> x,y,z",
    )


def test_lines_that_pass_do_not_touch() -> None:
    check(
        """
        a ───────┐
        b ─┬─────│─┐
           │     ├─┴─ y
           └───┐ └─┬─ x
        c ─┬───│───┘
           └───┴───── z
        """,
        "a -> x,y",
        "b -> y,z",
        "c -> x,z",
    )


def test_groups_that_nothing_connects_stand_below_each_other() -> None:
    check(
        """
        a
        b

        c ─┬─ d
           └─ e

        f
        """,
        "node a",
        "node b",
        "c -> d,e",
        "node f",
    )


def test_joins_and_locks_are_noted() -> None:
    check(
        """
           ┌─ b (any, locked)
        a ─┼─ c (quorum 1)
           └─ d (quorum 50%)
        """,
        "a -> b,c,d",
        "node b join=ANY locked",
        "node c join=QUORUM:1",
        "node d join=QUORUM:0.5",
    )


def test_what_is_too_wide_goes_from_top_to_bottom() -> None:
    check(
        """
            prompt-1          prompt-2          prompt-3
                │                 │                 │
        generate-image-1  generate-image-2  generate-image-3
                └─────────────────┼─────────────────┘
                 assemble-the-complete-contact-sheet
        """,
        *(f"prompt-{number} -> generate-image-{number}" for number in (1, 2, 3)),
        "generate-image-1,generate-image-2,generate-image-3 -> assemble-the-complete-contact-sheet",
        width=60,
    )


def test_from_top_to_bottom_handles_stand_on_their_edges_too() -> None:
    check(
        """
          receive-documents
                  │
        choose-language-model
                  ├───────┐
               [true]  [false]
                  │       │
              translate   │
                  └───┬───┘
               store-documents
        """,
        "receive-documents -> choose-language-model",
        "node choose-language-model kind=condition:input",
        "choose-language-model -true-> translate",
        "choose-language-model -false-> store-documents",
        "translate -> store-documents",
        width=60,
    )


def test_long_ids_are_cut_in_the_middle_where_nothing_else_fits() -> None:
    ids = ["x" * 70 + "1", "y" * 70 + "2"]
    check(
        """
        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxxxxxxxxxxxxxxx1
                                      │
        yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy…yyyyyyyyyyyyyyyyyyyyyyyyyyyy2
        """,
        f"{ids[0]} -> {ids[1]}",
        width=60,
    )
    check(
        """
        xxxxxxxxxxxx…xxxxxxxxxx1 ─┬─ z
        yyyyyyyyyyyy…yyyyyyyyyy2 ─┘
        """,
        f"{ids[0]},{ids[1]} -> z",
        width=60,
    )


def test_many_nodes_become_a_table_of_levels() -> None:
    assert drawn(fan_out(1_500), width=60).split("\n") == [
        "1,501 nodes, 1,500 edges",
        "2 levels, at most 1,500 nodes in one",
        "level    nodes",
        "    0        1  n0",
        "    1    1,500  n1, n2, n3, n4, n5, n6, n7, n8, … 1,492 more",
    ]


def test_the_table_of_a_long_chain_is_short() -> None:
    lines = drawn(chain(10_000)).split("\n")
    assert lines[:2] == ["10,000 nodes, 9,999 edges", "10,000 levels, at most 1 node in one"]
    assert lines[38] == "    … 9,960 more levels …"
    assert lines[-1] == "9,999        1  n9999"
    assert len(lines) == 44


def test_many_edges_become_a_table_too() -> None:
    graph = build(*(f"a{number} -> b{other}" for number in range(12) for other in range(11)))
    assert drawn(graph).startswith("23 nodes, 132 edges\n2 levels, at most 12 nodes in one\n")


def test_a_graph_without_nodes_is_nothing() -> None:
    assert drawn(Graph(nodes=())) == ""


@given(dags(), st.integers(0, 120))
def test_whatever_is_drawn_is_as_wide_as_asked_and_shows_every_node(graph: Graph, width: int) -> None:
    lines = drawn(graph, width).split("\n")
    assert all(len(line) <= max(width, 60) and line == line.rstrip() for line in lines)
    if not any(line.endswith("in one") for line in lines):
        words = " ".join(lines).replace("─", " ").split()
        assert sorted(word for word in words if word.startswith("n")) == sorted(
            node.id for node in graph.nodes
        )


@given(dags())
def test_lines_lead_from_every_source_to_its_targets_and_nowhere_else(graph: Graph) -> None:
    """Follows the lines of left-to-right drawings as a reader would."""
    plain = Graph(nodes=graph.nodes, edges=tuple(edge for edge in graph.edges if not edge.handle))
    picture = drawn(plain, 1000)
    expected = {(edge.source, edge.target) for edge in plain.edges}
    assert read(picture.split("\n")) == expected


RIGHT, LEFT, UP, DOWN = (0, 1), (0, -1), (-1, 0), (1, 0)
ARMS = {
    "─": (LEFT, RIGHT),
    "│": (UP, DOWN),
    "┌": (RIGHT, DOWN),
    "└": (UP, RIGHT),
    "┐": (LEFT, DOWN),
    "┘": (LEFT, UP),
    "├": (UP, DOWN, RIGHT),
    "┤": (UP, DOWN, LEFT),
    "┬": (LEFT, RIGHT, DOWN),
    "┴": (LEFT, RIGHT, UP),
    "┼": (LEFT, RIGHT, UP, DOWN),
}


def read(lines: list[str]) -> set[tuple[str, str]]:
    """Return the edges that a drawing from left to right shows: lines never turn back to the left."""
    cells = {
        (row, place): character for row, line in enumerate(lines) for place, character in enumerate(line)
    }
    found: set[tuple[str, str]] = set()
    for (row, place), character in cells.items():
        if character == "n" and cells.get((row, place - 1), " ") == " ":
            name, end = word(cells, row, place)
            if cells.get((row, end + 1)) == "─":
                found |= {(name, target) for target in reached(cells, (row, end + 1))}
    return found


def word(cells: dict[tuple[int, int], str], row: int, place: int) -> tuple[str, int]:
    """Return the id that begins at a cell, and the place behind it and its notes."""
    end = place
    while cells.get((row, end), " ") != " ":
        end += 1
    name = "".join(cells[row, at] for at in range(place, end))
    if cells.get((row, end + 1)) == "(":
        while cells[row, end - 1] != ")":
            end += 1
    return name, end


def reached(cells: dict[tuple[int, int], str], start: tuple[int, int]) -> set[str]:
    names: set[str] = set()
    seen: set[tuple[tuple[int, int], tuple[int, int]]] = set()
    left = [(start, RIGHT)]
    while left:
        (row, place), direction = left.pop()
        if ((row, place), direction) in seen:
            continue
        seen.add(((row, place), direction))
        character = cells.get((row, place), " ")
        if character == " ":
            names.add(word(cells, row, place + 1)[0])
        elif character == "│" and direction == RIGHT:
            left.append(((row, place + 1), RIGHT))
        else:
            came_from = (-direction[0], -direction[1])
            assert came_from in ARMS[character], (character, direction)
            left += [
                ((row + arm[0], place + arm[1]), arm)
                for arm in ARMS[character]
                if arm not in (came_from, LEFT)
            ]
    return names


@pytest.mark.parametrize("width", [60, 100])
def test_a_picture_does_not_change_from_one_call_to_the_next(width: int) -> None:
    graph = build("a -> b,c,d", "b -> e", "c -> e,f", "d -> f", "a -> f", "f -error-> g")
    assert drawn(graph, width) == drawn(graph, width)
