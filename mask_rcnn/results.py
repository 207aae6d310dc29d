"""What inference writes: label masks, pictures, COCO results and measurements.

Every film is one record, a line of the journal; COCO results and measurements are made of records alone, so a stopped
run loses the films at hand and nothing else. Whether a film is for review is judged anew from its record's measures, so
that thresholds can change.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mask_rcnn.chest import SIDE, stretch_to_square
from mask_rcnn.coco import CATEGORIES, LEFT_LUNG, RIGHT_LUNG, encode_mask, to_xywh
from mask_rcnn.config import QualityConfig
from mask_rcnn.ensemble import Lung, film_agreement
from mask_rcnn.files import replacing
from mask_rcnn.quality import judge, measure_lungs
from mask_rcnn.radiograph import film_stem, resize_labels
from mask_rcnn.run import ReadFilm

JOURNAL, COCO_RESULTS, MEASUREMENTS, RUN = "films.jsonl", "results.json", "measurements.csv", "run.json"
OVERLAYS, MASKS = "overlays", "masks"
# What the journal has of a film besides its id and its file's version and digest.
KEYS = frozenset({"result", "height", "width", "inverted", "turned", "doubts", "agreement", "measures", "lungs"})

_OF_A_FILM = ("image_id", "file", "result", "height", "width", "inverted", "turned", "laterality", "members",
              "lungs_found", "agreement", "review", "reasons")
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
        name = f"{film_stem(film)}.png"
        while name.casefold() in taken:
            film = name = f"{film}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def film_record(film: ReadFilm, result: str, lungs: Mapping[int, Lung], labels: np.ndarray, members: int) -> dict[str, Any]:
    """All that the tables say of a film, fit for JSON.

    Args:
        film: as it was read; an inverted one has black bones in its file, a turned one lies otherwise there.
        result: of its label mask and picture.
        lungs: as the bag found them.
        labels: the same, at the film's size.
        members: the number of networks, whatever they found.
    """
    pixels, _, turned, doubts = film.radiograph
    height, width = pixels.shape
    small = resize_labels(labels, SIDE, SIDE)
    masks = {category: small == category for category in CATEGORIES if (small == category).any()}
    return {
        "result": result,
        "version": film.version,
        "digest": film.digest,
        "height": height,
        "width": width,
        "inverted": film.inverted,
        "turned": turned,
        "doubts": list(doubts),
        "agreement": _rounded(film_agreement(lungs, members)),
        "measures": measure_lungs(stretch_to_square(pixels), masks, width / height),
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


def review_reasons(record: Mapping[str, Any], quality: QualityConfig, min_agreement: float) -> list[str]:
    """Why a person should look at a film's result; empty where nothing speaks against it.

    Args:
        record: as ``film_record`` makes it.
        quality: the thresholds of the checks, its ``min_agreement`` aside, which is the U-Nets'.
        min_agreement: of the bag's members.
    """
    measures = {**record["measures"], "agreement": record["agreement"]}
    return judge(measures, replace(quality, min_agreement=min_agreement), record["doubts"])[1]


def _centroid(lung: Lung) -> tuple[float, float]:
    y1, x1, y2, x2 = lung.box
    mask = lung.mask[y1:y2, x1:x2]
    rows, columns = np.count_nonzero(mask, axis=1), np.count_nonzero(mask, axis=0)
    total = rows.sum()
    return y1 + float(rows @ np.arange(len(rows)) / total), x1 + float(columns @ np.arange(len(columns)) / total)


def coco_results(record: Mapping[str, Any], image_id: int, reasons: Sequence[str]) -> list[dict[str, Any]]:
    """A film's entries in the COCO results list; the box is tight around the bagged mask.

    ``review`` and ``reasons``, the film's own, stand beside what COCO asks for.
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
