"""Transcripts: commands, and below `----` what they led to, one line each, in the manner of etcd/raft's
testdata.

`pytest --rewrite`, or PLAIT_REWRITE=1, writes the expectations anew; read the difference before you commit
it.

Commands: `graph` with the graph's lines below it, `start`, `time_out_in_queue`, `complete a [json]`, `fail a CODE`,
`time_out a`, `lose a`, `return a`, `advance 2s`, `cancel`, `receipt a EXITED`, `restart`, `states`, `edges`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plait_server.core.run.commands import QueueTimeout, StopAttempt
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    CancelReceipt,
    Event,
    ExecutionEnded,
    NodeEnded,
    NodeWaiting,
)
from plait_server.core.run.states import CancelStage, Treatment
from tests.core.driver import Driver
from tests.core.graph_text import build

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, rewrite: bool) -> None:
    before = path.read_text(encoding="utf-8")
    after = replay(before)
    if rewrite or os.environ.get("PLAIT_REWRITE") == "1":
        path.write_text(after, encoding="utf-8")
    else:
        assert after == before


def replay(text: str) -> str:
    """Carry out the commands of a transcript, and write it anew with what they led to."""
    driver: Driver | None = None
    blocks: list[str] = []
    for block in text.rstrip("\n").split("\n\n"):
        command = block.split("\n----", 1)[0]
        lines = [line for line in command.split("\n") if not line.startswith("#")]
        if not lines:
            blocks.append(block)
            continue
        if lines[0] == "graph":
            driver = Driver(build(*lines[1:]))
            happened = [_event(event) for event in driver.events]
        else:
            assert driver is not None
            happened = [line for each in lines for line in _carry_out(driver, each)]
        blocks.append("\n".join([command, "----", *(happened or ["nothing"])]))
    return "\n\n".join(blocks) + "\n"


def _carry_out(driver: Driver, line: str) -> list[str]:
    known, audits = len(driver.events), len(driver.audits)
    driver.commands = []
    match line.split():
        case ["start"]:
            driver.start()
        case ["time_out_in_queue"]:
            driver.do(QueueTimeout())
        case ["complete", path]:
            driver.succeed(path)
        case ["complete", path, output]:
            driver.succeed(path, output=output)
        case ["fail", path, code]:
            driver.fail(path, code)
        case ["time_out", path]:
            driver.time_out_attempt(path)
        case ["lose", path]:
            driver.lose(path)
        case ["return", path]:
            driver.hand_back(path)
        case ["advance", time]:
            driver.advance(float(time.removesuffix("s")))
        case ["cancel"]:
            driver.cancel()
        case ["receipt", path, stage]:
            driver.receipt(path, CancelStage[stage])
        case ["restart"]:
            driver.restart()
        case ["states"]:
            return [f"{path} {state}" for path, state in driver.states().items()]
        case ["edges"]:
            return [f"{edge} {state}" for edge, state in driver.edges().items()]
        case _:
            raise ValueError(line)
    stops = [
        f"tell {c.node_path}#{c.attempt} to stop: {c.reason}"
        for c in driver.commands
        if isinstance(c, StopAttempt)
    ]
    kept = [f"audit {audit.kind} {audit.node_path}#{audit.attempt}" for audit in driver.audits[audits:]]
    return [_event(event) for event in driver.events[known:]] + stops + kept


def _event(event: Event) -> str:
    subject = f"{event.node_path}#{event.attempt}" if event.attempt else event.node_path or "execution"
    words = [str(event.sequence), f"{event.time_s:g}s", subject, type(event.detail).__name__]
    state = event.node_state or event.execution_state
    if state is not None:
        words.append(f"{state.name}/{event.reason}" if event.reason else state.name)
    match event.detail:
        case AttemptEnded() | NodeEnded() as ended:
            if isinstance(ended, AttemptEnded):
                words.append(f"outcome={ended.outcome.name}")
            if ended.output is not None:
                words.append(f"output={ended.output.json}")
            if ended.failure is not None:
                words.append(f"failure={ended.failure.code}")
            if ended.failure is not None and ended.failure.causes:
                words.append("causes=" + ",".join(cause.node_path for cause in ended.failure.causes))
            if ended.treatment is not Treatment.NONE:
                words.append(ended.treatment.name)
            if isinstance(ended, AttemptEnded) and ended.retry_time_s:
                words.append(f"retry_at={ended.retry_time_s:g}s")
        case AttemptStarted(input=given) if given is not None:
            words.append(f"input={given.json}")
        case NodeWaiting(due_time_s=due_s):
            words.append(f"until={due_s:g}s")
        case CancelReceipt(stage=stage):
            words.append(stage.name)
        case ExecutionEnded(output=output, failure=failure):
            if output is not None:
                words.append(f"output={output.json}")
            if failure is not None:
                words.append(f"failure={failure.node_path}:{failure.code}")
        case _:
            pass
    return " ".join(words)
