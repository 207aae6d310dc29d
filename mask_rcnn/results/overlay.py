"""Pictures to check a result by: the film, and beside it the same film with its lungs marked.

Shapes
    film     uint8 [height, width], grey, bones white
    labels   uint8 [height, width], 0 background, else the category id
    picture  uint8 [picture height, picture width, 3], RGB
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mask_rcnn.bag.lung import Lung
from mask_rcnn.films.square import mask_shares, shrink
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.drawing import LEGENDS, LUNG_COLOURS, outline_lung
from mask_rcnn.utils import mask_box

# Larger films are scaled down to the first, so that a picture stays below some 2 MB; smaller ones up to the second.
MAX_SIDE, MIN_SIDE = 800, 480
MIN_WIDTH = 560  # of the picture, in pixels: what the legend needs
GAP, FONT_SIZE, OPACITY = 8, 18, 0.3
BACKGROUND, INK = (24, 24, 24), (235, 235, 235)


def overlay(
    film: np.ndarray, labels: np.ndarray, lungs: Mapping[int, Lung], laterality: str = "patient"
) -> np.ndarray:
    """The film, and to its right the film with the lungs tinted, outlined, boxed and named with their scores.

    Args:
        film: uint8 [height, width].
        labels: uint8 [height, width], rendered as tint and outline.
        lungs: by category id, rendered as box and name; empty where there are only labels.
        laterality: ``patient`` or ``image``, for the legend.

    Returns:
        uint8 [picture height, picture width, 3], RGB; either film's long side is 480 to 800 pixels.
    """
    longest = max(film.shape)
    scale = min(max(longest, MIN_SIDE), MAX_SIDE) / longest
    height, width = (max(1, round(side * scale)) for side in film.shape)
    scaled = shrink(film, height, width) if scale < 1 else cv2.resize(film, (width, height))
    plain = cv2.cvtColor(scaled, cv2.COLOR_GRAY2RGB)
    marked = plain.copy()
    for category in CATEGORIES:
        found = mask_shares(labels == category, height, width) >= 0.5
        y1, x1, y2, x2 = mask_box(found)
        within = marked[y1:y2, x1:x2]
        if within.size:
            tinted = cv2.addWeighted(within, 1 - OPACITY, np.full_like(within, LUNG_COLOURS[category]), OPACITY, 0)
            cv2.copyTo(tinted, found[y1:y2, x1:x2].view(np.uint8), within)
        outline_lung(marked, found, category)

    header = round(1.8 * FONT_SIZE)
    picture_width = max(2 * width + 3 * GAP, MIN_WIDTH)
    picture = Image.new("RGB", (picture_width, header + height + GAP), BACKGROUND)
    left = (picture_width - 2 * width - GAP) // 2
    corner = (left + width + GAP, header)
    picture.paste(Image.fromarray(plain), (left, header))
    picture.paste(Image.fromarray(marked), corner)
    pen = ImageDraw.Draw(picture)
    _write_legend(pen, picture_width, header, laterality)
    font = ImageFont.load_default(FONT_SIZE)
    for category, lung in lungs.items():
        y1, x1, y2, x2 = (round(value * scale) for value in lung.box)
        box = (corner[0] + x1, corner[1] + y1, corner[0] + max(x2, x1 + 1) - 1, corner[1] + max(y2, y1 + 1) - 1)
        pen.rectangle(box, outline=LUNG_COLOURS[category], width=1)
        name = f"{CATEGORIES[category].replace('_', ' ')} {lung.score:.2f}"
        _write_name(pen, name, box, (*corner, corner[0] + width, corner[1] + height), LUNG_COLOURS[category], font)
    if not labels.any():
        pen.text((corner[0] + width // 2, header + height // 2), "no lung found", INK, font, anchor="mm",
                 stroke_width=3, stroke_fill=BACKGROUND)
    return np.asarray(picture)


def _write_legend(pen: ImageDraw.ImageDraw, width: int, height: int, laterality: str) -> None:
    font = ImageFont.load_default(FONT_SIZE - 2)
    x, middle, swatch = GAP, height // 2, FONT_SIZE - 5
    for category, name in CATEGORIES.items():
        pen.rectangle((x, middle - swatch // 2, x + swatch, middle + swatch // 2), fill=LUNG_COLOURS[category])
        x += swatch + 6
        pen.text((x, middle), name.replace("_", " "), INK, font, anchor="lm")
        x += round(pen.textlength(name.replace("_", " "), font)) + 2 * GAP
    text = LEGENDS[laterality]
    for size in range(FONT_SIZE - 2, 9, -1):
        font = ImageFont.load_default(size)
        if pen.textlength(text, font) <= width - x - GAP:
            break
    pen.text((width - GAP, middle), text, INK, font, anchor="rm")


def _write_name(
    pen: ImageDraw.ImageDraw,
    name: str,
    box: tuple[int, int, int, int],
    film: tuple[int, int, int, int],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    # Above the box where there is room, or below, else within; box and film are (x1, y1, x2, y2) pixels of the picture.
    width, height = round(pen.textlength(name, font)) + 8, FONT_SIZE + 6
    x = min(max(box[0], film[0]), max(film[2] - width, film[0]))
    above, below = box[1] - height, box[3] + 1
    y = above if above >= film[1] else below if below + height <= film[3] else box[1]
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
    # Black on orange 9:1, white on blue 5:1: both above the 4.5:1 of WCAG 2.1 for small text.
    ink = (0, 0, 0) if sum(colour) > 340 else (255, 255, 255)
    pen.text((x + 4, y + height // 2), name, ink, font, anchor="lm")
