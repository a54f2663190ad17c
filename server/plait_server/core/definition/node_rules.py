"""Rules for single nodes, joins, retries and policies (V1, V6), each checked by itself.

Expressions and templates are checked by `expression_rules.py`.

A setting that would have no effect is refused, because the author must have meant something else.
Comparisons are written so that NaN fails them.
"""

from __future__ import annotations

import re
from typing import Final, assert_never

from plait_server.core import limits
from plait_server.core.definition.analysis import ERROR_HANDLE
from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Graph,
    Join,
    JoinMode,
    Kind,
    Node,
    Policy,
    RetryPolicy,
    Subgraph,
    Switch,
    Task,
    Timeouts,
    Transform,
)
from plait_server.core.definition.nearest import quote
from plait_server.core.definition.problems import Report
from plait_server.core.json_text import InvalidJson, check_json

TRUE_HANDLE: Final = "true"
FALSE_HANDLE: Final = "false"
DEFAULT_HANDLE: Final = "default"
"""The handle that a switch selects if its value matches no case."""

_ID: Final = re.compile(limits.ID_PATTERN)
_ID_RULE: Final = f"1 to {limits.ID_CHARS_MAX} letters, digits, `_`, `.` or `-`"
_YEARS_MAX: Final = round(limits.DURATION_S_MAX / (366 * 86_400))


def handles_of(kind: Kind | None) -> tuple[str, ...]:
    """Return the handles of a node of this kind (section 5), `error` last; an unknown kind has `error` alone."""
    match kind:
        case Condition():
            return (TRUE_HANDLE, FALSE_HANDLE, ERROR_HANDLE)
        case Switch(cases=cases):
            return (*cases, DEFAULT_HANDLE, ERROR_HANDLE)
        case Task() | Transform() | Delay() | Subgraph():
            return ("", ERROR_HANDLE)
        case None:
            return (ERROR_HANDLE,)
        case _:
            assert_never(kind)


def check_graph(path: str, graph: Graph, report: Report) -> None:
    """Check a graph's settings, without its nodes and edges; `path` is that of the graph, such as `graph`."""
    if graph.name and not _ID.fullmatch(graph.name):
        report.add(f"{path}.name", f"{quote(graph.name)} is no name: write {_ID_RULE}, or leave it empty")
    if not graph.nodes:
        report.add(f"{path}.nodes", "there is no node; add at least one")
    if len(graph.labels) > limits.LABELS_MAX:
        report.add(f"{path}.labels", too_many(len(graph.labels), "labels", limits.LABELS_MAX))
    for key, value in sorted(graph.labels.items()):
        if not 0 < len(key) <= limits.LABEL_KEY_CHARS_MAX:
            report.add(
                f"{path}.labels",
                f"the key {quote(key)} has to have 1 to {limits.LABEL_KEY_CHARS_MAX} characters",
            )
        if len(value) > limits.LABEL_VALUE_CHARS_MAX:
            report.add(f"{path}.labels[{quote(key)}]", _too_long(value, limits.LABEL_VALUE_CHARS_MAX))
    check_policy(f"{path}.policy", graph.policy, report)


def check_node(field: str, node: Node, incoming_count: int, report: Report) -> None:
    """Check one node; `field` is its path, `incoming_count` how many edges name it as their target."""
    if not _ID.fullmatch(node.id):
        report.add(f"{field}.id", f"{quote(node.id)} is no id: write {_ID_RULE}")
    _check_kind(field, node.kind, report)
    if node.input is not None and isinstance(node.kind, Condition | Switch):
        report.add(
            f"{field}.input", "conditions and switches take no input; name what it holds in the expression"
        )
    if node.locked_output is not None:
        try:
            check_json(node.locked_output, max_bytes=limits.PAYLOAD_BYTES_MAX)
        except InvalidJson as error:
            report.add(f"{field}.locked_output", str(error))
    if node.join is not None:
        _check_join(f"{field}.join", node.join, incoming_count, report)
    if node.retry is not None:
        _check_retry(f"{field}.retry", node.retry, report)
    if node.timeouts is not None:
        _check_timeouts(f"{field}.timeouts", node.timeouts, node.kind, report)
    if isinstance(node.kind, Subgraph) and node.retry is not None:
        report.add(
            f"{field}.retry",
            "a sub-graph has no attempts of its own; remove it, and let the tasks in it retry",
        )
    elif not isinstance(node.kind, Task | None) and node.retry is not None:
        report.add(f"{field}.retry", "only task nodes have it, for they alone run at a worker; remove it")
    if not isinstance(node.kind, Task | None) and node.concurrency_key:
        text = "only task nodes have it, for they alone run at a worker; remove it"
        report.add(f"{field}.concurrency_key", text)
    if not isinstance(node.kind, Task | Subgraph | None):
        for name, is_given in (
            ("timeouts", node.timeouts is not None),
            ("on_timeout", node.on_timeout is not None),
        ):
            if is_given:
                report.add(f"{field}.{name}", "only task and sub-graph nodes have it; remove it")
    if not -limits.PRIORITY_MAX <= node.priority <= limits.PRIORITY_MAX:
        report.add(
            f"{field}.priority",
            f"must be from {-limits.PRIORITY_MAX:,} to {limits.PRIORITY_MAX:,}, not {node.priority:,}",
        )


