"""Runs the shapes one after the other, each with its ceilings in turn, and prints what was found.

The ceilings of a shape are measured before each of its rounds, and medians are compared, for the machine's speed
drifts meanwhile. Each shape has a server of its own, so that memory and processor time are the shape's.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NoReturn

from plait_server.bench import backlogs, fans, latencies, lists, restarts, starts, traced, troubles, watchers
from plait_server.bench.ceilings import measure
from plait_server.bench.report import Found, as_json, as_table, heading
from plait_server.bench.shape import Round, Shape
from plait_server.bench.site import BenchFailed, Site, read_line, run_process

SHAPES: Sequence[Shape] = (
    *fans.SHAPES,
    *latencies.SHAPES,
    *starts.SHAPES,
    *watchers.SHAPES,
    *backlogs.SHAPES,
    *restarts.SHAPES,
    *lists.SHAPES,
    *traced.SHAPES,
    *troubles.SHAPES,
)
"""All shapes, in the order in which they run."""


class UnknownShape(Exception):
    """There is no such shape."""


def choose(names: Sequence[str]) -> Sequence[Shape]:
    """Return the shapes of these names or families, in the order in which they run; all of them for none.

    Raises:
        UnknownShape: there is none of that name.
    """
    wanted = {name.upper() for name in names}
    known = {shape.name.upper(): shape for shape in SHAPES}
    families = {shape.family for shape in SHAPES}
    for name in names:
        if name.upper() not in known and name.upper() not in families:
            there_are = ", ".join(shape.name for shape in SHAPES)
            raise UnknownShape(f"there is no shape {name!r}; there are {there_are}")
    return [shape for shape in SHAPES if not wanted or shape.name.upper() in wanted or shape.family in wanted]


def run(names: Sequence[str], *, json: bool, quick: bool) -> int:
    """Measure, print each shape as it is done, and return the exit code.

    Args:
        names: Names or families of shapes; none: all.
        json: Print a line of JSON a shape in place of the table.
        quick: Measure one small round of each shape: to see that it works, not how fast.

    Returns:
        0 if what is required was reached by all shapes; 1 if not, or if a shape could not be measured. What a
        quick run measures is compared with nothing.

    Raises:
        UnknownShape: there is none of a name.
    """
    shapes = choose(names)
    if not json:
        _say(heading())
    is_reached = True
    # Otherwise SIGTERM, as `timeout` sends it, would leave the servers and workers running.
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        for found in _measure_all(shapes, is_quick=quick):
            _say(as_json(found, is_quick=quick) if json else as_table(found, is_quick=quick))
            is_reached = is_reached and (quick or found.is_reached)
    except BenchFailed as error:
        sys.stderr.write(f"plait bench: {error}\n")
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0 if is_reached else 1


def _measure_all(shapes: Sequence[Shape], *, is_quick: bool) -> Generator[Found]:
    with run_process("plait_server.bench.echo") as echo:
        port = int(read_line(echo))
        for shape in shapes:
            with tempfile.TemporaryDirectory(prefix=f"plait-bench-{shape.name}-") as folder:
                site = Site(Path(folder), is_quick)
                try:
                    yield _measure(shape, site, port)
                except BenchFailed as error:
                    raise BenchFailed(f"{shape.name}: {error}") from error


def _measure(shape: Shape, site: Site, echo_port: int) -> Found:
    rounds: list[Round] = []
    found = Found(shape, rounds, {ceiling: [] for ceiling in shape.ceilings})
    with shape.open(site) as run_round:
        for _ in range(site.size(shape.rounds, 1)):
            for ceiling, values in found.ceilings.items():
                values.append(
                    measure(ceiling, echo_port=echo_port, folder=site.folder, is_quick=site.is_quick)
                )
            rounds.append(run_round())
    return found


def _exit(signal_number: int, _: object) -> NoReturn:
    sys.exit(128 + signal_number)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
