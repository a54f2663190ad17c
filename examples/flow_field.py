"""Pictures of wind: thousands of grains that drift through a field of directions, each leaving a line.

Everything follows from the prompt, so the same prompt gives the same picture on every machine. It is done in
plain Python on purpose: a picture is about a second of honest work for one core.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from PIL import Image, ImageDraw, ImageFilter

Color: TypeAlias = tuple[int, int, int]

SIZE: Final = 640
"""Width and height of a picture in pixels."""
_OVERSAMPLING: Final = 2
"""Lines are drawn this much larger and shrunk, which smooths them."""
_GRAINS: Final = 9_000
_STEPS: Final = 150
_STEP: Final = 0.003
"""How far a grain drifts in one step; the picture is 1 wide."""
_REPORTS: Final = 10
"""How often a picture reports its progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colors of a picture."""

    ground: Color
    """Behind everything."""
    lines: Sequence[Color]
    """Of the grains, from one end of the field to the other."""


PALETTES: Final = {
    "dawn": Palette(
        ground=(30, 20, 44), lines=((255, 214, 165), (255, 143, 112), (214, 74, 112), (96, 60, 130))
    ),
    "aurora": Palette(
        ground=(6, 14, 30), lines=((158, 255, 205), (52, 211, 153), (45, 130, 190), (146, 92, 214))
    ),
    "autumn": Palette(
        ground=(34, 17, 12), lines=((255, 224, 138), (240, 148, 50), (200, 66, 40), (112, 32, 44))
    ),
    "tide": Palette(
        ground=(4, 22, 38), lines=((224, 247, 250), (105, 205, 225), (32, 128, 178), (20, 66, 120))
    ),
    "moss": Palette(
        ground=(14, 24, 14), lines=((230, 240, 160), (150, 196, 84), (74, 136, 70), (30, 84, 72))
    ),
    "ink": Palette(
        ground=(244, 239, 228), lines=((28, 32, 46), (66, 76, 102), (128, 112, 104), (176, 62, 48))
    ),
}
"""By name; a prompt that has the name in it gets the palette."""


def render(prompt: str, on_progress: Callable[[float], None]) -> Image.Image:
    """Draw the picture of a prompt.

    Args:
        prompt: what is to be seen.
        on_progress: called now and then with the share that is done; what it raises ends the work.
    """
    source = random.Random(hashlib.sha256(prompt.encode()).digest())  # noqa: S311 -- Chooses shapes.
    palette = palette_of(prompt)
    waves = _waves(source)
    side = SIZE * _OVERSAMPLING
    picture = Image.new("RGB", (side, side), palette.ground)
    canvas = ImageDraw.Draw(picture, "RGBA")
    for grain in range(_GRAINS):
        if grain % (_GRAINS // _REPORTS) == 0:
            on_progress(grain / _GRAINS)
        x, y = source.random() * 1.2 - 0.1, source.random() * 1.2 - 0.1
        path, bend = _drift(x, y, waves)
        red, green, blue = _blend(palette.lines, bend + source.gauss(0, 0.08))
        points = [(side * px, side * py) for px, py in path]
        canvas.line(
            points, fill=(red, green, blue, source.randint(50, 200)), width=source.choice((1, 1, 2, 3))
        )
    shrunk = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    # A little of its own glow over the picture.
    return Image.blend(shrunk, shrunk.filter(ImageFilter.GaussianBlur(6)), 0.18)


def palette_of(prompt: str) -> Palette:
    """Return the palette that a prompt names, else one that its text picks."""
    words = prompt.lower()
    for name, palette in PALETTES.items():
        if name in words:
            return palette
    names = list(PALETTES)
    return PALETTES[names[hashlib.sha256(words.encode()).digest()[0] % len(names)]]


_Wave: TypeAlias = tuple[float, float, float, float]
"""How often it repeats across and down, where it begins, and how far it turns the direction."""


def _waves(source: random.Random) -> Sequence[_Wave]:
    turns = (2.2, 1.2, 0.7, 0.35)
    return [
        (
            source.uniform(-1, 1) * 3.2 * (order + 1),
            source.uniform(-1, 1) * 3.2 * (order + 1),
            source.random() * math.tau,
            turn,
        )
        for order, turn in enumerate(turns)
    ]


def _drift(x: float, y: float, waves: Sequence[_Wave]) -> tuple[list[tuple[float, float]], float]:
    """Follow a grain; give its path, and between 0 and 1 how it was turned where it began."""
    path = [(x, y)]
    angle = first = 0.0
    for step in range(_STEPS):
        angle = 0.0
        for across, down, start, turn in waves:
            angle += turn * math.sin(across * x + down * y + start)
        first = first if step else angle
        x += _STEP * math.cos(angle)
        y += _STEP * math.sin(angle)
        path.append((x, y))
    return path, 0.5 + 0.5 * math.sin(first)


def _blend(colors: Sequence[Color], place: float) -> Color:
    """Return the color at a place between 0 and 1 along the colors."""
    scaled = min(max(place, 0.0), 0.9999) * (len(colors) - 1)
    below = int(scaled)
    share = scaled - below
    low, high = colors[below], colors[below + 1]
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return red, green, blue
