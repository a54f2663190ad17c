"""What the runtime's evaluator makes of joins and sinks, written for the tests from the law (S2.3, section
6).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from google.protobuf import json_format

from plait.v1 import graph_pb2
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.compiled import compile_graph
from plait_server.core.definition.graph import Analysis, Condition, Graph, JoinMode, Subgraph, Switch, Task
from plait_server.core.definition.validation import ExpressionNames, validate
from plait_server.core.run.commands import GraphFound, ValueFound
from plait_server.core.run.failures import Failure, failure_to_json
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import EdgeState, NodeState, Treatment
from plait_server.encoding.graph_codec import graph_from_proto


def sink_outputs(scope: Scope) -> Payload:
    """Put the output together from the states of the sinks alone (S2.3)."""
    sinks = [r for r in scope.records if all(e.handle == "error" for e in scope.outgoing(r.index))]
    outputs = {sink.node.id: _sink_output(sink) for sink in sinks}
    if len(sinks) == 1:
        return Payload(outputs[sinks[0].node.id] or "null")
    parts = [f"{json.dumps(id)}:{output}" for id, output in outputs.items() if output is not None]
    return Payload("{" + ",".join(parts) + "}")


def read_graph(output: str) -> Graph | str:
    """Return the graph that an output is, or what is wrong with it."""
    try:
        graph = graph_from_proto(json_format.Parse(output, graph_pb2.Graph()))
    except json_format.ParseError as error:
        return str(error)
    found = validate(graph, _names_nothing)
    return graph if found.is_valid else str(found.problems)


def _names_nothing(source: str, *, template: bool) -> ExpressionNames:
    return ExpressionNames()


def find_graph(record: NodeRecord, ticket: int) -> GraphFound:
    """Read the graph that an output is (N7); the engine's own reading of it has tests of its own."""
    assert isinstance(record.node.kind, Subgraph)
    source = record.scope.find(record.node.kind.output_of)
    assert source is not None
    if source.output is None:
        failure = Failure(code="EXPRESSION", node_path=record.path)
        return GraphFound(record.path, ticket, None, failure=failure)
    graph = read_graph(source.output.json)
    if isinstance(graph, str):
        details = Payload(json.dumps({"violations": graph}))
        failure = Failure(code="INVALID_ARGUMENT", details=details, node_path=record.path)
        return GraphFound(record.path, ticket, None, failure=failure)
    digest = hashlib.sha256(source.output.json.encode()).hexdigest()
    definition = compile_graph(graph, analysis_of(graph))
    return GraphFound(record.path, ticket, definition, digest, f"analysis-{digest}")


def analysis_of(graph: Graph) -> Analysis:
    """Return what follows from a graph, and from those that stand inside it."""
    kinds = enumerate(node.kind for node in graph.nodes)
    inner = {
        position: analysis_of(kind.graph)
        for position, kind in kinds
        if isinstance(kind, Subgraph) and kind.graph is not None
    }
    return replace(analyze(graph, build_adjacency(graph)), inner=inner)


def find_value(record: NodeRecord, ticket: int) -> ValueFound:
    """Evaluate a condition to a boolean, a switch or a concurrency key to a string (section 5, Q1)."""
    match record.node.kind:
        case Task() if record.node.concurrency_key != "broken":
            return ValueFound(record.path, ticket, Payload(f'"{record.node.concurrency_key}"'))
        case Condition(expression="true" | "false" as source):
            return ValueFound(record.path, ticket, Payload(source))
        case Switch(expression=source) if source.startswith('"'):
            return ValueFound(record.path, ticket, Payload(source))
        case _:
            return ValueFound(record.path, ticket, None, "no such key, or no value of the right type")


def verdict(when: str) -> bool | str:
    """Return the value of a `when`, or why it has none."""
    verdicts: dict[str, bool | str] = {"true": True, "false": False, "broken": "no such key"}
    return verdicts.get(when, "gives no boolean")


def joined(scope: Scope, record: NodeRecord) -> Payload:
    """Put together what a node's join gives it (section 6, J2, J4)."""
    incoming = scope.adjacency.incoming[record.index]
    mode = record.node.join.mode if record.node.join is not None else JoinMode.ALL
    if not incoming:
        return scope.input
    if mode is JoinMode.COLLECT:
        return Payload(json.dumps(_collected(scope, incoming)))
    carried = {scope.edge(edge).source: _carried(scope, edge) for edge in record.active_edges}
    if mode is JoinMode.ANY:
        (winner,) = carried
        return Payload(json.dumps({"winner": winner, "output": carried[winner]}))
    if mode is JoinMode.ALL and len(incoming) == 1:
        return Payload(json.dumps(*carried.values()))
    return Payload(json.dumps(carried))


def _carried(scope: Scope, edge: int) -> object:
    source = scope.source(edge)
    if scope.edge(edge).handle == "error":
        assert source.failure is not None
        return dict(json.loads(failure_to_json(source.failure)))
    carried: list[object] = [json.loads(source.output.json)] if source.output is not None else [None]
    return carried[0]


def _collected(scope: Scope, incoming: Sequence[int]) -> dict[str, object]:
    results: list[dict[str, object]] = []
    for edge in incoming:
        state = scope.edge_states[edge]
        if state is EdgeState.DEAD:
            continue
        entry: dict[str, object] = {
            "source": scope.edge(edge).source,
            "branch": scope.branches.full_path(scope.branches.edge_branch[edge]),
        }
        if state is EdgeState.ACTIVE and scope.edge(edge).handle != "error":
            entry |= {"success": True, "data": _carried(scope, edge)}
        elif state is EdgeState.ACTIVE:
            entry |= {"success": False, "error": _carried(scope, edge)}
        else:
            broke = scope.failures[scope.source(edge).origin]
            entry |= {"success": False, "error": json.loads(failure_to_json(broke))}
        results.append(entry)
    successes = sum(result["success"] is True for result in results)
    return {"results": results, "success_count": successes, "failure_count": len(results) - successes}


def _sink_output(record: NodeRecord) -> str | None:
    if record.state is NodeState.SUCCEEDED:
        return record.output.json if record.output is not None else "missing!"
    if record.state is NodeState.SKIPPED and record.reason == "LOCKED":
        if record.lock is not None:
            return record.lock.output.json if record.lock.output is not None else "null"
        return record.node.locked_output or "null"
    continued = (
        record.state is NodeState.TIMED_OUT
        and record.treatment is Treatment.NONE
        and record.output is not None
    )
    return "null" if record.treatment is Treatment.IGNORED or continued else None
