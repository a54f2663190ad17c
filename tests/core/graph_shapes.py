"""Graphs for Hypothesis: few nodes, many shapes, and nothing in them that a valid graph could not have."""

from functools import lru_cache

from hypothesis import strategies as st

from plait_server.core.definition.graph import Edge, Graph, Join, JoinMode, Node, Task

HANDLES = ("", "", "", "error")
JOINS = (None, None, Join(), Join(mode=JoinMode.ANY), Join(mode=JoinMode.COLLECT))


@st.composite
def dags(draw: st.DrawFn, nodes_max: int = 9) -> Graph:
    """Graphs without cycles; the order of the nodes in the graph is not an order of their levels."""
    count = draw(st.integers(1, nodes_max))
    order = draw(st.permutations(range(count)))
    pairs = [(source, target) for target in range(count) for source in range(target)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=3 * count)) if pairs else []
    edges = tuple(
        Edge(source=f"n{order[source]}", target=f"n{order[target]}", handle=draw(st.sampled_from(HANDLES)))
        for source, target in chosen
    )
    targets = {edge.target for edge in edges}
    return Graph(
        nodes=tuple(
            Node(
                id=f"n{position}",
                kind=Task(type="t"),
                join=draw(st.sampled_from(JOINS)) if f"n{position}" in targets else None,
            )
            for position in range(count)
        ),
        edges=edges,
    )


@st.composite
def digraphs(draw: st.DrawFn, nodes_max: int = 7) -> Graph:
    """Graphs that may have cycles, but no self-loops and no duplicate edges."""
    count = draw(st.integers(1, nodes_max))
    pairs = [(source, target) for source in range(count) for target in range(count) if source != target]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2 * count)) if pairs else []
    return Graph(
        nodes=tuple(Node(id=f"n{position}", kind=Task(type="t")) for position in range(count)),
        edges=tuple(Edge(source=f"n{source}", target=f"n{target}") for source, target in chosen),
    )


@lru_cache(maxsize=2)
def chain(count: int) -> Graph:
    """A chain n0 -> n1 -> ..."""
    return Graph(
        nodes=tuple(Node(id=f"n{position}", kind=Task(type="t")) for position in range(count)),
        edges=tuple(Edge(source=f"n{position}", target=f"n{position + 1}") for position in range(count - 1)),
    )


def fan_out(count: int) -> Graph:
    """One source and `count` targets."""
    return Graph(
        nodes=tuple(Node(id=f"n{position}", kind=Task(type="t")) for position in range(count + 1)),
        edges=tuple(Edge(source="n0", target=f"n{position}") for position in range(1, count + 1)),
    )
