"""The worker of contact-sheet.yaml: prompts are written, pictures drawn, and joined into a contact sheet.

    plait worker examples.contact_sheet:worker --connect 127.0.0.1:7480 --processes 2

Pictures are files, and outputs name them: what goes over the wire is JSON of at most 1 MiB. The workers share
a folder here; elsewhere the names would be addresses in an object store.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

from examples.flow_field import PALETTES, palette_of, render
from PIL import Image, ImageDraw, ImageFont

from plait_worker import Context, NodeFailure, Worker

worker = Worker()


class PromptInput(TypedDict):
    """The input of a prompt node."""

    subject: str
    """What is to be seen."""


class Prompt(TypedDict):
    """The output of a prompt node."""

    prompt: str
    """What is to be drawn."""


class GenerateInput(TypedDict):
    """The input of a generate node."""

    prompt: str
    """What is to be drawn."""
    directory: str
    """Where the picture goes."""


class Picture(TypedDict):
    """The output of a generate node."""

    path: str
    """The PNG."""
    prompt: str
    """What is to be seen on it."""
    seconds: float
    """How long it took."""


class SheetInput(TypedDict):
    """The input of the sheet node."""

    title: str
    """Stands above the pictures."""
    directory: str
    """Where the sheet goes."""
    pictures: Sequence[Picture]
    """The pictures, in order."""


class Sheet(TypedDict):
    """The output of the sheet node."""

    path: str
    """The PNG."""
    pictures: int
    """How many pictures are on it."""


@worker.node("text.prompt")
async def write_prompt(context: Context, input: PromptInput) -> Prompt:
    """Write a prompt; a model could do it as well."""
    subject = " ".join(input["subject"].split())
    if not subject:
        raise NodeFailure("NO_SUBJECT", "the subject is empty; say what is to be seen")
    context.log(f"writing a prompt about {subject!r}")
    has_palette = any(name in subject.lower() for name in PALETTES)
    return {"prompt": f"{subject}, drawn by the wind" + ("" if has_palette else " in ink")}


# One at a time in each process: it is plain Python, and two threads would only share the one core.
@worker.node("image.generate", max_concurrency=1)
def generate(context: Context, input: GenerateInput) -> Picture:
    """Draw a picture, about a second of work for one core."""
    start_s = time.perf_counter()

    def report(share: float) -> None:
        context.raise_if_cancelled()
        context.progress(share, "drawing")

    picture = render(input["prompt"], report)
    seconds = round(time.perf_counter() - start_s, 3)
    # The same name in every attempt: a second one replaces what the first has left.
    path = Path(input["directory"]) / f"{context.node_path}.png"
    save(picture, path)
    context.usage("pixels", picture.width * picture.height)
    context.usage("compute-seconds", f"{seconds:.3f}")
    return {"path": str(path), "prompt": input["prompt"], "seconds": seconds}


@worker.node("image.contact_sheet")
def join(context: Context, input: SheetInput) -> Sheet:
    """Put the pictures side by side, each over its prompt."""
    pictures = input["pictures"]
    if not pictures:
        raise NodeFailure("NO_PICTURES", "there is no picture to put on the sheet")
    path = Path(input["directory"]) / f"{context.execution_id}.png"
    sheet = draw_sheet(input["title"], pictures)
    save(sheet, path)
    context.usage("pixels", sheet.width * sheet.height)
    return {"path": str(path), "pictures": len(pictures)}


_MARGIN: Final = 40
_TITLE_HEIGHT: Final = 96
_CAPTION_HEIGHT: Final = 104
_PAPER: Final = (250, 248, 243)
_TEXT: Final = (38, 36, 44)
_FAINT_TEXT: Final = (138, 132, 128)


def draw_sheet(title: str, pictures: Sequence[Picture]) -> Image.Image:
    """Draw a contact sheet of pictures that are equally large."""
    images = [Image.open(picture["path"]) for picture in pictures]
    side = images[0].width
    width = _MARGIN + len(images) * (side + _MARGIN)
    sheet = Image.new("RGB", (width, _TITLE_HEIGHT + images[0].height + _CAPTION_HEIGHT), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    canvas.text(
        (_MARGIN, _TITLE_HEIGHT // 2), title, fill=_TEXT, font=ImageFont.load_default(34), anchor="lm"
    )
    for place, (image, picture) in enumerate(zip(images, pictures, strict=True)):
        left = _MARGIN + place * (side + _MARGIN)
        sheet.paste(image, (left, _TITLE_HEIGHT))
        below = _TITLE_HEIGHT + image.height
        canvas.text((left, below + 20), picture["prompt"], fill=_TEXT, font=ImageFont.load_default(24))
        note = f"{picture['seconds']:.2f} s"
        canvas.text((left, below + 56), note, fill=_FAINT_TEXT, font=ImageFont.load_default(20))
        for stripe, color in enumerate(palette_of(picture["prompt"]).lines):
            start = left + side - 20 - 28 * stripe
            canvas.ellipse((start, below + 56, start + 20, below + 76), fill=color)
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all, over what an earlier attempt has written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        picture.save(file, format="PNG")
    Path(file.name).replace(path)
