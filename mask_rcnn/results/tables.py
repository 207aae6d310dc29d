"""The tables of a run: ``measurements.csv`` and COCO's ``results.json``, made of the films' records.

Shapes
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mask_rcnn.dataset.coco import to_xywh
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG, SIDES
from mask_rcnn.results.geometry import outline_length
from mask_rcnn.results.names import COCO_RESULTS, MEASUREMENTS
from mask_rcnn.system.files import replacing

POINTS = ("apex", "costophrenic")  # landmarks, by their names in records too

_OF_A_FILM = ("image_id", "file", "result", "height", "width", "inverted", "turned", "laterality", "members",
              "lungs_found", "agreement", "risk", "review", "reasons")
OF_A_LUNG = ("found", "score", "votes", "agreement", "area_px", "area_fraction", "centroid_y", "centroid_x",
              "y1", "x1", "y2", "x2", "height_px", "width_px",
              "edges", "area_mm2", "height_mm", "width_mm", "perimeter_px", "perimeter_mm",
              *(f"{point}_{axis}{unit}" for point in POINTS for unit in ("", "_mm") for axis in ("y", "x")), "intensity")
COLUMNS = (
    *_OF_A_FILM,
    *(f"{side}_{column}" for side in SIDES.values() for column in OF_A_LUNG),
    "left_right_area_ratio", "left_right_intensity_difference",
    "spacing_y_mm", "spacing_x_mm", "spacing_source", "calibration", "magnification",
)


def coco_results(record: Mapping[str, Any], image_id: int, reasons: Sequence[str]) -> list[dict[str, Any]]:
    """A film's entries in the COCO results list; the box is tight around the bagged mask.

    ``review`` and ``reasons``, the film's own, stand beside the fields of COCO.
    """
    return [
        {
            "image_id": image_id,
            "category_id": int(category),
            "bbox": to_xywh(lung["box"]),
            "score": lung["score"],
            "segmentation": lung["segmentation"],
            "review": int(bool(reasons)),
            "reasons": list(reasons),
        }
        for category, lung in sorted(record["lungs"].items())
    ]


def measurements(
    record: Mapping[str, Any], image_id: int, file_name: str, laterality: str, members: int, reasons: Sequence[str]
) -> dict[str, Any]:
    """A film's row of ``COLUMNS``; what a lung that was not found has no value for stays empty.

    Pixels are the film's own. ``votes`` counts the members that found the lung, a lung's ``agreement`` is the mean Dice
    over all pairs of them, the film's is ``film_agreement``, ``risk`` is ``film_risk``, and ``review`` is 1 where there are ``reasons``. The centroid
    is that of pixel centres, the first one at 0. Millimetres are there where the record has a ``spacing``.
    """
    height, width, lungs = record["height"], record["width"], record["lungs"]
    row: dict[str, Any] = dict(zip(_OF_A_FILM, (
        image_id, file_name, record["result"], height, width, int(record["inverted"]), record["turned"], laterality, members,
        len(lungs), record["agreement"], record.get("risk"), int(bool(reasons)), "; ".join(reasons),
    ), strict=True))
    for category, side in SIDES.items():
        lung = lungs.get(str(category))
        values: Sequence[Any] = (0,)
        if lung:
            y1, x1, y2, x2 = lung["box"]
            values = (1, lung["score"], lung["votes"], lung["agreement"], lung["area"],
                      round(lung["area"] / (height * width), 6), *lung["centroid"], y1, x1, y2, x2, y2 - y1, x2 - x1,
                      *_shape(lung, (height, width), record.get("spacing")))
        row |= {f"{side}_{column}": value for column, value in zip(OF_A_LUNG, values, strict=False)}
    left, right = lungs.get(str(LEFT_LUNG)), lungs.get(str(RIGHT_LUNG))
    if left and right:
        row["left_right_area_ratio"] = round(left["area"] / right["area"], 4)
        if "intensity" in left:
            row["left_right_intensity_difference"] = round(left["intensity"] - right["intensity"], 3)
    if record.get("spacing"):
        row["spacing_y_mm"], row["spacing_x_mm"] = (round(length, 6) for length in record["spacing"])
        calibration = record["calibration"] or {}
        row |= {"spacing_source": calibration.get("source"), "calibration": calibration.get("kind") or None,
                "magnification": calibration.get("magnification")}
    return row


def _shape(lung: Mapping[str, Any], size: tuple[int, int], spacing: Sequence[float] | None) -> Iterator[Any]:
    """A lung's columns from ``edges`` on; None where millimetres, or a record of an older program, lack."""
    y1, x1, y2, x2 = lung["box"]
    touched = {"top": y1 == 0, "left": x1 == 0, "bottom": y2 == size[0], "right": x2 == size[1]}
    yield " ".join(edge for edge, touches in touched.items() if touches) or None
    per_row, per_column = spacing or (math.nan, math.nan)
    outline = lung.get("outline")
    yield from _defined(
        (lung["area"] * per_row * per_column, (y2 - y1) * per_row, (x2 - x1) * per_column,
         outline_length(outline) if outline else math.nan,
         outline_length(outline, (per_row, per_column)) if outline else math.nan)
    )  # fmt: skip
    for name in POINTS:
        y, x = lung.get(name, (math.nan, math.nan))
        yield from _defined((y, x, y * per_row, x * per_column))
    yield lung.get("intensity")


def _defined(values: Iterable[float]) -> Iterator[float | None]:
    """Numbers as they stand in the table; None for NaN."""
    return (None if math.isnan(value) else round(value, 2) for value in values)


@contextmanager
def tables(out: Path) -> Iterator[Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], None]]:
    """Writes ``measurements.csv`` and ``results.json`` film by film; both are whole, or as they were before.

    Yields:
        A function that takes a film's row, as ``measurements`` gives it, and its ``coco_results``.

    Raises:
        OSError: they cannot be written.
    """
    with (
        replacing(out / MEASUREMENTS) as rows,
        io.TextIOWrapper(rows, "utf-8", newline="") as text,
        replacing(out / COCO_RESULTS) as found,
    ):
        writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        found.write(b"[")

        def add(row: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
            writer.writerow(row)
            for result in results:
                found.write(b"\n" if found.tell() == 1 else b",\n")
                found.write(json.dumps(result, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))

        yield add
        found.write(b"\n]\n")
