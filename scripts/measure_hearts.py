"""Measures how well a heart U-Net finds hearts that were annotated: their Dice, and the error of the cardiothoracic ratio.

    python scripts/measure_hearts.py --unet runs/ill/heart.weights.h5 --data ../shared/data/jsrt_512

The set has ``images/``, label ``masks/`` of the lungs and ``heart/`` with the hearts, 0 and 255. The ratio is the heart's
width over that of the chest between the lungs' outer edges, both at their widest (Danzer, American Journal of the Medical
Sciences, 1919). ``--unet-lungs`` takes the chest of the predicted lungs; by default it is that of the annotated ones.

Shapes
    hearts  float32 [n, 256, 256], probabilities
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
from tqdm import tqdm

from create_dataset.hearts import one_heart
from create_dataset.lungs import find_lungs
from create_dataset.unet import WeightsError, load_unet, prepare, probabilities
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.system.console import forgiving_streams

BATCH = 8


def width_of(mask: np.ndarray) -> int:
    """Columns from the first to the last that a mask, bool [height, width], has a pixel in; 0 of an empty one."""
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[-1] - columns[0] + 1) if len(columns) else 0


def cardiothoracic_ratio(heart: np.ndarray, lungs: np.ndarray) -> float:
    """The heart's width over the chest's, both bool [height, width]; NaN without lungs."""
    chest = width_of(lungs)
    return width_of(heart) / chest if chest else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--unet", type=Path, required=True, metavar="FILE", help="finds hearts")
    parser.add_argument("--unet-lungs", type=Path, metavar="FILE", help="finds whole lungs")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="measures the films of this list alone")
    arguments = parser.parse_args(argv)
    try:
        records = read_records(arguments.data, "patient")
        if arguments.held_out:
            held = set(read_held_out(arguments.held_out).to_report([record.path for record in records]))
            records = [record for record in records if record.path in held]
        unet = load_unet(arguments.unet)
        unet_lungs = load_unet(arguments.unet_lungs) if arguments.unet_lungs else None
    except (WeightsError, DatasetError) as error:
        print(f"measure_hearts: {error}", file=sys.stderr)
        return 1
    rows = []
    for start in tqdm(range(0, len(records), BATCH), unit="batch", disable=None):
        try:
            some = [(read_annotated(record), read_film(arguments.data / "heart" / f"{record.path.stem}.png") > 127)
                    for record in records[start : start + BATCH]]
        except (FilmError, DatasetError) as error:
            print(f"measure_hearts: {error}", file=sys.stderr)
            return 1
        inputs = np.stack([prepare(annotated.film) for annotated, _ in some])
        hearts = probabilities([unet], inputs)[0]
        lungs = probabilities([unet_lungs], inputs) if unet_lungs is not None else None
        for k, (annotated, drawn) in enumerate(some):
            found = one_heart(cv2.resize(hearts[k], drawn.shape[::-1], interpolation=cv2.INTER_LINEAR))
            chest = annotated.labels > 0
            found_chest = chest
            if lungs is not None:
                masks = find_lungs(lungs[:, k], *chest.shape)
                found_chest = np.logical_or.reduce([np.zeros(chest.shape, bool), *masks.values()])
            rows.append((dice(found, drawn), cardiothoracic_ratio(found, found_chest), cardiothoracic_ratio(drawn, chest)))
    dices, ratios, truths = np.array(rows).T
    errors = ratios - truths
    print(f"{arguments.data}: {len(rows)} films, Dice {dices.mean():.4f} (median {np.median(dices):.4f}, "
          f"{np.sum(dices < 0.8)} below 0.80), cardiothoracic ratio wrong by {np.nanmean(np.abs(errors)):.4f} on average, "
          f"{np.nanmean(errors):+.4f} with its sign")
    return 0


if __name__ == "__main__":
    sys.exit(main())
