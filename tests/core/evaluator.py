"""What the runtime's evaluator makes of joins and sinks, written for the tests from the law (S2.3, section
6).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from plait_server.core.definition.graph import JoinMode
from plait_server.core.run.failures import failure_to_json
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import EdgeState, NodeState, Treatment


def sink_outputs(scope: Scope) -> Payload:
    """Put the output together from the states of the sinks alone (S2.3)."""
    sinks = [r for r in scope.records if all(e.handle == "error" for e in scope.outgoing(r.index))]
    outputs = {sink.node.id: _sink_output(sink) for sink in sinks}
    if len(sinks) == 1:
        return Payload(outputs[sinks[0].node.id] or "null")
    parts = [f"{json.dumps(id)}:{output}" for id, output in outputs.items() if output is not None]
    return Payload("{" + ",".join(parts) + "}")


def joined(scope: Scope, record: NodeRecord, scope_input: Payload) -> Payload:
    """Put together what a node's join gives it (section 6, J2, J4)."""
    incoming = scope.adjacency.incoming[record.index]
    mode = record.node.join.mode if record.node.join is not None else JoinMode.ALL
    if not incoming:
        return scope_input
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
        return record.node.locked_output or "null"
    continued = (
        record.state is NodeState.TIMED_OUT
        and record.treatment is Treatment.NONE
        and record.output is not None
    )
    return "null" if record.treatment is Treatment.IGNORED or continued else None
