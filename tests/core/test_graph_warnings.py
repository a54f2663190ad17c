"""V5: what is allowed and rarely meant."""

from dataclasses import replace

import pytest

from plait_server.core.definition.graph import (
    Graph,
    Join,
    JoinMode,
    OnError,
    RetryPolicy,
)
from tests.core.graph_text import build
from tests.core.validating import edge, one, task, warned


@pytest.mark.parametrize(
    ("setting", "shown"),
    [("on_error=IGNORE", "on_error: IGNORE"), ("on_timeout=CONTINUE", "on_timeout: CONTINUE")],
)
def test_v5_an_ignored_failure_that_can_win_a_race_is_warned_of(setting: str, shown: str) -> None:
    assert warned(build("a,b -> c", f"node a {setting}", "node c join=ANY")) == {
        "graph.edges[0]": (
            f'"a" has `{shown}`, so its null can win the ANY join of "c"; '
            "let it fail, or add a `when` that looks at `output`"
        )
    }


def test_v5_an_ignored_failure_that_counts_as_a_success_is_warned_of() -> None:
    assert warned(build("a,b -> c", "node a on_error=IGNORE", "node c join=COLLECT:0.5")) == {
        "graph.edges[0]": (
            '"a" has `on_error: IGNORE`, so its null counts as a success in the COLLECT join of "c"; '
            "let it fail, or add a `when` that looks at `output`"
        )
    }


@pytest.mark.parametrize(
    "lines",
    [
        ["a,b -> c", "node a on_error=TOLERATE", "node c join=ANY"],
        ["a,b -> c", "node a on_error=IGNORE"],
        ["a,b -> c", "node a on_error=IGNORE", "node c join=COLLECT"],
        ["a,b -> c when=output", "node a on_error=IGNORE", "node c join=ANY"],
        ["a -error-> c", "b -> c", "node a on_error=IGNORE", "node c join=ANY"],
        ["a -true-> c", "b -> c", "node a kind=condition:input on_error=IGNORE", "node c join=ANY"],
        ["a -x-> c", "b -> c", "node a kind=switch:input:x on_error=IGNORE", "node c join=ANY"],
    ],
)
def test_v5_a_null_that_cannot_win_is_not_warned_of(lines: list[str]) -> None:
    assert warned(build(*lines)) == {}


@pytest.mark.parametrize(
    "lines",
    [
        ["a,b -> c when=input", "node a on_error=IGNORE", "node c join=QUORUM:1"],
        ["a -false-> c", "b -> c", "node a kind=condition:input on_error=IGNORE", "node c join=ANY"],
        ["a -default-> c", "b -> c", "node a kind=switch:input:x on_error=IGNORE", "node c join=ANY"],
    ],
)
def test_v5_a_null_takes_the_handle_that_null_selects(lines: list[str]) -> None:
    assert set(warned(build(*lines))) == {"graph.edges[0]"}


def test_v5_a_name_for_no_branch_is_warned_of() -> None:
    graph = build("a -> b")
    assert warned(replace(graph, edges=(replace(graph.edges[0], branch_name="x"),))) == {
        "graph.edges[0].branch_name": (
            'the name is never shown: an edge opens a branch only if "a" has several'
        )
    }


def test_v5_retries_that_repeat_nothing_are_warned_of() -> None:
    assert warned(one(replace(task(), retry=RetryPolicy(max_backoff_s=5)))) == {
        "graph.nodes[0].retry": ("nothing is repeated, for `max_attempts` is 1; raise it, or remove the rest")
    }
    assert warned(one(replace(task(), retry=RetryPolicy(max_lost_attempts=5)))) == {}


def test_v5_the_first_50_warnings_are_kept() -> None:
    nodes = tuple(replace(task(f"n{number}"), on_error=OnError.IGNORE) for number in range(60))
    join = replace(task("j"), join=Join(mode=JoinMode.ANY))
    graph = Graph(nodes=(*nodes, join), edges=tuple(edge(node.id, "j") for node in nodes))
    assert len(warned(graph)) == 50
