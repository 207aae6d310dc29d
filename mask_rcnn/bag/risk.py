"""The risk that a bag failed on a film: that the Dice of a lung with the annotated one would be below 0.90.

It is a logistic regression on traits of the members' masks and of the film beneath them: how far the members agree, the
lung's size beside the other's, its place, its outline, and how grey the film is within, beside and below it. ``risk.json``
holds its numbers; ``scripts/fit_risk.py`` learnt them from annotated films, ill ones above all.

Shapes
    film     uint8 [128, 128], equalised, stretched to the square
    masks    uint8 [members, 2, 128, 128], each member's probabilities times 255, the left lung first; 0 where it found none
    scores   float32 [members, 2], 0 where a member did not find the lung
    traits   float [2, len(TRAITS)], of the left and the right lung
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.vote import best_detection
from mask_rcnn.films.square import shrink
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.utils import mask_box

SIDE = 128  # pixels: enough to see an opacity, and little to compute

TRAITS = (
    "agreement", "worst_pair", "mean_score", "least_score", "doubt", "area", "area_ratio", "height_ratio", "width_ratio",
    "top_offset", "bottom_offset", "lateral_margin", "bottom_margin", "solidity", "roughness", "grey", "grey_deviation",
    "grey_offset", "grey_of_base", "grey_of_apex", "lateral_edge", "base_edge", "below", "dark_beside", "found_by",
)  # fmt: skip


TABLE = Path(__file__).with_name("risk.json")
FAILED = 0.90  # the Dice of a lung that is worth no less
LIMIT = 4.0  # deviations, beyond which a trait tells no more


@dataclass(frozen=True)
class RiskTable:
    """A logistic regression on standardised traits and the squares of their lower and upper halves."""

    mean: np.ndarray  # [traits]
    deviation: np.ndarray  # [traits]
    weights: np.ndarray  # [3 traits]
    offset: float

    def of_lungs(self, traits: np.ndarray) -> np.ndarray:
        """The risk of lungs, float [...], from their traits, [..., traits]."""
        result: np.ndarray = 1 / (1 + np.exp(-(expanded(traits, self.mean, self.deviation) @ self.weights + self.offset)))
        return result


def expanded(traits: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Traits as the regression takes them, [..., 3 traits]."""
    scaled = np.clip((traits - mean) / deviation, -LIMIT, LIMIT)
    return np.concatenate([scaled, np.minimum(scaled, 0) ** 2, np.maximum(scaled, 0) ** 2], axis=-1)


@cache
def risk_table() -> RiskTable:
    """The table that comes with the program."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    if tuple(table["traits"]) != TRAITS:
        raise ValueError(f"{TABLE}: is of other traits; make it anew with scripts/fit_risk.py")
    mean, deviation, weights = (np.array(table[key]) for key in ("mean", "deviation", "weights"))
    return RiskTable(mean, deviation, weights, table["offset"])


def stretched(film: np.ndarray) -> np.ndarray:
    """An equalised film, uint8 [height, width], as the square that traits are of."""
    return shrink(film, SIDE, SIDE)


def film_risk(film: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> float:
    """The risk of the lung where it is higher, 0 to 1: 1 where a lung is missing, NaN of one member alone.

    Args:
        film, masks, scores: as above; what ``stretched`` and ``small_masks`` give.
    """
    if len(masks) < 2:
        return math.nan
    if not (scores > 0).any(axis=0).all():
        return 1.0
    return float(risk_table().of_lungs(traits_of(film, masks, scores)).max())


def small_masks(detections: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Masks and scores of each member's best detection of each lung.

    Args:
        detections: one a member, as ``MaskRCNN.detect`` gives it, soft and pasted onto 128 x 128 pixels.
    """
    masks = np.zeros((len(detections), len(CATEGORIES), SIDE, SIDE), np.uint8)
    scores = np.zeros(masks.shape[:2], np.float32)
    for member, detection in enumerate(detections):
        for place, category in enumerate(CATEGORIES):
            best = best_detection(detection, category)
            if best is not None:
                masks[member, place] = np.round(255 * detection["masks"][..., best])
                scores[member, place] = detection["scores"][best]
    return masks, scores


