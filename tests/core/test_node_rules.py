"""V6: handles exist on their nodes, and what nodes and policies say is within limits."""

import math
from dataclasses import replace

import pytest

from plait_server.core import limits
from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Graph,
    Join,
    JoinMode,
    Kind,
    Node,
    OnTimeout,
    Policy,
    RetryPolicy,
    Subgraph,
    Switch,
    Task,
    Timeouts,
    Transform,
)
from tests.core.graph_text import build
from tests.core.validating import edge, found, one, task

# Handles.


@pytest.mark.parametrize(
    ("kind", "handle"),
    [
        (Task(type="t"), ""),
        (Transform(), ""),
        (Delay(duration_s=1), ""),
        (Condition(expression="input"), "true"),
        (Condition(expression="input"), "false"),
        (Switch(expression="input", cases=("red", "blue")), "blue"),
        (Switch(expression="input", cases=("red", "blue")), "default"),
        (Task(type="t"), "error"),
        (Condition(expression="input"), "error"),
        (Switch(expression="input", cases=()), "error"),
    ],
)
def test_v6_handles_that_a_kind_has(kind: Kind, handle: str) -> None:
    assert found(Graph(nodes=(task("a", kind), task("b")), edges=(edge("a", "b", handle),))) == {}


@pytest.mark.parametrize(
    ("kind", "handle", "message"),
    [
        (Task(type="t"), "true", '"a" has no handle "true"; leave it empty, or write "error"'),
        (Delay(duration_s=1), "default", '"a" has no handle "default"; leave it empty, or write "error"'),
        (
            Condition(expression="input"),
            "",
            '"a" has no handle ""; its handles are "true", "false", "error"',
        ),
        (
            Condition(expression="input"),
            "True",
            '"a" has no handle "True"; did you mean "true"? its handles are "true", "false", "error"',
        ),
        (
            Switch(expression="input", cases=("red",)),
            "rde",
            '"a" has no handle "rde"; did you mean "red"? its handles are "red", "default", "error"',
        ),
    ],
)
def test_v6_handles_that_a_kind_has_not(kind: Kind, handle: str, message: str) -> None:
    graph = Graph(nodes=(task("a", kind), task("b")), edges=(edge("a", "b", handle),))
    assert found(graph) == {"graph.edges[0].handle": message}


def test_v6_many_handles_are_not_all_listed() -> None:
    kind = Switch(expression="input", cases=tuple(f"case-{number}" for number in range(5000)))
    message = found(Graph(nodes=(task("a", kind), task("b")), edges=(edge("a", "b", "x"),)))[
        "graph.edges[0].handle"
    ]
    assert message.endswith('"case-11" and 4,990 more')


def test_v6_the_cases_of_a_switch_are_bounded() -> None:
    kind = Switch(expression="input", cases=tuple(str(number) for number in range(10_001)))
    message = "there are 10,001 cases; at most 10,000 are allowed"
    assert found(one(task("s", kind))) == {"graph.nodes[0].switch.cases": message}


def test_v6_cases_are_names_once_each_and_never_error_or_default() -> None:
    kind = Switch(expression="input", cases=("a", "error", "default", "a", "b c", ""))
    assert found(one(task("s", kind))) == {
        "graph.nodes[0].switch.cases[1]": 'every switch has the handle "error"; remove it from the cases',
        "graph.nodes[0].switch.cases[2]": 'every switch has the handle "default"; remove it from the cases',
        "graph.nodes[0].switch.cases[3]": '"a" is already case 0; remove it',
        "graph.nodes[0].switch.cases[4]": (
            '"b c" is no name of a case: write 1 to 128 letters, digits, `_`, `.` or `-`'
        ),
        "graph.nodes[0].switch.cases[5]": (
            '"" is no name of a case: write 1 to 128 letters, digits, `_`, `.` or `-`'
        ),
    }


# Limits.


JOIN = "graph.nodes[1].join"


