"""Shows a failure to a person: what failed, what had happened, and the events of the execution."""

from __future__ import annotations

from plait_server.core.definition.graph import Edge, Graph, Node, Subgraph
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    CancelReceipt,
    Event,
    ExecutionEnded,
    NodeEnded,
)
from plait_server.core.run.execution import Execution
from plait_server.testing.simulation.store import Durable, Records
from plait_server.testing.simulation.world import EPOCH_S, SimulationFailure, World

_NOTES_MAX = 60
"""The newest lines of what happened; the rest seldom matters."""


def describe_failure(world: World, records: Records, failure: SimulationFailure) -> str:
    """Write down a failure: the check, the graph, the events and how to see it again."""
    lines = [f"seed {world.seed} fails {failure.check}: {failure.message}", ""]
    durable = records.executions.get(failure.execution_id)
    if durable is not None:
        lines += [f"execution {failure.execution_id}, the graph:", *_graph_lines(durable.graph)]
        lines += ["", "its events:", *(_event_line(event) for event in durable.events), ""]
    elif failure.execution_id:
        lines += [f"execution {failure.execution_id} has no durable events", ""]
    else:
        lines += [*(_summary_line(each) for each in records.executions.values()), ""]
        for each in records.executions.values():
            if not each.is_ended:
                lines += [f"execution {each.execution_id} is open, the graph:", *_graph_lines(each.graph)]
                lines += ["its events:", *(_event_line(event) for event in each.events), ""]
    if len(world.notes) > _NOTES_MAX:
        lines.append(f"... {len(world.notes) - _NOTES_MAX} lines before ...")
    lines += [*world.notes[-_NOTES_MAX:], "", f"to see it again: plait sim --seed {world.seed} --count 1"]
    return "\n".join(lines)


def _summary_line(durable: Durable) -> str:
    return f"execution {durable.execution_id}: {durable.replayed!r}, {len(durable.events)} events"


def _graph_lines(graph: Graph) -> list[str]:
    policy = graph.policy
    head = f"  {graph.scheduling.name} {policy.on_failure.name} min_success_rate={policy.min_success_rate:g}"
    if policy.timeout_s:
        head += f" timeout={policy.timeout_s:g} s"
    if policy.max_concurrency:
        head += f" limit={policy.max_concurrency}"
    if graph.output:
        head += f" output={graph.output}"
    nodes = [line for node in graph.nodes for line in _node_lines(node)]
    return [head, *nodes, *(_edge_line(edge) for edge in graph.edges)]


def _node_lines(node: Node) -> list[str]:
    inner = node.kind.graph if isinstance(node.kind, Subgraph) else None
    return [_node_line(node), *(f"    {line}" for line in (_graph_lines(inner) if inner is not None else ()))]


def _node_line(node: Node) -> str:
    is_inline = isinstance(node.kind, Subgraph) and node.kind.graph is not None
    parts = [f"  {node.id} {'Subgraph' if is_inline else node.kind}"]
    if node.join is not None:
        join = node.join
        amount = join.count if join.count is not None else join.rate if join.rate is not None else ""
        keeps = "" if join.cancel_losers else " keeps losers"
        least = f" from {join.min_success_rate:g}" if join.min_success_rate else ""
        parts.append(f"{join.mode.name}{f'({amount})' if amount else ''}{keeps}{least}")
    parts += [f"input={node.input}"] if node.input is not None else []
    parts += [f"on_error={node.on_error.name}"] if node.on_error else []
    parts += [f"on_timeout={node.on_timeout.name}"] if node.on_timeout else []
    parts += [f"{node.timeouts}"] if node.timeouts is not None else []
    parts += [f"{node.retry}"] if node.retry is not None else []
    parts += [f"locked={node.locked_output}"] if node.locked else []
    return " ".join(parts)


def _edge_line(edge: Edge) -> str:
    handle = f".{edge.handle}" if edge.handle else ""
    when = f" when {edge.when}" if edge.when else ""
    return f"  {edge.source}{handle} -> {edge.target}{when}"


def _event_line(event: Event) -> str:
    state = event.node_state or event.execution_state
    where = event.node_path or "execution"
    if event.attempt:
        where += f"#{event.attempt}"
    reason = f"/{event.reason}" if event.reason else ""
    return (
        f"  {event.sequence:4} {event.time_s - EPOCH_S:9.3f} {where:12} {type(event.detail).__name__:18} "
        f"{state.name if state is not None else ''}{reason} {_detail(event)}"
    ).rstrip()


def _detail(event: Event) -> str:
    match event.detail:
        case AttemptStarted() as detail:
            return f"at {detail.worker_instance_id}"
        case AttemptEnded() | NodeEnded() as detail:
            parts = [detail.outcome.name] if isinstance(detail, AttemptEnded) else []
            parts += [detail.output.json[:60] or "(by digest)"] if detail.output is not None else []
            parts += [detail.treatment.name] if detail.treatment else []
            parts += [f"false={list(detail.edges_false)}"] if detail.edges_false else []
            return " ".join(parts)
        case CancelReceipt() as detail:
            return detail.stage.name
        case ExecutionEnded() as detail:
            return f"output={detail.output.json[:60]}" if detail.output is not None else ""
        case _:
            return ""


def difference_of(live: Execution, replayed: Execution) -> str:
    """Name what two states do not have in common, for the reader of a failure."""
    for one, other in zip(live.root.records, replayed.root.records, strict=True):
        for name in type(one).__slots__:
            if name not in ("node", "attempts") and getattr(one, name) != getattr(other, name):
                return f"{one.path}.{name}: {getattr(one, name)!r} and {getattr(other, name)!r}"
    return f"{live!r} and {replayed!r}"
