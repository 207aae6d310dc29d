"""Trains the whole-lung U-Net on folders of films and masks: ``DIR/images/NAME.*`` with ``DIR/masks/NAME.png``.

    python scripts/train_unet.py --data ../shared/data/shenzhen runs/phantoms --out models/unet/efficientnetb0.weights.h5

A mask's pixels above 0 are lung. Killed, the same command goes on at the last finished epoch.

Shapes
    films   uint8 [n, 256, 256], grey, not yet equalised
    masks   uint8 [n, 256, 256], 0 or 1
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("SM_FRAMEWORK", "tf.keras")

import cv2
import h5py
import keras
import numpy as np
from tqdm import tqdm

from create_dataset.unet import SIDE, build_unet
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.names import FILM_SUFFIXES
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import replacing_path
from mask_rcnn.weights.checkpoint import ENDING, halve


def read_pairs(folders: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Every film of the folders that has a mask, and the masks; a pair that cannot be read is named and left out."""
    films, masks = [], []
    for folder in folders:
        paths = sorted(path for path in (folder / "images").glob("*") if path.suffix.lower() in FILM_SUFFIXES)
        for path in tqdm(paths, desc=str(folder), unit="film", disable=None):
            mask_path = folder / "masks" / f"{path.stem}.png"
            try:
                film, mask = read_film(path), read_film(mask_path)
            except FilmError as error:
                print(f"skipped {error}", file=sys.stderr)
                continue
            films.append(cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            lung = (mask > 0).astype(np.uint8) * 255
            masks.append((cv2.resize(lung, (SIDE, SIDE), interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8))
    if not films:
        raise SystemExit(f"{', '.join(map(str, folders))}: no film with a mask; expected DIR/images and DIR/masks")
    return np.stack(films), np.stack(masks)


def augment(film: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One film and mask as another build, pose, exposure or apparatus might have given them (both [256, 256])."""
    angle, scale = rng.normal(0, 6), np.exp(rng.normal(0, 0.12))
    stretch = np.exp(rng.normal(0, 0.06))
    matrix = np.asarray(cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, scale), np.float64)
    matrix[0] *= stretch
    matrix[:, 2] += rng.normal(0, 0.05 * SIDE, 2)
    border = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    film = cv2.warpAffine(film, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=border)
    mask = cv2.warpAffine(mask, matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST)
    if rng.random() < 0.5:
        film, mask = film[:, ::-1], mask[:, ::-1]
    shade: np.ndarray = film.astype(np.float32) / 255
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j].astype(np.float32)
    shade += rng.normal(0, 0.08) * x + rng.normal(0, 0.08) * y
    for _ in range(rng.integers(0, 3)):  # an opacity, dense or faint, anywhere
        centre_x, centre_y, width, height = *rng.uniform(-0.7, 0.7, 2), *rng.uniform(0.08, 0.4, 2)
        blob = np.exp(-(((x - centre_x) / width) ** 2 + ((y - centre_y) / height) ** 2))
        shade += rng.uniform(-0.1, 0.4) * blob
    if rng.random() < 0.3:
        shade = cv2.GaussianBlur(shade, (0, 0), rng.uniform(0.5, 1.5))
    if rng.random() < 0.4:
        shade = shade + rng.normal(0, rng.uniform(0.01, 0.05), shade.shape)
    if rng.random() < 0.2:  # local contrast enhancement, as some consoles apply before export
        clahe = cv2.createCLAHE(clipLimit=rng.uniform(1.5, 4), tileGridSize=(8, 8))
        shade = clahe.apply(np.clip(shade * 255, 0, 255).astype(np.uint8)) / np.float32(255)
    return (np.clip(shade, 0, 1) * 255).astype(np.uint8), np.ascontiguousarray(mask)


class Batches(keras.utils.PyDataset):
    """Augmented, equalised batches, the same for the same seed and epoch."""

    def __init__(self, films: np.ndarray, masks: np.ndarray, batch: int, seed: int, first_epoch: int) -> None:
        super().__init__(workers=1)
        self.films, self.masks, self.batch, self.seed, self.epoch = films, masks, batch, seed, first_epoch
        self.on_epoch_begin()

    def on_epoch_begin(self) -> None:
        self.order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.films))

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def __len__(self) -> int:
        return len(self.films) // self.batch

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch, index))
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        pairs = [augment(self.films[k], self.masks[k], rng) for k in chosen]
        return as_inputs([film for film, _ in pairs]), np.stack([mask for _, mask in pairs])[..., None].astype("float32")


def as_inputs(films: Iterable[np.ndarray]) -> np.ndarray:
    """Films [n, 256, 256] as the U-Net takes them, float32 [n, 256, 256, 3] in [0, 1]."""
    equalised = np.stack([equalise(film) for film in films])[..., None].astype(np.float32) / 255
    return np.repeat(equalised, 3, axis=-1)


def cross_entropy_and_dice(target, probability):
    """Binary cross-entropy plus the Dice loss (Milletari et al., V-Net, 3DV 2016), over the whole batch."""
    cross_entropy = keras.ops.mean(keras.losses.binary_crossentropy(target, probability))
    overlap = keras.ops.sum(target * probability)
    dice = (2 * overlap + 1) / (keras.ops.sum(target) + keras.ops.sum(probability) + 1)
    return cross_entropy + 1 - dice


def mean_dice(model: keras.Model, films: np.ndarray, masks: np.ndarray) -> float:
    """The mean whole-lung Dice at a probability of 0.5, before any clean-up."""
    scores = []
    for start in range(0, len(films), 16):
        found = np.asarray(model.predict_on_batch(as_inputs(films[start : start + 16])))[..., 0] >= 0.5
        truth = masks[start : start + 16] > 0
        both = (found & truth).sum((1, 2))
        scores.extend(2 * both / np.maximum(found.sum((1, 2)) + truth.sum((1, 2)), 1))
    return float(np.mean(scores))


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("models/unet/efficientnetb0.weights.h5"))
    parser.add_argument("--encoder", choices=["efficientnetb0", "efficientnetb7"], default="efficientnetb0")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--holdout", type=float, default=0.08, help="share of the films kept for the validation Dice")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", type=Path, default=Path("runs/unet"), help="where checkpoints and the log go")
    arguments = parser.parse_args(argv)

    keras.utils.set_random_seed(arguments.seed)
    films, masks = read_pairs(arguments.data)
    order = np.random.default_rng(arguments.seed).permutation(len(films))
    held = order[: max(1, round(arguments.holdout * len(films)))]
    kept = order[len(held) :]
    print(f"{len(kept)} films to train on, {len(held)} held out", flush=True)

    log_path = arguments.run / "log.csv"
    first_epoch = max(len(log_path.read_text().splitlines()) - 1, 0) if log_path.exists() else 0
    if first_epoch == 0 and arguments.run.exists():
        shutil.rmtree(arguments.run)
    arguments.run.mkdir(parents=True, exist_ok=True)
    batches = Batches(films[kept], masks[kept], arguments.batch, arguments.seed, first_epoch)
    schedule = keras.optimizers.schedules.CosineDecay(arguments.learning_rate, arguments.epochs * len(batches))
    model = build_unet(arguments.encoder)
    model.compile(keras.optimizers.Adam(schedule), cross_entropy_and_dice)
    last = arguments.run / "last.weights.h5"

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            dice = mean_dice(model, films[held], masks[held])
            with replacing_path(last, ENDING) as partial:
                model.save_weights(partial)
            if not log_path.exists():
                log_path.write_text("epoch,loss,held_out_dice\n")
            with log_path.open("a") as log:
                log.write(f"{epoch + 1},{(logs or {})['loss']:.4f},{dice:.4f}\n")
            print(f" held-out Dice {dice:.4f}", flush=True)

    if first_epoch:
        model.optimizer.build(model.trainable_variables)  # so that its moments and its step count are loaded too
        model.load_weights(last)
        print(f"going on after epoch {first_epoch}", flush=True)
    if first_epoch < arguments.epochs:
        model.fit(
            batches,
            epochs=arguments.epochs,
            initial_epoch=first_epoch,
            callbacks=[Keep(), keras.callbacks.TerminateOnNaN()],
            verbose=2,
        )
    dice = mean_dice(model, films[held], masks[held])
    settings = {key: str(value) for key, value in vars(arguments).items()}
    with replacing_path(arguments.out, ENDING) as copy:
        shutil.copyfile(last, copy)
        halve(copy)
        with h5py.File(copy, "a") as file:
            file.attrs["notes"] = json.dumps({**settings, "films": len(kept), "held_out_dice": round(dice, 4)})
    print(f"{arguments.out}: held-out Dice {dice:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