@pytest.mark.parametrize(
    ("join", "problems"),
    [
        (Join(), {}),
        (Join(mode=JoinMode.ANY, cancel_losers=False), {}),
        (Join(mode=JoinMode.QUORUM, count=1), {}),
        (Join(mode=JoinMode.QUORUM, rate=1.0), {}),
        (Join(mode=JoinMode.COLLECT, min_success_rate=1.0), {}),
        (Join(mode=JoinMode.QUORUM), {JOIN: "QUORUM needs one of `count` and `rate`, and neither is given"}),
        (
            Join(mode=JoinMode.QUORUM, count=1, rate=0.5),
            {JOIN: "QUORUM needs one of `count` and `rate`, and both are given"},
        ),
        (
            Join(mode=JoinMode.QUORUM, count=2),
            {f"{JOIN}.count": "must be from 1 to 1, for 1 edge leads here, not 2"},
        ),
        (
            Join(mode=JoinMode.QUORUM, count=-1),
            {f"{JOIN}.count": "must be from 1 to 1, for 1 edge leads here, not -1"},
        ),
        (Join(mode=JoinMode.QUORUM, rate=1.5), {f"{JOIN}.rate": "must be above 0 and at most 1, not 1.5"}),
        (
            Join(mode=JoinMode.QUORUM, rate=math.nan),
            {f"{JOIN}.rate": "must be above 0 and at most 1, not nan"},
        ),
        (
            Join(mode=JoinMode.ANY, count=1),
            {f"{JOIN}.count": "only QUORUM has it; set the mode, or remove `count`"},
        ),
        (Join(rate=0.5), {f"{JOIN}.rate": "only QUORUM has it; set the mode, or remove `rate`"}),
        (
            Join(mode=JoinMode.COLLECT, min_success_rate=-0.5),
            {f"{JOIN}.min_success_rate": "must be from 0 to 1, not -0.5"},
        ),
        (
            Join(mode=JoinMode.ANY, min_success_rate=0.5),
            {f"{JOIN}.min_success_rate": "only COLLECT has it; set the mode, or remove `min_success_rate`"},
        ),
        (
            Join(mode=JoinMode.ANY, min_success_rate=math.nan),
            {f"{JOIN}.min_success_rate": "only COLLECT has it; set the mode, or remove `min_success_rate`"},
        ),
        (
            Join(cancel_losers=False),
            {
                f"{JOIN}.cancel_losers": (
                    "only ANY and QUORUM have losers; set the mode, or remove `cancel_losers`"
                )
            },
        ),
    ],
)
def test_v6_joins_are_within_limits(join: Join, problems: dict[str, str]) -> None:
    graph = Graph(nodes=(task("a"), replace(task("b"), join=join)), edges=(edge("a", "b"),))
    assert found(graph) == problems


def test_v6_a_join_needs_incoming_edges() -> None:
    assert found(one(replace(task(), join=Join(mode=JoinMode.QUORUM)))) == {
        "graph.nodes[0].join": (
            "no edge leads to this node, so there is nothing to join; remove it, or add edges"
        )
    }


@pytest.mark.parametrize(
    ("retry", "field", "message"),
    [
        (RetryPolicy(max_attempts=-1), "max_attempts", "must be from 1 to 1,000, not -1"),
        (RetryPolicy(max_attempts=2**31 - 1), "max_attempts", "must be from 1 to 1,000, not 2,147,483,647"),
        (RetryPolicy(initial_backoff_s=-1), "initial_backoff", "must be from 0 to 1 day, not -1 s"),
        (RetryPolicy(max_backoff_s=86_401), "max_backoff", "must be from 0 to 1 day, not 86401 s"),
        (RetryPolicy(max_backoff_s=math.inf), "max_backoff", "must be from 0 to 1 day, not inf s"),
        (RetryPolicy(multiplier=0.5), "multiplier", "must be from 1 to 100, not 0.5"),
        (RetryPolicy(multiplier=math.nan), "multiplier", "must be from 1 to 100, not nan"),
        (RetryPolicy(max_lost_attempts=101), "max_lost_attempts", "must be from 0 to 100, not 101"),
        (
            RetryPolicy(retryable_codes=("OK", "A B")),
            "retryable_codes[1]",
            '"A B" is no code: write 1 to 128 letters, digits, `_`, `.` or `-`',
        ),
        (
            RetryPolicy(retryable_codes=("A",) * 65),
            "retryable_codes",
            "there are 65 codes; at most 64 are allowed",
        ),
    ],
)
def test_v6_retries_are_within_limits(retry: RetryPolicy, field: str, message: str) -> None:
    assert found(one(replace(task(), retry=retry))) == {f"graph.nodes[0].retry.{field}": message}


