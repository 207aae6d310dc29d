"""A sheet of films with their annotated and their predicted lungs side by side.

Shapes
    film     uint8 [side, side], equalised and fitted to the square
    lung     bool [side, side]
    picture  uint8 [height, width, 3], RGB
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.results.drawing import LUNG_COLOURS, outline_lung
from mask_rcnn.utils import dice

COLUMNS = 2  # films in a row
SIDE, GAP, LINE, FONT_SIZE = 256, 8, 24, 15  # pixels
BACKGROUND, INK = (24, 24, 24), (235, 235, 235)


class Example(NamedTuple):
    """A film of the sheet; lungs by category."""

    name: str
    film: np.ndarray
    annotated: Mapping[int, np.ndarray]
    predicted: Mapping[int, np.ndarray]


def render_examples(examples: Sequence[Example]) -> np.ndarray:
    """The sheet: each film twice, with its annotated lungs and with the predicted ones, and the Dice of each lung."""
    rows = -(-len(examples) // COLUMNS)
    columns = min(COLUMNS, len(examples))
    width, height = columns * (2 * SIDE + 3 * GAP), LINE + rows * (SIDE + LINE + GAP)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    x: float = GAP
    for category, name in CATEGORIES.items():
        pen.rectangle((x, 6, x + 12, 18), fill=LUNG_COLOURS[category])
        pen.text((x + 18, LINE // 2), name.replace("_", " "), INK, font, anchor="lm")
        x += 18 + pen.textlength(name, font) + 2 * GAP
    pen.text((x, LINE // 2), "first as annotated, then as predicted, with their Dice", INK, font, anchor="lm")
    for number, example in enumerate(examples):
        row, column = divmod(number, COLUMNS)
        left, top = GAP + column * (2 * SIDE + 3 * GAP), LINE + row * (SIDE + LINE + GAP)
        for place, lungs in enumerate((example.annotated, example.predicted)):
            sheet.paste(Image.fromarray(_outlined(example.film, lungs)), (left + place * (SIDE + GAP), top + LINE))
        scores = [f"{SIDES[category]} {dice(example.predicted[category], annotated):.2f}"
                  for category, annotated in example.annotated.items() if annotated.any()]
        told = ", ".join(scores) or "no lung annotated"
        pen.text((left + SIDE + GAP, top + LINE // 2), told, INK, font, anchor="lm")
        pen.text((left, top + LINE // 2), _shortened(example.name, pen, font), INK, font, anchor="lm")
    return np.asarray(sheet)


def _outlined(film: np.ndarray, lungs: Mapping[int, np.ndarray]) -> np.ndarray:
    picture = cv2.cvtColor(cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    for category, lung in lungs.items():
        scaled = cv2.resize(lung.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) >= 0.5
        outline_lung(picture, scaled, category)
    return picture


def _shortened(name: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a name, as much as stands above its film."""
    shown = name
    while len(shown) > 1 and pen.textlength(shown, font) > SIDE:
        shown = "…" + shown.lstrip("…")[1:]
    return shown
