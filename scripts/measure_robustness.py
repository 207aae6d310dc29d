"""Measures what the accuracy loses on films as other hospitals might have taken them: turned, tubed, ill, exposed otherwise.

    python scripts/measure_robustness.py --weights models/*.h5 --data ../shared/data/jsrt

The data are a folder of ``images/NAME.*`` and ``masks/NAME.png``, or a COCO JSON, best of films that no network was
trained on. ``--count`` of them are predicted as they are and changed in each way of ``CHANGES``, as ``inference.py``
does. All changes leave both lungs on the film and in sight: ``spoiled_films.py`` holds those that do not.

Printed are the mean Dice of each lung, what it differs from that of the same films unchanged, with the interval that holds
95 % of bootstrap samples, the lowest Dice of a film and how many films have a lung below 0.90. ``OUT/films.csv`` gets a line
for each prediction, ``OUT/robustness.json`` the table and the command.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id; they follow what moves the film
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from measure_uncertainty import AS_IT_IS, BAD, Row, argument_parser, csv_text, evenly, predict_all
from spoiled_films import Pair, Spoiler, invert, warp

from mask_rcnn.bag.members import InferenceError, load_members
from mask_rcnn.dataset.augmentation import equip
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.summary import bootstrap_intervals
from mask_rcnn.films.images import FilmError
from mask_rcnn.lungs import SIDES
from mask_rcnn.runtime.choice import choose_runtime
from mask_rcnn.runtime.start import start_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes, write_json
from mask_rcnn.utils import mask_box


def turn(degrees: float, film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """A patient who leans to either side; the film's size is kept, its corners turn black."""
    height, width = film.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(degrees * rng.choice([-1, 1])), 1.0)
    return warp(film, labels, matrix)


def tubes(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """What a bedside film shows: up to six tubes or leads, six electrodes, letters, a pacemaker."""
    square = np.zeros([max(film.shape)] * 2, np.uint8)
    window = np.s_[: film.shape[0], : film.shape[1]]
    square[window] = film
    return equip(equip(square, rng), rng)[window].copy(), labels


def opacities(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Three soft patches of 40 to 90 grey levels in the lungs, 10 to 25 % of the film wide."""
    rows, columns = np.nonzero(labels)
    if not len(rows):
        return film, labels
    grey = film.astype(np.float32)
    for k in rng.integers(len(rows), size=3):
        radius = rng.uniform(0.05, 0.12) * film.shape[1]
        down, across = (np.arange(side) - place[k] for side, place in zip(film.shape, (rows, columns), strict=True))
        grey += rng.uniform(40, 90) * np.exp(-(down[:, None] ** 2 + across**2) / (2 * radius**2))
    return np.clip(grey, 0, 255).astype(np.uint8), labels


def expose(gamma: float, film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Another tone curve."""
    return np.round(255 * (film / 255) ** gamma).astype(np.uint8), labels


def enhance(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Local contrast enhancement, as some consoles apply it before they export a film."""
    return cv2.createCLAHE(4.0, (8, 8)).apply(film), labels


def soften(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """A Gaussian of 0.8 % of the shorter side: a chest that breathed."""
    return cv2.GaussianBlur(film, (0, 0), 0.008 * min(film.shape)), labels


def grain(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Grain of 15 grey levels."""
    return np.clip(film + rng.normal(0, 15, film.shape), 0, 255).astype(np.uint8), labels


def widen(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Black margins of up to a fifth of either side, as of a scanned sheet."""
    margins = [tuple(rng.integers(0, side // 5, 2)) for side in film.shape]
    return np.pad(film, margins), np.pad(labels, margins)


def crop(film: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Pair:
    """Cut to the lungs and 2 % of the film around them."""
    margin = round(0.02 * max(film.shape))
    y1, x1, y2, x2 = mask_box(labels > 0)
    window = np.s_[max(0, y1 - margin) : y2 + margin, max(0, x1 - margin) : x2 + margin]
    return film[window].copy(), labels[window].copy()


CHANGES: dict[str, Spoiler] = {
    **{f"turned by {degrees}": partial(turn, degrees) for degrees in (5, 10, 15, 20)},
    "tubes": tubes,
    "opacities": opacities,
    "gamma 0.4": partial(expose, 0.4),
    "gamma 2.5": partial(expose, 2.5),
    "enhanced": enhance,
    "soft": soften,
    "grain": grain,
    "inverted": invert,
    "wide": widen,
    "tight": crop,
}


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """By kind, of each lung the mean Dice and what it is above or below that of the same films as they are.

    Args:
        rows: as ``predict_all`` gives them, each film as it is before its changed copies. Films that do not show both
            lungs count nowhere.
    """
    dices: dict[str, list[list[float]]] = {}
    before: dict[str, list[list[float]]] = {}
    unchanged: list[float] = []
    for row in rows:
        both = [row["dice_left"], row["dice_right"]]
        shown = None not in both
        if row["kind"] == AS_IT_IS:
            unchanged = both if shown else []
        if shown and unchanged:
            dices.setdefault(row["kind"], []).append(both)
            before.setdefault(row["kind"], []).append(unchanged)
    tables = {}
    for kind, of_films in dices.items():
        values = np.array(of_films)
        change = values - np.array(before[kind])
        intervals = bootstrap_intervals(change)
        tables[kind] = {"films": len(values), "below": int((values < BAD).any(axis=1).sum())} | {
            side: {
                "dice": float(values[:, k].mean()), "worst": float(values[:, k].min()),
                "change": float(change[:, k].mean()), "interval": intervals[:, k].tolist(),
            }
            for k, side in enumerate(SIDES.values())
        }  # fmt: skip
    return tables


def print_table(tables: dict[str, dict[str, Any]]) -> None:
    print(f"{'films':14}" + "".join(f"  {side:6}  change                     worst" for side in SIDES.values())
          + f"  below {BAD:.2f}")
    for kind, table in tables.items():
        line = f"{kind:14}"
        for side in SIDES.values():
            low, high = table[side]["interval"]
            change = "" if kind == AS_IT_IS else f"{table[side]['change']:+.4f} [{low:+.4f}, {high:+.4f}]"
            line += f"  {table[side]['dice']:.4f}  {change:25}  {table[side]['worst']:.3f}"
        print(f"{line}  {table['below']} of {table['films']}")


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    arguments = argument_parser(__doc__, Path("results/robustness")).parse_args(argv)
    try:
        records = evenly(read_records(arguments.data, "patient"), arguments.count)
        runtime = choose_runtime(arguments.runtime, arguments.device)
        start_runtime(runtime, arguments.device)
        rows = list(predict_all(load_members(arguments.weights, runtime=runtime), records, CHANGES, list(CHANGES)))
        tables = summarise(rows)
        if not tables:
            raise InferenceError(f"{arguments.data}: on none of its {len(records)} films both lungs are annotated")
        write_bytes(arguments.out / "films.csv", csv_text(rows).encode("utf-8", "replace"))
        write_json(arguments.out / "robustness.json", {
            "command": shlex.join(["scripts/measure_robustness.py", *(sys.argv[1:] if argv is None else argv)]),
            "data": str(arguments.data), "kinds": tables,
        })
    except (InferenceError, DatasetError, DeviceError, FilmError, OSError) as error:
        print(f"measure_robustness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("measure_robustness: stopped, nothing was written", file=sys.stderr)
        return 130
    print_table(tables)
    print(f"{arguments.out}: films.csv, robustness.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
