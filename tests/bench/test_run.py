"""The bench runs on the processes that it measures; how fast they are is no test."""

from __future__ import annotations

import json

import pytest

from plait_server.bench.run import NODES_PER_ECHO, run


@pytest.mark.slow
def test_quick_bench_prints_one_line_with_the_ratios(capfd: pytest.CaptureFixture[str]) -> None:
    code = run(json=True, quick=True)
    (line,) = capfd.readouterr().out.splitlines()
    figures = json.loads(line)
    assert figures["fan_per_echo"] == pytest.approx(
        figures["fan_nodes_per_s"] / figures["echo_messages_per_s"], rel=0.01
    )
    assert figures["pair_per_echo"] == pytest.approx(
        figures["pair_nodes_per_s"] / figures["echo_messages_per_s"], rel=0.01
    )
    assert figures["commits_per_s"] > 0
    assert figures["required"] == NODES_PER_ECHO
    assert figures["cores"] > 0
    reached = min(figures["fan_per_echo"], figures["pair_per_echo"]) >= NODES_PER_ECHO
    # The line is rounded; at the limit itself the two may differ.
    if abs(min(figures["fan_per_echo"], figures["pair_per_echo"]) - NODES_PER_ECHO) > 0.001:
        assert (figures["passed"], code) == (reached, 0 if reached else 1)
