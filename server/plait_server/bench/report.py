"""What was found of a shape, as rows of a table and as a line of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from plait_server.bench.shape import Ceiling, Requirement, Round, Shape, seconds_of

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of a shape."""

    shape: Shape
    rounds: Sequence[Round]
    """At least one."""
    ceilings: Mapping[Ceiling, list[float]]
    """A value for each round."""

    @property
    def medians(self) -> Mapping[str, float]:
        """The medians of the figures over the rounds, and the main one beside each ceiling.

        A rate is compared as how many for one of the ceiling's, a time as how many of the ceiling's it takes.
        """
        names = self.rounds[0].figures
        found = {name: median(each.figures[name] for each in self.rounds) for name in names}
        main = self.shape.figure
        one_s = seconds_of(main, found[main])
        for ceiling, values in self.ceilings.items():
            share = seconds_of(ceiling.value, median(values)) / one_s
            found[ceiling.per] = share if main.endswith("_per_s") else 1 / share
        return found

    @property
    def ceiling_medians(self) -> Mapping[str, float]:
        """The medians of the ceilings."""
        return {ceiling.value: median(values) for ceiling, values in self.ceilings.items()}

    @property
    def cpu_ms_per_node(self) -> float | None:
        """What the server used for a node, user and system, over all rounds."""
        used_s = [each.cpu_s for each in self.rounds if each.cpu_s is not None]
        nodes = sum(each.nodes for each in self.rounds)
        return 1000 * sum(used_s) / nodes if len(used_s) == len(self.rounds) and nodes else None

    @property
    def rss_mib(self) -> float | None:
        """The most memory that a server of the shape held."""
        held = [each.rss_bytes for each in self.rounds if each.rss_bytes is not None]
        return max(held) / _MIB if held else None

    @property
    def is_reached(self) -> bool:
        """Whether all that is required was reached."""
        return all(self.is_met(requirement) for requirement in self.shape.requirements)

    def is_met(self, requirement: Requirement) -> bool:
        """Whether one of the requirements was reached."""
        return requirement.is_met(self.medians[requirement.figure])


def as_json(found: Found, *, is_quick: bool) -> str:
    """Write a shape as one line of JSON."""
    shape = found.shape
    values = [each.figures[shape.figure] for each in found.rounds]
    return json.dumps(
        {
            "shape": shape.name,
            "title": shape.title,
            "rounds": len(found.rounds),
            "figure": shape.figure,
            "min": _rounded(min(values)),
            "median": _rounded(median(values)),
            "max": _rounded(max(values)),
            "medians": {name: _rounded(value) for name, value in found.medians.items()},
            "ceilings": {name: _rounded(value) for name, value in found.ceiling_medians.items()},
            "server_cpu_ms_per_node": _rounded(found.cpu_ms_per_node),
            "server_rss_mib": _rounded(found.rss_mib),
            "required": {str(each): found.is_met(each) for each in shape.requirements},
            "reached": found.is_reached,
            "quick": is_quick,
            "cores": os.cpu_count() or 1,
        }
    )


def heading() -> str:
    """Write the head of the table."""
    return f"{'':10} {'min':>9} {'median':>9} {'max':>9} {'':18} {'CPU a node':>11} {'RSS':>9}"


def as_table(found: Found, *, is_quick: bool) -> str:
    """Write the rows of a shape: the main figure, then what it is compared with, then what is required of it."""
    shape, medians = found.shape, found.medians
    values = [each.figures[shape.figure] for each in found.rounds]
    cpu, rss = found.cpu_ms_per_node, found.rss_mib
    lines = [
        (
            f"{shape.name:10} {_text(min(values)):>9} {_text(median(values)):>9} {_text(max(values)):>9} "
            f"{_unit(shape.figure):18} {'-' if cpu is None else f'{cpu:.3f} ms':>11} "
            f"{'-' if rss is None else f'{rss:.0f} MiB':>9}"
        ),
        f"{'':10} {shape.title}",
    ]
    others = [
        f"{_unit(name)} {_text(medians[name])}" for name in found.rounds[0].figures if name != shape.figure
    ]
    if others:
        lines.append(f"{'':10} {', '.join(others)}")
    beside = [
        f"{_unit(ceiling.value)} {_text(median(values))} ({_unit(ceiling.per)}: {_text(medians[ceiling.per])})"
        for ceiling, values in found.ceilings.items()
    ]
    if beside:
        lines.append(f"{'':10} ceilings: {', '.join(beside)}")
    lines += [
        f"{'':10} required: {each}: {_judged(found, each)}" for each in shape.requirements if not is_quick
    ]
    return "\n".join(lines)


def _judged(found: Found, requirement: Requirement) -> str:
    value = _text(found.medians[requirement.figure])
    return f"reached ({value})" if found.is_met(requirement) else f"NOT reached ({value})"


def _unit(name: str) -> str:
    """`nodes_per_s` is nodes/s, `call_ms` is call ms."""
    return name.replace("_per_s", "/s").replace("_", " ")


def _text(value: float) -> str:
    """Write a number with three digits at least."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
