"""Which films a source names: a dataset JSON, a folder of films and masks, or the published JSON."""

from __future__ import annotations

import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mask_rcnn.dataset import legacy
from mask_rcnn.dataset.coco import made_here, read_dataset
from mask_rcnn.dataset.corrections import CORRECTIONS, Correction, is_wanted, match_corrections, read_corrections
from mask_rcnn.dataset.decisions import ACCEPT, DECISIONS, read_decisions
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.dataset.outlines import Outline, find_units, polygons_of
from mask_rcnn.dataset.patient_tables import is_patient, read_table
from mask_rcnn.dataset.patients import state_patients
from mask_rcnn.dataset.records import FilmRecord, Segmentation
from mask_rcnn.dataset.run_lengths import compress_all, encode_mask
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.names import film_stem
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.garbage import without_collection
from mask_rcnn.system.progress import progress


@without_collection()
def read_records(source: str | Path, laterality: str, patient_pattern: str = "") -> list[FilmRecord]:
    """The films that a dataset JSON, or a folder with ``images/`` and ``masks/NAME.png``, names.

    A folder's films may lie in folders of their own, ``images/PATIENT/NAME.jpg``; their masks lie likewise. A film's
    patient comes, in this order, from the pattern, a table ``films.csv`` or ``patients.csv`` in the folder or beside the
    JSON, the film's record, and the names of all films (``patients.tell_patients``). Films of a patient have one ``group``.

    A JSON without ``info.roots`` names its films from its own folder, or from ``images/`` there. A film whose ``quality``
    is not ``accepted`` is left out, and one without annotations is taken to show no lung; a film of a folder without a
    mask is named on standard error and left out, since nobody has said what it shows. A folder's label masks hold the
    patient's sides. The published nested-list JSON always names its lungs by image side; these are exchanged for the
    patient's where the config has those.

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
    return [record if record.laterality == laterality else replace(record, laterality=laterality) for record in records]


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
    decided = match_films(read_decisions(folder / DECISIONS), [(None, name) for name in names], DECISIONS)
    if decided:
        rejected = {place for place, decision in decided.items() if decision.decision != ACCEPT}
        print(f"{folder}: {len(rejected)} films are left out by {DECISIONS}")
        paths = [path for place, path in enumerate(paths) if place not in rejected]
        names = [name for place, name in enumerate(names) if place not in rejected]
    patients = state_patients(names, [""] * len(names), read_table(folder, names), patient_pattern)
    home = folder.resolve().name
    return [
        FilmRecord(path, str(folder), f"{home}:{patient or name}", mask_path=_mask_path(folder, path),
                   patient=patient, patient_from=patient_from)
        for path, name, (patient, patient_from) in zip(paths, names, patients, strict=True)
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
    for number, item in enumerate(progress(legacy.read_films(source), name=source.name)):
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
    corrected = _corrections(source, dataset)
    accepted = _accepted(source, dataset["images"], corrected)
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
    as_found = [image for image in accepted if image["id"] not in corrected]
    segmentations, bad = read_annotations(source, dataset, as_found, remedy)
    for image in accepted:
        if image["id"] in corrected:
            size = image["height"], image["width"]
            lungs = corrected[image["id"]].lungs_at(size)
            segmentations[image["id"]] = [(category, size, lung["counts"]) for category, lung in sorted(lungs.items())]
    blank = len({image["id"] for image in accepted} - segmentations.keys() - bad.keys())
    if blank and not made_here(dataset):
        print(f"{source}: {blank} films without annotations are taken to show no lung; leave out those not annotated yet")
    fields = [_stated_patient(image) for image in accepted]
    patients = state_patients(names, fields, read_table(source.parent, names), patient_pattern)
    records: dict[Path, FilmRecord] = {}
    for image, path, name, (patient, patient_from) in zip(accepted, paths, names, patients, strict=True):
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
            patient_from=patient_from,
            corrected=image["id"] in corrected or "corrected" in image,
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


def _films(images: Iterable[Mapping[str, Any]]) -> list[tuple[object, str]]:
    """Image id and path of each film, by which people's files are matched."""
    return [(image["id"], str(image.get("original_name") or image.get("file_name"))) for image in images]


def _corrections(source: Path, dataset: Mapping[str, Any]) -> dict[Any, Correction]:
    """By image id what a person corrected, in ``corrections.json`` beside the file."""
    laterality = dataset.get("info", {}).get("laterality", "patient")
    images = dataset["images"]
    sizes = [(image.get("height"), image.get("width")) for image in images]
    matched = match_corrections(read_corrections(source.parent / CORRECTIONS, laterality), _films(images), sizes)
    if matched:
        print(f"{source}: the lungs of {len(matched)} films are a person's, of {CORRECTIONS}")
    return {images[place]["id"]: correction for place, correction in matched.items()}


def _accepted(
    source: Path, images: Sequence[dict[str, Any]], corrected: Mapping[Any, Correction]
) -> list[dict[str, Any]]:
    """The films that the checks accepted, or a person, in ``decisions.csv`` beside the file or by correcting their lungs."""
    decided = match_films(read_decisions(source.parent / DECISIONS), _films(images), DECISIONS)
    accepted = [
        image for place, image in enumerate(images)
        if is_wanted(image.get("quality", "accepted") == "accepted", decided.get(place), corrected.get(image["id"]))
    ]
    if decided:
        print(f"{source}: {len(decided)} films are in or out by {DECISIONS}")
    return accepted


def read_annotations(
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
    rles = compress_all((record.get("segmentation"), sizes[record["image_id"]]) for record in annotations)
    for record, rle in zip(annotations, rles, strict=True):
        image_id, category = record["image_id"], record["category_id"]
        wrong = rle if category in CATEGORIES else f"its category {category} is not in the file's list"
        if not isinstance(wrong, dict):
            bad.setdefault(image_id, f"annotation {record['id']} is no lung in run lengths or polygons: {wrong}")
            continue
        assert isinstance(rle, dict)
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
