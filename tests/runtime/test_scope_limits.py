"""N1, Q1: limits of graphs inside an execution, from the core's commands to the workers and back."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from tests.runtime.world import Runtime, Script, hangs, returns, running

LIMITED = "sub s { node a; node b; node c; sub i { node x; node y; policy limit=1 }; policy limit=2 }; node r"


def paths(runtime: Runtime) -> list[str]:
    return [each.key.node_path for each in runtime.workers.assigned]


def taken(runtime: Runtime, before: int) -> set[str]:
    """Return the attempts that went to workers after the first so many."""
    return set(paths(runtime)[before:])


async def test_a_scope_limits_what_runs_in_it_and_inside(autojump_clock: MockClock) -> None:
    scripts = dict.fromkeys(("s/a", "s/b", "s/c", "s/i/x", "s/i/y"), returns("1", after_s=10))
    async with running(scripts={**scripts, "r": returns("1", after_s=10)}) as runtime:
        await runtime.submit(LIMITED)
        await trio.sleep(5)
        assert taken(runtime, 0) == {"r", "s/a", "s/b"}
        view = await runtime.supervisor.view("default", "x")
        assert view.queue_reason(view.execution.record("s/c")) == "EXECUTION_LIMIT"
        await trio.sleep(10)
        assert taken(runtime, 3) == {"s/c", "s/i/x"}
        await trio.sleep(10)
        assert taken(runtime, 5) == {"s/i/y"}
        await runtime.wait_ended()
        assert runtime.environment.allocator.statistics().running == 0


async def test_what_runs_in_a_scope_holds_its_permits_after_a_restart(autojump_clock: MockClock) -> None:
    scripts: dict[str, Script] = {"s/a": hangs, "s/b": hangs}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(LIMITED)
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, scripts=scripts) as again:
        await trio.sleep(1)
        assert taken(again, 0) == {"s/a", "s/b"}
        view = await again.supervisor.view("default", "x")
        assert view.queue_reason(view.execution.record("s/c")) == "EXECUTION_LIMIT"
        await again.cancel("x")
        await again.wait_ended()
        assert again.environment.allocator.statistics().running == 0
