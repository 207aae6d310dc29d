"""Which films there are to learn from, where their lungs are to be found, and who learns from which.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id; of another size than the film where it was drawn so
"""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mask_rcnn import legacy
from mask_rcnn.coco import (
    CATEGORIES, LEFT_LUNG, RIGHT_LUNG, DatasetError, compress, decode_mask, encode_mask, made_here, read_dataset,
)  # fmt: skip
from mask_rcnn.finding import find_film_paths
from mask_rcnn.orientation import turn_likewise
from mask_rcnn.outlines import Outline, find_units, polygons_of
from mask_rcnn.patient_tables import is_patient, read_table
from mask_rcnn.patients import describe_split, state_patients
from mask_rcnn.radiograph import Radiograph, film_stem, read_labels, read_radiograph

Segmentation = tuple[int, tuple[int, int], str]  # category id, (height, width), COCO's compressed counts

MAX_OVERLAP = 0.5  # of the smaller lung: lungs that share more are one outline with two names


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
    are_upright: bool = False  # whether the masks lie on the film as a DICOM header turns it, not as it is stored
    spacing: tuple[float, float] | None = None  # millimetres between the film's rows, and columns, as the dataset JSON says
    laterality: str = "patient"  # whose left and right the labels mean, the patient's or the image's
    patient: str = ""  # as far as known, within the source
    told_by: str = ""  # what told the patient
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
    film, spacing, turned, _ = read_radiograph(record.path) if record.pixels is None else Radiograph(record.pixels, None)
    film = 255 - film if record.inverted else film
    labels = _decode_labels(record, film.shape) if record.mask_path is None else read_labels(record.mask_path)
    if turned and not record.are_upright:  # annotators see the film as it is stored
        labels = turn_likewise(labels, turned)
    spacing = record.spacing or spacing
    if spacing:
        spacing = (spacing[0] * film.shape[0] / labels.shape[0], spacing[1] * film.shape[1] / labels.shape[1])
    return DrawnFilm(film, labels, spacing)


def _decode_labels(record: FilmRecord, shape: tuple[int, ...]) -> np.ndarray:
    """The union of each lung's annotations; where two lungs overlap a little, the later category has it."""
    labels = np.zeros(record.segmentations[0][1] if record.segmentations else shape, np.uint8)
    lungs = {category: np.zeros(labels.shape, bool) for category, _, _ in record.segmentations}
    for category, size, counts in record.segmentations:
        if size != labels.shape:
            raise DatasetError(f"{record.path}: its masks differ in size; give all of them the film's")
        try:
            lungs[category] |= decode_mask({"size": list(size), "counts": counts})
        except ValueError as error:
            raise DatasetError(f"{record.path}: its run lengths are torn; export its masks again") from error
    for category, mask in sorted(lungs.items()):
        labels[mask] = category
    if len(lungs) == 2:
        one, other = lungs.values()
        smaller = min(np.count_nonzero(one), np.count_nonzero(other))
        if np.count_nonzero(one & other) > MAX_OVERLAP * smaller > 0:
            raise DatasetError(f"{record.path}: its two lungs lie over each other; correct their outlines")
    return labels


