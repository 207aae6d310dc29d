"""Training films: which there are, who learns from which, and the batches the network is taught with.

Shapes
    film     uint8 [side, side], grey, equalised at its own size and then fitted to the square
    labels   uint8 [side, side], 0 background, else the category id
    images   float32 [batch, side, side, 3], mean pixel subtracted
    boxes    float32 [batch, max_instances, 4], normalised (y1, x1, y2, x2), zero padded
    masks    uint8 [batch, side, side, max_instances], 0 or 1

Memory: a film ready to learn from takes 2 side² bytes, 128 KB at 256 pixels; 10,000 films take 1.3 GB.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image
from tqdm import tqdm

from mask_rcnn.augmentation import Window, augment
from mask_rcnn.coco import CATEGORIES, DatasetError, decode_mask, mask_box, read_dataset
from mask_rcnn.config import Config
from mask_rcnn.radiograph import (
    FILM_SUFFIXES,
    FilmError,
    equalise,
    fit_labels_to_square,
    fit_to_square,
    read_film,
)
from mask_rcnn.utils import match_anchors, norm_boxes, pyramid_anchors, subtract_mean

Segmentation = tuple[int, tuple[int, int], str]  # category id, (height, width), COCO's compressed counts

MIN_INSTANCE_AREA = 20  # pixels of the square: what is left of a lung that a crop has all but removed


@dataclass(frozen=True)
class FilmRecord:
    """One film on disk and where its lungs are to be found."""

    path: Path
    source: str  # the dataset JSON or folder that named it
    group: str  # films of one group never stand on both sides of the split
    segmentations: tuple[Segmentation, ...] = ()
    mask_path: Path | None = None  # a label mask, instead of segmentations


@dataclass(frozen=True)
class TrainingFilm:
    """A film in memory, as inference would give it to the network, with its lungs."""

    record: FilmRecord
    film: np.ndarray  # uint8 [side, side]
    labels: np.ndarray  # uint8 [side, side]
    window: Window


def read_records(source: str | Path, laterality: str) -> list[FilmRecord]:
    """The films that a dataset JSON, or a folder with ``images/`` and ``masks/NAME.png``, names.

    A film of the JSON whose ``quality`` is not ``accepted`` is left out, and one without annotations is taken
    to show no lung; a film of a folder without a mask is named on standard error and left out, since nobody
    has said what it shows. A folder's label masks hold the patient's sides.

    Args:
        source: the JSON or the folder.
        laterality: "patient" or "image", as the config has it.

    Raises:
        DatasetError: the source is neither, holds no film, or names the lungs by other sides than the config.
    """
    source = Path(source)
    if source.is_dir():
        stated, records = "patient", _folder_records(source)
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


def _json_records(source: Path, dataset: dict[str, Any]) -> list[FilmRecord]:
    roots = dataset.get("info", {}).get("roots")
    segmentations: dict[Any, list[Segmentation]] = {}
    for record in dataset["annotations"]:
        try:
            segmentation = record["segmentation"]
            height, width = (int(side) for side in segmentation["size"])
            if record["category_id"] not in CATEGORIES or not isinstance(segmentation["counts"], str):
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{source}: annotation {record.get('id')} is no lung in compressed run lengths; "
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
        except (KeyError, IndexError, TypeError) as error:
            raise DatasetError(
                f"{source}: image {image['id']} names no file under a known root; make the file again with "
                "create_dataset.py"
            ) from error
        patient = image.get("patient")
        group = f"{image.get('collection') or source.stem}:{name if patient in (None, '') else patient}"
        records.append(FilmRecord(root / name, str(source), group, tuple(segmentations.get(image["id"], ()))))
    return records


def split_records(
    records: Sequence[FilmRecord], train_fraction: float, seed: int
) -> tuple[list[FilmRecord], list[FilmRecord]]:
    """Training and validation films; a group stays together, and the order of the records does not matter.

    Groups are sorted by a hash of their name and the seed, so the share is exact to one group, and a dataset
    that grows keeps nearly all of its films on their side. Of two groups or more, each side has at least one.
    """

    def lot(group: str) -> bytes:
        return hashlib.blake2b(f"{seed}:{group}".encode(), digest_size=8).digest()

    groups = sorted({record.group for record in records}, key=lambda group: (lot(group), group))
    count = min(max(round(train_fraction * len(groups)), 1), max(len(groups) - 1, 1))
    training = set(groups[:count])
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
            Machine Learning 24, 1996); "sources" takes all films of source ``member`` modulo their count.
        seed: of the draw, together with ``member``.
    """
    if mode == "sources":
        return list(train_by_source[list(train_by_source)[member % len(train_by_source)]])
    records = sorted(chain.from_iterable(train_by_source.values()), key=lambda record: str(record.path))
    drawn = np.random.default_rng((seed, member)).integers(0, len(records), len(records))
    return [records[index] for index in drawn]


