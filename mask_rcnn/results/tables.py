"""The tables of a run: ``measurements.csv`` and COCO's ``results.json``, made of the films' records.

Shapes
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mask_rcnn.dataset.coco import to_xywh
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG, SIDES
from mask_rcnn.results.names import COCO_RESULTS, MEASUREMENTS
from mask_rcnn.system.files import replacing

_OF_A_FILM = ("image_id", "file", "result", "height", "width", "inverted", "turned", "laterality", "members",
              "lungs_found", "agreement", "review", "reasons")
OF_A_LUNG = ("found", "score", "votes", "agreement", "area_px", "area_fraction", "centroid_y", "centroid_x",
              "y1", "x1", "y2", "x2", "height_px", "width_px")
COLUMNS = (
    *_OF_A_FILM,
    *(f"{side}_{column}" for side in SIDES.values() for column in OF_A_LUNG),
    "left_right_area_ratio",
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
    over all pairs of them, the film's is ``film_agreement``, and ``review`` is 1 where there are ``reasons``. The centroid
    is that of pixel centres, the first one at 0.
    """
    height, width, lungs = record["height"], record["width"], record["lungs"]
    row: dict[str, Any] = dict(zip(_OF_A_FILM, (
        image_id, file_name, record["result"], height, width, int(record["inverted"]), record["turned"], laterality, members,
        len(lungs), record["agreement"], int(bool(reasons)), "; ".join(reasons),
    ), strict=True))
    for category, side in SIDES.items():
        lung = lungs.get(str(category))
        values: Sequence[Any] = (0,)
        if lung:
            y1, x1, y2, x2 = lung["box"]
            values = (1, lung["score"], lung["votes"], lung["agreement"], lung["area"],
                      round(lung["area"] / (height * width), 6), *lung["centroid"], y1, x1, y2, x2, y2 - y1, x2 - x1)
        row |= {f"{side}_{column}": value for column, value in zip(OF_A_LUNG, values, strict=False)}
    left, right = lungs.get(str(LEFT_LUNG)), lungs.get(str(RIGHT_LUNG))
    if left and right:
        row["left_right_area_ratio"] = round(left["area"] / right["area"], 4)
    return row


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
