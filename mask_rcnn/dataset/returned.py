"""Lungs that annotation tools gave back: read from what they export, and compared with what they were given.

Shapes
    labels   uint8 [height, width], 0 background, else the category id
    mask     bool [height, width], one lung
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np

from mask_rcnn.dataset import label_studio
from mask_rcnn.dataset.annotators import COLOURS, IMAGES, FoundFilm
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.corrections import Correction, decode_lungs, encode_labels
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.dataset.outlines import check_size
from mask_rcnn.dataset.records import FilmRecord, decode_labels
from mask_rcnn.dataset.run_lengths import compress, decode_mask, encode_polygons
from mask_rcnn.dataset.sides import are_exchanged, on_both_sides
from mask_rcnn.dataset.sources import read_annotations
from mask_rcnn.films.images import FilmError, open_image
from mask_rcnn.lungs import CATEGORIES

MAX_CHANGED = 0.01  # of a lung: fewer pixels along its edge differ where a tool rounds coordinates
_LARGEST = 1 << 33  # bytes that an archive unpacks to
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the name of an uploaded file


class Taken(NamedTuple):
    """What came back from a tool."""

    corrections: list[Correction]
    unchanged: int  # films whose lungs are as they were
    refused: dict[str, str]  # by file, why


def read_returned(path: Path) -> tuple[list[Correction], dict[str, str]]:
    """The lungs of films as a tool exported them, and by file what cannot be read.

    Args:
        path: a COCO JSON, a JSON of Label Studio, a folder of label masks by the names of their films, or a ZIP of these.

    Raises:
        DatasetError: it is none of them.
    """
    with _unpacked(path) as (folder, files):
        files = [file for file in files if not file.name.startswith(".")]  # macOS puts "._NAME" into its archives
        texts = [file for file in files if file.suffix.lower() == ".json"]
        masks = [file for file in files if file.suffix.lower() == ".png" and IMAGES not in file.relative_to(folder).parts]
        if len(texts) > 1:
            raise DatasetError(f"{path}: holds several JSON files, {texts[0].name} and {texts[1].name}; give one of them")
        if texts:
            content = _json(texts[0])
            if not isinstance(content, list):
                return _from_coco(texts[0])
            if not label_studio.is_export(content):
                raise DatasetError(f"{path}: a list, and no tasks of Label Studio; export as JSON there, not as JSON-MIN")
            return _from_tasks(content)
        if masks:
            return _from_masks(masks)
    raise DatasetError(f"{path}: holds no COCO or Label Studio JSON and no PNG masks; export it so")


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and the files in it, of a folder, a ZIP, or a single file."""
    if path.is_dir():
        yield path, sorted(file for file in path.rglob("*") if file.is_file())
    elif not path.is_file():
        raise DatasetError(f"{path}: there is no such file; give what the tool exported")
    elif zipfile.is_zipfile(path):
        with TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(path) as archive:
                    wanted = [item for item in archive.infolist() if item.filename.lower().endswith((".json", ".png"))]
                    if sum(item.file_size for item in wanted) > _LARGEST:
                        raise DatasetError(f"{path}: unpacks to more than {_LARGEST >> 30} GB; export fewer films at a time")
                    archive.extractall(folder, wanted)
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
                raise DatasetError(f"{path}: cannot be unpacked ({error}); export it again") from error
            yield Path(folder), sorted(file for file in Path(folder).rglob("*") if file.is_file())
    else:
        yield path.parent, [path]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error}); export it again") from error


def known_by(name: str) -> tuple[int | None, str]:
    """The image id that a returned film's file name holds, if any, and the name without what a server put before it."""
    own = _UPLOADED.sub("", PurePosixPath(name.replace("\\", "/")).name)
    stem = own.partition(".")[0]
    return (int(stem) if re.fullmatch(r"\d{1,18}", stem) else None), own


def _from_coco(path: Path) -> tuple[list[Correction], dict[str, str]]:
    dataset = read_dataset(path)
    if unnamed := [image["id"] for image in dataset["images"] if not isinstance(image.get("file_name"), str)]:
        raise DatasetError(f"{path}: image {unnamed[0]} has no file_name; export it again as COCO")
    segmentations, bad = read_annotations(path, dataset, dataset["images"], "correct it in the tool and export it again")
    corrections, refused = [], {}
    for image in dataset["images"]:
        name = image["file_name"].replace("\\", "/")
        if image["id"] in bad:
            refused[name] = bad[image["id"]]
            continue
        record = FilmRecord(Path(name), str(path), "", tuple(segmentations.get(image["id"], ())))
        try:
            labels = decode_labels(record, check_size([image.get("height"), image.get("width")]))
        except ValueError as error:
            refused[name] = str(error).removeprefix(f"{name}: ")
            continue
        corrections.append(Correction(known_by(name)[0], name, labels.shape, encode_labels(labels), "COCO"))
    return corrections, refused


