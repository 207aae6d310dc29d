"""How well a network finds the lungs of a set of films: the measures of a film, and what they come to over all of them.

Shapes
    drawn   uint8 [height, width], the lungs as drawn by hand: 0 background, else the category id
    mask    bool [height, width], one lung
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
    values  float [films, measures], NaN where a measure is undefined
    map     float [2, 4, 3]: missed and excess area; quarters from apex to base; medial, middle and lateral third
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

from mask_rcnn.coco import CATEGORIES, RIGHT_LUNG, encode_mask, mask_box, new_dataset, to_xywh
from mask_rcnn.ensemble import Lung, label_mask
from mask_rcnn.metrics import box_iou, dice, iou, laterality_swapped, surface_distances

SIDES = {category: name.removesuffix("_lung") for category, name in CATEGORIES.items()}
LUNGS = (*SIDES.values(), "both")

# Of either lung and of both together. Distances: 95 % Hausdorff and mean surface distance; percent of the film's width.
MEASURES = ("dice", "iou", "hd95_px", "hd95_percent", "hd95_mm", "msd_px", "msd_mm")
OF_A_LUNG = ("box_iou", "score", "agreement")
COLUMNS = (
    *(f"{measure}_{lung}" for lung in LUNGS for measure in MEASURES),
    *(f"{measure}_{side}" for side in SIDES.values() for measure in OF_A_LUNG),
    "missed",
    "swapped",
)

RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap
RIGHT_IOU = 0.75  # of a found mask with the drawn one, from which its score should have been high


def measure_film(
    lungs: Mapping[int, Lung], drawn: np.ndarray, spacing: tuple[float, float] | None
) -> dict[str, float]:
    """The ``COLUMNS`` of one film.

    A lung that was missed has Dice and IoU 0 and NaN distances; NaN is also what is measured of a lung neither found nor
    drawn, and every length in millimetres without a spacing.

    Args:
        lungs: as found, disjoint, at the size of the drawn ones.
        drawn: uint8 [height, width].
        spacing: millimetres between rows and between columns.

    Returns:
        Lengths in pixels, in percent of the film's width and in mm. ``box_iou`` compares the found lung's box with the
        drawn one's; ``missed`` counts the drawn lungs that were not found; ``swapped`` is 1 where a lung bears the
        other's name.
    """
    found = label_mask(lungs, drawn.shape)
    row: dict[str, float] = {}
    for lung, pair in zip(LUNGS, [*((found == k, drawn == k) for k in SIDES), (found > 0, drawn > 0)], strict=True):
        hd95, msd = surface_distances(*pair)
        if spacing is None:
            hd95_mm = msd_mm = math.nan
        elif spacing[0] == spacing[1]:  # as nearly always; measuring again would take as long as all the rest
            hd95_mm, msd_mm = hd95 * spacing[0], msd * spacing[0]
        else:
            hd95_mm, msd_mm = surface_distances(*pair, spacing)
        of_pair = dice(*pair), iou(*pair), hd95, 100 * hd95 / drawn.shape[1], hd95_mm, msd, msd_mm
        row |= {f"{measure}_{lung}": value for measure, value in zip(MEASURES, of_pair, strict=True)}
    for category, side in SIDES.items():
        values = math.nan, math.nan, math.nan
        if category in lungs:
            lung_found, drawn_box = lungs[category], mask_box(drawn == category)
            tightness = box_iou(lung_found.box, drawn_box) if any(drawn_box) else math.nan
            values = tightness, lung_found.score, lung_found.agreement
        row |= {f"{measure}_{side}": value for measure, value in zip(OF_A_LUNG, values, strict=True)}
    row["missed"] = sum(bool((drawn == k).any() and not (found == k).any()) for k in SIDES)
    row["swapped"] = int(laterality_swapped(found, drawn))
    return row


def error_map(found: np.ndarray, drawn: np.ndarray, category: int) -> np.ndarray:
    """Where along a lung its errors lie, each in shares of the drawn area: what was missed, and what was found beyond it.

    Args:
        found, drawn: bool [height, width], the patient's lung of that category; something is drawn.

    Returns:
        A map over the drawn lung's box; what lies outside the box counts in the nearest cell.
    """
    if category == RIGHT_LUNG:  # whose medial side lies on the image's right
        found, drawn = found[:, ::-1], drawn[:, ::-1]
    y1, x1, y2, x2 = mask_box(drawn)
    errors = np.zeros((2, 4, 3))
    for counts, wrong in zip(errors, (drawn & ~found, found & ~drawn), strict=True):
        rows, columns = np.nonzero(wrong)
        down = np.clip((rows - y1) * 4 // (y2 - y1), 0, 3)
        across = np.clip((columns - x1) * 3 // (x2 - x1), 0, 2)
        np.add.at(counts, (down, across), 1)
    return errors / np.count_nonzero(drawn)


def dice_moved(found: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, float]:
    """Dice of a found and the drawn lung, bool [height, width], once the found one is moved by a small step.

    Returns:
        float [5], unmoved and moved to the image's left, right, up and down; and the step in percent of the film's width,
        about half of one but at least a pixel.
    """
    step = max(1, round(drawn.shape[1] / 200))
    overlaps = (
        found & drawn,
        found[:, step:] & drawn[:, :-step], found[:, :-step] & drawn[:, step:],
        found[step:] & drawn[:-step], found[:-step] & drawn[step:],
    )  # fmt: skip
    dices = 2 * np.array([np.count_nonzero(overlap) for overlap in overlaps]) / (found.sum() + drawn.sum())
    return dices, 100 * step / drawn.shape[1]


def drawn_offset(moved: Sequence[tuple[np.ndarray, float]]) -> dict[str, float] | None:
    """How far the drawn lungs of a set lie beside those that are found: the one move of all found lungs that fits best.

    Drawings that were reduced in size otherwise than their films, as by taking every n-th pixel, lie half a pixel beside
    them. The mean Dice is taken for a parabola of the move.

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


