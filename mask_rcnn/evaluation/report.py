"""What an evaluation prints and writes: tables, and pictures of the worst films.

Shapes
    film       uint8 [height, width], grey, bones white
    annotated  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.evaluation.film import COLUMNS, LUNGS
from mask_rcnn.evaluation.lateral import COLUMNS as THIRDS
from mask_rcnn.evaluation.over_sets import aligned
from mask_rcnn.evaluation.sets import Evaluation, fit
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.files import writable, write_bytes

PICTURE_SIDE = 800  # pixels
PRINTED = {"iou": 4, "hd95_px": 2, "hd95_percent": 2, "hd95_mm": 2, "msd_px": 2, "msd_mm": 2, "box_iou": 4}  # with digits


def compare(film: np.ndarray, annotated: np.ndarray, lungs: dict[int, Lung]) -> np.ndarray:
    """The film with the annotated lungs outlined in white, and beside it with the predicted ones over them; RGB."""
    scale = min(1.0, PICTURE_SIDE / max(film.shape))
    height, width = (max(1, round(side * scale)) for side in film.shape)
    film = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    for category in CATEGORIES:
        outlined = resize_labels((annotated == category).astype(np.uint8), height, width)
        contours, _ = cv2.findContours(outlined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(film, contours, -1, 255, 1)
    lungs = {category: fit(lung, (height, width)) for category, lung in lungs.items()}
    named = {category: lung for category, lung in lungs.items() if not math.isnan(lung.score)}
    return overlay(film, label_mask(lungs, (height, width)), named)


def write_worst(kept: Evaluation, folder: Path) -> None:
    """Pictures of the worst films, in their order; those of an earlier run are removed."""
    for path in folder.glob("[0-9][0-9]_*.png"):
        path.unlink()
    for place, (_, _, record, lungs) in enumerate(kept.worst, start=1):
        film, annotated, _ = read_annotated(record)
        name = f"{place:02}_{writable(record.path.stem)[:80]}.png"
        write_bytes(folder / name, picture_png(compare(film, annotated, lungs)))


def csv_text(kept: Evaluation) -> str:
    """A line a network and film; what is undefined is empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, ("network", "film", *COLUMNS, *THIRDS), lineterminator="\n")
    writer.writeheader()
    for evidence in kept.networks.values():
        for row in evidence.rows:
            writer.writerow({
                key: "" if isinstance(value, float) and math.isnan(value)
                else round(value, 6) if isinstance(value, float) else value
                for key, value in row.items()
            })
    return table.getvalue()


def table_lines(summaries: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each lung of each network; precision, the calibration error and the failures beside both lungs."""
    lines = [["network", "lung", "Dice [95 % interval]", "worst", "IoU", "HD95 px", "% of width", "HD95 mm", "MSD px",
              "MSD mm", "box IoU", "AP mask", "AP box", "ECE", "missed", "swapped"]]
    for network, summary in summaries.items():
        for lung in LUNGS:
            dice = summary[lung]["dice"]
            line = [network, lung, "undefined", ""]
            if dice["mean"] is not None:
                low, high = dice["interval"]
                line[2:] = f"{dice['mean']:.4f} [{low:.4f}, {high:.4f}]", f"{dice['worst']:.4f}"
            for measure, digits in PRINTED.items():
                mean = summary[lung].get(measure, {}).get("mean")
                line.append("" if mean is None else f"{mean:.{digits}f}")
            if lung == LUNGS[-1]:
                precision, calibrated = summary["average_precision"], summary["calibration"]
                line += [f"{precision[kind]['ap']:.4f}" if precision else "" for kind in ("mask", "box")]
                line.append(f"{calibrated['expected_calibration_error']:.4f}" if calibrated else "")
                line += [str(summary["missed"]), str(summary["swapped"])]
            lines.append(line + [""] * (len(lines[0]) - len(line)))
    yield from aligned(lines)


def error_lines(maps: dict[str, dict[str, list[list[float]]]]) -> Iterator[str]:
    """Where along each lung the errors lie, in percent of its area."""
    for lung, of_lung in maps.items():
        yield f"{lung} lung, % of its area: {', '.join(of_lung)}, each from medial to lateral"
        for name, *rows in zip(("apex", "", "", "base"), *of_lung.values(), strict=True):
            yield f"  {name:4}  " + "   |".join("".join(f"{100 * share:7.2f}" for share in row) for row in rows)


def offset_line(offset: dict[str, float] | None) -> str:
    """How far the annotations are offset from the predictions."""
    if offset is None:
        return "the offset of the annotations from the predictions cannot be measured"
    return (f"the annotated lungs lie {offset['right']:+.2f} % of the width to the right of the predicted ones and "
            f"{offset['down']:+.2f} % below them; without that, Dice would be {offset['dice_gained']:.4f} more")