def _from_tasks(content: Sequence[Mapping[str, Any]]) -> tuple[list[Correction], dict[str, str]]:
    corrections, refused = [], {}
    for item in content:
        name = str(item["data"].get("image", ""))
        image_id, file = known_by(name.rpartition("?d=")[2])
        given = item["data"].get("image_id")
        try:
            labels = label_studio.labels_of(item)
        except ValueError as error:
            refused[file] = str(error)
            continue
        except (AttributeError, LookupError, TypeError):
            refused[file] = "its annotation is none of Label Studio's; export it again as JSON"
            continue
        if labels is not None:
            image_id = given if isinstance(given, int) else image_id
            corrections.append(Correction(image_id, file, labels.shape, encode_labels(labels), "Label Studio"))
    return corrections, refused


def _from_masks(masks: Iterable[Path]) -> tuple[list[Correction], dict[str, str]]:
    corrections, refused = [], {}
    for path in masks:
        try:
            labels = read_mask(path)
        except FilmError as error:
            refused[path.name] = str(error).removeprefix(f"{path}: ")
            continue
        image_id, file = known_by(path.name)
        corrections.append(Correction(image_id, file, labels.shape, encode_labels(labels), "PNG"))
    return corrections, refused


def read_mask(path: Path) -> np.ndarray:
    """A label mask as a paint program saved it: by its values, or by the colours of ``with_palette``.

    Raises:
        FilmError: it cannot be read, or holds anything else.
    """
    with open_image(path) as image:
        pixels = np.asarray(image if image.mode in ("P", "L", "1") else image.convert("RGB"))
    labels = np.full(pixels.shape[:2], 255, np.uint8)
    for label, colour in COLOURS.items():
        labels[pixels == label if pixels.ndim == 2 else (pixels == colour).all(axis=2)] = label
    if strange := np.count_nonzero(labels == 255):
        known = ", ".join(f"{label} or #{'%02X%02X%02X' % colour}" for label, colour in COLOURS.items())
        raise FilmError(path, f"{strange} pixels of it are no label", f"paint with a hard brush in {known} alone")
    return labels


def take_back(films: Sequence[FoundFilm], returned: Sequence[Correction], now: str, where: str) -> Taken:
    """What a person changed, of what a tool gave back.

    A lung that differs by less than a tool's rounding is as it was, and so is a film whose lungs all are.

    Args:
        films: all that there are, with the lungs that the tool was given.
        returned: as ``read_returned`` gives them.
        now: when, ISO 8601.
        where: the file that they come from.

    Raises:
        DatasetError: left and right are exchanged on most films, or a name fits several films.
    """
    keys = [(film.image_id, film.file) for film in films]
    matched = match_films([replace(item, decided=now) for item in returned], keys, where)
    corrections, unchanged, exchanged = [], 0, []
    files = {item.file for item in matched.values()}
    refused = {item.file: "is no film of these; give the folder that it was exported from"
               for item in returned if item.file not in files}
    for place, item in matched.items():
        film = films[place]
        try:
            changed = changed_lungs(film, item)
        except DatasetError as error:
            refused[item.file] = str(error)
            continue
        sides = [are_exchanged(decode_lungs(lungs, film.size)) for lungs in (film.lungs, item.lungs)]
        if None not in sides:
            exchanged.append(sides[0] != sides[1])
        if changed is None:
            unchanged += 1
        else:
            corrections.append(replace(item, image_id=film.image_id, file=film.file, lungs=changed))
    if 2 * sum(exchanged) > len(exchanged):
        raise DatasetError(
            f"{where}: labels exchanged? {sum(exchanged)} of {len(exchanged)} films have left and right the other way round "
            f"than they were exported; label them as in {IMAGES}/ and its masks"
        )
    return Taken(corrections, unchanged, refused)


def changed_lungs(film: FoundFilm, item: Correction) -> Mapping[int, dict[str, Any]] | None:
    """The lungs of a film, those that a person changed in place of its own; None where all are as they were.

    Raises:
        DatasetError: they are of another size, none are left, or one label has both.
    """
    if item.size != film.size:
        (height, width), (own_height, own_width) = item.size, film.size
        raise DatasetError(f"has {width} x {height} pixels, the film {own_width} x {own_height}; correct the {IMAGES}/")
    if film.lungs and not item.lungs:
        raise DatasetError("no lung is left on it; where the film shows none, reject it on the page")
    lungs = {
        category: film.lungs[category] if category in film.lungs and not _differ(film.lungs[category], lung) else lung
        for category, lung in item.lungs.items()
    }
    if lungs == dict(film.lungs):
        return None
    if on_both_sides(decode_lungs(lungs, film.size)):
        raise DatasetError(f"one label for both lungs? Label each lung by itself, as {' and '.join(CATEGORIES.values())}")
    return lungs


def _differ(own: dict[str, Any], returned: dict[str, Any]) -> bool:
    """Whether a lung is another than it was, in run lengths or as the polygons that the tool was given."""
    mask, corrected = decode_mask(own), decode_mask(returned)
    if not _are_apart(mask, corrected):
        return False
    parts = encode_polygons(mask)
    return not parts or _are_apart(decode_mask(compress(parts, mask.shape)), corrected)


def _are_apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks differ by three pixels anywhere, or by more than ``MAX_CHANGED`` of the lung."""
    differing = (one ^ other).view(np.uint8)
    thick = cv2.erode(differing, np.ones((3, 3), np.uint8), borderValue=0).any()
    return bool(thick or np.count_nonzero(differing) > MAX_CHANGED * np.count_nonzero(one))
