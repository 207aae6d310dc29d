"""What annotation tools export, written as they write it: the real ones' own files in ``golden/annotators`` are the model.

``cvat.json`` was written by Datumaro 1.13's ``coco_instances``, which is CVAT's "COCO 1.0"; the brush in
``label_studio.json`` by label-studio-sdk 2.1's ``mask2rle``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "annotators"

Polygons = Mapping[str, Sequence[Sequence[float]]]  # by label, [x, y, x, y, ...] in pixels


def cvat_export(path: Path, films: Mapping[str, tuple[tuple[int, int], Polygons]]) -> Path:
    """CVAT's "COCO 1.0": a ZIP with one JSON, which numbers films and lungs anew and knows films by their names.

    Args:
        films: by file name, (height, width) and polygons.
    """
    content = json.loads((GOLDEN / "cvat.json").read_text())
    numbers = {record["name"]: record["id"] for record in content["categories"]}
    image, mark = content["images"][0], content["annotations"][1]
    content |= {"images": [], "annotations": []}
    for number, (name, ((height, width), polygons)) in enumerate(films.items(), start=1):
        content["images"].append({**image, "id": number, "file_name": name, "height": height, "width": width})
        for label, parts in polygons.items():
            rounded = [[round(value, 2) for value in part] for part in parts]
            content["annotations"].append({
                **mark, "id": len(content["annotations"]) + 1, "image_id": number, "category_id": numbers[label],
                "segmentation": rounded, "area": 1.0, "bbox": [0.0, 0.0, 1.0, 1.0],
            })  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/instances_default.json", json.dumps(content))
    return path


def submitted(task: Mapping[str, Any], result: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A task of Label Studio's JSON export whose annotation a person has submitted."""
    exported = json.loads((GOLDEN / "label_studio.json").read_text())[1]
    exported["annotations"][0]["result"] = list(result)
    return {**exported, "data": task["data"], "predictions": []}


def brush(mask: np.ndarray, label: str, seed: int = 0) -> dict[str, Any]:
    """A brush's region: colours differ, so that the encoder writes blocks of both kinds and of all four lengths."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask] = [230, 159, 0, 255]
    noisy = mask & (rng.random(mask.shape) < 0.1)
    pixels[noisy] = rng.integers(1, 256, (np.count_nonzero(noisy), 4))
    height, width = mask.shape
    return {
        "original_width": width, "original_height": height, "image_rotation": 0, "id": "b", "from_name": "brush",
        "to_name": "image", "type": "brushlabels", "origin": "manual",
        "value": {"format": "rle", "rle": pack(pixels.ravel().tolist()), "brushlabels": [label]},
    }  # fmt: skip


def pack(values: Sequence[int]) -> list[int]:
    """rle-pack, as bytes: bits written one by one, runs of two values or more repeated, the rest as they are."""
    lengths = (3, 4, 8, 16)
    bits: list[str] = [f"{len(values):032b}", f"{8 - 1:05b}", *(f"{length - 1:04b}" for length in lengths)]
    place = 0
    while place < len(values):
        end = place + 1
        while end < len(values) and values[end] == values[place] and end - place < 1 << lengths[-1]:
            end += 1
        repeated = end - place > 1
        if not repeated:
            while end < len(values) and values[end] != values[end - 1] and end - place < 1 << lengths[-1]:
                end += 1
        kind = next(k for k, length in enumerate(lengths) if end - place <= 1 << length)
        bits += [f"{int(repeated)}{kind:02b}", f"{end - place - 1:0{lengths[kind]}b}"]
        bits += [f"{value:08b}" for value in (values[place : place + 1] if repeated else values[place:end])]
        place = end
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[k : k + 8], 2) for k in range(0, len(text), 8)]
