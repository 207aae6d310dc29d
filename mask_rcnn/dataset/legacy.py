"""The published dataset JSON: one list of films, their pixels and masks written out as nested lists of numbers.

A film is ``{"instance_info": [INSTANCE, ...], "image": {"original_image": PIXELS}, "image_info": {...}}``; an instance
has ``class_id`` (0 the background, the rest of the film, 1 and 2 the lungs), a box ``[y_min, x_min, y_max, x_max]``
whose lower right corner is inside, and ``mask_image``. The lungs are named by image side.

Shapes
    film  uint8 [height, width], grey, not equalised; in published files the film stretched to 256 x 256
    mask  bool [height, width], one lung
"""

from __future__ import annotations

import json
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.utils import mask_box

SIDE = 256

CHUNK = 1 << 22  # characters read at once; a film of 256 x 256 takes 2 to 10 million
MAX_FILM = 1 << 28  # characters: what is longer is no list of films


@dataclass(frozen=True)
class LegacyFilm:
    """One film of the file."""

    film: np.ndarray  # uint8 [height, width]
    lungs: Mapping[int, np.ndarray]  # class id: bool [height, width]; 1 is the lung on the image's left


def is_legacy(path: str | Path) -> bool:
    """Whether a JSON is a list, as the published one is; a COCO dataset is an object."""
    try:
        with Path(path).open("rb") as file:
            return file.read(1024).removeprefix(BOM_UTF8).lstrip().startswith(b"[")
    except OSError:  # reading it will say why
        return False


def read_films(path: str | Path) -> Iterator[LegacyFilm]:
    """The films of a published JSON in their order, one at a time in memory.

    Raises:
        DatasetError: the file is torn, or a film is not as published.
    """
    for number, record in enumerate(_read_items(Path(path))):
        try:
            yield _film_of(record)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{path}: film {number} of the list is not as published ({type(error).__name__}: {error}); "
                "make the file again with create_dataset.py --export legacy"
            ) from error


def _read_items(path: Path) -> Iterator[Any]:
    """The items of a JSON list; parsed anew with twice the text where one was cut off."""
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(CHUNK).lstrip()[1:]  # the bracket
            longest = 0
            while True:
                text = text.lstrip().removeprefix(",").lstrip()
                if len(text) < longest:  # films are about equally long: this spares nearly all futile attempts
                    text += file.read(max(longest, CHUNK))
                if text.startswith("]"):
                    return
                try:
                    item, end = decoder.raw_decode(text)
                except json.JSONDecodeError as error:
                    cut_off = error.pos >= len(text) - 1024 and len(text) < MAX_FILM
                    more = file.read(max(len(text), CHUNK)) if cut_off else ""
                    if not more:
                        raise
                    text += more
                    continue
                longest = max(longest, end + end // 8)
                text = text[end:]
                yield item
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path}: not readable as a list of films ({error}); make it again") from error


def _film_of(record: dict[str, Any]) -> LegacyFilm:
    levels = np.asarray(record["image"]["original_image"])
    if levels.dtype.kind not in "iuf" or levels.ndim not in (2, 3) or not (0 <= levels.min() and levels.max() <= 255):
        raise ValueError("its pixels are no grey levels from 0 to 255")
    film = levels.astype(np.uint8)
    if film.ndim == 3:
        film = np.asarray(cv2.cvtColor(film, cv2.COLOR_BGR2GRAY) if film.shape[2] == 3 else film[..., 0], np.uint8)
    lungs: dict[int, np.ndarray] = {}
    for instance in record["instance_info"]:
        if instance["class_id"] not in CATEGORIES:
            continue
        mask = np.asarray(instance["mask_image"]) > 0.5
        lungs[instance["class_id"]] = mask[..., 0] if mask.ndim == 3 else mask
    if any(mask.shape != film.shape for mask in lungs.values()):
        raise ValueError("a mask has another size than its film")
    return LegacyFilm(np.ascontiguousarray(film), lungs)


def format_film(number: int, film: np.ndarray, lungs: Mapping[int, np.ndarray]) -> str:
    """One film as an item of the published list, without its layout's blanks, which take four fifths of a file.

    Args:
        number: from 0, in the list.
        film: uint8 [256, 256].
        lungs: bool [256, 256] by class id, named by image side.
    """
    background = ~np.logical_or.reduce([np.zeros(film.shape, bool), *lungs.values()])
    instances = [_format_instance(0, "background", (0, 0, *film.shape), background, ("0", "1"))]
    for category, mask in sorted(lungs.items()):
        y1, x1, y2, x2 = mask_box(mask)
        name = CATEGORIES[category].replace("_", " ")
        instances.append(_format_instance(category, name, (y1, x1, y2 - 1, x2 - 1), mask, ("false", "true")))
    height, width = film.shape
    info = {"image_id": number, "width": width, "height": height, "file_name": f"{number}.jpg"}
    return (
        f'{{"instance_info":[{",".join(instances)}],"image":{{"original_image":{_format_rows(film, _grey_levels())}}},'
        f'"image_info":{json.dumps(info)}}}'
    )


def _format_instance(
    category: int, name: str, corners: tuple[int, ...], mask: np.ndarray, words: tuple[str, str]
) -> str:
    """One instance; the corners are both inside, but for the background's, as published."""
    y1, x1, y2, x2 = corners
    fields = {"class_id": category, "class_name": name, "bbox": corners, "height": y2 - y1, "width": x2 - x1}
    rows = _format_rows(mask.astype(np.uint8), tuple(f"[{word}]" for word in words))
    return f'{json.dumps(fields)[:-1]},"mask_image":{rows}}}'


def _format_rows(values: np.ndarray, texts: tuple[str, ...]) -> str:
    """A nested list of what each value of uint8 [height, width] is written as."""
    return "[" + ",".join("[" + ",".join([texts[value] for value in row]) + "]" for row in values.tolist()) + "]"


@cache
def _grey_levels() -> tuple[str, ...]:
    return tuple(f"[{level},{level},{level}]" for level in range(256))