def load_films(records: Sequence[FilmRecord], side: int) -> list[TrainingFilm]:
    """Reads, equalises and fits each film once; a film that is drawn twice is held once.

    A film that cannot be read, or whose masks do not fit it, is named on standard error and left out.

    Raises:
        DatasetError: none could be read.
    """
    unique = list(dict.fromkeys(records))

    def load(record: FilmRecord) -> TrainingFilm | str:
        try:
            return load_film(record, side)
        except (FilmError, DatasetError) as error:
            return str(error)

    loaded: dict[FilmRecord, TrainingFilm] = {}
    with ThreadPool(os.cpu_count()) as pool:  # Pillow and OpenCV let other threads run while they decode
        progress = tqdm(pool.imap(load, unique), total=len(unique), desc="films", unit="film", disable=None)
        for record, film in zip(unique, progress, strict=True):
            if isinstance(film, str):
                tqdm.write(f"left out {film}", file=sys.stderr)
            else:
                loaded[record] = film
    if not loaded:
        raise DatasetError(f"none of the {len(unique)} films can be read; the lines above say why")
    return [loaded[record] for record in records if record in loaded]


def load_film(record: FilmRecord, side: int) -> TrainingFilm:
    """One film, equalised at its own size and fitted to the square as inference does, and its label mask.

    Raises:
        FilmError: the film or its mask cannot be read.
        DatasetError: the mask has another size than the film, or holds other labels than the lungs'.
    """
    film = read_film(record.path)
    if record.mask_path is not None:
        labels = _read_labels(record.mask_path)
    else:
        labels = _decode_labels(record, film.shape)
    if labels.shape != film.shape:
        film_size, mask_size = (f"{width} x {height}" for height, width in (film.shape, labels.shape))
        raise DatasetError(
            f"{record.path}: the film has {film_size} pixels, its mask {mask_size}; "
            "make the mask again at the film's size"
        )
    square, window, _ = fit_to_square(equalise(film), side)
    return TrainingFilm(record, square, fit_labels_to_square(labels, side), window)


def _decode_labels(record: FilmRecord, shape: tuple[int, int]) -> np.ndarray:
    labels = np.zeros(record.segmentations[0][1] if record.segmentations else shape, np.uint8)
    for category, size, counts in record.segmentations:
        if size != labels.shape:
            raise DatasetError(f"{record.path}: its masks differ in size; make the dataset again")
        try:
            labels[decode_mask({"size": list(size), "counts": counts})] = category
        except ValueError as error:
            raise DatasetError(f"{record.path}: its run lengths are torn; make the dataset again") from error
    return labels


def _read_labels(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "P"):  # a palette's indices are the labels; other modes hold colours
                raise FilmError(path, f"is no label mask but {image.mode}", "save 0, 1, 2 as 8-bit grey")
            labels = np.array(image, np.uint8)
    except OSError as error:
        raise FilmError(path, "cannot be read as a label mask", "copy it again from its source") from error
    if labels.max(initial=0) > max(CATEGORIES):
        names = ", ".join(f"{key} {name}" for key, name in CATEGORIES.items())
        raise DatasetError(f"{path}: holds label {labels.max()}; save a mask of 0 background, {names}")
    return labels


