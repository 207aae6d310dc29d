"""A film's record: all that the tables hold of it, a line of the journal.

COCO results and measurements are made of records alone, so a stopped run loses the films at hand and nothing else. Whether a
film is for review is judged again from its record's measures, so that thresholds can change.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.agreement import film_agreement
from mask_rcnn.bag.lung import Lung
from mask_rcnn.checks.chest import SIDE
from mask_rcnn.checks.quality import judge, measure_lungs
from mask_rcnn.config import BagConfig, QualityConfig
from mask_rcnn.dataset.run_lengths import encode_mask
from mask_rcnn.films.radiograph import Radiograph
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.geometry import apex, costophrenic_point, outline_steps
from mask_rcnn.utils import centroid

# What the journal has of a film besides its id and its file's version and digest. Records of older programs have no more
# than this: no risk, spacing, outline, landmarks and intensity.
KEYS = frozenset({"result", "height", "width", "inverted", "turned", "doubts", "agreement", "measures", "lungs"})


def result_record(
    film: Radiograph, equalised: np.ndarray, square: np.ndarray, inverted: bool, lungs: Mapping[int, Lung], labels: np.ndarray, members: int,
    laterality: str, risk: float = math.nan, outlines: Sequence[Mapping[str, list[list[int]]]] = (),
) -> dict[str, Any]:  # fmt: skip
    """All that the tables hold of a film, fit for JSON.

    Args:
        film: as it was read, its bones white; a turned one lies otherwise in its file.
        equalised: the film, as the networks see it.
        square: the film, as ``stretch_to_square`` gives it.
        inverted: whether its bones are black there.
        lungs: as the bag found them.
        labels: the same, at the film's size.
        members: the number of networks, whatever they found.
        laterality: what the lungs' names mean, ``patient`` or ``image``.
        risk: that a lung is wrong, as ``film_risk`` gives it; NaN where nobody can tell.
        outlines: of each member's own lungs, polygons by category id, for the page; records of older programs have none.
    """
    pixels, spacing, turned, doubts, calibration = film
    height, width = pixels.shape
    small = resize_labels(labels, SIDE, SIDE)
    masks = {category: small == category for category in CATEGORIES if (small == category).any()}
    return {
        "height": height,
        "width": width,
        "inverted": inverted,
        "turned": turned,
        "doubts": list(doubts),
        "spacing": spacing and list(spacing),
        "calibration": calibration and calibration._asdict(),
        "agreement": _rounded(film_agreement(lungs, members)),
        "risk": _rounded(risk),
        "outlines": list(outlines),
        "measures": measure_lungs(square, masks, width / height),
        "lungs": {
            str(category): _lung_record(lung, category, laterality, equalised) for category, lung in lungs.items()
        },
    }


def _lung_record(lung: Lung, category: int, laterality: str, equalised: np.ndarray) -> dict[str, Any]:
    y1, x1, y2, x2 = lung.box
    mask = lung.mask[y1:y2, x1:x2]

    def on_film(point: tuple[float, float]) -> list[float]:
        return [y1 + point[0], x1 + point[1]]

    return {
        "score": round(lung.score, 6),
        "votes": lung.votes,
        "agreement": _rounded(lung.agreement),
        "area": int(np.count_nonzero(mask)),
        "centroid": [round(value, 2) for value in on_film(centroid(mask))],
        "box": list(lung.box),
        "segmentation": encode_mask(lung.mask),
        "outline": list(outline_steps(mask)),
        "apex": on_film(apex(mask)),
        "costophrenic": on_film(costophrenic_point(mask, category, laterality)),
        "intensity": round(cv2.mean(equalised[y1:y2, x1:x2], mask.astype(np.uint8))[0], 3),
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def review_reasons(record: Mapping[str, Any], quality: QualityConfig, bag: BagConfig) -> list[str]:
    """Why a person should review a film's result; empty where there is no reason.

    Args:
        record: as ``result_record`` makes it.
        quality: the thresholds of the checks, its ``min_agreement`` aside, which is the U-Nets'.
        bag: its thresholds.
    """
    measures = {**record["measures"], "agreement": record["agreement"]}
    reasons = judge(measures, replace(quality, min_agreement=bag.min_agreement), record["doubts"])[1]
    risk = record.get("risk")  # None of a single network, and in records of older programs
    if risk is not None and risk > bag.max_risk:
        reasons.append(f"a lung is probably wrong (risk {risk:.2f})")
    return reasons
