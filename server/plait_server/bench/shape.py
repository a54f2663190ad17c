"""What a shape of the bench is: something that is measured, and what it is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from plait_server.bench.site import Site


class Ceiling(Enum):
    """What the machine allows, whatever a server does."""

    ECHO = "echo_messages_per_s"
    """Messages a second over one stream of grpc.aio, 64 in flight."""
    CALL = "call_ms"
    """The round trip of a unary call of grpc.aio, one at a time."""
    COMMIT = "commit_ms"
    """A commit of one row in SQLite, synchronous=FULL."""

    @property
    def per(self) -> str:
        """The name of a shape's main figure beside this ceiling, such as `per_echo`."""
        return f"per_{self.name.lower()}"


def seconds_of(figure: str, value: float) -> float:
    """Return how long one of what a figure counts takes, or what a figure in seconds or milliseconds says."""
    if figure.endswith("_per_s"):
        return 1 / value
    return value / 1000 if "ms" in figure.split("_") else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round measured."""

    figures: Mapping[str, float]
    """By name, with the unit last, such as `nodes_per_s`; the same names in every round."""
    nodes: int
    """Nodes that ran."""
    cpu_s: float | None
    """What the server used, user and system; None where the system does not tell."""
    rss_bytes: int | None
    """The most memory the server has held so far; None where the system does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A bound on the median of a figure."""

    figure: str
    """A figure of the rounds, or that of the main figure beside a ceiling, such as `per_echo`."""
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        return f"{self.figure} " + " and ".join(
            f"{word} {bound:g}" for word, bound in bounds if bound is not None
        )

    def is_met(self, value: float) -> bool:
        """Whether a median keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


Runner: TypeAlias = Callable[[], Round]
"""Runs one round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Something that is measured."""

    name: str
    """Such as `F-1000`; the part before the dash names its family."""
    title: str
    """What is run, in a line."""
    figure: str
    """The main figure: that of the table."""
    open: Callable[[Site], AbstractContextManager[Runner]]
    """Starts what the shape needs; everything is stopped at the exit."""
    rounds: int
    ceilings: tuple[Ceiling, ...]
    requirements: tuple[Requirement, ...] = ()

    @property
    def family(self) -> str:
        """The part of the name before the dash."""
        return self.name.partition("-")[0]
