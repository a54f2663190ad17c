"""What stays of a scope when its node has ended."""

import sys

from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState
from tests.core.driver import Driver
from tests.core.graph_text import build

CHAIN = "; ".join(f"n{number} -> n{number + 1}" for number in range(9))


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def test_a_finished_scope_of_ten_nodes_keeps_less_than_500_bytes() -> None:
    driver = run(f"sub s {{ {CHAIN} }}; s -> after")
    for number in range(10):
        driver.succeed(f"s/n{number}", output='"a result of some length"')
    (closed,) = driver.execution.closed.values()
    kept = (
        closed.path,
        closed.first_sequence,
        closed.last_sequence,
        closed.outcomes,
        driver.scope.records[0].inside,
    )
    entry = 100  # bytes of a large dict for each of its entries, at most
    # The state, the graph's name and no failure are objects that all scopes share.
    assert sum(map(sys.getsizeof, (closed, *kept))) + entry < 500
    assert not driver.execution.stopped


def test_the_nodes_of_a_scope_are_let_go_once_its_events_were_told() -> None:
    driver = run("sub s { a }; s -> after")
    driver.succeed("s/a")
    assert list(driver.execution.scopes) == [""]
    assert driver.execution.find("s/a") is None
    driver.execution.forget_closed()
    assert driver.execution.find_told("s/a") is None


def test_a_result_that_comes_again_is_known_after_its_scope_was_closed() -> None:
    """A worker that was not told sends its result again (A4)."""
    driver = run("sub s { a -> b }; s -> after")
    driver.succeed("s/a", "s/b")
    for attempt, disposition in ((1, Disposition.ALREADY_RECORDED), (2, Disposition.STALE)):
        outcome = AttemptOutcome.SUCCEEDED
        driver.do(AttemptResult("s/b", attempt, outcome, worker_id="worker-s/b", from_worker=True))
        assert (driver.told[-1].node_path, driver.told[-1].disposition) == ("s/b", disposition)


def test_what_an_aborted_attempt_used_counts_after_its_scope_failed() -> None:
    """U1: its handler ends, and says so, when its scope is closed."""
    driver = run("sub s { a; b }; s -> after; node s on_error=IGNORE")
    driver.grant("s/a")
    driver.grant("s/b")
    driver.fail("s/a")
    assert driver.execution.closed["s"].state is ExecutionState.FAILED
    assert list(driver.execution.stopped) == [("s/b", 1)]
    driver.machine.note_usage("s/b", 1, "tokens", "7")
    driver.receipt("s/b", CancelStage.EXITED, attempt=1)
    assert {unit: str(amount) for unit, amount in driver.execution.usage.items()} == {"tokens": "7"}
