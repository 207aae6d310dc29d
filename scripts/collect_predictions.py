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
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mask_rcnn.bag.lung import label_mask
from mask_rcnn.bag.members import InferenceError, Member, load_members, paste, predict
from mask_rcnn.bag.risk import FAILED, SIDE, small_masks, stretched
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.dataset.conventions import HEART_DRAWN_IN, convention_of
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import HELD, HeldOut, read_held_out
from mask_rcnn.dataset.illness import make_ill
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.lateral import lung_dices
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import resize_labels
from mask_rcnn.runtime.choice import choose_runtime
from mask_rcnn.runtime.start import add_runtime, start_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
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
    masks, scores = small_masks(paste(members, predictions, (SIDE, SIDE), soft=True))
    return {
        "films": stretched(film),
        "masks": masks, "scores": scores,
        "dice": np.array(lung_dices(found, drawn, thirds), np.float32),
    }  # fmt: skip


def drawn_films(
    records: Iterable[FilmRecord], held_out: HeldOut | None, copies: int
) -> Iterator[tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Each film, equalised, its labels and what is known of it; then its ill copies, where it is not held out.

    A film that is in the list for another reason than to report by is passed over, one that cannot be read is named.
    """
    for number, record in enumerate(records):
        why = held_out.why(record.path) if held_out else ""
        if why not in ("", HELD):
            continue
        try:
            film, drawn, _ = read_annotated(record)
        except (FilmError, DatasetError) as error:
            warn(f"left out {error}")
            continue
        film, facts = equalise(film), {"names": record.path.name, "groups": record.group, "held": why == HELD}
        yield film, drawn, {**facts, "copies": 0}
        for copy in range(1, 1 + (0 if why == HELD else copies)):
            yield *ill_copy(film, drawn, np.random.default_rng((number, copy))), {**facts, "copies": copy}


def ill_copy(film: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A film, equalised, and its labels with painted illness, no longer than ``LONGEST``."""
    scale = min(1, LONGEST / max(film.shape))
    height, width = (round(length * scale) for length in film.shape)
    inside, side = np.s_[:height, :width], max(height, width)
    square, labels = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
    square[inside] = cv2.resize(film, (width, height), interpolation=cv2.INTER_AREA)
    labels[inside] = resize_labels(drawn, height, width)
    ill, labels = make_ill(square, labels, rng)
    return equalise(ill[inside]), labels[inside]


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE", help="the members of the bag")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV")
    parser.add_argument("--copies", type=int, default=0, metavar="N", help="ill copies of a film that is not held out")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_runtime(parser)
    arguments = parser.parse_args(argv)
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        records_of = {folder: read_records(folder, "patient") for folder in arguments.data}
        runtime = choose_runtime(arguments.runtime)
        start_runtime(runtime, "auto")
        members = load_members(arguments.weights, runtime=runtime)
    except (InferenceError, DatasetError, DeviceError, OSError) as error:
        print(f"collect_predictions: {error}", file=sys.stderr)
        return 1
    for folder, records in records_of.items():
        thirds, rows = convention_of(folder) == HEART_DRAWN_IN, []
        films = drawn_films(progress(records, name=folder.name, total=len(records)), held_out, arguments.copies)
        while some := list(islice(films, BATCH)):
            predictions = predict(members, [film for film, _, _ in some], BATCH)
            rows += [of_film(members, film, drawn, of_one, thirds) | facts
                     for (film, drawn, facts), of_one in zip(some, predictions, strict=True)]
        if not rows:
            print(f"collect_predictions: {folder}: none of its {len(records)} films could be used", file=sys.stderr)
            return 1
        path = arguments.out / f"{folder.name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_path(path, ".npz") as partial:
            columns: dict[str, Any] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            np.savez_compressed(partial, **columns)
        lowest = np.nanmin([row["dice"] for row in rows], axis=1)
        failed = np.count_nonzero(lowest < FAILED)
        print(f"{path}: {len(rows)} films, {failed} of them with a lung below {FAILED:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
