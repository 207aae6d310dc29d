"""Makes films that ``train.py`` can learn from out of drawings that hold the heart (``create_dataset/composite.py``).

    python scripts/compose_labels.py --unet runs/unet.h5 --heart-unet runs/heart.h5 --data adults --out runs/composed
    python scripts/compose_labels.py --unet runs/unet.h5 --data children --out runs/composed

Hearts are for adults, whose large hearts such drawings hold out to the chest wall. On ill children a network that was taught
adults' hearts finds them too large, and the labels had steps where they were cut away. ``--held-out configs/held_out.csv``
leaves out the films of that list.

``OUT/SET/images`` links to the set's films, ``OUT/SET/masks`` gets the labels of those that are not held out, and
``films.csv`` is the set's own, so that patients are known. Films whose labels are there already are passed over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
from tqdm import tqdm

from create_dataset.composite import compose
from create_dataset.lungs import find_lungs
from create_dataset.unet import WeightsError, load_unet, prepare, probabilities
from mask_rcnn.checks.chest import SIDE
from mask_rcnn.dataset.conventions import FILE_NAME, HEART_LEFT_OUT
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

BATCH = 8


def labels_of(drawn: np.ndarray, votes: np.ndarray, heart: np.ndarray) -> np.ndarray:
    """The labels of a film, uint8 [height, width].

    Args:
        drawn: uint8 [height, width], the heart drawn in.
        votes: float32 [1, 256, 256], the U-Net's.
        heart: float32 [256, 256], the heart U-Net's probability.
    """
    found = find_lungs(votes, *drawn.shape)
    is_heart = cv2.resize(heart, drawn.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
    labels = np.zeros_like(drawn)
    for category in CATEGORIES:
        lung = found.get(category, np.zeros(drawn.shape, bool))
        labels[compose(drawn == category, lung, is_heart, category)] = category
    return labels


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--unet", type=Path, required=True, metavar="FILE", help="finds the lungs' inner edges")
    parser.add_argument("--heart-unet", type=Path, metavar="FILE", help="finds the hearts; without it, none is cut away")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="films of which nothing is made")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        unet = load_unet(arguments.unet)
        heart_unet = load_unet(arguments.heart_unet) if arguments.heart_unet else None
        records_of = {folder: read_records(folder, "patient") for folder in arguments.data}
    except (WeightsError, DatasetError) as error:
        print(f"compose_labels: {error}", file=sys.stderr)
        return 1
    for folder, records in records_of.items():
        out = arguments.out / folder.name
        (out / "masks").mkdir(parents=True, exist_ok=True)
        if not (out / "images").exists():
            (out / "images").symlink_to((folder / "images").resolve())
        if (folder / "films.csv").is_file():
            shutil.copyfile(folder / "films.csv", out / "films.csv")
        (out / FILE_NAME).write_text(f"{HEART_LEFT_OUT}\n")
        todo = [(record, out / "masks" / f"{record.path.stem}.png") for record in records
                if held_out is None or not held_out.why(record.path)]
        todo = [(record, path) for record, path in todo if not path.is_file()]
        for start in tqdm(range(0, len(todo), BATCH), desc=folder.name, unit="batch", disable=None):
            batch = []
            for record, path in todo[start : start + BATCH]:
                try:
                    batch.append((read_annotated(record), path))
                except (FilmError, DatasetError) as error:
                    print(f"left out {error}", file=sys.stderr)
            inputs = np.zeros((BATCH, SIDE, SIDE, 3), np.float32)
            for place, (annotated, _) in zip(inputs, batch, strict=False):
                place[:] = prepare(annotated.film)
            lungs = probabilities([unet], inputs)
            hearts = np.zeros_like(lungs) if heart_unet is None else probabilities([heart_unet], inputs)
            for k, (annotated, path) in enumerate(batch):
                labels = labels_of(annotated.labels, lungs[:, k], hearts[0, k])
                write_bytes(path, cv2.imencode(".png", labels)[1].tobytes())
        print(f"{out}: {len(todo)} films")
    return 0


if __name__ == "__main__":
    sys.exit(main())
