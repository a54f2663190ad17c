"""What an execution came to, in plain words that outlive the code."""

from typing import TypeAlias

from plait_server.core.run.execution import Execution

Summary: TypeAlias = dict[str, str | int | list[str]]


def summarize(execution: Execution) -> Summary:
    """Say what an execution, its nodes, attempts and edges came to."""
    state = execution.state
    assert state is not None
    lines: list[str] = []
    records = [record for path in sorted(execution.scopes) for record in execution.scopes[path].records]
    for record in records:
        attempts = ",".join(
            f"{attempt.outcome.name if attempt.outcome else 'RUNNING'}@{attempt.worker_id}"
            for attempt in record.attempts
        )
        output = record.output.json if record.output is not None else "absent"
        line = f"{record.path} {record.state.name} {record.reason or '-'} [{attempts}] {output} {record.treatment.name}"
        lines.append(line)
    return {
        "state": state.name,
        "reason": execution.reason,
        "sequence": execution.sequence,
        "failure": execution.failure.code if execution.failure is not None else "",
        "nodes": lines,
        "edges": [state.name for state in execution.root.edge_states],
        "receipts": [
            f"{path}#{attempt} {stage.name}" for (path, attempt), stage in execution.receipts.items()
        ],
    }