def _check_kind(field: str, kind: Kind | None, report: Report) -> None:
    match kind:
        case Task(type=type_):
            if not _ID.fullmatch(type_):
                report.add(f"{field}.task.type", f"{quote(type_)} is no node type: write {_ID_RULE}")
        case Switch(cases=cases):
            _check_cases(f"{field}.switch.cases", cases, report)
        case Delay(duration_s=duration_s):
            if not 0 < duration_s <= limits.DURATION_S_MAX:
                report.add(
                    f"{field}.delay.duration",
                    f"must be above 0 and at most {_YEARS_MAX} years, not {duration_s:g} s",
                )
        case Subgraph(graph=graph, output_of=output_of):
            if (graph is None) == (not output_of):
                given = "neither is" if graph is None else "both are"
                report.add(
                    f"{field}.subgraph",
                    f"a sub-graph needs one of `graph` and `output_of`, and {given} given",
                )
        case Condition() | Transform():
            pass
        case None:
            report.add(
                field,
                "unknown or missing kind; give one of task, condition, switch, transform, delay and subgraph",
            )
        case _:
            assert_never(kind)


def _check_cases(field: str, cases: tuple[str, ...], report: Report) -> None:
    if len(cases) > limits.SWITCH_CASES_MAX:
        report.add(field, too_many(len(cases), "cases", limits.SWITCH_CASES_MAX))
        return
    first_at: dict[str, int] = {}
    for position, case in enumerate(cases):
        first = first_at.setdefault(case, position)
        if case in (ERROR_HANDLE, DEFAULT_HANDLE):
            report.add(
                f"{field}[{position}]", f"every switch has the handle {quote(case)}; remove it from the cases"
            )
        elif not _ID.fullmatch(case):
            report.add(f"{field}[{position}]", f"{quote(case)} is no name of a case: write {_ID_RULE}")
        elif first != position:
            report.add(f"{field}[{position}]", f"{quote(case)} is already case {first}; remove it")


def _check_join(field: str, join: Join, incoming_count: int, report: Report) -> None:
    if not incoming_count:
        report.add(field, "no edge leads to this node, so there is nothing to join; remove it, or add edges")
        return
    if join.mode is JoinMode.QUORUM:
        _check_quorum(field, join, incoming_count, report)
    else:
        for name, value in (("count", join.count), ("rate", join.rate)):
            if value is not None:
                report.add(f"{field}.{name}", f"only QUORUM has it; set the mode, or remove `{name}`")
    if join.mode is JoinMode.COLLECT:
        _check_rate(f"{field}.min_success_rate", join.min_success_rate, report)
    elif join.min_success_rate != 0:
        report.add(
            f"{field}.min_success_rate", "only COLLECT has it; set the mode, or remove `min_success_rate`"
        )
    if not join.cancel_losers and join.mode not in (JoinMode.ANY, JoinMode.QUORUM):
        report.add(
            f"{field}.cancel_losers",
            "only ANY and QUORUM have losers; set the mode, or remove `cancel_losers`",
        )


