"""A dataset in other shapes: the published nested-list JSON, and one folder that holds its films.

Shapes
    film  uint8 [height, width], grey, bones white
    mask  bool [height, width], one lung at its film's size
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from mask_rcnn.dataset import legacy
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import MIN_SIDE, read_film
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import file_version, replacing
from mask_rcnn.system.progress import progress, warn

Record = dict[str, Any]  # an image or an annotation of the dataset

COPIES = "images"  # the folder of the copied films
STAMP = "Source"  # the text in a copy's PNG that names its source


def write_legacy(dataset: Mapping[str, Any], folder: Path, path: Path) -> int:
    """Writes the accepted films of a dataset as the published nested-list JSON, one film at a time in memory.

    The films are stretched to 256 x 256 and not equalised, the lungs named by image side, as published. A film takes
    2 MB.

    Args:
        dataset: as ``dataset.json`` holds it.
        folder: what ``info["roots"]`` is relative to: where ``dataset.json`` lies.
        path: of the file to write, whole or not at all.

    Returns:
        The number of films written. One that cannot be read any more is named on standard error and left out.

    Raises:
        OSError: the file cannot be written.
    """
    patient_sides = dataset["info"].get("laterality", "patient") == "patient"
    annotations = _annotations_by_image(dataset)
    accepted = [image for image in dataset["images"] if image.get("quality", "accepted") == "accepted"]
    written = 0
    with replacing(path) as file:
        file.write(b"[")
        for image in progress(accepted, name="legacy", total=len(accepted)):
            try:
                film = _read_upright(image, dataset, folder)
            except FilmError as error:
                warn(f"left out {error}")
                continue
            square = cv2.resize(film, (legacy.SIDE, legacy.SIDE), interpolation=cv2.INTER_AREA)
            lungs = {}
            for record in annotations[image["id"]]:
                category = record["category_id"]
                image_side = LEFT_LUNG + RIGHT_LUNG - category if patient_sides else category
                lungs[image_side] = _resize_mask(decode_mask(record["segmentation"]), square.shape)
            file.write(b",\n" * bool(written) + legacy.format_film(written, square, lungs).encode("ascii"))
            written += 1
        file.write(b"]\n")
    return written


def copy_images(dataset: Mapping[str, Any], folder: Path, side: int) -> dict[str, Any]:
    """Copies the films into ``folder/images``, bones white, so that the folder can be moved; a copy that is there is kept.

    A copy is named by its film's id. It is made again where the film, its polarity or ``side`` changed.

    Args:
        dataset: as ``dataset.json`` holds it; it is not changed.
        folder: what ``info["roots"]`` is relative to, and where the copies and ``dataset.json`` go.
        side: of the copies' long side in pixels. A smaller film keeps its size, and no side becomes shorter than
            ``read_film`` takes.

    Returns:
        The dataset that refers to the copies: one root, ``.``; masks, boxes, areas and spacings at the copies' size;
        where each came from in ``original_root``, which counts ``info["original_roots"]``, and ``original_name``. A film
        that cannot be read any more is named on standard error and left out.

    Raises:
        OSError: a copy cannot be written.
    """
    annotations = _annotations_by_image(dataset)

    def copy(image: Record) -> tuple[Record, list[Record]] | FilmError:
        try:
            copied = _copy_film(image, dataset, folder, side)
        except FilmError as error:
            return error
        resized = (_resize_annotation(record, copied) for record in annotations[image["id"]])
        return copied, [record for record in resized if record["area"]]

    info = dict(dataset["info"])
    info |= {"original_roots": info.get("roots", ["."]), "roots": ["."]}
    result: dict[str, Any] = {**dataset, "info": info, "images": [], "annotations": []}
    # OpenCV and Pillow let other threads run while they decode. Where a copy fails, those begun are ended first.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        copies = pool.map(copy, dataset["images"])
        for copied in progress(copies, name="copies", total=len(dataset["images"])):
            if isinstance(copied, FilmError):
                warn(f"left out {copied}")
            else:
                result["images"].append(copied[0])
                result["annotations"] += copied[1]
    return result


def _copy_film(image: Record, dataset: Mapping[str, Any], folder: Path, side: int) -> Record:
    """Writes one film's copy unless it is there; returns its record."""
    source = _path_of(image, dataset, folder)
    name = f"{COPIES}/{image['id']}.png"
    size = _copied_size(image["height"], image["width"], side)
    try:
        stamp = f"{file_version(source)} {image.get('inverted', False)} {size}"
    except OSError as error:
        raise FilmError(source, "there is no such file", "check the path") from error
    if _stamp_of(folder / name) != stamp:
        film = _read_upright(image, dataset, folder)
        if film.shape != size:
            film = cv2.resize(film, size[::-1], interpolation=cv2.INTER_AREA)
        note = PngImagePlugin.PngInfo()
        note.add_text(STAMP, stamp)
        with replacing(folder / name) as file:
            Image.fromarray(film).save(file, "PNG", pnginfo=note)
    copied = {**image, "root": 0, "file_name": name, "height": size[0], "width": size[1]}
    copied |= {"original_root": image.get("root", 0), "original_name": image["file_name"], "inverted": False}
    if image.get("spacing_mm"):
        per_pixel = image["height"] / size[0], image["width"] / size[1]
        copied["spacing_mm"] = [round(mm * ratio, 5) for mm, ratio in zip(image["spacing_mm"], per_pixel, strict=True)]
    return copied


def _copied_size(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, max(side / max(height, width), MIN_SIDE / min(height, width)))
    return round(height * scale), round(width * scale)


def _stamp_of(copy: Path) -> str | None:
    try:
        with Image.open(copy) as image:
            return image.info.get(STAMP)
    except OSError:  # absent or torn
        return None


def _resize_annotation(record: Record, image: Record) -> Record:
    size = image["height"], image["width"]
    if tuple(record["segmentation"]["size"]) == size:
        return record
    mask = _resize_mask(decode_mask(record["segmentation"]), size)
    return {**record, **annotation(record["id"], record["image_id"], record["category_id"], mask)}


def _resize_mask(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask at another size (height, width): the pixels of which more than half is lung."""
    enlarged = size[0] > mask.shape[0]
    how = cv2.INTER_LINEAR if enlarged else cv2.INTER_AREA
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=how) > 0.5


def _path_of(image: Record, dataset: Mapping[str, Any], folder: Path) -> Path:
    roots = dataset["info"].get("roots", ["."])
    return Path(folder, roots[image.get("root", 0)], image["file_name"])


def _read_upright(image: Record, dataset: Mapping[str, Any], folder: Path) -> np.ndarray:
    """The film with its bones white.

    Raises:
        FilmError: it cannot be read, or has another size than it had.
    """
    path = _path_of(image, dataset, folder)
    film = read_film(path)
    if film.shape != (image["height"], image["width"]):
        raise FilmError(path, "has another size than when its lungs were found", "make the dataset again")
    return 255 - film if image.get("inverted") else film


def _annotations_by_image(dataset: Mapping[str, Any]) -> dict[int, list[Record]]:
    by_image: dict[int, list[Record]] = defaultdict(list)
    for record in dataset["annotations"]:
        by_image[record["image_id"]].append(record)
    return by_image
