"""Results of attempts that are not current: they change nothing, and stale ones are audited."""

from __future__ import annotations

from plait_server.core.run.commands import AcknowledgeResult, AttemptResult, Audit
from plait_server.core.run.execution import Execution
from plait_server.core.run.machine import Machine
from plait_server.core.run.states import NodeState
from plait_server.ports.audit import AuditRecord
from plait_server.ports.journal import AppendItem
from plait_server.ports.workers import AttemptKey
from plait_server.runtime.environment import Environment


def is_current_attempt(execution: Execution, key: AttemptKey) -> bool:
    """Whether an attempt is the one that runs."""
    record = execution.find(key.node_path)
    if record is None or record.state is not NodeState.RUNNING:
        return False
    return len(record.attempts) == key.attempt and record.attempts[-1].run == key.run


async def refuse_late(
    environment: Environment, execution: Execution, key: AttemptKey, result: AttemptResult
) -> None:
    """Answer a worker about a result whose execution has ended; a stale result goes to the audit (A5)."""
    now_s = environment.seams.now_s()
    audit: list[AuditRecord] = []
    told = None
    machine = Machine(execution)
    decision = machine.decide(result, now_s)
    machine.let_go()
    for command in decision.commands:
        if isinstance(command, AcknowledgeResult):
            told = command.disposition
        elif isinstance(command, Audit):
            audit.append(
                AuditRecord(
                    time_s=now_s,
                    kind=command.kind,
                    node_path=command.node_path,
                    attempt=command.attempt,
                    worker_id=result.worker_id,
                    detail=command.detail,
                )
            )
    row = await environment.journal.namespace(key.namespace).read_row(key.execution_id)
    if audit and row is not None:
        item = AppendItem(
            namespace=key.namespace,
            execution_id=key.execution_id,
            expected_sequence=execution.sequence,
            owner_epoch=row.owner_epoch,
            audit=audit,
        )
        await environment.committer.append_when_there_is_room(item)
    if told is not None:
        environment.workers.acknowledge(key, told, result.worker_id)
