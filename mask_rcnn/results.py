"""What inference writes: label masks, pictures, the journal, COCO results and measurements.

Every film is one record, a line of the journal; COCO results and measurements are made of records alone, so a stopped
run loses the films at hand and nothing else.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mask_rcnn.coco import CATEGORIES, LEFT_LUNG, RIGHT_LUNG, encode_mask, to_xywh
from mask_rcnn.ensemble import Lung, film_agreement
from mask_rcnn.files import journal_contents

JOURNAL, COCO_RESULTS, MEASUREMENTS, RUN = "films.jsonl", "results.json", "measurements.csv", "run.json"
OVERLAYS, MASKS = "overlays", "masks"

_OF_A_FILM = ("image_id", "file", "result", "height", "width", "inverted", "laterality", "members", "lungs_found",
              "agreement", "review")
_OF_A_LUNG = ("found", "score", "votes", "agreement", "area_px", "area_fraction", "centroid_y", "centroid_x",
              "y1", "x1", "y2", "x2", "height_px", "width_px")
_SIDES = {category: name.removesuffix("_lung") for category, name in CATEGORIES.items()}
COLUMNS = (
    *_OF_A_FILM,
    *(f"{side}_{column}" for side in _SIDES.values() for column in _OF_A_LUNG),
    "left_right_area_ratio",
)


def result_names(films: Sequence[str]) -> list[str]:
    """The path of each film's pictures below ``masks/`` and ``overlays/``: ``a/b.jpeg`` gives ``a/b.png``.

    Of films that would share one, as ``a/b.jpeg`` and ``a/b.png``, the second keeps its full name: ``a/b.png.png``.

    Args:
        films: paths relative to the source, with forward slashes.
    """
    # Names that differ by case alone are one file on Windows and macOS.
    taken = {str(folder).casefold() for film in films for folder in PurePosixPath(film).parents}
    names = []
    for film in films:
        name = str(PurePosixPath(film).with_suffix(".png"))
        while name.casefold() in taken:
            film = name = f"{film}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def film_record(
    film: str,
    result: str,
    version: list[int],
    shape: tuple[int, ...],
    inverted: bool,
    lungs: Mapping[int, Lung],
    members: int,
) -> dict[str, Any]:
    """All that the tables say of a film, fit for JSON; ``version`` is its ``file_version``, ``shape`` (height, width).

    An ``inverted`` film has black bones, and was turned round before anything was looked for. ``members`` is the number
    of networks that looked, whatever they found.
    """
    return {
        "file": film,
        "result": result,
        "version": version,
        "height": shape[0],
        "width": shape[1],
        "inverted": inverted,
        "agreement": _rounded(film_agreement(lungs, members)),
        "lungs": {
            str(category): {
                "score": round(lung.score, 6),
                "votes": lung.votes,
                "agreement": _rounded(lung.agreement),
                "area": int(np.count_nonzero(lung.mask)),
                "centroid": [round(value, 2) for value in _centroid(lung)],
                "box": list(lung.box),
                "segmentation": encode_mask(lung.mask),
            }
            for category, lung in lungs.items()
        },
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def needs_review(record: Mapping[str, Any], min_agreement: float) -> bool | None:
    """Whether the members agree too little on a film to trust its result unseen; None of one member alone."""
    return None if record["agreement"] is None else record["agreement"] < min_agreement


def _centroid(lung: Lung) -> tuple[float, float]:
    y1, x1, y2, x2 = lung.box
    mask = lung.mask[y1:y2, x1:x2]
    rows, columns = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    total = rows.sum()
    return y1 + float(rows @ np.arange(len(rows)) / total), x1 + float(columns @ np.arange(len(columns)) / total)


def coco_results(record: Mapping[str, Any], image_id: int) -> list[dict[str, Any]]:
    """A film's entries in the COCO results list; the box is tight around the bagged mask."""
    return [
        {
            "image_id": image_id,
            "category_id": int(category),
            "bbox": to_xywh(lung["box"]),
            "score": lung["score"],
            "segmentation": lung["segmentation"],
        }
        for category, lung in sorted(record["lungs"].items())
    ]


def measurements(
    record: Mapping[str, Any], image_id: int, laterality: str, members: int, min_agreement: float
) -> dict[str, Any]:
    """A film's row of ``COLUMNS``; what a lung that was not found has no value for stays empty.

    Pixels are the film's own. ``votes`` counts the members that found the lung, a lung's ``agreement`` is the mean Dice
    over all pairs of them, the film's is ``film_agreement``, and ``review`` is 1 where that is below ``min_agreement``.
    The centroid is that of pixel centres, the first one at 0.
    """
    review = needs_review(record, min_agreement)
    height, width, lungs = record["height"], record["width"], record["lungs"]
    row: dict[str, Any] = dict(zip(_OF_A_FILM, (
        image_id, record["file"], record["result"], height, width, int(record["inverted"]), laterality, members, len(lungs),
        record["agreement"], None if review is None else int(review),
    ), strict=True))
    for category, side in _SIDES.items():
        lung = lungs.get(str(category))
        values: Sequence[Any] = (0,)
        if lung:
            y1, x1, y2, x2 = lung["box"]
            values = (1, lung["score"], lung["votes"], lung["agreement"], lung["area"],
                      round(lung["area"] / (height * width), 6), *lung["centroid"], y1, x1, y2, x2, y2 - y1, x2 - x1)
        row |= {f"{side}_{column}": value for column, value in zip(_OF_A_LUNG, values, strict=False)}
    left, right = lungs.get(str(LEFT_LUNG)), lungs.get(str(RIGHT_LUNG))
    if left and right:
        row["left_right_area_ratio"] = round(left["area"] / right["area"], 4)
    return row


def csv_text(rows: Iterable[Mapping[str, Any]], header: bool) -> str:
    """Rows of ``COLUMNS`` as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def label_png(labels: np.ndarray, laterality: str) -> bytes:
    """A label mask as grey PNG, whose text chunks say what the labels are."""
    note = PngInfo()
    note.add_text("labels", ", ".join(f"{category} {name}" for category, name in CATEGORIES.items()))
    note.add_text("laterality", laterality)
    return _png(labels, note)


def picture_png(picture: np.ndarray) -> bytes:
    """An RGB picture as PNG."""
    return _png(picture, None)


def _png(pixels: np.ndarray, note: PngInfo | None) -> bytes:
    buffer = io.BytesIO()
    # Level 3 is four times as fast as Pillow's 6 and a tenth larger.
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=note, compress_level=3)
    return buffer.getvalue()


def read_journal(path: Path, run: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """The records of an earlier, stopped run, by film; None where there is none or it was another run.

    The first line says what run it was.
    """
    try:
        contents = [content for _, content in journal_contents(path)]
    except FileNotFoundError:
        return None
    if not contents or contents[0] != run:
        return None
    return {record["file"]: record for record in contents[1:]}
