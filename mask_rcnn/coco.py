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
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask_rcnn.files import write_bytes
from mask_rcnn.formats import stamp
from mask_rcnn.outlines import check_inside, check_runs, check_size, polygons_of

LEFT_LUNG, RIGHT_LUNG = 1, 2
CATEGORIES = {LEFT_LUNG: "left_lung", RIGHT_LUNG: "right_lung"}

FORMAT = 2  # of the dataset JSON; 1 names neither format nor program
DESCRIPTION = "Left and right lung on frontal chest films"


class DatasetError(ValueError):
    """A dataset that cannot be used; the message names the file, the reason and the remedy."""


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run-length encoding of a mask: ``{"size": [height, width], "counts": str}``."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def compress(segmentation: Any, size: Any) -> dict[str, Any]:
    """Any segmentation of COCO's (polygons, run lengths) in compressed run lengths, as ``encode_mask`` gives them.

    What lies a little outside the film does not count.

    Args:
        segmentation: polygons ``[[x, y, x, y, ...], ...]``, whose union counts, or either run-length encoding.
        size: (height, width) of the film as its record says, which polygons do not.

    Raises:
        ValueError: it is none of them; the message says why.
    """
    if isinstance(segmentation, dict):
        size = check_size(segmentation.get("size"))
        runs = check_runs(segmentation.get("counts"), size)
        rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    else:
        polygons = polygons_of(segmentation)
        size = check_size(size)
        check_inside(polygons, size)
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
        if not coco_mask.area(rle):
            raise ValueError("its polygons cover no pixel")
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
    """Whether this program made a dataset: then it can be made again, while what a person drew is corrected."""
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
        dataset = json.loads(path.read_bytes())  # in UTF-8, 16 or 32, with or without a mark of it
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
    numbers = _lung_numbers(path, dataset["categories"])
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
    return dataset


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
    """Raises a DatasetError where two images have one id: whose the annotations are, nobody can tell."""
    first: dict[Any, Mapping[str, Any]] = {}
    for image in images:
        other = first.setdefault(image["id"], image)
        if other is not image:
            names = " and ".join(str(record.get("file_name")) for record in (other, image))
            raise DatasetError(
                f"{path}: two images have the id {image['id']}, {names}; number them anew where exports were joined, their "
                "annotations with them"
            )


def _lung_numbers(path: Path, categories: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """For the id of each category the lung's number here, 0 where it is none.

    Raises:
        DatasetError: the names do not tell the left and the right lung, or one id has two names.
    """
    named = {record["id"]: str(record["name"]) for record in categories}
    numbers = {key: _lung_of(name) for key, name in named.items()}
    if not all(numbers.values()) and not {LEFT_LUNG, RIGHT_LUNG} <= set(numbers.values()):
        alone = {"left": LEFT_LUNG, "right": RIGHT_LUNG}
        numbers = {key: number or alone.get(named[key].strip().lower(), 0) for key, number in numbers.items()}
    ids = Counter(record["id"] for record in categories)
    twice = [key for key in ids if len({str(record["name"]) for record in categories if record["id"] == key}) > 1]
    if twice or not {LEFT_LUNG, RIGHT_LUNG} <= set(numbers.values()):
        listed = ", ".join(f"{record['id']} {record['name']}" for record in categories) or "none"
        raise DatasetError(
            f"{path}: its categories are {listed}; it takes one for each lung, named {' and '.join(CATEGORIES.values())}"
        )
    return numbers


def _lung_of(name: str) -> int:
    """The lung that a category's name clearly says, else 0: ``Left Lung``, ``lung_L``, ``rightLung``; no ``left node``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.sub(r"[^a-z]+", " ", re.sub(r"(?i)(left|right)(?=lung)|(lung)(?=left|right)", r"\1\2 ", words).lower())
    told = set(words.split()) - {"the", "field", "fields", "mask", "region", "area", "patient", "s"}
    sides = {"left": LEFT_LUNG, "l": LEFT_LUNG, "right": RIGHT_LUNG, "r": RIGHT_LUNG}
    side = told - {"lung", "lungs"}
    return sides.get(next(iter(side)), 0) if len(side) == 1 and len(told) == 2 else 0
