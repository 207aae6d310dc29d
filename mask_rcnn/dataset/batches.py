"""The batches that the network learns from.

Shapes
    film     uint8 [side, side], grey, equalised at its own size and then fitted to the square
    labels   uint8 [side, side], 0 background, else the category id
    images   float32 [batch, side, side, 3], mean pixel subtracted
    boxes    float32 [batch, max_instances, 4], normalised (y1, x1, y2, x2), zero padded
    masks    uint8 [batch, side, side, max_instances], 0 or 1
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import numpy as np

from mask_rcnn.config import Config
from mask_rcnn.dataset.augmentation import augment
from mask_rcnn.dataset.epochs import films_of_epoch
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.training_films import TrainingFilm
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.utils import mask_box, match_anchors, norm_boxes, pyramid_anchors, subtract_mean

MIN_INSTANCE_AREA = 20  # pixels of the square: what is left of a lung that a crop has all but removed


class EpochBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches that depend on the number of the epoch, ``epoch``, from 0.

    Args:
        first_epoch: a run that goes on starts where it was left.
    """

    def __init__(self, first_epoch: int) -> None:
        super().__init__(workers=1)
        self.epoch, self._begun = first_epoch, False

    def on_epoch_begin(self) -> None:
        """Notes that an epoch was begun."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch.

        Keras makes an epoch's first batches before it reports its beginning, so that moving on there would be too late at
        times; and it reports an end once before there was a beginning.
        """
        self.epoch, self._begun = self.epoch + self._begun, False


class TrainingBatches(EpochBatches):
    """Batches of one size; an epoch's film in place p is changed as the seed, the epoch and p say, and nothing else.

    An epoch shows every film once, or of each source what ``config.data.epoch_films`` says. Where the films do not fill
    the last batch, the first films of the epoch fill it up, since the network's shapes are static. Each batch is a pair
    of ``inputs`` and ``targets``;
    ``inputs`` maps names to arrays:

    - ``images`` float32 [batch, side, side, 3], equalised films, mean pixel subtracted
    - ``anchor_match`` int32 [batch, anchors], 1 lung, -1 background, 0 neutral
    - ``anchor_deltas`` float32 [batch, anchors_per_image, 4], of the positive anchors in order, zero padded
    - ``class_ids`` int32 [batch, max_instances], zero padded
    - ``boxes`` float32 [batch, max_instances, 4], normalised, zero padded
    - ``masks`` uint8 [batch, side, side, max_instances]

    ``targets`` is float32 zeros [batch]: the network computes its own losses, but Keras requires a target.
    Give ``fit`` ``shuffle=False``, else it visits the batches of an epoch in an order of its own.

    Args:
        films: of the network's side; a film may be there several times.
        config: its network, targets, proposals and training determine what a batch holds.
        seed: of the order, the changes and the anchors.
        augment: True shuffles the films and changes them by ``config.training.augmentation``; False, for
            validation, gives the same batches in every epoch.
        first_epoch: from 0; a run that goes on starts where it was left.
        sources: of each film, as ``config.data.sources`` names them; needed where ``epoch_films`` counts by them.
        share: which share of every batch is wanted, from 0, of how many equal ones: of several processes each has its own.

    Raises:
        DatasetError: there are no films.
    """

    def __init__(
        self, films: Sequence[TrainingFilm], config: Config, seed: int, augment: bool, first_epoch: int = 0,
        sources: Sequence[str] = (), share: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        super().__init__(first_epoch)
        if not films:
            raise DatasetError("no films to make batches of; check data.sources")
        self.films, self.config, self.seed = films, config, seed
        self.augment, self.sources, self.share = augment, sources, share
        counts = zip(config.data.sources, config.data.epoch_films, strict=False)
        self.per_epoch = {str(Path(source)): count for source, count in counts if count and sources}
        self.ready: dict[int, float] = {}  # when each batch was last made, by ``time.monotonic``
        self._epoch_and_order = (-1, np.arange(len(films)))
        network = config.network
        self.anchors = pyramid_anchors(network.image_size, network.anchor_scales, network.anchor_ratios)

    def __len__(self) -> int:
        return math.ceil(len(self._order(self.epoch)) / self.config.training.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        batch = self.batch(self.epoch if self.augment else 0, index)
        self.ready[index] = time.monotonic()
        return batch

    def batch(self, epoch: int, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Batch ``index`` of any epoch, or this process's share of it."""
        order, (number, count) = self._order(epoch), self.share
        size = self.config.training.batch_size // count
        begin = (index * count + number) * size
        examples = [self._example(self.films[order[place % len(order)]], self._generator(epoch, place))
                    for place in range(begin, begin + size)]  # fmt: skip
        return self._stack(examples), np.zeros(size, np.float32)

    def _generator(self, epoch: int, place: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, place + 1))  # (seed, epoch, 0) is the order's

    def _order(self, epoch: int) -> np.ndarray:
        """The positions of the films of an epoch."""
        known, order = self._epoch_and_order
        if self.augment and epoch != known:
            if self.per_epoch:
                order = films_of_epoch(self.sources, self.per_epoch, epoch, self.seed)
            else:
                order = np.random.default_rng((self.seed, epoch)).permutation(len(self.films))
            self._epoch_and_order = epoch, order
        return order

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
