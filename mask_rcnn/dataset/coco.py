"""The dataset JSON (COCO); the one place where COCO's [x, y, w, h] boxes exist.

Shapes
    mask    bool [height, width], one instance
    box     (y1, x1, y2, x2) pixels, the lower right corner outside
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mask_rcnn.dataset.categories import lung_numbers
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.run_lengths import encode_mask
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.formats import stamp
from mask_rcnn.system.json_stream import read_json
from mask_rcnn.utils import mask_box

FORMAT = 2  # of the dataset JSON; 1 names neither format nor program
DESCRIPTION = "Left and right lung on frontal chest films"


def to_xywh(box: Sequence[float]) -> list[float]:
    """(y1, x1, y2, x2) as COCO's [x, y, width, height]."""
    y1, x1, y2, x2 = box
    return [x1, y1, x2 - x1, y2 - y1]


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


def new_dataset(laterality: str, provenance: dict[str, Any]) -> dict[str, Any]:
    """An empty dataset: ``info`` with format, program, laterality and where it comes from, the categories, no images yet."""
    return {
        "info": {
            "description": DESCRIPTION, **stamp(FORMAT), "laterality": laterality, **provenance,
        },  # fmt: skip
        "licenses": [],
        "categories": [{"id": key, "name": name, "supercategory": "lung"} for key, name in CATEGORIES.items()],
        "images": [],
        "annotations": [],
    }


def made_here(dataset: Mapping[str, Any]) -> bool:
    """Whether this program made a dataset: then it can be made again, while a person's annotations are corrected."""
    info = dataset.get("info")
    return isinstance(info, dict) and (info.get("description") == DESCRIPTION or {"program", "laterality"} <= info.keys())


def read_dataset(path: str | Path) -> dict[str, Any]:
    """Reads a dataset JSON, this program's or another tool's, and checks what the rest of the program takes for granted.

    Ids that are whole numbers, written as 1, 1.0 or "1", become integers. Categories are known by their names, whatever
    their numbers and spelling (``Left Lung``, ``lungRight``): the annotations get the numbers used here, and those of other
    organs are left out.

    Raises:
        DatasetError: there is no such file, it is no JSON, lacks a key, is of a newer format, has no categories for the two
            lungs, two images of one id, or an annotation that names an image that is not there.
    """
    path = Path(path)
    try:
        dataset = read_json(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: there is no such file; make it with create_dataset.py") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); copy or export it again") from error
    _check_format(path, dataset)
    remedy = "make it again with create_dataset.py" if made_here(dataset) else "export it again as COCO"
    records = {"images": ("id",), "annotations": ("id", "image_id", "category_id"), "categories": ("id", "name")}
    for key, fields in records.items():
        if not isinstance(dataset.get(key), list):
            raise DatasetError(f"{path}: no COCO dataset, it lacks {key!r}; {remedy}")
        for record in dataset[key]:
            if not isinstance(record, dict) or not all(field in record for field in fields):
                raise DatasetError(f"{path}: a record of {key!r} lacks one of {fields}; {remedy}")
            for field in fields:
                if field != "name":
                    record[field] = _whole(record[field])
                    if not isinstance(record[field], (int, str)):
                        raise DatasetError(f"{path}: a record of {key!r} has the {field} {record[field]!r}; {remedy}")
    if not isinstance(dataset.get("info"), dict):
        dataset.pop("info", None)
    _check_images(path, dataset["images"])
    numbers = lung_numbers(path, dataset["categories"])
    dataset["categories"] = [{**record, "id": numbers[record["id"]], "name": CATEGORIES[numbers[record["id"]]]}
                             for record in dataset["categories"] if numbers[record["id"]]]  # fmt: skip
    dataset["annotations"] = [
        {**record, "category_id": numbers.get(record["category_id"], record["category_id"])}
        for record in dataset["annotations"] if numbers.get(record["category_id"], -1)
    ]  # fmt: skip
    images = {image["id"] for image in dataset["images"]}
    strays = [record["id"] for record in dataset["annotations"] if record["image_id"] not in images]
    if strays:
        raise DatasetError(f"{path}: annotation {strays[0]} belongs to no image; {remedy}")
    return dict(dataset)


def _check_format(path: Path, dataset: Any) -> None:
    if not isinstance(dataset, dict):
        raise DatasetError(f"{path}: no COCO dataset but a {type(dataset).__name__}; export it as COCO")
    info = dataset.get("info")
    number = info.get("format", 1) if isinstance(info, dict) else 1
    if isinstance(number, int) and number > FORMAT:
        raise DatasetError(
            f"{path}: written by a newer program (format {number}, this program reads up to {FORMAT}); update the program"
        )


def _whole(value: Any) -> Any:
    """A whole number as an integer, however a tool writes it; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"0|[1-9]\d{0,17}", value):
        return int(value)
    return None if isinstance(value, bool) else value


def _check_images(path: Path, images: Sequence[Mapping[str, Any]]) -> None:
    """Raises a DatasetError where two images have one id: their annotations cannot be told apart."""
    first: dict[Any, Mapping[str, Any]] = {}
    for image in images:
        other = first.setdefault(image["id"], image)
        if other is not image:
            names = " and ".join(str(record.get("file_name")) for record in (other, image))
            raise DatasetError(
                f"{path}: two images have the id {image['id']}, {names}; number them anew where exports were joined, their "
                "annotations with them"
            )
