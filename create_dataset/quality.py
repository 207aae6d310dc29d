"""Whether a film's lungs can be trusted: measures of each film, and the verdict that the thresholds draw from them.

``scripts/measure_quality.py`` measures what the checks catch and what they cost.

Shapes
    square    uint8 [256, 256], the film stretched to the U-Net's square, not equalised
    votes     float [members, 256, 256] in [0, 1], each member's probability that a pixel is lung
    mirrored  float [members, 256, 256], what the members say of the mirrored film, turned back
    lungs     {category id: bool [256, 256]}
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import cv2
import numpy as np

from create_dataset.chest import heart_side, likeness, shape_distance, thumbnail, typical_chest
from create_dataset.lungs import find_small_lungs
from mask_rcnn.config import QualityConfig

ACCEPTED, REVIEW, REJECTED = "accepted", "review", "rejected"
STATUSES = (ACCEPTED, REVIEW, REJECTED)


def measure(
    square: np.ndarray,
    votes: np.ndarray,
    mirrored: np.ndarray | None,
    lungs: Mapping[int, np.ndarray],
    laterality: str = "patient",
    aspect: float = 1.0,
) -> dict[str, float]:
    """What is measured of a film, the same keys for every film; JSON numbers, so that thresholds can change later.

    ``lungs`` is their count; ``agreement`` the mean Dice of the lungs between all opinions, members and mirrored;
    ``area`` the lungs' share of the film, ``ratio`` the smaller over the larger; ``side_contact`` the length along which
    they touch the film's left or right edge, as a share of its height; ``shape_distance``, ``likeness`` and
    ``heart_side`` are explained in ``chest.py``; ``sharpness`` is the share of the film's contrast that is fine detail;
    ``aspect`` is the film's longer side over the shorter.
    ``ratio`` and ``shape_distance`` need two lungs and are 0 otherwise, ``agreement`` where no opinion finds a lung.

    Args:
        lungs: as ``find_small_lungs`` gives them for ``votes``.
        laterality: of ``lungs``.
        aspect: the film's width over its height.
    """
    masks = list(lungs.values())
    areas = sorted(float(mask.mean()) for mask in masks)
    thumb = thumbnail(square, lungs, typical_chest().box)
    measures = {
        "lungs": len(masks),
        "agreement": _agreement(votes, mirrored, lungs, laterality),
        "area": sum(areas),
        "ratio": areas[0] / areas[1] if len(areas) == 2 else 0,
        "side_contact": max((float(mask[:, side].mean()) for mask in masks for side in (0, -1)), default=0),
        "shape_distance": shape_distance(masks) if len(masks) == 2 else 0,
        "likeness": likeness(thumb),
        "heart_side": heart_side(thumb),
        "sharpness": _sharpness(square),
        "aspect": max(aspect, 1 / aspect),
    }
    return {name: round(float(value), 4) for name, value in measures.items()}


def judge(measures: Mapping[str, float], config: QualityConfig) -> tuple[str, list[str]]:
    """The status of a film, and why it is not accepted, in words: no reason for an accepted one, else one or more."""
    chest = measures["likeness"]
    if chest < config.reject_likeness:
        return REJECTED, [f"not an upright frontal chest film (likeness {chest:.2f})"]
    if measures["lungs"] == 0:
        return REVIEW, ["no lung found"]
    checks = [(chest < config.min_likeness, f"hardly like a frontal chest film (likeness {chest:.2f})")]
    if measures["lungs"] == 1:
        checks.append((True, "one lung found"))
    else:
        checks += [
            (measures["ratio"] < config.min_ratio, f"lungs of very different size (ratio {measures['ratio']:.2f})"),
            (measures["shape_distance"] > config.max_shape_distance,
             f"lungs of unusual shape or place (distance {measures['shape_distance']:.1f})"),
            (measures["heart_side"] < config.min_heart_side,
             f"perhaps mirrored: the heart points to the wrong side (score {measures['heart_side']:.1f})"),
        ]
    checks += [
        (measures["agreement"] < config.min_agreement, f"opinions on the lungs differ (Dice {measures['agreement']:.2f})"),
        (measures["area"] < config.min_area, f"lungs are small ({100 * measures['area']:.0f} % of the film)"),
        (measures["side_contact"] > config.max_side_contact,
         f"lungs touch the side of the film ({100 * measures['side_contact']:.0f} % of its height)"),
        (measures["aspect"] > config.max_aspect, f"film of unusual proportions ({measures['aspect']:.1f} to 1)"),
        (measures["sharpness"] < config.min_sharpness, f"blurred (sharpness {measures['sharpness']:.3f})"),
    ]
    reasons = [reason for fails, reason in checks if fails]
    return (REVIEW if reasons else ACCEPTED), reasons


def _agreement(
    votes: np.ndarray, mirrored: np.ndarray | None, lungs: Mapping[int, np.ndarray], laterality: str
) -> float:
    """Mean Dice over the pairs of opinions and over the lungs that either of a pair finds."""
    opinions: list[Mapping[int, np.ndarray]]
    opinions = [lungs] if len(votes) == 1 else [find_small_lungs(vote[None], laterality) for vote in votes]
    if mirrored is not None:
        opinions += [find_small_lungs(vote[None], laterality) for vote in mirrored]
    if len(opinions) == 1:
        return float(len(lungs) > 0)
    pairs = [
        _dice(one.get(category), other.get(category))
        for one, other in combinations(opinions, 2)
        for category in {*one, *other}
    ]
    return float(np.mean(pairs)) if pairs else 0.0


def _dice(one: np.ndarray | None, other: np.ndarray | None) -> float:
    if one is None or other is None:
        return 0.0
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def _sharpness(square: np.ndarray) -> float:
    """Deviation of what a Gaussian of 1.5 pixels takes away, over the deviation of the film; 0 for a film of one grey."""
    film = square.astype(np.float32)
    return float((film - cv2.GaussianBlur(film, (0, 0), 1.5)).std() / max(1.0, float(film.std())))
