"""A lung as the bag finds it, and all lungs of a film as one label mask.

Shapes
    mask    bool [height, width], one lung
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Box = tuple[int, int, int, int]


class Lung(NamedTuple):
    """One lung of one film as the bag sees it."""

    mask: np.ndarray  # bool [height, width], at the film's own size
    box: Box  # tight around the mask
    score: float  # mean of the members that found it
    votes: int  # members that found it
    agreement: float  # mean Dice over all pairs of these members; NaN where only one found it


def label_mask(lungs: Mapping[int, Lung], shape: tuple[int, ...]) -> np.ndarray:
    """The lungs as one label mask, uint8 [height, width]: 0 background, else the category id."""
    labels = np.zeros(shape, np.uint8)
    for category, lung in lungs.items():
        labels[lung.mask] = category
    return labels