def _check_quorum(field: str, join: Join, incoming_count: int, report: Report) -> None:
    if (join.count is None) == (join.rate is None):
        given = "neither is" if join.count is None else "both are"
        report.add(field, f"QUORUM needs one of `count` and `rate`, and {given} given")
    if join.count is not None and not 1 <= join.count <= incoming_count:
        edges = "1 edge leads" if incoming_count == 1 else f"{incoming_count:,} edges lead"
        report.add(
            f"{field}.count", f"must be from 1 to {incoming_count:,}, for {edges} here, not {join.count:,}"
        )
    if join.rate is not None and not 0 < join.rate <= 1:
        report.add(f"{field}.rate", f"must be above 0 and at most 1, not {join.rate:g}")


def _check_retry(field: str, retry: RetryPolicy, report: Report) -> None:
    if not 1 <= retry.max_attempts <= limits.ATTEMPTS_MAX:
        report.add(
            f"{field}.max_attempts", f"must be from 1 to {limits.ATTEMPTS_MAX:,}, not {retry.max_attempts:,}"
        )
    for name, backoff_s in (
        ("initial_backoff", retry.initial_backoff_s),
        ("max_backoff", retry.max_backoff_s),
    ):
        if not 0 <= backoff_s <= limits.BACKOFF_S_MAX:
            report.add(f"{field}.{name}", f"must be from 0 to 1 day, not {backoff_s:g} s")
    if not 1 <= retry.multiplier <= limits.MULTIPLIER_MAX:
        report.add(
            f"{field}.multiplier", f"must be from 1 to {limits.MULTIPLIER_MAX:g}, not {retry.multiplier:g}"
        )
    if len(retry.retryable_codes) > limits.RETRYABLE_CODES_MAX:
        report.add(
            f"{field}.retryable_codes",
            too_many(len(retry.retryable_codes), "codes", limits.RETRYABLE_CODES_MAX),
        )
    else:
        for position, code in enumerate(retry.retryable_codes):
            if not _ID.fullmatch(code):
                report.add(
                    f"{field}.retryable_codes[{position}]", f"{quote(code)} is no code: write {_ID_RULE}"
                )
    if not 0 <= retry.max_lost_attempts <= limits.LOST_ATTEMPTS_MAX:
        report.add(
            f"{field}.max_lost_attempts",
            f"must be from 0 to {limits.LOST_ATTEMPTS_MAX}, not {retry.max_lost_attempts:,}",
        )


def _check_timeouts(field: str, timeouts: Timeouts, kind: Kind | None, report: Report) -> None:
    for name, bound_s in (
        ("attempt", timeouts.attempt_s),
        ("node", timeouts.node_s),
    ):
        _check_bound(f"{field}.{name}", bound_s, report)
    for name, bound_s in (
        ("queue", timeouts.queue_s),
        ("worker", timeouts.worker_s),
        ("heartbeat", timeouts.heartbeat_s),
    ):
        _check_bound(f"{field}.{name}", bound_s, report)
        if isinstance(kind, Subgraph) and bound_s:
            text = "a sub-graph has no attempts of its own; remove it, and set it on the tasks in it"
            report.add(f"{field}.{name}", text)


def check_policy(field: str, policy: Policy, report: Report) -> None:
    """Check a policy; `field` is its path."""
    _check_rate(f"{field}.min_success_rate", policy.min_success_rate, report)
    _check_bound(f"{field}.timeout", policy.timeout_s, report)
    if not 0 <= policy.max_concurrency <= limits.MAX_CONCURRENCY_MAX:
        report.add(
            f"{field}.max_concurrency",
            f"must be from 1 to {limits.MAX_CONCURRENCY_MAX:,}, or 0 for the default, not {policy.max_concurrency:,}",
        )


def _check_rate(field: str, rate: float, report: Report) -> None:
    if not 0 <= rate <= 1:
        report.add(field, f"must be from 0 to 1, not {rate:g}")


def _check_bound(field: str, bound_s: float, report: Report) -> None:
    if not 0 <= bound_s <= limits.DURATION_S_MAX:
        report.add(field, f"must be from 0, which is no bound, to {_YEARS_MAX} years, not {bound_s:g} s")


def too_many(count: int, what: str, most: int) -> str:
    """Return the message that there are more of something than are allowed."""
    return f"there are {count:,} {what}; at most {most:,} are allowed"


def too_deep() -> str:
    """Return the message that a graph is nested too deep."""
    most = limits.SCOPES_DEEP_MAX
    return f"graphs are nested more than {most} deep here; put its nodes into the graph around it"


def _too_long(text: str, most: int) -> str:
    return f"has {len(text):,} characters; at most {most:,} are allowed"
