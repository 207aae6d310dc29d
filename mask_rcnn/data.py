"""Training films in memory, the copies among them, and the batches the network is taught with.

Shapes
    film     uint8 [side, side], grey, equalised at its own size and then fitted to the square
    labels   uint8 [side, side], 0 background, else the category id
    images   float32 [batch, side, side, 3], mean pixel subtracted
    boxes    float32 [batch, max_instances, 4], normalised (y1, x1, y2, x2), zero padded
    masks    uint8 [batch, side, side, max_instances], 0 or 1

Memory: a film ready to learn from takes 2 side² bytes, 128 KB at 256 pixels; 10,000 films take 1.3 GB. One that comes out
of a published JSON keeps its pixels too, 64 KB.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool

import keras
import numpy as np
from tqdm import tqdm

from mask_rcnn.augmentation import Window, augment
from mask_rcnn.coco import CATEGORIES, DatasetError, mask_box
from mask_rcnn.config import Config
from mask_rcnn.duplicates import find_groups, fingerprint, join
from mask_rcnn.radiograph import FilmError, equalise, fit_labels_to_square, fit_to_square
from mask_rcnn.records import FilmRecord, read_drawn
from mask_rcnn.sides import check_sides, check_turned
from mask_rcnn.utils import match_anchors, norm_boxes, pyramid_anchors, subtract_mean

MIN_INSTANCE_AREA = 20  # pixels of the square: what is left of a lung that a crop has all but removed


@dataclass(frozen=True)
class TrainingFilm:
    """A film in memory, as inference would give it to the network, with its lungs."""

    record: FilmRecord
    film: np.ndarray  # uint8 [side, side]
    labels: np.ndarray  # uint8 [side, side]
    window: Window
    fingerprint: str  # what its copies share


def load_films(records: Sequence[FilmRecord], side: int) -> list[TrainingFilm]:
    """Reads, equalises and fits each film once; a film that is drawn twice is held once.

    A film that cannot be read, or whose masks do not fit it, is named on standard error and left out.

    Raises:
        DatasetError: none could be read; or a source's masks have one label for both lungs, the labels exchanged, or are
            drawn on films that EXIF turns.
    """
    unique = list(dict.fromkeys(records))
    check_turned(unique)

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
    for record in check_sides(list(loaded), [film.labels for film in loaded.values()]):
        del loaded[record]
        print(f"left out {record.path}: one label for both lungs? Label each lung by itself", file=sys.stderr)
    if not loaded:
        raise DatasetError(f"none of the {len(unique)} films can be read; the lines above say why")
    return [loaded[record] for record in records if record in loaded]


def load_film(record: FilmRecord, side: int) -> TrainingFilm:
    """One film, equalised at its own size and fitted to the square as inference does, and its label mask.

    Raises:
        FilmError: the film or its mask cannot be read, or the mask holds other labels than the lungs'.
        DatasetError: the mask has another size than the film.
    """
    film, labels, _ = read_drawn(record)
    if labels.shape != film.shape:
        film_size, mask_size = (f"{width} x {height}" for height, width in (film.shape, labels.shape))
        raise DatasetError(
            f"{record.path}: the film has {film_size} pixels, its mask {mask_size}; "
            "make the mask again at the film's size"
        )
    square, window, _ = fit_to_square(equalise(film), side)
    return TrainingFilm(record, square, fit_labels_to_square(labels, side), window, fingerprint(film, labels > 0))


def join_copies(films: Sequence[TrainingFilm]) -> list[TrainingFilm]:
    """The same films, copies of a film in one group with it, wherever they come from.

    Sources say little of each other: two datasets or folders may hold the same film, and a folder or a published JSON
    says nothing of the copies within. What the fingerprints tell is added to the groups and copies that the records
    tell. A joined group has the first of its names.
    """
    groups = np.array(find_groups([film.fingerprint for film in films]), int)
    first_of: dict[tuple[str, str], int] = {}
    for index, film in enumerate(films):
        join(groups, index, first_of.setdefault(("group", film.record.group), index))
        if film.record.copies:
            join(groups, index, first_of.setdefault(("copies", film.record.copies), index))
    names: dict[int, str] = {}
    for group, film in zip(groups, films, strict=True):
        names[group] = min(film.record.group, names.get(group, film.record.group))
    return [
        replace(film, record=replace(film.record, group=names[group]))
        for group, film in zip(groups, films, strict=True)
    ]


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
