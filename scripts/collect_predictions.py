"""Keeps what a bag predicts on annotated films, and how far that is right: what a predicted failure is learnt from.

    python scripts/collect_predictions.py --weights models/*.h5 --data ../shared/data/v7_children --out runs/predictions

``OUT/SET.npz`` has the films of a set, as they are and in ``--copies`` ill copies (``mask_rcnn/dataset/illness.py``). The
Dice is of whole lungs, or of the lateral thirds where the drawings hold the heart. ``--held-out`` marks the films of that
list.

Shapes
    films    uint8 [n, 128, 128], equalised, stretched to the square
    masks    uint8 [n, members, 2, 128, 128], probabilities times 255; the left lung first
    scores   float32 [n, members, 2], 0 where a member did not find the lung
    dice     float32 [n, 2], of the bag; NaN where a lung is neither annotated nor found
    names, groups, held  [n]: the file, its patient, and whether it is held out
    copies   int [n], 0 a film as it is, else the number of its ill copy
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.lung import label_mask
from mask_rcnn.bag.members import InferenceError, Member, load_members, paste, predict
from mask_rcnn.bag.risk import SIDE, small_masks, stretched
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.dataset.conventions import HEART_DRAWN_IN, convention_of
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.illness import make_ill
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.lateral import lateral_dice
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.devices import DeviceError, start_device
from mask_rcnn.system.files import replacing_path
from mask_rcnn.system.progress import progress, warn

BATCH = 8
LONGEST = 512  # pixels, of a film that is made ill: its forms are drawn at that size


def of_film(members: Sequence[Member], film: np.ndarray, drawn: np.ndarray, predictions: Sequence[Any], thirds: bool
            ) -> dict[str, np.ndarray]:
    """The row of a film, equalised, that the members have predicted."""
    lungs = bag_film(paste(members, predictions, film.shape), members[0].network.config.bag)
    found = label_mask(lungs, film.shape)
    if drawn.shape != film.shape:
        drawn = resize_labels(drawn, *film.shape)
    measure = lateral_dice if thirds else lambda one, other, _: dice(one, other)
    masks, scores = small_masks(paste(members, predictions, (SIDE, SIDE), soft=True))
    return {
        "films": stretched(film),
        "masks": masks, "scores": scores,
        "dice": np.array([measure(found == lung, drawn == lung, lung) for lung in CATEGORIES], np.float32),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE", help="the members of the bag")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV")
    parser.add_argument("--copies", type=int, default=0, metavar="N", help="ill copies of a film that is not held out")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        records_of = {folder: read_records(folder, "patient") for folder in arguments.data}
        start_device("auto")
        members = load_members(arguments.weights)
    except (InferenceError, DatasetError, DeviceError, OSError) as error:
        print(f"collect_predictions: {error}", file=sys.stderr)
        return 1
    for folder, records in records_of.items():
        thirds, rows, waiting = convention_of(folder) == HEART_DRAWN_IN, [], []
        for number, record in enumerate(progress(records, name=folder.name, total=len(records))):
            held = held_out.why(record.path) if held_out else ""
            if held and held != "held":
                continue
            try:
                film, drawn, _ = read_annotated(record)
            except (FilmError, DatasetError) as error:
                warn(f"left out {error}")
                continue
            film = equalise(film)
            facts = {"names": record.path.name, "groups": record.group, "held": bool(held)}
            waiting.append((film, drawn, {**facts, "copies": 0}))
            for copy in range(1, 1 + (0 if held else arguments.copies)):
                scale = min(1, LONGEST / max(film.shape))
                size = (round(film.shape[1] * scale), round(film.shape[0] * scale))
                side = max(size)
                square, labels = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
                square[: size[1], : size[0]] = cv2.resize(film, size, interpolation=cv2.INTER_AREA)
                labels[: size[1], : size[0]] = resize_labels(drawn, size[1], size[0])
                ill, labels = make_ill(square, labels, np.random.default_rng((number, copy)))
                inside = np.s_[: size[1], : size[0]]
                waiting.append((equalise(ill[inside]), labels[inside], {**facts, "copies": copy}))
            while len(waiting) >= BATCH or (waiting and number == len(records) - 1):
                some, waiting = waiting[:BATCH], waiting[BATCH:]
                predictions = predict(members, [film for film, _, _ in some], BATCH)
                rows += [of_film(members, film, drawn, of_one, thirds) | facts
                         for (film, drawn, facts), of_one in zip(some, predictions, strict=True)]
        path = arguments.out / f"{folder.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_path(path, ".npz") as partial:
            columns: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            np.savez_compressed(partial, **columns)
        lowest = np.nanmin([row["dice"] for row in rows], axis=1)
        print(f"{path}: {len(rows)} films, {np.count_nonzero(lowest < 0.9)} of them with a lung below 0.90", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
