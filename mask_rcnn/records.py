"""Which films there are to learn from, where their lungs are to be found, and who learns from which.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id; of another size than the film where it was drawn so
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mask_rcnn import legacy
from mask_rcnn.coco import CATEGORIES, LEFT_LUNG, RIGHT_LUNG, DatasetError, compress, decode_mask, encode_mask, read_dataset
from mask_rcnn.radiograph import FILM_SUFFIXES, Radiograph, read_labels, read_radiograph

Segmentation = tuple[int, tuple[int, int], str]  # category id, (height, width), COCO's compressed counts


@dataclass(frozen=True)
class FilmRecord:
    """One film and where its lungs are to be found."""

    path: Path  # of its file; of a film in a published JSON, that file's and the film's number
    source: str  # the dataset JSON or folder that named it
    group: str  # films of one group never stand on both sides of the split
    segmentations: tuple[Segmentation, ...] = ()
    mask_path: Path | None = None  # a label mask, instead of segmentations
    copies: str = ""  # films that share this text are copies, or of one patient, as the dataset JSON says
    inverted: bool = False  # whether the file shows bones black
    spacing: tuple[float, float] | None = None  # millimetres between the film's rows, and columns, as the dataset JSON says
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)  # uint8 [height, width], instead of a file


class DrawnFilm(NamedTuple):
    """A film in memory, with its lungs."""

    film: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float] | None  # millimetres between the labels' rows, and columns; of the dataset JSON or DICOM


def read_drawn(record: FilmRecord) -> DrawnFilm:
    """The film and its label mask, each at its own size.

    Raises:
        FilmError: the film or its mask cannot be read, or the mask holds other labels than the lungs'.
        DatasetError: its run lengths are torn, or differ in size.
    """
    film, spacing, *_ = read_radiograph(record.path) if record.pixels is None else Radiograph(record.pixels, None)
    film = 255 - film if record.inverted else film
    labels = _decode_labels(record, film.shape) if record.mask_path is None else read_labels(record.mask_path)
    spacing = record.spacing or spacing
    if spacing:
        spacing = (spacing[0] * film.shape[0] / labels.shape[0], spacing[1] * film.shape[1] / labels.shape[1])
    return DrawnFilm(film, labels, spacing)


def _decode_labels(record: FilmRecord, shape: tuple[int, ...]) -> np.ndarray:
    labels = np.zeros(record.segmentations[0][1] if record.segmentations else shape, np.uint8)
    for category, size, counts in record.segmentations:
        if size != labels.shape:
            raise DatasetError(f"{record.path}: its masks differ in size; make the dataset again")
        try:
            labels[decode_mask({"size": list(size), "counts": counts})] = category
        except ValueError as error:
            raise DatasetError(f"{record.path}: its run lengths are torn; make the dataset again") from error
    return labels


def read_records(source: str | Path, laterality: str) -> list[FilmRecord]:
    """The films that a dataset JSON, or a folder with ``images/`` and ``masks/NAME.png``, names.

    A JSON without ``info.roots`` names its films from its own folder, or from ``images/`` there. A film whose ``quality``
    is not ``accepted`` is left out, and one without annotations is taken to show no lung; a film of a folder without a
    mask is named on standard error and left out, since nobody has said what it shows. A folder's label masks hold the
    patient's sides. The published nested-list JSON always names its lungs by image side; these are exchanged for the
    patient's where those are asked for.

    Args:
        source: the JSON or the folder.
        laterality: "patient" or "image", as the config has it.

    Raises:
        DatasetError: the source is neither, holds no film, or names the lungs by other sides than the config.
    """
    source = Path(source)
    if source.is_dir():
        stated, records = "patient", _folder_records(source)
    elif legacy.is_legacy(source):
        stated, records = laterality, _legacy_records(source, laterality)
    else:
        dataset = read_dataset(source)
        stated, records = dataset.get("info", {}).get("laterality", "patient"), _json_records(source, dataset)
    if stated != laterality:
        raise DatasetError(
            f"{source}: its lungs are named by laterality {stated!r}, the config's by {laterality!r}; "
            f"set laterality: {stated} in the config or make the dataset again with --laterality {laterality}"
        )
    if not records:
        raise DatasetError(f"{source}: names no film; fill the folder, or make it with create_dataset.py")
    return records


def _folder_records(folder: Path) -> list[FilmRecord]:
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise DatasetError(f"{folder}: has no images/ and masks/; give such a folder or a dataset JSON")
    records = []
    for path in sorted(path for path in images.iterdir() if path.suffix.lower() in FILM_SUFFIXES):
        mask_path = masks / f"{path.stem}.png"
        if mask_path.is_file():
            group = f"{folder.resolve().name}:{path.relative_to(folder).as_posix()}"
            records.append(FilmRecord(path, str(folder), group, mask_path=mask_path))
        else:
            remedy = f"add {mask_path}, all 0 if it shows no lung"
            print(f"left out {path}: it has no mask; {remedy}", file=sys.stderr)
    return records


def _legacy_records(source: Path, laterality: str) -> list[FilmRecord]:
    """The films of the published JSON; their pixels stay in memory, 64 KB a film."""
    if laterality == "patient":
        print(f"{source}: names its lungs by image side, as published; they are given the patient's sides")
    records = []
    for number, item in enumerate(tqdm(legacy.read_films(source), desc=source.name, unit="film", disable=None)):
        segmentations = []
        for image_side, mask in sorted(item.lungs.items()):
            category = LEFT_LUNG + RIGHT_LUNG - image_side if laterality == "patient" else image_side
            segmentations.append((category, mask.shape, encode_mask(mask)["counts"]))
        group = f"pixels:{hashlib.blake2b(item.film.tobytes(), digest_size=8).hexdigest()}"
        path = source / str(number)
        records.append(FilmRecord(path, str(source), group, tuple(segmentations), pixels=item.film))
    return records


def _json_records(source: Path, dataset: dict[str, Any]) -> list[FilmRecord]:
    roots = dataset.get("info", {}).get("roots")
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in dataset["images"]}
    segmentations: dict[Any, list[Segmentation]] = {}
    for record in dataset["annotations"]:
        try:
            segmentation = compress(record["segmentation"], sizes[record["image_id"]])
            height, width = (int(side) for side in segmentation["size"])
            if record["category_id"] not in CATEGORIES:
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DatasetError(
                f"{source}: annotation {record.get('id')} is no lung in run lengths or polygons; "
                "make the file again with create_dataset.py"
            ) from error
        lung = (record["category_id"], (height, width), segmentation["counts"])
        segmentations.setdefault(record["image_id"], []).append(lung)
    accepted = [image for image in dataset["images"] if image.get("quality", "accepted") == "accepted"]
    if len(accepted) < len(dataset["images"]):
        print(f"{source}: {len(dataset['images']) - len(accepted)} films not accepted are left out")
    records = []
    for image in accepted:
        try:
            root = source.parent / roots[image["root"]] if roots and "root" in image else source.parent
            name = str(image["file_name"])
            if not roots and not (root / name).exists() and (root / "images" / name).exists():
                root /= "images"
        except (KeyError, IndexError, TypeError) as error:
            raise DatasetError(
                f"{source}: image {image['id']} names no file under a known root; make the file again with "
                "create_dataset.py"
            ) from error
        # A copied film keeps the group of the film that it was copied from.
        own_name = next(text for text in (image.get("patient"), image.get("original_name"), name) if text not in (None, ""))
        records.append(FilmRecord(
            root / name,
            str(source),
            group=f"{image.get('collection') or source.stem}:{own_name}",
            segmentations=tuple(segmentations.get(image["id"], ())),
            copies=f"{source}:{image['group']}" if "group" in image else "",
            inverted=bool(image.get("inverted")),
            spacing=_spacing_of(image),
        ))  # fmt: skip
    return records


def _spacing_of(image: Mapping[str, Any]) -> tuple[float, float] | None:
    try:
        between_rows, between_columns = (float(value) for value in image["spacing_mm"])
    except (KeyError, TypeError, ValueError):
        return None
    return (between_rows, between_columns) if min(between_rows, between_columns) > 0 else None


def split_records(
    records: Sequence[FilmRecord], train_fraction: float, seed: int
) -> tuple[list[FilmRecord], list[FilmRecord]]:
    """Training and validation films; a group stays together, and the order of the records does not matter.

    Every source is split for itself; a group that several sources share belongs to the first of them by name. The
    groups of a source are sorted by a hash of their name and the seed, so the share is exact to one group, and a source
    that grows keeps nearly all of its films on their side. Of two groups or more, each side has at least one.
    """

    def lot(group: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()

    homes: dict[str, str] = {}
    for record in records:
        homes[record.group] = min(record.source, homes.get(record.group, record.source))
    groups_of: dict[str, list[str]] = defaultdict(list)
    for group, home in homes.items():
        groups_of[home].append(group)
    training: set[str] = set()
    for groups in groups_of.values():
        groups.sort(key=lambda group: (lot(group), group))
        training.update(groups[: min(max(round(train_fraction * len(groups)), 1), max(len(groups) - 1, 1))])
    train = [record for record in records if record.group in training]
    return train, [record for record in records if record.group not in training]


def member_records(
    train_by_source: Mapping[str, Sequence[FilmRecord]], member: int, mode: str, seed: int
) -> list[FilmRecord]:
    """The training films of one member of the bag.

    Args:
        train_by_source: the training films of each source, in the config's order.
        member: from 0.
        mode: "bootstrap" draws as many films as there are, with replacement (Breiman, Bagging Predictors,
            Machine Learning 24, 1996); "all" takes every film, so that members differ by their random weights, order and
            augmentation alone; "sources" takes all films of source ``member`` modulo their count.
        seed: of the draw, together with ``member``.
    """
    if mode == "sources":
        return list(train_by_source[list(train_by_source)[member % len(train_by_source)]])
    records = sorted(chain.from_iterable(train_by_source.values()), key=lambda record: str(record.path))
    if mode == "all":
        return records
    drawn = np.random.default_rng((seed, member)).integers(0, len(records), len(records))
    return [records[index] for index in drawn]
