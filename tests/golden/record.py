"""Records the golden journal: `python -m tests.golden.record tests/golden/journal-1.json`.

What is recorded is never changed, for stores out there hold the same bytes: a file that exists gets the executions that
it lacks. After a release they go to a new file.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import TypeAlias

from plait_server.core.definition.graph import Policy
from plait_server.core.run.commands import ExtendAttempt, Receipt, Update
from plait_server.core.run.events import ExecutionSubmitted, NodeLock
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import CancelStage, PauseMode
from plait_server.encoding.event_codec import encode_event
from plait_server.encoding.graph_codec import analysis_to_bytes, graph_to_proto
from tests.core.driver import Driver
from tests.core.graph_text import build
from tests.golden.summary import Summary, summarize

Recorded: TypeAlias = dict[str, str | list[str] | Summary]


NESTED = ("t -> s; s -> z", "sub s { a -> b; b -> never when=false; sub u { x -> y }; a -> u }")
"""Graphs in graphs, and an edge that is not taken."""


def executions() -> dict[str, Driver]:
    """Carry out graphs that together have every type of event, outcome and end."""
    retried = Driver(build("a -> b; node a retry=3 codes=UNAVAILABLE; node d kind=delay:5; b -> d")).start()
    retried.fail("a", "UNAVAILABLE")
    retried.advance(60)
    retried.lose("a")
    retried.hand_back("a")
    retried.succeed("a", output='{"n":1}')
    retried.succeed("b", output='"text"')
    retried.advance(5)

    stopped = Driver(build("policy FAIL_FAST", "a -> c; b -> c; d -> e")).start()
    stopped.fail("b", "BROKEN")

    raced = Driver(build("a -> w; b -> w; node w join=ANY")).start()
    raced.succeed("b", output="7")
    raced.do(Receipt("a", 1, CancelStage.EXITED, "worker-a", {"tokens": "3.5"}))
    raced.succeed("w")

    cancelled = Driver(build("a -> b; c -> b")).start()
    cancelled.cancel("enough")
    for path in ("a", "c"):
        cancelled.receipt(path, CancelStage.DELIVERED)
    cancelled.receipt("a", CancelStage.EXITED)
    cancelled.receipt("c", CancelStage.ABANDONED)

    continued = Driver(
        build(
            "policy CONTINUE",
            "a -> x; b -> y; c -error-> h; l -> y; node l locked",
            "node t on_error=IGNORE; t -> x",
        )
    ).start()
    for path in ("a", "c", "t"):
        continued.fail(path, "BROKEN")
    continued.succeed("b")
    continued.succeed("h")
    continued.succeed("y")

    timed_out = Driver(build("policy FAIL_FAST timeout=9", "a -> b")).start()
    timed_out.advance(9)
    open_inside = Driver(build(*NESTED)).start()
    open_inside.succeed("t", output="1")
    open_inside.succeed("s/a", output='{"n":1}')
    open_inside.succeed("s/u/x", output="2")

    failed_inside = Driver(build(*NESTED)).start()
    failed_inside.succeed("t", output="1")
    failed_inside.succeed("s/a", "s/b", "s/u/x")
    failed_inside.fail("s/u/y", "BROKEN")

    extended = Driver(build("node a attempt_timeout=5")).start()
    extended.do(ExtendAttempt("a", 1, 60.0))
    extended.heartbeat("a", '{"row":7}')
    extended.advance(60)
    return {
        "held": held(),
        "retried": retried,
        "stopped": stopped,
        "raced": raced,
        "cancelled": cancelled,
        "continued": continued,
        "timed out": timed_out,
        "open inside": open_inside,
        "failed inside": failed_inside,
        "extended": extended,
    }


def held() -> Driver:
    """Carry out a graph that is paused, updated and resumed."""
    driver = Driver(build("a -> b; c -> b; node b kind=transform", "policy FAIL_FAST")).start()
    driver.pause(PauseMode.ABORT, "maintenance")
    driver.do(Update(7, Policy(max_concurrency=2), (NodeLock("c", True, Payload("3")),)))
    driver.resume('{"approved":true}')
    driver.succeed("a", output="1")
    return driver


def record(driver: Driver) -> Recorded:
    """Write an execution down: its graph, analysis and events as the store has them, and what they come to."""
    graph = graph_to_proto(driver.execution.root.graph).SerializeToString(deterministic=True)
    analysis = analysis_to_bytes(driver.execution.root.analysis)
    first = driver.events[0]
    assert isinstance(first.detail, ExecutionSubmitted)
    detail = first.detail._replace(
        graph_digest=hashlib.sha256(graph).hexdigest(), analysis_digest=hashlib.sha256(analysis).hexdigest()
    )
    events = [first._replace(detail=detail), *driver.events[1:]]
    return {
        "graph": base64.b64encode(graph).decode(),
        "analysis": base64.b64encode(analysis).decode(),
        "events": [base64.b64encode(encode_event(event)).decode() for event in events],
        "summary": summarize(driver.execution),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    recorded: dict[str, Recorded] = {name: record(driver) for name, driver in executions().items()}
    if target.exists():
        recorded |= json.loads(target.read_text(encoding="utf-8"))
    target.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
