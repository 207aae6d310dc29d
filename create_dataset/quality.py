"""Measures of the lungs that the U-Nets find: those of any lungs (``mask_rcnn.checks.quality``), and their agreement.

Shapes
    square    uint8 [256, 256], the film stretched to the U-Net's square, not equalised
    votes     float [members, 256, 256] in [0, 1], each member's probability that a pixel is lung
    mirrored  float [members, 256, 256], the members' probabilities on the mirrored film, mirrored back
    lungs     {category id: bool [256, 256]}
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from create_dataset.lungs import find_small_lungs
from mask_rcnn.checks.quality import measure_lungs
from mask_rcnn.utils import dice


def measure(
    square: np.ndarray,
    votes: np.ndarray,
    mirrored: np.ndarray | None,
    lungs: Mapping[int, np.ndarray],
    laterality: str = "patient",
    aspect: float = 1.0,
) -> dict[str, float]:
    """``measure_lungs``, and ``agreement``: the mean Dice of the lungs between all predictions, of members and of the
    mirrored film; 0 where none holds a lung.

    Args:
        lungs: as ``find_small_lungs`` gives them for ``votes``.
        laterality: of ``lungs``.
        aspect: the film's width over its height.
    """
    measures = measure_lungs(square, lungs, aspect)
    agreement = round(_agreement(votes, mirrored, lungs, laterality), 4)
    return {"lungs": measures["lungs"], "agreement": agreement, **measures}


def _agreement(
    votes: np.ndarray, mirrored: np.ndarray | None, lungs: Mapping[int, np.ndarray], laterality: str
) -> float:
    """Mean Dice over the pairs of predictions and over the lungs that either of a pair holds."""
    predictions: list[Mapping[int, np.ndarray]]
    predictions = [lungs] if len(votes) == 1 else [find_small_lungs(vote[None], laterality) for vote in votes]
    if mirrored is not None:
        predictions += [find_small_lungs(vote[None], laterality) for vote in mirrored]
    if len(predictions) == 1:
        return float(len(lungs) > 0)
    pairs = [
        dice(one[category], other[category]) if category in one and category in other else 0.0
        for one, other in combinations(predictions, 2)
        for category in {*one, *other}
    ]
    return float(np.mean(pairs)) if pairs else 0.0
