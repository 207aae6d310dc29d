"""From what the members predict on a film to its lungs, label mask and record: the step that every user of a bag shares.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.bag.members import Member, paste
from mask_rcnn.bag.risk import SIDE, film_risk, small_masks, stretched
from mask_rcnn.bag.vote import bag_film, mean_masks, member_lungs
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.radiograph import Radiograph
from mask_rcnn.prediction import Prediction
from mask_rcnn.results.page.tracing import trace
from mask_rcnn.results.records import result_record


class FilmResult(NamedTuple):
    """What the bag finds on a film."""

    lungs: dict[int, Lung]  # by category id
    labels: np.ndarray  # uint8 [height, width], at the film's size
    record: Mapping[str, Any]  # as ``result_record`` makes it
    probabilities: Mapping[int, np.ndarray] = {}  # as ``mean_masks`` gives them, where they are wanted


def film_result(
    members: Sequence[Member], film: Radiograph, equalised: np.ndarray, square: np.ndarray, inverted: bool,
    predictions: Sequence[Prediction], with_probabilities: bool = False,
) -> FilmResult:  # fmt: skip
    """Pastes the members' masks, votes, and makes the label mask and the film's record.

    Args:
        members: of the bag.
        film: as it was read, its bones white.
        equalised: the same, as the members saw it.
        square: the film, as ``stretch_to_square`` gives it.
        inverted: whether its bones are black in its file.
        predictions: one a member.
        with_probabilities: whether the result has them.

    Raises:
        InferenceError: there is too little memory.
    """
    shape = film.pixels.shape
    config = members[0].network.config
    detections = paste(members, predictions, shape, soft=True if with_probabilities else None)
    lungs = bag_film(detections, config.bag)
    labels = label_mask(lungs, shape)
    outlines = [
        {str(category): trace(*lung) for category, lung in member_lungs(detection).items()} for detection in detections
    ]
    risk = math.nan
    if len(members) > 1:
        risk = film_risk(stretched(equalised), *small_masks(paste(members, predictions, (SIDE, SIDE), soft=True)))
    record = result_record(
        film, equalised, square, inverted, lungs, labels, len(members), config.laterality, risk, outlines
    )
    means = mean_masks(detections) if with_probabilities else {}
    return FilmResult(lungs, labels, record, means)


def recorded_result(record: Mapping[str, Any]) -> FilmResult:
    """The same from a film's record, without a network; scores and agreement are rounded to 6 digits there."""
    lungs = {
        int(category): Lung(
            decode_mask(lung["segmentation"]), tuple(lung["box"]), lung["score"], lung["votes"],
            float("nan") if lung["agreement"] is None else lung["agreement"],
        )
        for category, lung in record["lungs"].items()
    }  # fmt: skip
    return FilmResult(lungs, label_mask(lungs, (record["height"], record["width"])), record)
