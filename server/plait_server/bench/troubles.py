"""S-trouble: a collector in trouble must cost spans, and nothing else.

The collector of a traced server is slow, then silent, then refuses, then is unavailable, then away, and accepts spans
again at the end. The server takes turns with one that is not traced. Each span must arrive or be counted as dropped,
and the log must tell of the trouble once when it begins and once when it ends.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator
from typing import Final

from plait_server.bench.client import wait_workers
from plait_server.bench.shape import Requirement, Round, Runner, Shape
from plait_server.bench.sink import Behavior, Sink, run_sink
from plait_server.bench.site import BenchFailed, Meter, Server, Site, run_server, run_worker
from plait_server.bench.traced import FANS, NOT_TRACED, spans_of, take_turn

BEGUN: Final = re.compile(r"spans do not reach the collector")
OVER: Final = re.compile(r"spans reach the collector again; (\d+) were dropped and (\d+) rejected")
_LOGGED_S: Final = 60.0
"""Trouble ends 10 s after the last failure, and the last request may take 10 s to fail."""
_LOOK_AGAIN_S: Final = 0.05
_PLAIN_S: Final = 3.0
_TRACED_S: Final = 8.0
"""Long enough to fill the queue of 65,536 spans."""
_QUICK_S: Final = 0.2
_MIB: Final = 1024 * 1024


@contextlib.contextmanager
def _open(site: Site) -> Generator[Runner]:
    with contextlib.ExitStack() as collecting, run_server(site, site.store("plain")) as plain:
        sink = collecting.enter_context(run_sink())
        with (
            run_server(site, site.store("traced"), environment=sink.environment) as traced,
            run_worker(site, plain),
            run_worker(site, traced),
        ):
            if NOT_TRACED in traced.log:
                raise BenchFailed(traced.log)
            pair = _Pair(plain, traced, is_quick=site.is_quick)
            wait_workers(plain.address)
            wait_workers(traced.address)
            pair.compare()  # Caches are warm from here on.
            yield lambda: _run(pair, sink, collecting)


class _Pair:
    """Two servers that take turns."""

    def __init__(self, plain: Server, traced: Server, *, is_quick: bool) -> None:
        self.plain = plain
        self.traced = traced
        self.traced_nodes = 0
        self._seconds = (_QUICK_S, _QUICK_S) if is_quick else (_PLAIN_S, _TRACED_S)

    def compare(self) -> float:
        """Return the rate of the traced server over that of the other, which runs before and after it."""
        plain_s, traced_s = self._seconds
        before = take_turn(FANS, self.plain, None, plain_s)
        traced = take_turn(FANS, self.traced, None, traced_s)
        after = take_turn(FANS, self.plain, None, plain_s)
        self.traced_nodes += traced.nodes
        return 2 * traced.value / (before.value + after.value)


def _run(pair: _Pair, sink: Sink, collecting: contextlib.ExitStack) -> Round:
    meter, nodes_before = Meter(pair.traced), pair.traced_nodes
    ratios: dict[str, float] = {}
    # SLOW is first, so that the sink has taken all that it will take when it counts.
    for behavior in (Behavior.SLOW, Behavior.SILENT, Behavior.REFUSING, Behavior.UNAVAILABLE):
        sink.behave(behavior)
        ratios[f"{behavior.value}_per_plain"] = pair.compare()
    arrived = sum(sink.count().spans.values())
    collecting.close()
    ratios["away_per_plain"] = pair.compare()
    with run_sink(sink.port) as back:
        dropped = _wait_over(pair.traced)
        arrived += sum(back.count().spans.values())
    expected = sum(spans_of(FANS.graph, pair.traced_nodes // len(FANS.graph.nodes)).values())
    if arrived + dropped < expected:
        raise BenchFailed(f"of {expected} spans {arrived} arrived, and {dropped} are counted as dropped")
    figures = {"least_per_plain": min(ratios.values()), **ratios, "dropped_share": dropped / expected}
    if pair.traced.rss_bytes and pair.plain.rss_bytes:
        figures["rss_mib_over_plain"] = (pair.traced.rss_bytes - pair.plain.rss_bytes) / _MIB
    return Round(
        figures=figures,
        nodes=pair.traced_nodes - nodes_before,
        cpu_s=meter.cpu_s,
        rss_bytes=pair.traced.rss_bytes,
    )


def _wait_over(server: Server) -> int:
    """Wait until a server has logged the end of the trouble, and return how many spans were lost.

    Raises:
        BenchFailed: it did not, or it logged the beginning more than once.
    """
    end_s = time.monotonic() + _LOGGED_S
    while (over := OVER.search(server.log)) is None:
        if time.monotonic() >= end_s:
            raise BenchFailed(
                f"the server does not say that its spans reach the collector again:\n{server.log}"
            )
        time.sleep(_LOOK_AGAIN_S)  # A log file tells nobody when it grows.
    if len(BEGUN.findall(server.log)) != 1:
        raise BenchFailed(f"the server does not tell of the trouble once:\n{server.log}")
    return int(over[1]) + int(over[2])


SHAPES = (
    Shape(
        name="S-trouble",
        title="S-F with a collector that is slow, silent, refusing, unavailable, away, and back",
        figure="least_per_plain",
        open=_open,
        rounds=1,
        ceilings=(),
        requirements=(
            # What S-F asks for, less the noise of a single turn.
            Requirement(figure="least_per_plain", at_least=0.6),
            Requirement(figure="rss_mib_over_plain", at_most=100),
        ),
    ),
)
"""The shapes of this module."""
