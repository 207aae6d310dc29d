"""The measures of one film: its predicted lungs beside the annotated ones.

Shapes
    annotated  uint8 [height, width], the lungs as annotated by hand: 0 background, else the category id
    mask       bool [height, width], one lung
    box        (y1, x1, y2, x2) pixels, the lower right corner outside
    map        float [2, 4, 3]: missed and excess area; quarters from apex to base; medial, middle and lateral third
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.dataset.coco import to_xywh
from mask_rcnn.dataset.run_lengths import encode_mask
from mask_rcnn.evaluation.overlap import box_iou, dice, iou, laterality_swapped, surface_distances
from mask_rcnn.lungs import RIGHT_LUNG, SIDES
from mask_rcnn.utils import mask_box

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
RIGHT_IOU = 0.75  # of a found mask with the annotated one, from which its score should have been high


def measure_film(
    lungs: Mapping[int, Lung], annotated: np.ndarray, spacing: tuple[float, float] | None
) -> dict[str, float]:
    """The ``COLUMNS`` of one film.

    A lung that was missed has Dice and IoU 0 and NaN distances; NaN is also what is measured of a lung neither found nor
    annotated, and every length in millimetres without a spacing.

    Args:
        lungs: as found, disjoint, at the size of the annotations.
        annotated: uint8 [height, width].
        spacing: millimetres between rows and between columns.

    Returns:
        Lengths in pixels, in percent of the film's width and in mm. ``box_iou`` compares the found lung's box with the
        annotated one's; ``missed`` counts the annotated lungs that were not found; ``swapped`` is 1 where a lung bears the
        other's name.
    """
    found = label_mask(lungs, annotated.shape)
    row: dict[str, float] = {}
    for lung, pair in zip(LUNGS, [*((found == k, annotated == k) for k in SIDES), (found > 0, annotated > 0)], strict=True):
        hd95, msd = surface_distances(*pair)
        if spacing is None:
            hd95_mm = msd_mm = math.nan
        elif spacing[0] == spacing[1]:  # as nearly always; measuring again would take as long as all the rest
            hd95_mm, msd_mm = hd95 * spacing[0], msd * spacing[0]
        else:
            hd95_mm, msd_mm = surface_distances(*pair, spacing)
        of_pair = dice(*pair), iou(*pair), hd95, 100 * hd95 / annotated.shape[1], hd95_mm, msd, msd_mm
        row |= {f"{measure}_{lung}": value for measure, value in zip(MEASURES, of_pair, strict=True)}
    for category, side in SIDES.items():
        values = math.nan, math.nan, math.nan
        if category in lungs:
            lung_found, annotated_box = lungs[category], mask_box(annotated == category)
            tightness = box_iou(lung_found.box, annotated_box) if any(annotated_box) else math.nan
            values = tightness, lung_found.score, lung_found.agreement
        row |= {f"{measure}_{side}": value for measure, value in zip(OF_A_LUNG, values, strict=True)}
    row["missed"] = sum(bool((annotated == k).any() and not (found == k).any()) for k in SIDES)
    row["swapped"] = int(laterality_swapped(found, annotated))
    return row


def error_map(found: np.ndarray, annotated: np.ndarray, category: int) -> np.ndarray:
    """Where along a lung its errors lie, in shares of the annotated area: what was missed, and what is beyond it.

    Args:
        found, annotated: bool [height, width], the patient's lung of that category; something is annotated.

    Returns:
        A map over the annotated lung's box; what lies outside the box counts in the nearest cell.
    """
    if category == RIGHT_LUNG:  # whose medial side lies on the image's right
        found, annotated = found[:, ::-1], annotated[:, ::-1]
    y1, x1, y2, x2 = mask_box(annotated)
    errors = np.zeros((2, 4, 3))
    for counts, wrong in zip(errors, (annotated & ~found, found & ~annotated), strict=True):
        rows, columns = np.nonzero(wrong)
        down = np.clip((rows - y1) * 4 // (y2 - y1), 0, 3)
        across = np.clip((columns - x1) * 3 // (x2 - x1), 0, 2)
        np.add.at(counts, (down, across), 1)
    return errors / np.count_nonzero(annotated)


def dice_moved(found: np.ndarray, annotated: np.ndarray) -> tuple[np.ndarray, float]:
    """Dice of a found and the annotated lung, bool [height, width], once the found one is moved by a small step.

    Returns:
        float [5], unmoved and moved to the image's left, right, up and down; and the step in percent of the film's width,
        about half of one but at least a pixel.
    """
    step = max(1, round(annotated.shape[1] / 200))
    overlaps = (
        found & annotated,
        found[:, step:] & annotated[:, :-step], found[:, :-step] & annotated[:, step:],
        found[step:] & annotated[:-step], found[:-step] & annotated[step:],
    )  # fmt: skip
    dices = 2 * np.array([np.count_nonzero(overlap) for overlap in overlaps]) / (found.sum() + annotated.sum())
    return dices, 100 * step / annotated.shape[1]


def is_right(category: int, mask: np.ndarray, annotated: np.ndarray) -> bool:
    """Whether a found mask has an IoU of ``RIGHT_IOU`` or more with the annotated lung of its category."""
    return iou(mask, annotated == category) >= RIGHT_IOU


def coco_result(image_id: int, category: int, lung: Lung) -> dict[str, Any]:
    """One detection in COCO's results format."""
    return {"image_id": image_id, "category_id": category, "score": lung.score,
            "bbox": to_xywh(lung.box), "segmentation": encode_mask(lung.mask)}