def traits_of(film: np.ndarray, masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The traits of both lungs; numbers of about one size, and finite whatever was found."""
    # The right lung is mirrored, so that the lateral side of either is on the image's right.
    grey = film.astype(np.float32) / 255
    sides = [(grey, masks[:, 0], scores[:, 0]), (grey[:, ::-1], masks[:, 1, :, ::-1], scores[:, 1])]
    voted = [np.count_nonzero(of_lung >= 128, axis=0) * 2 > len(masks) for _, of_lung, _ in sides]
    return np.array([
        _traits(film, of_lung, of_scores, own, other[:, ::-1])
        for (film, of_lung, of_scores), own, other in zip(sides, voted, voted[::-1], strict=True)
    ])


def _traits(film: np.ndarray, masks: np.ndarray, scores: np.ndarray, own: np.ndarray, other: np.ndarray) -> list[float]:
    hard = masks >= 128
    areas = hard.sum(axis=(1, 2))
    pairs = [2 * np.count_nonzero(hard[i] & hard[j]) / max(areas[i] + areas[j], 1)
             for i in range(len(hard)) for j in range(i)] or [1.0]
    mean = masks.mean(axis=0) / 255
    area = max(int(own.sum()), 1)
    doubt = float((mean * (1 - mean)).sum()) / area
    top, left, bottom, right = mask_box(own) if own.any() else (0, 0, SIDE, SIDE)
    o_top, o_left, o_bottom, o_right = mask_box(other) if other.any() else (0, 0, SIDE, SIDE)
    height, width = bottom - top, right - left
    o_height, o_width = o_bottom - o_top, o_right - o_left
    outlines, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines))) if outlines else 1.0
    outline = sum(cv2.arcLength(some, True) for some in outlines)
    inside = own if own.any() else np.ones_like(own)
    greys = film[inside]
    third = max(height // 3, 1)
    step = 5
    moved_right, moved_down = _shift(own, 0, step), _shift(own, step, 0)
    inner_right, inner_down = own & ~_shift(own, 0, -step), own & ~_shift(own, -step, 0)
    beside, below = moved_right & ~own & ~other, moved_down & ~own & ~other
    far_below = _shift(own, 3 * step, 0) & ~own & ~other
    around = np.zeros_like(own)
    around[min(top, o_top) : max(bottom, o_bottom), left:] = True
    dark = around & ~own & ~other & (film < np.median(greys))
    base = np.zeros_like(own)
    base[bottom - third : bottom] = True
    apex = np.zeros_like(own)
    apex[top : top + third] = True
    level = float(film[other].mean()) if other.any() else 0.5
    return [
        float(np.mean(pairs)), float(np.min(pairs)), float(scores.mean()), float(scores.min()), doubt,
        float(np.log(area / SIDE**2)), float(np.log(area / max(int(other.sum()), 1))),
        float(np.log(height / o_height)), float(np.log(width / o_width)), (top - o_top) / SIDE, (bottom - o_bottom) / SIDE,
        (SIDE - right) / SIDE, (SIDE - bottom) / SIDE, area / (hull + outline / 2 + 1), outline / np.sqrt(area),
        float(greys.mean()), float(greys.std()), float(greys.mean()) - level,
        _mean(film, inside & base), _mean(film, inside & apex),
        _mean(film, beside) - _mean(film, inner_right), _mean(film, below) - _mean(film, inner_down),
        _mean(film, far_below), np.count_nonzero(dark) / area, float((scores > 0).mean()),
    ]  # fmt: skip


def _shift(mask: np.ndarray, down: int, across: int) -> np.ndarray:
    """A mask moved; what leaves the square is lost."""
    matrix = np.array([[1, 0, across], [0, 1, down]], np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), matrix, (mask.shape[1], mask.shape[0]), flags=cv2.INTER_NEAREST) > 0


def _mean(film: np.ndarray, where: np.ndarray) -> float:
    return float(film[where].mean()) if where.any() else 0.5