@pytest.mark.parametrize(
    ("node", "field", "message"),
    [
        (
            replace(task(), timeouts=Timeouts(attempt_s=-1)),
            "timeouts.attempt",
            "must be from 0, which is no bound, to 10 years, not -1 s",
        ),
        (
            replace(task(), timeouts=Timeouts(heartbeat_s=-1)),
            "timeouts.heartbeat",
            "must be from 0, which is no bound, to 10 years, not -1 s",
        ),
        (
            replace(task("a", Subgraph(graph=build("b"))), timeouts=Timeouts(heartbeat_s=1)),
            "timeouts.heartbeat",
            "a sub-graph has no attempts of its own; remove it, and set it on the tasks in it",
        ),
        (
            replace(task("a", Subgraph(graph=build("b"))), timeouts=Timeouts(queue_s=1)),
            "timeouts.queue",
            "a sub-graph has no attempts of its own; remove it, and set it on the tasks in it",
        ),
        (
            replace(task(), timeouts=Timeouts(worker_s=math.inf)),
            "timeouts.worker",
            "must be from 0, which is no bound, to 10 years, not inf s",
        ),
        (
            replace(task(), timeouts=Timeouts(node_s=1e12)),
            "timeouts.node",
            "must be from 0, which is no bound, to 10 years, not 1e+12 s",
        ),
        (replace(task(), priority=1001), "priority", "must be from -1,000 to 1,000, not 1,001"),
        (
            task("a", Task(type="")),
            "task.type",
            '"" is no node type: write 1 to 128 letters, digits, `_`, `.` or `-`',
        ),
        (task("a", Delay(duration_s=0)), "delay.duration", "must be above 0 and at most 10 years, not 0 s"),
        (
            task("a", Delay(duration_s=math.nan)),
            "delay.duration",
            "must be above 0 and at most 10 years, not nan s",
        ),
        (
            replace(task("a", Condition(expression="input")), input="1"),
            "input",
            "conditions and switches take no input; name what it holds in the expression",
        ),
        (
            replace(task("a", Delay(duration_s=1)), retry=RetryPolicy()),
            "retry",
            "only task nodes have it, for they alone run at a worker; remove it",
        ),
        (
            replace(task("a", Transform()), concurrency_key="input"),
            "concurrency_key",
            "only task nodes have it, for they alone run at a worker; remove it",
        ),
        (
            replace(task("a", Transform()), timeouts=Timeouts()),
            "timeouts",
            "only task and sub-graph nodes have it; remove it",
        ),
        (
            replace(task("a", Transform()), on_timeout=OnTimeout.CONTINUE),
            "on_timeout",
            "only task and sub-graph nodes have it; remove it",
        ),
    ],
)
def test_v6_nodes_are_within_limits(node: Node, field: str, message: str) -> None:
    assert found(one(node)) == {f"graph.nodes[0].{field}": message}


def test_v6_a_node_has_a_kind() -> None:
    assert found(one(Node(id="a", kind=None))) == {
        "graph.nodes[0]": (
            "unknown or missing kind; give one of task, condition, switch, transform, delay and subgraph"
        )
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "the text is no JSON"),
        ("NaN", "NaN is no JSON"),
        ('{"a":1,"a":2}', 'the key "a" stands twice'),
        ('"\\ud800"', "half of a surrogate pair"),
        ("[" * 65 + "]" * 65, "nest deeper than 64 levels"),
        ('"' + "x" * limits.PAYLOAD_BYTES_MAX + '"', "1,048,578 bytes; at most 1,048,576"),
    ],
)
def test_v6_input_and_locked_output_are_json_within_limits(text: str, part: str) -> None:
    problems = found(one(replace(task(), input=text, locked_output=text)))
    assert set(problems) == {"graph.nodes[0].input", "graph.nodes[0].locked_output"}
    assert all(part in message for message in problems.values())


def test_v6_a_locked_output_holds_no_expressions() -> None:
    assert found(one(replace(task(), locked_output='"{{ ! }}"'))) == {}


@pytest.mark.parametrize(
    ("policy", "field", "message"),
    [
        (Policy(min_success_rate=1.5), "min_success_rate", "must be from 0 to 1, not 1.5"),
        (Policy(min_success_rate=math.nan), "min_success_rate", "must be from 0 to 1, not nan"),
        (Policy(timeout_s=-1), "timeout", "must be from 0, which is no bound, to 10 years, not -1 s"),
        (
            Policy(max_concurrency=10_001),
            "max_concurrency",
            "must be from 1 to 10,000, or 0 for the default, not 10,001",
        ),
    ],
)
def test_v6_the_policy_is_within_limits(policy: Policy, field: str, message: str) -> None:
    assert found(replace(one(task()), policy=policy)) == {f"graph.policy.{field}": message}


def test_v6_labels_are_within_limits() -> None:
    many = {f"label-{number}": "" for number in range(65)}
    assert found(replace(one(task()), labels=many)) == {
        "graph.labels": "there are 65 labels; at most 64 are allowed"
    }
    assert found(replace(one(task()), labels={"": "x", "k": "v" * 1025})) == {
        "graph.labels": 'the key "" has to have 1 to 128 characters',
        'graph.labels["k"]': "has 1,025 characters; at most 1,024 are allowed",
    }


def test_v6_the_name_of_a_branch_is_within_limits() -> None:
    graph = build("a -> b,c")
    named = replace(graph, edges=(replace(graph.edges[0], branch_name="x" * 129), graph.edges[1]))
    assert found(named) == {"graph.edges[0].branch_name": "has 129 characters; at most 128 are allowed"}
