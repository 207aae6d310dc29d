"""Trains the whole-lung U-Net on drawn films: folders with ``images/NAME.*`` and ``masks/NAME.png``, or dataset JSONs.

    python scripts/train_unet.py --data ../shared/data/shenzhen runs/phantoms --out models/unet/efficientnetb0.weights.h5

Drawings of both conventions can be learnt from (``mask_rcnn/dataset/conventions.py``): where one holds the heart, the loss
passes over what is not known of the lung. The epoch that finds the lungs best on films of other patients is kept; films of
``--held-out`` are neither trained on nor chosen by. Killed, the same command goes on at the last finished epoch.

Shapes
    squares       uint8 [256, 256], equalised
    targets       float32 [batch, 256, 256, 1]: 1 lung, 0 background, -1 unknown
    probabilities float32 [batch, 256, 256, 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")

import h5py
import keras
import numpy as np

from create_dataset.unet import SIDE, WeightsError, build_unet, load_unet
from create_dataset.unet_films import UNetFilm, read_films
from mask_rcnn.bag.risk import FAILED
from mask_rcnn.config import ILL_KINDS, AugmentationConfig
from mask_rcnn.dataset.augmentation import augment
from mask_rcnn.dataset.batches import EpochBatches
from mask_rcnn.dataset.conventions import UNKNOWN
from mask_rcnn.dataset.epochs import films_of_epoch
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.evaluation.lateral import lateral_dice
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import replacing_path
from mask_rcnn.weights.checkpoint import ENDING, halve

STRENGTHS = AugmentationConfig(rotation=6, scale=0.12, shift=0.05, shading=0.08, noise=0.05, apparatus=0.3, flip=0.5)
WHOLE = (0, 0, SIDE, SIDE)  # the window of a film that was stretched to the square
MOMENTUM = 0.95  # of the moving statistics: at Keras's 0.99 those of the weights to start from would outlast short epochs


class Batches(EpochBatches):
    """Changed films, the same for the same seed and epoch."""

    def __init__(
        self, films: Sequence[UNetFilm], per_epoch: Mapping[str, int], strengths: AugmentationConfig, batch: int, seed: int,
        first_epoch: int,
    ) -> None:
        super().__init__(first_epoch)
        self.films, self.per_epoch, self.strengths = films, per_epoch, strengths
        self.batch, self.seed = batch, seed
        self.sources = [film.source for film in films]
        self.order = self._order()

    def _order(self) -> np.ndarray:
        return films_of_epoch(self.sources, self.per_epoch, self.epoch, self.seed)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        self.order = self._order()

    def __len__(self) -> int:
        return len(self.order) // self.batch

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch, index + 1))
        chosen = [self.films[k] for k in self.order[index * self.batch : (index + 1) * self.batch]]
        pairs = [augment(film.square, film.labels, WHOLE, self.strengths, rng) for film in chosen]
        return as_inputs([square for square, _ in pairs]), as_targets([labels for _, labels in pairs])


def as_inputs(squares: Iterable[np.ndarray]) -> np.ndarray:
    """Equalised squares as the U-Net takes them, float32 [n, 256, 256, 3] in [0, 1]."""
    return np.repeat(np.stack(list(squares))[..., None].astype(np.float32) / 255, 3, axis=-1)


def as_targets(labels: Iterable[np.ndarray]) -> np.ndarray:
    """Label masks as the loss takes them."""
    stacked = np.stack(list(labels))[..., None]
    return np.where(stacked == UNKNOWN, np.float32(-1), (stacked > 0).astype(np.float32))


def cross_entropy_and_dice(target, probability):
    """Binary cross-entropy plus the Dice loss (Milletari et al., V-Net, 3DV 2016), over what is known of the batch."""
    ops = keras.ops
    known = ops.cast(target >= 0, probability.dtype)
    lung = target * known
    clipped = ops.clip(probability, 1e-7, 1 - 1e-7)
    entropies = lung * ops.log(clipped) + (known - lung) * ops.log(1 - clipped)
    overlap = ops.sum(lung * probability)
    dice_of_batch = (2 * overlap + 1) / (ops.sum(lung) + ops.sum(known * probability) + 1)
    return -ops.sum(entropies) / ops.maximum(ops.sum(known), 1) + 1 - dice_of_batch


def scores_of(model: keras.Model, films: Sequence[UNetFilm]) -> dict[str, list[float]]:
    """By source the Dice of each film before any clean-up: of both lungs in one, or the worse lateral third."""
    scores = defaultdict(list)
    for start in range(0, len(films), 16):
        some = films[start : start + 16]
        masks = np.asarray(model.predict_on_batch(as_inputs([film.square for film in some])))[..., 0] >= 0.5
        for film, found in zip(some, masks, strict=True):
            if film.holds_heart:
                thirds = [lateral_dice(found, film.drawn == category, category) for category in CATEGORIES]
                scores[film.source].append(float(np.nanmin(thirds)))
            else:
                scores[film.source].append(dice(found, film.drawn > 0))
    return scores


def describe(scores: Mapping[str, Sequence[float]]) -> tuple[float, str]:
    """The mean over sources of their mean Dice, and a line on each."""
    means = {source: float(np.nanmean(values)) for source, values in scores.items()}
    lines = [f"{source} {means[source]:.4f} ({sum(value < FAILED for value in values)} of {len(values)} below {FAILED})"
             for source, values in sorted(scores.items())]
    return float(np.mean(list(means.values()))), ", ".join(lines)


def limited(films: Sequence[UNetFilm], most: int, seed: int) -> list[UNetFilm]:
    """At most so many films of each source, drawn at random: their names are often in the order of what they show."""
    by_source = defaultdict(list)
    for k in np.random.default_rng(seed).permutation(len(films)):
        by_source[films[k].source].append(films[k])
    return [film for _, some in sorted(by_source.items()) for film in some[:most]]


def _count_of_source(text: str) -> tuple[str, int]:
    source, _, count = text.partition("=")
    if not count.isdigit() or not int(count):
        raise argparse.ArgumentTypeError(f"{text}: must be SOURCE=FILMS, such as openist=200")
    return source, int(count)


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="films that are neither trained on nor chosen by")
    parser.add_argument("--hearts", type=Path, metavar="DIR", help="where hearts may lie, for drawings that hold them")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="to start from; default: random ones")
    parser.add_argument("--out", type=Path, default=Path("models/unet/efficientnetb0.weights.h5"))
    parser.add_argument("--encoder", choices=["efficientnetb0", "efficientnetb7"], default="efficientnetb0")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--per-epoch", nargs="+", type=_count_of_source, default=[], metavar="SOURCE=FILMS",
                        help="films of a source, by its folder's name, in an epoch; default: all")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--beside", type=float, default=0.0, help="probability of air, an arm or an edge beside the chest")
    parser.add_argument("--flip", type=float, default=STRENGTHS.flip, help="probability of a mirrored film")
    parser.add_argument("--ill", type=float, default=0.0, help="probability of opaque lungs, gas below a diaphragm, tubes")
    parser.add_argument("--ill-kinds", nargs="+", choices=ILL_KINDS, default=ILL_KINDS, metavar="KIND",
                        help=f"which of {', '.join(ILL_KINDS)}")  # fmt: skip
    parser.add_argument("--holdout", type=float, default=0.08, help="share of the patients that the best epoch is chosen by")
    parser.add_argument("--choose-by", type=int, default=1000, metavar="FILMS", help="of each source, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/unet"), help="where checkpoints and the log go")
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(arguments.seed)
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        films, others = read_films(arguments.data, held_out, arguments.hearts, 1 - arguments.holdout, arguments.seed)
        model = load_unet(arguments.weights) if arguments.weights else build_unet(arguments.encoder)
    except (DatasetError, WeightsError) as error:
        raise SystemExit(f"train_unet: {error}") from error
    others = limited(others, arguments.choose_by, arguments.seed)
    print(f"{len(films)} films to train on, {len(others)} to choose the best epoch by", flush=True)

    log_path, last, best = arguments.run / "log.csv", arguments.run / f"last{ENDING}", arguments.run / f"best{ENDING}"
    lines = log_path.read_text().splitlines()[1:] if log_path.exists() else []
    first_epoch, best_score = len(lines), max((float(line.split(",")[2]) for line in lines), default=-math.inf)
    if first_epoch == 0 and arguments.run.exists():
        shutil.rmtree(arguments.run)
    arguments.run.mkdir(parents=True, exist_ok=True)
    strengths = dataclasses.replace(
        STRENGTHS, beside=arguments.beside, ill=arguments.ill, ill_kinds=tuple(arguments.ill_kinds), flip=arguments.flip
    )
    batches = Batches(films, dict(arguments.per_epoch), strengths, arguments.batch, arguments.seed, first_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(arguments.learning_rate, arguments.epochs * len(batches))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    model.compile(keras.optimizers.Adam(schedule), cross_entropy_and_dice)

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            nonlocal best_score
            score, told = describe(scores_of(model, others))
            for path in (last, best) if score > best_score else (last,):
                with replacing_path(path, ENDING) as partial:
                    model.save_weights(partial)
            best_score = max(score, best_score)
            if not log_path.exists():
                log_path.write_text("epoch,loss,score,by source\n")
            with log_path.open("a") as log:
                log.write(f'{epoch + 1},{(logs or {})["loss"]:.4f},{score:.4f},"{told}"\n')
            print(f" score {score:.4f}: {told}", flush=True)

    if first_epoch:
        model.optimizer.build(model.trainable_variables)  # so that its moments and its step count are loaded too
        model.load_weights(last)
        print(f"going on after epoch {first_epoch}", flush=True)
    elif arguments.weights:
        print("before: score {:.4f}: {}".format(*describe(scores_of(model, others))), flush=True)
    if first_epoch < arguments.epochs:
        model.fit(
            batches,
            epochs=arguments.epochs,
            initial_epoch=first_epoch,
            shuffle=False,  # the batches are in their order already; Keras's own would not be the same after a stop
            callbacks=[Keep(), keras.callbacks.TerminateOnNaN()],
            verbose=2,
        )
    settings = {key: str(value) for key, value in vars(arguments).items()}
    with replacing_path(arguments.out, ENDING) as copy:
        shutil.copyfile(best, copy)
        halve(copy)
        with h5py.File(copy, "a") as file:
            file.attrs["notes"] = json.dumps({**settings, "films": len(films), "score": round(best_score, 4)})
    print(f"{arguments.out}: score {best_score:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
