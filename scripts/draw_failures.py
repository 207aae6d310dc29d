"""Renders what the networks predict on phantoms that are spoilt as films are in hospitals: docs/failures_phantoms.png.

    python scripts/draw_failures.py --weights models/*.h5 --out docs/failures_phantoms.png

Each tile is a spoilt film with the annotated outlines in white and the predicted lungs in colour; beneath it what was
done to it, the Dice of the patient's left and right lung, and the agreement of the members."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from spoiled_films import SPOILERS

from mask_rcnn.bag.agreement import film_agreement
from mask_rcnn.bag.lung import label_mask
from mask_rcnn.bag.members import InferenceError, detect, load_members
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.drawing import outline_lung
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

PHANTOMS = Path(__file__).resolve().parent.parent / "data" / "phantoms"
KINDS = ("white_out", "blur", "overexpose", "crop_side", "crop_window", "rotate_30", "rotate_90", "mirror", "occlude",
         "collage", "lateral_like", "noise")
TILE, CAPTION, ACROSS = 256, 40, 4


def render_tile(film: np.ndarray, annotated: np.ndarray, found: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """uint8 [TILE + CAPTION, TILE, 3], RGB."""
    picture = cv2.cvtColor(film, cv2.COLOR_GRAY2RGB)
    for category in CATEGORIES:
        contours, _ = cv2.findContours((annotated == category).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, (255, 255, 255), 1, cv2.LINE_AA)
        outline_lung(picture, found == category, category)
    scale = TILE / max(film.shape)
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.full((TILE + CAPTION, TILE, 3), 24, np.uint8)
    top, left = (TILE - picture.shape[0]) // 2, (TILE - picture.shape[1]) // 2
    tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    for number, line in enumerate(lines):
        place = 6, TILE + 15 + 17 * number
        cv2.putText(tile, line, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
    return tile


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args(argv)
    try:
        members = load_members(arguments.weights)
    except InferenceError as error:
        print(f"draw_failures: {error}", file=sys.stderr)
        return 1
    bag = members[0].network.config.bag
    names = sorted(path.name for path in (PHANTOMS / "images").glob("*.png"))
    tiles = []
    for number, kind in enumerate(KINDS):
        name = names[number % len(names)]
        pair = read_film(PHANTOMS / "images" / name), read_labels(PHANTOMS / "masks" / name)
        film, annotated = SPOILERS[kind](*pair, np.random.default_rng(number))
        (detections,) = detect(members, [equalise(film)])
        lungs = bag_film(detections, bag)
        found = label_mask(lungs, film.shape)
        dices = [dice(found == category, annotated == category) for category in CATEGORIES]
        values = " ".join("  - " if np.isnan(value) else f"{value:.2f}" for value in dices)
        lines = [kind.replace("_", " "), f"Dice {values}, agreement {film_agreement(lungs, len(members)):.2f}"]
        tiles.append(render_tile(film, annotated, found, lines))
    rows = [np.hstack(tiles[start : start + ACROSS]) for start in range(0, len(tiles), ACROSS)]
    write_bytes(arguments.out, picture_png(np.vstack(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