def read_records(source: str | Path, laterality: str, patient_pattern: str = "") -> list[FilmRecord]:
    """The films that a dataset JSON, or a folder with ``images/`` and ``masks/NAME.png``, names.

    A folder's films may lie in folders of their own, ``images/PATIENT/NAME.jpg``; their masks lie likewise. Whose a film is
    tell, in this order, the pattern, a table ``films.csv`` or ``patients.csv`` in the folder or beside the JSON, the film's
    record, and the names of all films (``patients.tell_patients``). Films of a patient have one ``group``.

    A JSON without ``info.roots`` names its films from its own folder, or from ``images/`` there. A film whose ``quality``
    is not ``accepted`` is left out, and one without annotations is taken to show no lung; a film of a folder without a
    mask is named on standard error and left out, since nobody has said what it shows. A folder's label masks hold the
    patient's sides. The published nested-list JSON always names its lungs by image side; these are exchanged for the
    patient's where those are asked for.

    An annotation that cannot be read costs its film, which is named on standard error and left out; what is wrong with the
    whole file refuses it.

    Args:
        source: the JSON or the folder.
        laterality: "patient" or "image", as the config has it.
        patient_pattern: ``data.patient_pattern``, searched in a film's path relative to its source.

    Raises:
        DatasetError: the source is neither, holds no film, or names the lungs by other sides than the config.
            Or no annotation of the JSON can be read, its polygons are not in pixels, or the table cannot be used.
    """
    source = Path(source)
    if source.is_dir():
        stated, records = "patient", _folder_records(source, patient_pattern)
    elif legacy.is_legacy(source):
        stated, records = laterality, _legacy_records(source, laterality)
    else:
        dataset = read_dataset(source)
        stated = dataset.get("info", {}).get("laterality", "patient")
        records = _json_records(source, dataset, patient_pattern)
    if stated != laterality:
        raise DatasetError(
            f"{source}: its lungs are named by laterality {stated!r}, the config's by {laterality!r}; "
            f"set laterality: {stated} in the config or make the dataset again with --laterality {laterality}"
        )
    if not records:
        raise DatasetError(f"{source}: names no film; fill the folder, or make it with create_dataset.py")
    return [replace(record, laterality=laterality) for record in records]


def _folder_records(folder: Path, patient_pattern: str) -> list[FilmRecord]:
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise DatasetError(f"{folder}: has no images/ and masks/; give such a folder or a dataset JSON")
    paths = []
    for path in find_film_paths(images):
        if (mask_path := _mask_path(folder, path)).is_file():
            paths.append(path)
        else:
            remedy = f"add {mask_path}, all 0 if it shows no lung"
            print(f"left out {path}: it has no mask; {remedy}", file=sys.stderr)
    names = [path.relative_to(folder).as_posix() for path in paths]
    patients = state_patients(names, [""] * len(names), read_table(folder, names), patient_pattern)
    home = folder.resolve().name
    return [
        FilmRecord(path, str(folder), f"{home}:{patient or name}", mask_path=_mask_path(folder, path),
                   patient=patient, told_by=told_by)
        for path, name, (patient, told_by) in zip(paths, names, patients, strict=True)
    ]  # fmt: skip


def _mask_path(folder: Path, path: Path) -> Path:
    """``masks/PATIENT/NAME.png`` of ``images/PATIENT/NAME.jpg``."""
    inside = path.relative_to(folder / "images")
    return folder / "masks" / inside.parent / f"{film_stem(inside.name)}.png"


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


def _json_records(source: Path, dataset: dict[str, Any], patient_pattern: str) -> list[FilmRecord]:
    remedy = (
        "make the file again with create_dataset.py" if made_here(dataset)
        else "correct it in the tool that it was annotated with and export it again"
    )  # fmt: skip
    roots = dataset.get("info", {}).get("roots")
    accepted = [image for image in dataset["images"] if image.get("quality", "accepted") == "accepted"]
    if len(accepted) < len(dataset["images"]):
        print(f"{source}: {len(dataset['images']) - len(accepted)} films not accepted are left out")
    paths, names = [], []
    for image in accepted:
        try:
            root = source.parent / roots[image["root"]] if roots and "root" in image else source.parent
            name = image["file_name"]
            if not isinstance(name, str) or not name or "\0" in str(root / name):
                raise TypeError
            if not roots and not (root / name).exists() and (root / "images" / name).exists():
                root /= "images"
        except (KeyError, IndexError, TypeError) as error:
            raise DatasetError(f"{source}: image {image['id']} names no file under a known root; {remedy}") from error
        paths.append(root / name)
        # A copied film keeps the group of the film that it was copied from.
        names.append(next(text for text in (image.get("original_name"), name) if isinstance(text, str) and text))
    segmentations, bad = _read_annotations(source, dataset, accepted, remedy)
    blank = len({image["id"] for image in accepted} - segmentations.keys() - bad.keys())
    if blank and not made_here(dataset):
        print(f"{source}: {blank} films without annotations are taken to show no lung; leave out those not annotated yet")
    fields = [_stated_patient(image) for image in accepted]
    patients = state_patients(names, fields, read_table(source.parent, names), patient_pattern)
    records: dict[Path, FilmRecord] = {}
    for image, path, name, (patient, told_by) in zip(accepted, paths, names, patients, strict=True):
        if image["id"] in bad:
            print(f"left out {path}: {bad[image['id']]}; {remedy}", file=sys.stderr)
            continue
        record = FilmRecord(
            path,
            str(source),
            group=f"{image.get('collection') or source.stem}:{patient or name}",
            segmentations=tuple(segmentations.get(image["id"], ())),
            copies=f"{source}:{image['group']}" if "group" in image else "",
            inverted=bool(image.get("inverted")),
            are_upright="turned" in image,
            spacing=_spacing_of(image),
            patient=patient,
            told_by=told_by,
        )
        other = records.setdefault(path, record)
        if other.segmentations and record.segmentations and set(other.segmentations) != set(record.segmentations):
            raise DatasetError(
                f"{source}: two images, one of them {image['id']}, are {path.name} and have other lungs; keep one of them"
            )
        if not other.segmentations:  # the film once more, before it was annotated
            records[path] = record
    if bad:
        print(f"{source}: {len(bad)} films left out for annotations that cannot be read")
    return list(records.values())


