"""Whether the lungs found on a film can be trusted: measures of each film, and the verdict by the thresholds.

They know nothing of who found the lungs: ``create_dataset.py`` judges its U-Nets by them and ``inference.py`` the bag.
``scripts/measure_quality.py`` measures what the checks catch and what they cost.

Shapes
    square    uint8 [256, 256], the film stretched, not equalised
    lungs     {category id: bool [256, 256]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import numpy as np

from mask_rcnn.checks.chest import heart_side, likeness, shape_distance, thumbnail, typical_chest
from mask_rcnn.config import QualityConfig

ACCEPTED, REVIEW, REJECTED = "accepted", "review", "rejected"
STATUSES = (ACCEPTED, REVIEW, REJECTED)


def measure_lungs(square: np.ndarray, lungs: Mapping[int, np.ndarray], aspect: float = 1.0) -> dict[str, float]:
    """What is measured of a film, the same keys for every film; JSON numbers, so that thresholds can change later.

    ``lungs`` is their count; ``area`` the lungs' share of the film, ``ratio`` the smaller over the larger;
    ``side_contact`` the length along which they touch the film's left or right edge, as a share of its height;
    ``shape_distance``, ``likeness`` and ``heart_side`` are explained in ``chest.py``; ``sharpness`` is the share of the
    film's contrast that is fine detail; ``aspect`` is the film's longer side over the shorter. ``ratio`` and
    ``shape_distance`` need two lungs and are 0 otherwise.

    Args:
        aspect: the film's width over its height.
    """
    masks = list(lungs.values())
    areas = sorted(float(mask.mean()) for mask in masks)
    thumb = thumbnail(square, lungs, typical_chest().box)
    measures = {
        "lungs": len(masks),
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


def judge(measures: Mapping[str, Any], config: QualityConfig, doubts: Iterable[str] = ()) -> tuple[str, list[str]]:
    """The status of a film, and why it is not accepted, in words: no reason for an accepted one, else one or more.

    Args:
        measures: as ``measure_lungs`` gives them, and ``agreement``, which is not judged where it is None.
        config: the thresholds.
        doubts: what the film's header holds against it.
    """
    chest = measures["likeness"]
    if chest < config.reject_likeness:
        return REJECTED, [*doubts, f"not an upright frontal chest film (likeness {chest:.2f})"]
    if measures["lungs"] == 0:
        return REVIEW, [*doubts, "no lung found"]
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
    agreement = 1.0 if measures["agreement"] is None else measures["agreement"]
    checks += [
        (agreement < config.min_agreement, f"opinions on the lungs differ (Dice {agreement:.2f})"),
        (measures["area"] < config.min_area, f"lungs are small ({100 * measures['area']:.0f} % of the film)"),
        (measures["side_contact"] > config.max_side_contact,
         f"lungs touch the side of the film ({100 * measures['side_contact']:.0f} % of its height)"),
        (measures["aspect"] > config.max_aspect, f"film of unusual proportions ({measures['aspect']:.1f} to 1)"),
        (measures["sharpness"] < config.min_sharpness, f"blurred (sharpness {measures['sharpness']:.3f})"),
    ]
    reasons = [*doubts] + [reason for fails, reason in checks if fails]
    return (REVIEW if reasons else ACCEPTED), reasons


def _sharpness(square: np.ndarray) -> float:
    """Deviation of what a Gaussian of 1.5 pixels takes away, over the deviation of the film; 0 for a film of one grey."""
    film = square.astype(np.float32)
    return float((film - cv2.GaussianBlur(film, (0, 0), 1.5)).std() / max(1.0, float(film.std())))
