"""Text for the terminal: tables, durations, times, colors, and other people's words made safe to show."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC
from typing import Final

import click
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.timestamp_pb2 import Timestamp

ONE_LINE_CHARS_MAX: Final = 2_000
"""A failure's message may be 4 KiB; more than this is for `--json`."""

_COLORS: Final = {
    "SUCCEEDED": "green",
    "PARTIALLY_SUCCEEDED": "yellow",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "CORRUPT": "red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
    "BACKING_OFF": "yellow",
    "RUNNING": "cyan",
    "ATTACHED": "green",
    "DRAINING": "yellow",
    "DETACHED": "red",
}


def has_color() -> bool:
    """Return whether colors are wanted: on a terminal, unless NO_COLOR says no (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def colored(text: str, color: str | None) -> str:
    """Return a text in a color, if colors are wanted."""
    return click.style(text, fg=color) if color and has_color() else text


def dim(text: str) -> str:
    """Return a text in gray, if colors are wanted."""
    return click.style(text, dim=True) if text and has_color() else text


def name_of(enum: EnumTypeWrapper, number: int, prefix: str) -> str:
    """Return the name of an enum's value without the prefix; its number if the server is newer than this client."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return value.name.removeprefix(prefix) if value is not None else str(number)


def color_of(state: str) -> str | None:
    """Return the color of a state, by its name without prefix."""
    return _COLORS.get(state)


def echo(text: str = "") -> None:
    """Write a line to stdout, colors as they are."""
    click.echo(text, color=True)


def complain(text: str) -> None:
    """Write a line to stderr."""
    click.echo(text, err=True)


def terminal_width() -> int:
    """Return how wide the terminal is; 100 characters where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def one_line(text: str, chars_max: int = ONE_LINE_CHARS_MAX) -> str:
    """Make a text safe to show in a line: control characters are escaped, and a long one is cut.

    What a worker says must not move the cursor or change the colors of whoever looks at it.
    """
    cut = text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in cut
    )


def duration(seconds: float) -> str:
    """Write a duration, as precise as is of use: `3 ms`, `1.24 s`, `12.3 s`, `2 m 05 s`, `1 h 02 m`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def seconds_of(time: Timestamp) -> float:
    """Return a time as seconds since 1970."""
    return time.seconds + time.nanos / 1e9


def between(start: Timestamp, end: Timestamp) -> float:
    """Return the seconds between two times, to the nanosecond; clocks that were set back count as 0."""
    return max(0.0, (end.seconds - start.seconds) + (end.nanos - start.nanos) / 1e9)


def local_time(time: Timestamp) -> str:
    """Write a time by this machine's clock; one that is absent is empty."""
    if not seconds_of(time):
        return ""
    return time.ToDatetime(UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def count(number: int, noun: str) -> str:
    """Write a number of things: `1 node`, `1,000 nodes`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], states: int | None = None) -> list[str]:
    """Lay out a table; its columns are as wide as what is in them.

    Args:
        heads: the names of the columns.
        rows: the cells.
        states: which column holds states, to be colored.
    """
    widths = [max(len(row[place]) for row in (heads, *rows)) for place in range(len(heads))]
    lines = [dim(_row(heads, widths))]
    for row in rows:
        cells = list(row)
        line = _row(cells, widths)
        if states is not None:
            start = sum(widths[:states]) + 2 * states
            end = start + len(cells[states])
            line = line[:start] + colored(line[start:end], color_of(cells[states])) + line[end:]
        lines.append(line)
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