class TrainingBatches(keras.utils.PyDataset):
    """Batches of one size; batch k of epoch e depends on the seed, e and k alone.

    An epoch shows every film once. Where the films do not fill the last batch, the first films of the epoch
    fill it up, since the network's shapes are static. Each batch is a pair of ``inputs`` and ``targets``;
    ``inputs`` maps names to arrays:

    - ``images`` float32 [batch, side, side, 3], equalised films, mean pixel subtracted
    - ``anchor_match`` int32 [batch, anchors], 1 lung, -1 background, 0 not learnt from
    - ``anchor_deltas`` float32 [batch, anchors_per_image, 4], of the positive anchors in order, zero padded
    - ``class_ids`` int32 [batch, max_instances], zero padded
    - ``boxes`` float32 [batch, max_instances, 4], normalised, zero padded
    - ``masks`` uint8 [batch, side, side, max_instances]

    ``targets`` is float32 zeros [batch]: the network computes its own losses, but Keras asks for a target.
    Give ``fit`` ``shuffle=False``, else it visits the batches of an epoch in an order of its own.

    Args:
        films: of the network's side; a film may be there several times.
        config: its network, targets, proposals and training say what a batch holds.
        seed: of the order, the changes and the anchors.
        augment: True shuffles the films and changes them by ``config.training.augmentation``; False, for
            validation, gives the same batches in every epoch.
        first_epoch: from 0; a run that goes on starts where it was left.

    Raises:
        DatasetError: there are no films.
    """

    def __init__(
        self, films: Sequence[TrainingFilm], config: Config, seed: int, augment: bool, first_epoch: int = 0
    ) -> None:
        super().__init__(workers=1)
        if not films:
            raise DatasetError("no films to make batches of; check data.sources")
        self.films, self.config, self.seed = films, config, seed
        self.augment, self.epoch, self._begun = augment, first_epoch, False
        network = config.network
        self.anchors = pyramid_anchors(network.image_size, network.anchor_scales, network.anchor_ratios)

    def on_epoch_begin(self) -> None:
        """Moves on to the next epoch, but for the first time, when ``first_epoch`` begins."""
        # Beginnings are counted since Keras reports the end of an epoch once before there was one.
        self.epoch += self._begun
        self._begun = True

    def __len__(self) -> int:
        return math.ceil(len(self.films) / self.config.training.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return self.batch(self.epoch if self.augment else 0, index)

    def batch(self, epoch: int, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Batch ``index`` of any epoch."""
        size = self.config.training.batch_size
        order = np.arange(len(self.films))
        if self.augment:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.films))
        chosen = np.resize(order, len(self) * size)[index * size : (index + 1) * size]
        rng = np.random.default_rng((self.seed, epoch, index + 1))  # (seed, epoch, 0) is the order's
        return self._stack([self._example(self.films[k], rng) for k in chosen]), np.zeros(size, np.float32)

    def _example(self, film: TrainingFilm, rng: np.random.Generator) -> dict[str, np.ndarray]:
        config = self.config
        square, labels = film.film, film.labels
        if self.augment:
            square, labels = augment(square, labels, film.window, config.training.augmentation, rng)
        class_ids, boxes, masks = find_instances(labels, config.targets.max_instances)
        match, deltas = match_anchors(
            self.anchors,
            boxes[class_ids > 0],
            config.targets.anchors_per_image,
            config.proposals.box_std,
            rng,
        )
        normalised = norm_boxes(boxes, labels.shape) * (class_ids > 0)[:, None]
        return {
            "images": subtract_mean(square, config.network),
            "anchor_match": match.astype(np.int32),
            "anchor_deltas": deltas.astype(np.float32),
            "class_ids": class_ids,
            "boxes": normalised.astype(np.float32),
            "masks": masks,
        }

    @staticmethod
    def _stack(examples: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        examples = list(examples)
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def find_instances(labels: np.ndarray, max_instances: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lungs of a label mask, one instance a lung, at most ``max_instances``.

    Lungs of fewer than ``MIN_INSTANCE_AREA`` pixels are dropped.

    Returns:
        class_ids int32 [max_instances], boxes float32 [max_instances, 4] in pixels, masks uint8 [side, side,
        max_instances]; all zero padded.
    """
    class_ids = np.zeros(max_instances, np.int32)
    boxes = np.zeros((max_instances, 4), np.float32)
    masks = np.zeros(labels.shape + (max_instances,), np.uint8)
    areas = np.bincount(labels.ravel(), minlength=max(CATEGORIES) + 1)
    found = [category for category in CATEGORIES if areas[category] >= MIN_INSTANCE_AREA]
    for slot, category in enumerate(found[:max_instances]):
        mask = labels == category
        class_ids[slot], boxes[slot], masks[..., slot] = category, mask_box(mask), mask
    return class_ids, boxes, masks
