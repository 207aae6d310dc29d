"""Bagging: what several trained networks predict on one film, voted into one left and one right lung.

Bagging after Breiman (Bagging predictors, Machine Learning 24, 1996), whose members differ by their training films.

Shapes
    masks   bool [n, height, width], one lung as n members predict it; soft ones float32, probabilities
    support [height, width], how many members predict lung at a pixel, or their mean probability
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.agreement import agreement
from mask_rcnn.bag.lung import Box, Lung
from mask_rcnn.config import BagConfig
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import mask_box


def bag_film(members: Sequence[Mapping[str, Any]], bag: BagConfig) -> dict[int, Lung]:
    """The lungs of one film, from what every member detected on it.

    Of each member the best-scoring detection of each class counts. A pixel is lung where enough of those members predict
    it that found the lung, or all of them where they are fewer; the voted mask is opened with a square, and its largest
    part (8-connected) is kept. A pixel that both bagged lungs claim goes to the one with more votes there, then to the one
    of the higher score, so the masks are disjoint.

    Args:
        members: one detection a member, as ``MaskRCNN.detect`` gives it; its masks may be soft.
        bag: how pixels are merged, and the opening. Fewer members than it plans for need
            ``majority(len(members), bag.min_votes)`` votes. Probabilities can be averaged of soft masks only.

    Returns:
        The lungs found, by category id; a lung that no member found, or of which the vote leaves no pixel, is absent.
    """
    min_votes = majority(len(members), bag.min_votes)
    lungs, support = {}, {}
    for category in CATEGORIES:
        found = [(member, k) for member in members if (k := best_detection(member, category)) is not None]
        if not found:
            continue
        height, width = found[0][0]["masks"].shape[:2]
        windows = np.stack([member["windows"][k] for member, k in found])
        scores = np.array([member["scores"][k] for member, k in found], np.float64)
        # All work is done within the union of the windows: on a film of 10 megapixels that is several times less.
        margin = bag.opening
        top, left = np.maximum(windows.min(axis=0)[:2] - margin, 0)
        bottom, right = np.minimum(windows.max(axis=0)[2:] + margin, (height, width))
        window = (slice(top, bottom), slice(left, right))
        cropped = [member["masks"][window[0], window[1], k] for member, k in found]
        masks = [_harden(mask) for mask in cropped]
        by_votes = bag.pixels == "votes"
        counted = _count_votes(masks) if by_votes else np.mean(cropped, axis=0)
        enough = min(min_votes, len(masks)) if by_votes else 0.5
        cleaned = _clean(counted >= enough, bag.opening)
        if cleaned.any():
            mask, support[category] = np.zeros((height, width), bool), np.zeros((height, width), counted.dtype)
            mask[window], support[category][window] = cleaned, counted
            y1, x1, y2, x2 = mask_box(cleaned)
            box = int(top) + y1, int(left) + x1, int(top) + y2, int(left) + x2
            lungs[category] = Lung(mask, box, float(scores.mean()), len(found), agreement(masks))
    return _make_disjoint(lungs, support)


def mean_masks(members: Sequence[Mapping[str, Any]]) -> dict[int, np.ndarray]:
    """The members' averaged masks of one film: float32 [height, width], probabilities, by category id.

    As in ``bag_film``, the mean is over the members that found the lung, of each its best-scoring detection; a lung that no
    member found is absent. It is neither cleaned nor made disjoint.

    Args:
        members: as for ``bag_film``; their masks are soft.
    """
    means = {}
    for category in CATEGORIES:
        found = [member["masks"][..., k] for member in members if (k := best_detection(member, category)) is not None]
        if found:
            total = found[0].copy()
            for mask in found[1:]:
                total += mask
            means[category] = total / np.float32(len(found))
    return means


def majority(member_count: int, min_votes: int) -> int:
    """The votes that a pixel needs: ``min_votes``, but of few members no more than a majority of them.

    With ``min_votes`` 3, as published for five members: 1 of 1, 2 of 2, 2 of 3, 3 of 4, 3 of 5.
    """
    return min(min_votes, member_count // 2 + 1)


def member_lungs(detection: Mapping[str, Any]) -> dict[int, tuple[np.ndarray, Box]]:
    """A member's own lungs by category id, its best detection of each: bool [height, width], empty outside the box."""
    best = {category: best_detection(detection, category) for category in CATEGORIES}
    return {
        category: (_harden(detection["masks"][..., k]), tuple(detection["windows"][k].tolist()))
        for category, k in best.items() if k is not None
    }  # fmt: skip


def best_detection(detection: Mapping[str, Any], category: int) -> int | None:
    """The place of the best-scoring detection of a category; None where there is none."""
    of_category = np.flatnonzero(np.asarray(detection["class_ids"]) == category)
    return int(of_category[np.argmax(detection["scores"][of_category])]) if len(of_category) else None


def _harden(mask: np.ndarray) -> np.ndarray:
    """Probabilities as a mask; a mask as it is, since comparing it would make numbers of it first."""
    return mask if mask.dtype == bool else mask >= 0.5


def _count_votes(masks: Sequence[np.ndarray]) -> np.ndarray:
    votes = np.zeros(masks[0].shape, np.uint8)
    for mask in masks:  # five additions of bytes are ten times as fast as masks.sum(0)
        votes += mask.view(np.uint8)
    return votes


def _clean(mask: np.ndarray, opening: int) -> np.ndarray:
    """The largest part of a mask, opened with a square of ``opening`` pixels a side."""
    square = np.ones((opening, opening), np.uint8)
    # Erosion takes the anchor opening // 2, and the mirrored anchor makes dilation its counterpart. OpenCV's opening,
    # which the reference calls, takes the same anchor for both: for an even square that moves the mask one pixel down and
    # right, which costs a perfect lung 0.025 Dice on films of 224 pixels (JSRT, mean).
    corner = opening - 1 - opening // 2
    opened = cv2.dilate(cv2.erode(mask.view(np.uint8), square), square, anchor=(corner, corner))
    # Their outlines tell in a tenth of the time whether there are several parts; those without a parent are no holes.
    outlines, hierarchy = cv2.findContours(opened, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines or np.count_nonzero(hierarchy[0, :, 3] < 0) == 1:
        return opened.view(bool)
    _, parts = cv2.connectedComponents(opened, connectivity=8)
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def _make_disjoint(lungs: dict[int, Lung], support: Mapping[int, np.ndarray]) -> dict[int, Lung]:
    if len(lungs) < 2:
        return lungs
    left, right = lungs[LEFT_LUNG], lungs[RIGHT_LUNG]
    top, start = np.maximum(left.box[:2], right.box[:2])
    bottom, end = np.minimum(left.box[2:], right.box[2:])
    shared = slice(top, max(top, bottom)), slice(start, max(start, end))
    both = left.mask[shared] & right.mask[shared]
    if not both.any():
        return lungs
    for_left, for_right = support[LEFT_LUNG][shared], support[RIGHT_LUNG][shared]
    tie_to_left = left.score >= right.score
    to_left = both & ((for_left > for_right) | ((for_left == for_right) & tie_to_left))
    left.mask[shared] &= to_left | ~both
    right.mask[shared] &= ~to_left
    masks = {LEFT_LUNG: left.mask, RIGHT_LUNG: right.mask}
    return {
        category: lungs[category]._replace(mask=mask, box=mask_box(mask))
        for category, mask in masks.items()
        if mask.any()
    }
