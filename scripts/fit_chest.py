"""Fits the statistical model of a frontal chest film, for the quality checks of create_dataset.py.

    python scripts/fit_chest.py --src ../shared/data/shenzhen/images ../shared/data/kaggle

Writes ``mask_rcnn/checks/typical_chest.json`` (see ``mask_rcnn/checks/chest.py``) from the films on which the U-Net
finds two lungs. What it learns are sums over all films; those furthest from the others are left out of the shapes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from tqdm import tqdm

from create_dataset.lungs import find_small_lungs
from create_dataset.sources import find_films
from create_dataset.unet import SIDE, load_unet, prepare, probabilities, stretch_to_square
from mask_rcnn.checks.chest import CONTRAST_FLOOR, TABLE, describe, odd_part, thumbnail
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_json
from mask_rcnn.system.shipped import shipped_unet
from mask_rcnn.utils import mask_box

BATCH = 8
OUTLIERS = 0.02  # of the films, twice: the shapes furthest from the mean
RIDGE_SHAPE, RIDGE_HEART = 0.02, 0.1  # added to a covariance's diagonal: a share of each variance, of their mean


def fit(samples: Sequence[tuple[np.ndarray, dict[int, np.ndarray]]]) -> dict[str, Any]:
    """The table, of squares uint8 [256, 256] and the two lungs found on each."""
    boxes = np.array([mask_box(lungs[LEFT_LUNG] | lungs[RIGHT_LUNG]) for _, lungs in samples]) / SIDE
    box = boxes.mean(0)
    thumbs = np.stack([thumbnail(square, lungs, tuple(box)) for square, lungs in samples])
    deviations = np.maximum(np.nanstd(thumbs, (1, 2), keepdims=True), CONTRAST_FLOOR)
    mean = np.nanmean((thumbs - np.nanmean(thumbs, (1, 2), keepdims=True)) / deviations, 0)
    shapes = np.stack([describe(lungs[RIGHT_LUNG], lungs[LEFT_LUNG]) for _, lungs in samples])
    for _ in range(2):
        offsets = shapes - shapes.mean(0)
        distances = np.einsum("ij,jk,ik->i", offsets, _precision(shapes), offsets)
        shapes = shapes[distances <= np.quantile(distances, 1 - OUTLIERS)]
    return {
        "films": len(samples),
        "box": box.round(4).tolist(),
        "thumbnail": mean.astype(float).round(4).tolist(),
        "heart": _heart(np.stack([odd_part(thumb) for thumb in thumbs])).astype(float).round(4).tolist(),
        "shape": shapes.mean(0).round(4).tolist(),
        "precision": _precision(shapes).round(3).tolist(),
    }


def _precision(shapes: np.ndarray) -> np.ndarray:
    covariance = np.cov(shapes.T)
    return np.linalg.inv(covariance + RIDGE_SHAPE * np.diag(covariance.diagonal()))


def _heart(odd: np.ndarray) -> np.ndarray:
    """Weights of the discriminant between films and their mirrored copies, whose odd parts differ in sign alone.

    Of deviation 1 over the films, so that it is the number of deviations by which a film is on its side.
    """
    rows = odd.reshape(len(odd), -1)
    covariance = np.cov(rows.T)
    ridge = RIDGE_HEART * covariance.trace() / len(covariance)
    weights = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), rows.mean(0))
    return (weights / (rows @ weights).std()).reshape(odd.shape[1:])


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of good films")
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    members = [load_unet(shipped_unet())]
    paths = [source.path for root in arguments.src for source in find_films(root)]
    samples = []
    for start in tqdm(range(0, len(paths), BATCH), desc="films", unit="batch", disable=None):
        films = []
        for path in paths[start : start + BATCH]:
            try:
                films.append(read_film(path))
            except FilmError as error:
                print(f"skipped {error}", file=sys.stderr)
        if not films:
            continue
        votes = probabilities(members, np.stack([prepare(film) for film in films]))
        for k, film in enumerate(films):
            lungs = find_small_lungs(votes[:, k])
            if len(lungs) == 2:
                samples.append((stretch_to_square(film), lungs))
    command = shlex.join(["scripts/fit_chest.py", *(sys.argv[1:] if argv is None else argv)])
    write_json(arguments.out, {"command": command, **fit(samples)})
    print(f"{arguments.out}: from {len(samples)} of {len(paths)} films")
    return 0


if __name__ == "__main__":
    sys.exit(main())
