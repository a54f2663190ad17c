"""Section 5: what an ended node does to its outgoing edges."""

from __future__ import annotations

import json
from typing import assert_never

from plait_server.core.definition.graph import Condition, Edge, Graph, Node, OnError, OnTimeout, Switch
from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure, failure_to_json
from plait_server.core.run.states import EdgeState, NodeState, Treatment
from plait_server.testing.slow_model.expressions import Expressions, NoValue
from plait_server.testing.slow_model.nodes import ModelNode, Row
from plait_server.testing.slow_model.paths import is_guarded


def edge_state(node: ModelNode, edge: Edge, expressions: Expressions) -> EdgeState:
    """Look an edge of an ended node up in the table."""
    assert node.row is not None
    if edge.handle == "error":  # F1: never BROKEN.
        is_active = node.row is Row.HANDLED and is_true(edge, failure_value(node.failure), expressions)
        return EdgeState.ACTIVE if is_active else EdgeState.DEAD
    match node.row:
        case Row.SUCCEEDED | Row.LOCKED | Row.TIMED_OUT_CONTINUE | Row.IGNORED:
            is_selected = edge.handle == selected_handle(node.node, node.output)
            is_active = is_selected and is_true(edge, node.output, expressions)
            return EdgeState.ACTIVE if is_active else EdgeState.DEAD
        case Row.BROKEN | Row.UPSTREAM_FAILED:
            return EdgeState.BROKEN
        case Row.HANDLED | Row.TIMED_OUT_CANCEL | Row.DROPPED:
            return EdgeState.DEAD
        case _:
            assert_never(node.row)


def failure_row(
    graph: Graph, node: Node, state: NodeState, failure: Failure, expressions: Expressions
) -> tuple[Row, Treatment]:
    """Return the first row that applies to a node that FAILED or TIMED_OUT, and what becomes of its failure."""
    if state is NodeState.TIMED_OUT and node.on_timeout is OnTimeout.CONTINUE:
        return Row.TIMED_OUT_CONTINUE, Treatment.NONE
    if state is NodeState.TIMED_OUT and node.on_timeout is OnTimeout.CANCEL:
        return Row.TIMED_OUT_CANCEL, Treatment.NONE
    error_edges = [edge for edge in graph.edges if edge.source == node.id and edge.handle == "error"]
    if any(is_true(edge, failure_value(failure), expressions) for edge in error_edges):
        return Row.HANDLED, Treatment.HANDLED
    if node.on_error is OnError.IGNORE:
        return Row.IGNORED, Treatment.IGNORED
    # E3: tolerated if the node says so, or says nothing and is guarded.
    says_nothing = node.on_error is OnError.UNSPECIFIED
    if node.on_error is OnError.TOLERATE or (says_nothing and is_guarded(graph, node.id)):
        return Row.BROKEN, Treatment.TOLERATED
    return Row.BROKEN, Treatment.UNHANDLED


def has_bad_when(graph: Graph, node: Node, output: JsonValue, expressions: Expressions) -> bool:
    """Return whether a `when` on the handle that an output selects gives no boolean (F2)."""
    handle = selected_handle(node, output)
    for edge in graph.edges:
        if edge.source == node.id and edge.handle == handle and edge.when:
            try:
                if not isinstance(expressions.when(edge.when, output), bool):
                    return True
            except NoValue:
                return True
    return False


def is_true(edge: Edge, carried: JsonValue, expressions: Expressions) -> bool:
    """Evaluate an edge's `when`; what gives no boolean counts as false (F2)."""
    try:
        return not edge.when or expressions.when(edge.when, carried) is True
    except NoValue:
        return False


def selected_handle(node: Node, output: JsonValue) -> str:
    """Return the plain handle that an output selects."""
    match node.kind:
        case Condition():
            return "true" if output is True else "false"
        case Switch(cases=cases):
            return output if isinstance(output, str) and output in cases else "default"
        case _:
            return ""


def failure_value(failure: Failure | None) -> JsonValue:
    """Return the object that an ACTIVE `error` edge carries (J2)."""
    assert failure is not None
    value: JsonValue = json.loads(failure_to_json(failure))
    return value


def without_words(value: JsonValue) -> JsonValue:
    """Leave out of failures within a value what the law leaves to the engine, for comparing: all but code and node."""
    if isinstance(value, list):
        return [without_words(each) for each in value]
    if isinstance(value, dict):
        if {"code", "node_path", "message"} <= value.keys():
            return {"code": value["code"], "node_path": value["node_path"]}
        return {key: without_words(each) for key, each in value.items()}
    return value
