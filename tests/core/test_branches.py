"""B1: branches are a function of the graph."""

from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.branches import ELLIPSIS, MAIN, Branches, assign_branches
from plait_server.core.definition.graph import Edge, Graph, Node, Task
from tests.core.graph_shapes import chain, dags
from tests.core.graph_text import build

Path = tuple[int, ...]


def branches_of(graph: Graph) -> Branches:
    adjacency = build_adjacency(graph)
    return assign_branches(graph, adjacency, analyze(graph, adjacency).levels)


def node_paths(*lines: str) -> dict[str, str]:
    graph = build(*lines)
    branches = branches_of(graph)
    return {
        node.id: branches.path(branch) for node, branch in zip(graph.nodes, branches.node_branch, strict=True)
    }


def edge_paths(*lines: str) -> list[str]:
    graph = build(*lines)
    branches = branches_of(graph)
    return [branches.path(branch) for branch in branches.edge_branch]


def nested_forks(depth: int) -> Graph:
    """A chain whose nodes each have a second way out: the last node is `depth` branches deep."""
    links = chain(depth + 1)
    exits = [f"x{position}" for position in range(depth)]
    return Graph(
        nodes=(*links.nodes, *(Node(id=id, kind=Task(type="t")) for id in exits)),
        edges=tuple(
            edge
            for position, link in enumerate(links.edges)
            for edge in (link, Edge(source=link.source, target=exits[position]))
        ),
    )


def test_b1_one_source_stays_on_the_main_branch() -> None:
    assert node_paths("a -> b", "b -> c") == {"a": "0", "b": "0", "c": "0"}


def test_b1_several_sources_open_one_branch_each_in_graph_order() -> None:
    assert node_paths("a -> c", "b -> d") == {"a": "0-001", "c": "0-001", "b": "0-002", "d": "0-002"}


def test_b1_a_fork_opens_one_branch_per_edge() -> None:
    assert node_paths("a -> b,c") == {"a": "0", "b": "0-001", "c": "0-002"}
    assert edge_paths("a -> b,c") == ["0-001", "0-002"]


def test_b1_error_edges_open_branches_too() -> None:
    assert node_paths("a -> b", "a -error-> c") == {"a": "0", "b": "0-001", "c": "0-002"}


def test_b1_nested_forks_add_a_part() -> None:
    paths = node_paths("a -> b,c", "c -> d,e")
    assert paths == {"a": "0", "b": "0-001", "c": "0-002", "d": "0-002-001", "e": "0-002-002"}


def test_b1_one_incoming_edge_keeps_its_branch() -> None:
    assert node_paths("a -> b,c", "b -> d")["d"] == "0-001"


def test_b1_a_join_is_on_the_longest_common_prefix_of_its_edges() -> None:
    paths = node_paths("a -> b,c", "b -> d,e", "d,e -> f", "c,f -> g")
    assert paths["f"] == "0-001"
    assert paths["g"] == "0"


def test_b1_a_prefix_is_one_of_parts_not_of_characters() -> None:
    paths = node_paths("a -> " + ",".join(f"b{number}" for number in range(12)), "b9,b10 -> j")
    assert (paths["b9"], paths["b10"], paths["j"]) == ("0-010", "0-011", "0")


def test_b1_ordinals_go_on_by_level_and_then_in_graph_order() -> None:
    """The forks y (earlier in the graph) and x are both on branch 0, x on the lower level."""
    graph = build("node y", "s -> x", "x -> p,q", "p,q -> y", "y -> r,t")
    branches = branches_of(graph)
    paths = [branches.path(branch) for branch in branches.edge_branch]
    assert paths == ["0", "0-001", "0-002", "0-001", "0-002", "0-003", "0-004"]


def test_b1_the_numbers_of_sources_are_not_used_again() -> None:
    paths = node_paths("a,b -> j", "j -> k,l")
    assert paths == {"a": "0-001", "j": "0", "b": "0-002", "k": "0-003", "l": "0-004"}


def test_b1_more_than_999_branches_take_four_digits() -> None:
    paths = node_paths("a -> " + ",".join(f"b{number}" for number in range(1, 1001)))
    assert (paths["b999"], paths["b1000"]) == ("0-999", "0-1000")