def _read_annotations(
    source: Path, dataset: Mapping[str, Any], images: Sequence[Mapping[str, Any]], remedy: str
) -> tuple[dict[Any, list[Segmentation]], dict[Any, str]]:
    """By image id the lungs of each film, and what is wrong with those of which an annotation cannot be read.

    Raises:
        DatasetError: that is so of every annotated film, or the polygons are in other units than pixels.
    """
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in images}
    files = {image["id"]: image["file_name"] for image in images}
    annotations = [record for record in dataset["annotations"] if record["image_id"] in sizes]
    first, units = find_units(_outlines(annotations, sizes))
    if units:
        record = next(record for record in annotations if record["id"] == first)
        raise DatasetError(
            f"{source}: annotation {first}, of {files[record['image_id']]}: its polygons are not in pixels; {units} "
            "Export them in pixels"
        )
    segmentations: dict[Any, list[Segmentation]] = defaultdict(list)
    bad: dict[Any, str] = {}
    for record in annotations:
        image_id, category = record["image_id"], record["category_id"]
        try:
            if category not in CATEGORIES:
                raise ValueError(f"its category {category} is not in the file's list")
            rle = compress(record.get("segmentation"), sizes[image_id])
        except ValueError as error:
            bad.setdefault(image_id, f"annotation {record['id']} is no lung in run lengths or polygons: {error}")
            continue
        height, width = rle["size"]
        lung = (category, (height, width), rle["counts"])
        if lung not in segmentations[image_id]:
            segmentations[image_id].append(lung)
    if bad and not segmentations.keys() - bad.keys():
        image_id, reason = next(iter(bad.items()))
        raise DatasetError(f"{source}: of no annotated film all lungs can be read; {files[image_id]}: {reason}; {remedy}")
    return segmentations, bad


def _outlines(
    annotations: Iterable[Mapping[str, Any]], sizes: Mapping[Any, tuple[Any, Any]]
) -> Iterator[Outline]:
    """The polygons of all annotations that have some."""
    for record in annotations:
        try:
            polygons = polygons_of(record.get("segmentation"))
        except ValueError:  # run lengths, or what will be refused by itself
            continue
        height, width = sizes[record["image_id"]]
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        yield record["id"], record["image_id"], record["category_id"], polygons, size


def _stated_patient(image: Mapping[str, Any]) -> str:
    """The patient in a film's record, as text."""
    for key in ("patient", "patient_id"):
        value = image.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, (int, str)) and not isinstance(value, bool) and is_patient(str(value)):
            return str(value).strip()
    return ""


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


def split_report(train: Sequence[FilmRecord], validation: Sequence[FilmRecord]) -> list[str]:
    """A line for each source: its films and patients, how they are split, and what told the patients."""
    rows = [(record.source, str(record.path), record.patient, record.told_by) for record in chain(train, validation)]
    own = {str(record.path) for record in train}
    return describe_split(rows, own.__contains__)


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
