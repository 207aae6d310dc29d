"""A statistical model of the frontal chest film, in a few hundred numbers, and how far a film and its lungs are from it.

``typical_chest.json`` holds the numbers; ``scripts/fit_chest.py`` learnt them from 1,047 films of adults and children.
They are means, covariances and weights over all films at 12 x 12 pixels, and no film can be recovered from them.

Shapes
    square     uint8 [256, 256], the film stretched, not equalised
    lungs      {category id: bool [256, 256]}
    thumbnail  float32 [12, 12], grey levels of the chest around both lungs, NaN beyond the film
    shape      float [21], see ``describe``
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import STRETCHED
from mask_rcnn.utils import mask_box

TABLE = Path(__file__).with_name("typical_chest.json")
SIDE = STRETCHED  # pixels of the square, which is the U-Net's
CELLS = 12  # of a thumbnail, a side
CONTRAST_FLOOR = 10.0  # grey levels of an equalised film: a thumbnail of less contrast shows nothing
MARGIN = 0.2  # of the box of both lungs, to each of its sides: neck, arms and diaphragm are in view


@dataclass(frozen=True)
class TypicalChest:
    box: tuple[float, ...]  # (y1, x1, y2, x2) of both lungs, shares of the film
    thumbnail: np.ndarray  # [12, 12], mean 0, in deviations
    heart: np.ndarray  # [12, 6], weights of the odd part
    shape: np.ndarray  # [21], mean
    precision: np.ndarray  # [21, 21], inverse of the covariance


@cache
def typical_chest() -> TypicalChest:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    arrays = {key: np.array(table[key]) for key in ("thumbnail", "heart", "shape", "precision")}
    return TypicalChest(box=tuple(table["box"]), **arrays)


def thumbnail(square: np.ndarray, lungs: Mapping[int, np.ndarray], box: tuple[float, ...]) -> np.ndarray:
    """The film around both lungs, coarse, equalised: float32 [12, 12], NaN where a cell lies mostly beyond the film.

    Where one lung was found, the other is taken to lie where its mirror image does; where none was, in ``box``,
    (y1, x1, y2, x2) as shares of the film.
    """
    side = len(square)
    y1, x1, y2, x2 = np.array(box) * side
    if lungs:
        y1, x1, y2, x2 = mask_box(np.logical_or.reduce(list(lungs.values())))
    if len(lungs) == 1:
        x1, x2 = min(x1, side - x2), max(x2, side - x1)
    margin_y, margin_x = MARGIN * (y2 - y1), MARGIN * (x2 - x1)
    (top, bottom), (left, right) = (
        (round(low - margin), round(high + margin)) for low, high, margin in ((y1, y2, margin_y), (x1, x2, margin_x))
    )
    above, below, before, after = (max(0, length) for length in (-top, bottom - side, -left, right - side))
    window = np.s_[max(0, top) : bottom, max(0, left) : right]
    cells = [
        cv2.resize(
            cv2.copyMakeBorder(layer[window], above, below, before, after, way),
            (CELLS, CELLS), interpolation=cv2.INTER_AREA,
        )
        for layer, way in ((equalise(square), cv2.BORDER_REPLICATE), (np.full_like(square, 255), cv2.BORDER_CONSTANT))
    ]  # fmt: skip
    return np.where(cells[1] > 127, cells[0], np.nan).astype(np.float32)


def likeness(thumb: np.ndarray) -> float:
    """How like the mean chest a thumbnail is: their correlation over the cells within the film, from -1 to 1."""
    inside = np.isfinite(thumb)
    one, other = (values[inside] - values[inside].mean() for values in (thumb, typical_chest().thumbnail))
    return float(one @ other / max(1e-3, np.linalg.norm(one) * np.linalg.norm(other)))


def heart_side(thumb: np.ndarray) -> float:
    """Above 0 where the heart points to the image's right, as on most films, below 0 as on a mirrored one.

    A linear discriminant (Fisher, Annals of Eugenics, 1936) between films and their mirrored copies, in deviations.
    """
    return float((odd_part(thumb) * typical_chest().heart).sum())


def odd_part(thumb: np.ndarray) -> np.ndarray:
    """What changes its sign when the film is mirrored, left half, float32 [12, 6]; 0 where the film has no such pair."""
    scaled = thumb / max(CONTRAST_FLOOR, float(np.nanstd(thumb)))
    return np.nan_to_num((scaled - scaled[:, ::-1]) / 2)[:, : CELLS // 2]


def describe(image_left: np.ndarray, image_right: np.ndarray) -> np.ndarray:
    """The shape and place of two lungs in 21 numbers of about normal distribution: float [21].

    The logarithms of the left mask's area over the right one's, of the share that both fill of their box, and of the box's
    width over its height; the middle of both in the film (y, x); then of each mask centroid (y, x), height and width in the
    box (the latter two as logarithms), lean in units of 10 degrees, solidity, and the logarithms of elongation and of
    perimeter over the root of the area.
    """
    masks = (image_left, image_right)
    y1, x1, y2, x2 = mask_box(image_left | image_right)
    height, width = y2 - y1, x2 - x1
    areas = [int(mask.sum()) for mask in masks]
    numbers = [np.log(areas[0] / areas[1]), np.log(sum(areas) / (height * width)), np.log(width / height)]
    middles, forms = [], []
    for mask, area in zip(masks, areas, strict=True):
        moments = cv2.moments(mask.astype(np.uint8), binaryImage=True)
        row, column = moments["m01"] / area, moments["m10"] / area
        middles.append((row / len(mask), column / mask.shape[1]))
        top, left, bottom, right = mask_box(mask)
        spread, twist = moments["mu20"] - moments["mu02"], 2 * moments["mu11"]
        along, across = (moments["mu20"] + moments["mu02"] + sign * np.hypot(spread, twist) for sign in (1, -1))
        lean = np.degrees(0.5 * np.arctan2(twist, spread)) % 180 - 90  # 0 is upright
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outline = sum(cv2.arcLength(contour, True) for contour in contours)
        hull = cv2.convexHull(np.concatenate(contours))
        # The hull runs through the centres of pixels; half of its length lies outside.
        hull_area = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1
        forms += [
            (row - y1) / height, (column - x1) / width, np.log((bottom - top) / height), np.log((right - left) / width),
            lean / 10, area / hull_area, 0.5 * np.log(along / max(across, 1e-6)), np.log(outline / np.sqrt(area)),
        ]
    numbers += [*np.mean(middles, 0), *forms]
    return np.array(numbers, float)


def shape_distance(masks: Iterable[np.ndarray]) -> float:
    """How far the shape and place of two lungs are from what is usual: a Mahalanobis distance over the root of 21.

    Its mean square over usual films is 1. The masks come in any order; the image's left one goes first.
    """
    image_left, image_right = sorted(masks, key=lambda mask: float(np.nonzero(mask)[1].mean()))
    chest = typical_chest()
    offset = describe(image_left, image_right) - chest.shape
    return float(np.sqrt(offset @ chest.precision @ offset / len(offset)))