def test_b1_a_named_edge_changes_the_name_only() -> None:
    graph = build("a -> b,c")
    named = Graph(
        nodes=graph.nodes,
        edges=(Edge(source="a", target="b", branch_name="fast lane"), graph.edges[1]),
    )
    branches = branches_of(named)
    first, second = branches.edge_branch
    assert (branches.name(first), branches.name(second), branches.name(MAIN)) == ("fast lane", "", "")
    assert branches.path(first) == "0-001"


def test_b1_a_branch_has_a_parent_and_an_ordinal() -> None:
    branches = branches_of(build("a -> b,c", "c -> d,e"))
    deepest = branches.edge_branch[3]
    parent = branches.parent(deepest)
    assert parent == branches.edge_branch[1]
    assert (branches.ordinal(deepest), branches.depth(deepest)) == (2, 2)
    assert (branches.parent(MAIN), branches.ordinal(MAIN), branches.depth(MAIN)) == (None, 0, 0)
    assert len(branches) == 5
    assert repr(branches) == "<Branches 5 over 5 nodes>"


def test_b1_a_path_of_eight_parts_is_shown_whole() -> None:
    branches = branches_of(nested_forks(7))
    assert branches.path(branches.node_branch[7]) == "0-001-001-001-001-001-001-001"


def test_b1_a_longer_path_is_cut_in_the_middle() -> None:
    branches = branches_of(nested_forks(9))
    deepest = branches.node_branch[9]
    assert branches.path(deepest) == f"0-001-001-001-{ELLIPSIS}-001-001-001"
    assert branches.full_path(deepest) == "0" + "-001" * 9


@given(dags())
def test_b1_branches_agree_with_a_naive_model(graph: Graph) -> None:
    branches = branches_of(graph)
    nodes, edges = naive(graph)
    assert [branches.full_path(branch) for branch in branches.node_branch] == [shown(path) for path in nodes]
    assert [branches.full_path(branch) for branch in branches.edge_branch] == [shown(path) for path in edges]
    assert len({branches.full_path(branch) for branch in range(len(branches))}) == len(branches)


@given(st.integers(0, 60), st.data())
def test_the_common_branch_of_two_is_their_lowest_common_ancestor(depth: int, data: st.DataObject) -> None:
    branches = branches_of(nested_forks(depth))
    first = data.draw(st.integers(0, len(branches) - 1))
    second = data.draw(st.integers(0, len(branches) - 1))
    assert branches.common(first, second) == max(ancestors(branches, first) & ancestors(branches, second))


def test_v8_forks_nested_50_000_deep_are_numbered() -> None:
    branches = branches_of(nested_forks(50_000))
    deepest = branches.node_branch[50_000]
    assert branches.depth(deepest) == 50_000
    assert branches.path(deepest) == f"0-001-001-001-{ELLIPSIS}-001-001-001"
    assert branches.common(deepest, branches.edge_branch[-1]) == branches.parent(deepest)


def ancestors(branches: Branches, branch: int) -> set[int]:
    found = {branch}
    parent = branches.parent(branch)
    while parent is not None:
        found.add(parent)
        parent = branches.parent(parent)
    return found


def naive(graph: Graph) -> tuple[list[Path], list[Path]]:
    """B1 by its words, with paths for branches."""
    levels = analyze(graph, build_adjacency(graph)).levels
    incoming = [[edge for edge in graph.edges if edge.target == node.id] for node in graph.nodes]
    outgoing = [[edge for edge in graph.edges if edge.source == node.id] for node in graph.nodes]
    used: dict[Path, int] = {}
    node_path: dict[int, Path] = {}
    edge_path: dict[int, Path] = {}

    def open_under(parent: Path) -> Path:
        used[parent] = used.get(parent, 0) + 1
        return (*parent, used[parent])

    sources = [position for position, edges in enumerate(incoming) if not edges]
    for position in sources:
        node_path[position] = open_under((0,)) if len(sources) > 1 else (0,)
    for position in sorted(range(len(levels)), key=lambda position: (levels[position], position)):
        if incoming[position]:
            paths = [edge_path[id(edge)] for edge in incoming[position]]
            common = paths[0]
            while any(path[: len(common)] != common for path in paths):
                common = common[:-1]
            node_path[position] = common
        for edge in outgoing[position]:
            path = node_path[position]
            edge_path[id(edge)] = open_under(path) if len(outgoing[position]) > 1 else path
    return [node_path[position] for position in range(len(levels))], [
        edge_path[id(edge)] for edge in graph.edges
    ]


def shown(path: Path) -> str:
    return "-".join(["0", *(f"{part:03}" for part in path[1:])])
