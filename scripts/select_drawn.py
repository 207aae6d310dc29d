"""Copies annotated films, and leaves out those whose annotation takes into a lung what lies between the lungs.

    python scripts/select_drawn.py --data ../shared/data/shenzhen --unet runs/unet_all.weights.h5 --out runs/drawn

Masks annotated by several hands differ in their convention: some take the heart, or what lies behind it, into the left
lung. A network that learns from both puts its border between the two. For each lung this measures how much of the
annotated mask lies on the medial side of what the U-Net finds, row by row; a film is left out where that is more than
``MAX_BEYOND``. An annotation that is smaller than the prediction is kept, and so is one that differs on the other sides
of a lung: there mostly the network is wrong, and has something to learn.

``OUT`` holds ``images/`` and ``masks/`` of the films that are kept, and ``left_out.csv`` with both measures of the
others.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
    drawn, found  bool [height, width], one lung
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tqdm import tqdm

from create_dataset.lungs import find_lungs
from create_dataset.unet import WeightsError, load_unet, prepare, probabilities
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

# Of 565 Shenzhen films 13 % lie above it, which were reviewed one by one: below 0.06 the annotation differs in details,
# above it a piece of heart, aorta or mediastinum is part of the lung.
MAX_BEYOND = 0.07
BATCH = 8


def share_beyond(drawn: np.ndarray, found: np.ndarray, lung: int) -> float:
    """The share of the drawn lung that lies nearer to the spine than the found lung does in the same row.

    Rows in which nothing was found do not count. Returns 0 where nothing is drawn.
    """
    if lung == RIGHT_LUNG:  # which lies on the image's left: its mirror image has its spine where the left lung has it
        drawn, found = drawn[:, ::-1], found[:, ::-1]
    border = np.where(found.any(axis=1), found.argmax(axis=1), 0)
    medial = np.arange(drawn.shape[1]) < border[:, None]
    return float((drawn & medial).sum() / max(drawn.sum(), 1))


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds images/ and masks/")
    parser.add_argument("--unet", type=Path, required=True, metavar="FILE", help="weights trained on all of them")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    try:
        unet = load_unet(arguments.unet)
        records = read_records(str(arguments.data), "patient")
        pairs = [(record.path, record.mask_path) for record in records if record.mask_path is not None]
    except (WeightsError, DeviceError, DatasetError) as error:
        print(f"select_drawn: {error}", file=sys.stderr)
        return 1
    for name in ("images", "masks"):
        shutil.rmtree(arguments.out / name, ignore_errors=True)
        (arguments.out / name).mkdir(parents=True)
    kept, left_out = 0, []
    for start in tqdm(range(0, len(pairs), BATCH), desc="drawn lungs", unit="batch", disable=None):
        batch = []
        for film_path, mask_path in pairs[start : start + BATCH]:
            try:
                batch.append((film_path, mask_path, read_film(film_path), read_labels(mask_path)))
            except FilmError as error:
                tqdm.write(f"left out {error}", file=sys.stderr)
        if not batch:
            continue
        votes = probabilities([unet], np.stack([prepare(film) for _, _, film, _ in batch]))
        for k, (film_path, mask_path, _, labels) in enumerate(batch):
            lungs = find_lungs(votes[:, k], *labels.shape)
            beyond = {
                lung: share_beyond(labels == lung, lungs[lung], lung) if lung in lungs else 0.0
                for lung in (LEFT_LUNG, RIGHT_LUNG)
            }
            if max(beyond.values()) > MAX_BEYOND:
                left_out.append((film_path.name, *(round(share, 4) for share in beyond.values())))
            else:
                shutil.copy2(film_path, arguments.out / "images" / film_path.name)
                shutil.copy2(mask_path, arguments.out / "masks" / mask_path.name)
                kept += 1
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([("film", "beyond_left", "beyond_right"), *left_out])
    write_bytes(arguments.out / "left_out.csv", table.getvalue().encode())
    print(f"{arguments.out}: {kept} films kept, {len(left_out)} left out (left_out.csv)")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
