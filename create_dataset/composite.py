"""Whole lungs from drawings that hold the heart: their outer edge, apex and base, and the inner edge that a network finds.

Each row of a drawn lung is lung from its lateral edge over some share of its width. Where the network found the lung, its
medial edge there tells the share; where it found nothing, as in opaque lung, or far less than in the rows around, those
rows tell it. What the heart takes is taken away, but no row has less than the drawings are trusted for: opaque lung beside
a heart looks like heart to a network, and nearly half of 1,282 children's left lungs had lost more than a tenth of their
lateral band to it.

Shapes
    drawn   bool [height, width], one lung, the heart drawn in
    found   bool [height, width], the same lung as a network found it
    heart   bool [height, width], the heart, not widened
    shares  float [rows], of each drawn row's width, from its lateral edge; NaN where it is not known
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import median_filter, uniform_filter1d

from create_dataset.lungs import parts_of
from mask_rcnn.dataset.conventions import LEARNT_SHARE, lateral_band
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import row_edges

ROWS = 0.1  # of a lung's height: over so many rows the shares are compared and smoothed
SPIKES = 0.01  # of a lung's height: what is narrower than twice that is no part of it
MIN_FOUND = 0.5  # of the share of the rows around: where less was found, the network missed it


def compose(drawn: np.ndarray, found: np.ndarray, heart: np.ndarray, category: int) -> np.ndarray:
    """The lung without the heart, bool [height, width]; nothing beyond the drawn lung.

    Args:
        drawn, found, heart: of one film; nothing may be found.
        category: the lung's.
    """
    if category == RIGHT_LUNG:
        return compose(drawn[:, ::-1], found[:, ::-1], heart[:, ::-1], LEFT_LUNG)[:, ::-1]
    rows, first, end = row_edges(drawn)
    if not len(rows):
        return np.zeros(drawn.shape, bool)
    within = found & drawn
    begin = np.where(within[rows].any(axis=1), within[rows].argmax(axis=1), -1)
    shares = np.where(begin >= 0, (end - begin) / (end - first), np.nan)
    shares = completed(shares)
    limits = end - shares * (end - first)
    lung = np.zeros(drawn.shape, bool)
    lung[rows] = drawn[rows] & (np.arange(drawn.shape[1]) + 0.5 >= limits[:, None])
    return in_one_piece((lung & ~heart) | (drawn & lateral_band(drawn, LEFT_LUNG, LEARNT_SHARE)))


def in_one_piece(lung: np.ndarray) -> np.ndarray:
    """The largest part of a lung, bool [height, width], without its spikes."""
    radius = round(SPIKES * np.count_nonzero(lung.any(axis=1)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    smooth = cv2.morphologyEx(lung.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    return next(parts_of(smooth), np.zeros(lung.shape, bool))


def completed(shares: np.ndarray) -> np.ndarray:
    """The shares of all rows, those that are not known or fall far short of the rows around from their neighbours."""
    known = np.flatnonzero(~np.isnan(shares))
    if not len(known):
        return np.ones(len(shares))  # nobody knows better than the drawing
    filled = np.interp(np.arange(len(shares)), known, shares[known])
    usual = median_filter(filled, 2 * max(1, round(1.5 * ROWS * len(shares))) + 1, mode="nearest")
    known = np.flatnonzero(~np.isnan(shares) & (filled >= MIN_FOUND * usual))
    filled = np.interp(np.arange(len(shares)), known, shares[known]) if len(known) else usual
    smooth = uniform_filter1d(filled, max(1, round(0.3 * ROWS * len(shares))), mode="nearest")
    result: np.ndarray = np.clip(smooth, LEARNT_SHARE, 1)
    return result
