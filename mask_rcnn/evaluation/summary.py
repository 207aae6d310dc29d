"""What the measures of all films of a set come to.

Shapes
    values  float [films, measures], NaN where a measure is undefined
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask_rcnn.dataset.coco import new_dataset
from mask_rcnn.evaluation.film import LUNGS, MEASURES, RIGHT_IOU

RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap


def drawn_offset(moved: Sequence[tuple[np.ndarray, float]]) -> dict[str, float] | None:
    """How far the annotations of a set are offset from the predictions: the one move of all predictions that fits best.

    Masks that were reduced in size otherwise than their films, as by taking every n-th pixel, are offset by half a pixel.
    The mean Dice is taken for a parabola of the move.

    Args:
        moved: of every lung what ``dice_moved`` gives.

    Returns:
        ``right`` and ``down`` on the image, in percent of a film's width, and ``dice_gained``, by how much the parabola's
        top lies above the mean Dice unmoved; None where it has no top within the step.
    """
    if not moved:
        return None
    unmoved, left, right, up, down = np.mean([dices for dices, _ in moved], axis=0)
    step, moves, gained = float(np.mean([step for _, step in moved])), [], 0.0
    for before, after in ((left, right), (up, down)):
        curvature, slope = (before + after) / 2 - unmoved, (after - before) / 2
        if not abs(slope) < -2 * curvature:
            return None
        moves.append(float(-slope / (2 * curvature)) * step)
        gained -= float(slope**2 / (4 * curvature))
    return {"right": moves[0], "down": moves[1], "dice_gained": gained}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the films of one network come to.

    Args:
        rows: ``COLUMNS`` and ``film``, the film's name.

    Returns:
        For each lung and measure the ``mean`` over the films where it is defined, its ``interval`` by
        ``bootstrap_intervals``, the ``median``, the ``worst`` value, the ``worst_film``, and on how many films it is
        ``undefined``; None where it is so on all. Beside them ``films`` and the sums ``missed`` and ``swapped``.
    """
    names = [(lung, measure) for lung in LUNGS for measure in (*MEASURES, *(("box_iou",) if lung != "both" else ()))]
    values = np.array([[row[f"{measure}_{lung}"] for lung, measure in names] for row in rows], np.float64)
    intervals = bootstrap_intervals(values)
    summary: dict[str, Any] = {"films": len(rows)} | {lung: {} for lung in LUNGS}
    for k, (lung, measure) in enumerate(names):
        defined = np.flatnonzero(~np.isnan(values[:, k]))
        of_films: dict[str, Any] = dict.fromkeys(("mean", "interval", "median", "worst", "worst_film"))
        if len(defined):
            column = values[defined, k]
            worst = int(np.argmin(column) if measure.endswith(("dice", "iou")) else np.argmax(column))
            of_films = {"mean": float(column.mean()), "interval": intervals[:, k].tolist(),
                        "median": float(np.median(column)), "worst": float(column[worst]),
                        "worst_film": rows[defined[worst]]["film"]}
        summary[lung][measure] = of_films | {"undefined": len(rows) - len(defined)}
    return summary | {key: int(sum(row[key] for row in rows)) for key in ("missed", "swapped")}


def bootstrap_intervals(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Percentile intervals of the means over films (Efron and Tibshirani, An introduction to the bootstrap, 1993, ch. 13).

    Films are sampled with replacement ``RESAMPLES`` times, the same ones for all measures and, of equally many films, for
    every network. They count as independent: where a patient has several films, the intervals are too narrow.

    Args:
        values: float [films, measures]; the mean is over the films that have one.
        seed: of the samples.

    Returns:
        float [2, measures]: the lower and upper ends of the ``LEVEL`` intervals; NaN where no film has a value.
    """
    rng = np.random.default_rng(seed)
    defined = ~np.isnan(values)
    filled, counted = np.where(defined, values, 0.0), defined.astype(np.float64)
    means = []
    for _ in range(0, RESAMPLES, 100):  # how often each film is sampled: all at once would be gigabytes of many films
        samples = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), 100).astype(np.float64)
        count = samples @ counted
        means.append(np.where(count > 0, samples @ filled / np.maximum(count, 1), np.nan))
    resampled = np.concatenate(means)
    ends = np.full((2, values.shape[1]), np.nan)
    known = defined.any(axis=0)
    if known.any():
        tail = 50 * (1 - LEVEL)
        ends[:, known] = np.nanpercentile(resampled[:, known], [tail, 100 - tail], axis=0)
    return ends


def calibration(scores: Sequence[float], right: Sequence[bool]) -> dict[str, Any] | None:
    """Whether scores are the share of detections that are right (Guo et al., On calibration of modern neural networks,
    ICML 2017, section 2): of each bin of 0.1, its upper end inside, and the expected calibration error over all.

    Returns:
        ``expected_calibration_error``, and in ``bins`` how many ``detections`` each has, their mean ``score`` and the
        share that is ``right``. None where there are no detections or they have no scores.
    """
    if not len(scores) or np.isnan(scores).any():
        return None
    values, truths = np.asarray(scores, np.float64), np.asarray(right, bool)
    numbers = np.digitize(values, np.arange(1, 10) / 10, right=True)
    bins, error = [], 0.0
    for number in range(10):
        inside = numbers == number
        count = int(inside.sum())
        score, share = (float(values[inside].mean()), float(truths[inside].mean())) if count else (None, None)
        bins.append({"from": number / 10, "to": (number + 1) / 10, "detections": count, "score": score, "right": share})
        if score is not None and share is not None:
            error += count / len(values) * abs(share - score)
    return {"right_from_iou": RIGHT_IOU, "expected_calibration_error": error, "bins": bins}


def average_precision(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]
) -> dict[str, dict[str, float]] | None:
    """COCO's average precision (Lin et al., ECCV 2014), by its own ``pycocotools``, the mean of left and right lung.

    Args:
        images: COCO's records, of all films.
        annotations: the annotated lungs.
        results: the found ones, as ``coco_result`` gives them.

    Returns:
        For ``mask`` and ``box``: ``ap``, the mean over IoU thresholds 0.50, 0.55, ..., 0.95, ``ap50`` and ``ap75``. None
        where no lung is annotated or the results have no scores.
    """
    if not annotations or any(math.isnan(result["score"]) for result in results):
        return None
    if not results:
        return {kind: {"ap": 0.0, "ap50": 0.0, "ap75": 0.0} for kind in ("mask", "box")}
    precisions = {}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress line by line
        annotated = COCO()
        annotated.dataset = new_dataset("patient", {}) | {"images": list(images), "annotations": list(annotations)}
        annotated.createIndex()
        found = annotated.loadRes(list(results))
        for kind, name in (("mask", "segm"), ("box", "bbox")):
            run = COCOeval(annotated, found, name)
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            run.evaluate()
            run.accumulate()
            # [thresholds, recalls, categories, areas, most detections]; -1 of a lung that is annotated nowhere.
            of_lungs = run.eval["precision"][..., 0, -1]
            precisions[kind] = of_lungs[:, :, (of_lungs >= 0).all(axis=(0, 1))].mean(axis=(1, 2))
    return {
        kind: {"ap": float(by_iou.mean()), "ap50": float(by_iou[0]), "ap75": float(by_iou[5])}
        for kind, by_iou in precisions.items()
    }
