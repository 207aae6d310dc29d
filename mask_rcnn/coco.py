"""The dataset JSON (COCO), lung categories and run-length masks; the one place where COCO's [x, y, w, h] boxes exist.

Shapes
    mask    bool [height, width], one instance
    labels  uint8 [height, width], 0 background, else the category id
    box     (y1, x1, y2, x2) pixels, the lower right corner outside

Laterality: ``left_lung`` and ``right_lung`` are the patient's, so on a frontal film the left lung lies on the
image's right; a dataset made with ``--laterality image`` names them by image side, and says so in ``info``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask_rcnn.files import write_bytes

LEFT_LUNG, RIGHT_LUNG = 1, 2
CATEGORIES = {LEFT_LUNG: "left_lung", RIGHT_LUNG: "right_lung"}


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file, the reason and the remedy."""


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask: ``{"size": [height, width], "counts": str}``."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compress(segmentation: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Any segmentation of COCO's (polygons, run lengths) in compressed run lengths, as ``encode_mask`` gives them.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, whose union counts, or either run-length encoding.
        size: (height, width) of the film, which polygons do not say.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it is none of them.
    """
    if isinstance(segmentation, list):
        if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
            raise ValueError("a polygon has three corners or more")
        polygons = [[float(value) for value in polygon] for polygon in segmentation]
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    elif isinstance(segmentation["counts"], str):
        return segmentation
    else:
        raise TypeError("no run lengths")
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_mask(segmentation: dict[str, Any]) -> np.ndarray:
    """The mask, bool [height, width], of a compressed or uncompressed run-length encoding."""
    if isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return coco_mask.decode(segmentation).astype(bool)


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box (y1, x1, y2, x2) of a mask; (0, 0, 0, 0) for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def to_xywh(box: Sequence[float]) -> list[float]:
    """(y1, x1, y2, x2) as COCO's [x, y, width, height]."""
    y1, x1, y2, x2 = box
    return [x1, y1, x2 - x1, y2 - y1]


def from_xywh(box: Sequence[float]) -> tuple[float, float, float, float]:
    """COCO's [x, y, width, height] as (y1, x1, y2, x2)."""
    x, y, width, height = box
    return y, x, y + height, x + width


def annotation(annotation_id: int, image_id: int, category_id: int, mask: np.ndarray) -> dict[str, Any]:
    """The COCO record of one lung, from its mask at the film's own size."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": encode_mask(mask),
        "bbox": to_xywh(mask_box(mask)),
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON so that the file is either the old one or the whole new one, never a part."""
    write_bytes(Path(path), json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8"))


def new_dataset(laterality: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """An empty dataset: ``info`` with the laterality and where it comes from, the categories, no images yet."""
    return {
        "info": {"description": "Left and right lung on frontal chest films", "laterality": laterality, **provenance},
        "licenses": [],
        "categories": [{"id": key, "name": name, "supercategory": "lung"} for key, name in CATEGORIES.items()],
        "images": [],
        "annotations": [],
    }


def read_dataset(path: str | Path) -> dict[str, Any]:
    """Reads a dataset JSON and checks what the rest of the program takes for granted.

    Raises:
        DatasetError: there is no such file, it is no JSON, lacks a key, holds other categories than the lungs', or an
            annotation names an image that is not there.
    """
    path = Path(path)
    try:
        dataset = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file; make it with create_dataset.py") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); make it again with create_dataset.py") from error
    records = {"images": ("id",), "annotations": ("id", "image_id", "category_id"), "categories": ("id", "name")}
    for key, fields in records.items():
        if not isinstance(dataset, dict) or not isinstance(dataset.get(key), list):
            raise DatasetError(f"{path}: no COCO dataset, it lacks {key!r}; make it with create_dataset.py")
        for record in dataset[key]:
            if not isinstance(record, dict) or not all(field in record for field in fields):
                raise DatasetError(f"{path}: a record of {key!r} lacks one of {fields}; make it with create_dataset.py")
    categories = {category.get("id"): category.get("name") for category in dataset["categories"]}
    if categories != CATEGORIES:
        raise DatasetError(f"{path}: its categories are {categories}, not {CATEGORIES}; renumber them")
    images = {image["id"] for image in dataset["images"]}
    strays = [record["id"] for record in dataset["annotations"] if record["image_id"] not in images]
    if strays:
        raise DatasetError(f"{path}: annotation {strays[0]} belongs to no image; make the file again")
    return dataset