def is_right(category: int, mask: np.ndarray, drawn: np.ndarray) -> bool:
    """Whether a found mask has an IoU of ``RIGHT_IOU`` or more with the drawn lung of its category."""
    return iou(mask, drawn == category) >= RIGHT_IOU


def coco_result(image_id: int, category: int, lung: Lung) -> dict[str, Any]:
    """One detection in COCO's results format."""
    return {"image_id": image_id, "category_id": category, "score": lung.score,
            "bbox": to_xywh(lung.box), "segmentation": encode_mask(lung.mask)}


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

    Films are drawn with replacement ``RESAMPLES`` times, the same ones for all measures and, of equally many films, for
    every network. They count as independent: where a patient has several films, the intervals are too narrow.

    Args:
        values: float [films, measures]; the mean is over the films that have one.
        seed: of the draws.

    Returns:
        float [2, measures]: the lower and upper ends of the ``LEVEL`` intervals; NaN where no film has a value.
    """
    rng = np.random.default_rng(seed)
    defined = ~np.isnan(values)
    filled, counted = np.where(defined, values, 0.0), defined.astype(np.float64)
    means = []
    for _ in range(0, RESAMPLES, 100):  # how often each film was drawn: all at once would be gigabytes of many films
        draws = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), 100).astype(np.float64)
        count = draws @ counted
        means.append(np.where(count > 0, draws @ filled / np.maximum(count, 1), np.nan))
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
        annotations: the drawn lungs.
        results: the found ones, as ``coco_result`` gives them.

    Returns:
        For ``mask`` and ``box``: ``ap``, the mean over IoU thresholds 0.50, 0.55, ..., 0.95, ``ap50`` and ``ap75``. None
        where no lung is drawn or the results have no scores.
    """
    if not annotations or any(math.isnan(result["score"]) for result in results):
        return None
    if not results:
        return {kind: {"ap": 0.0, "ap50": 0.0, "ap75": 0.0} for kind in ("mask", "box")}
    precisions = {}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress line by line
        drawn = COCO()
        drawn.dataset = new_dataset("patient", {}) | {"images": list(images), "annotations": list(annotations)}
        drawn.createIndex()
        found = drawn.loadRes(list(results))
        for kind, name in (("mask", "segm"), ("box", "bbox")):
            run = COCOeval(drawn, found, name)
            run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
            run.evaluate()
            run.accumulate()
            # [thresholds, recalls, categories, areas, most detections]; -1 of a lung that is drawn nowhere.
            of_lungs = run.eval["precision"][..., 0, -1]
            precisions[kind] = of_lungs[:, :, (of_lungs >= 0).all(axis=(0, 1))].mean(axis=(1, 2))
    return {
        kind: {"ap": float(by_iou.mean()), "ap50": float(by_iou[0]), "ap75": float(by_iou[5])}
        for kind, by_iou in precisions.items()
    }
