"""The lateral third: by it drawings that hold the heart are compared with lungs that do not.

Its definition is that of the data's description (``dataset.conventions.lateral_band``): row by row, from the drawn lung's
lateral edge over 35 % of its drawn width. Within it two groups of readers of 61 bedside films agree at 0.96.

Shapes
    found   bool [height, width], one lung
    drawn   bool [height, width], the same lung as drawn
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.dataset.conventions import lateral_band
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.lungs import CATEGORIES, SIDES

COLUMNS = tuple(f"third_{side}" for side in SIDES.values())


def lateral_dice(found: np.ndarray, drawn: np.ndarray, category: int) -> float:
    """Dice within the lateral third of a drawn lung; NaN where neither has a pixel there."""
    band = lateral_band(drawn, category)
    return dice(found & band, drawn & band)


def lung_dices(found: np.ndarray, drawn: np.ndarray, holds_heart: bool) -> list[float]:
    """The Dice of either lung, in the order of ``CATEGORIES``; NaN of one neither found nor drawn.

    Args:
        found, drawn: uint8 [height, width], 0 background, else the category id.
        holds_heart: whether the drawings hold the heart, so that the lateral thirds alone are compared.
    """
    pairs = {category: (found == category, drawn == category) for category in CATEGORIES}
    return [lateral_dice(*pair, category) if holds_heart else dice(*pair) for category, pair in pairs.items()]


def measure_thirds(lungs: Mapping[int, Lung], drawn: np.ndarray) -> dict[str, float]:
    """``COLUMNS`` of one film: the lateral Dice of either lung; NaN of one neither found nor drawn.

    Args:
        lungs: as found, disjoint, at the size of the drawn ones.
        drawn: uint8 [height, width], 0 background, else the category id.
    """
    found = label_mask(lungs, drawn.shape)
    return {column: lateral_dice(found == category, drawn == category, category)
            for column, category in zip(COLUMNS, SIDES, strict=True)}
