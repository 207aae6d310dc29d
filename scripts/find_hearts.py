"""Finds where a heart may lie on films whose drawings hold it: ``OUT/SET/NAME.png``, 255 heart, of 256 x 256 pixels.

    python scripts/find_hearts.py --unet runs/heart.weights.h5 --data ../shared/data/v7_children --out runs/hearts

The U-Net is one that ``train_unet.py`` taught hearts, given as the masks of a folder. What it finds is widened by
``--margin`` of the side, so that the labels made from it (``mask_rcnn/dataset/conventions.py``) leave nothing of a heart
to be learnt as lung. Films that are there already are not found again.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tqdm import tqdm

from create_dataset.hearts import one_heart
from create_dataset.unet import WeightsError, load_unet, prepare, probabilities
from mask_rcnn.checks.chest import SIDE
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import HeldOut, read_held_out
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

BATCH = 8


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--unet", type=Path, required=True, metavar="FILE")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="films that are not learnt from and need no heart")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--margin", type=float, default=0.02, help="share of the side by which hearts are widened")
    arguments = parser.parse_args(argv)
    try:
        unet = load_unet(arguments.unet)
        held_out = read_held_out(arguments.held_out) if arguments.held_out else HeldOut([])
        todo = [
            (record.path, path) for folder in arguments.data for record in read_records(folder, "patient")
            if not held_out.why(record.path)
            and not (path := arguments.out / folder.name / f"{record.path.stem}.png").is_file()
        ]
    except (WeightsError, DatasetError) as error:
        print(f"find_hearts: {error}", file=sys.stderr)
        return 1
    found = 0
    for start in tqdm(range(0, len(todo), BATCH), desc="hearts", unit="batch", disable=None):
        batch = []
        for path, to in todo[start : start + BATCH]:
            try:
                batch.append((prepare(read_film(path)), to))
            except FilmError as error:
                print(f"left out {error}", file=sys.stderr)
        if not batch:
            continue
        inputs = np.zeros((BATCH, SIDE, SIDE, 3), np.float32)
        inputs[: len(batch)] = [film for film, _ in batch]
        for probability, (_, to) in zip(probabilities([unet], inputs)[0], batch, strict=False):
            heart = one_heart(probability, arguments.margin)
            write_bytes(to, picture_png(heart.astype(np.uint8) * 255))
            found += bool(heart.any())
    print(f"{arguments.out}: a heart on {found} of {len(todo)} films")
    return 0


if __name__ == "__main__":
    sys.exit(main())
