"""Measures whether the members' agreement on a film predicts that its result is bad, and which threshold its curve suggests.

    python scripts/measure_uncertainty.py --weights models/*.h5 --data ../shared/data/shenzhen
    python scripts/measure_uncertainty.py --weights models/*.h5 --data ../shared/data/jsrt --out results/uncertainty_jsrt

The data are a folder of ``images/NAME.*`` and ``masks/NAME.png``, or a COCO JSON. ``--count`` of the films are
predicted as they are and spoilt in each way of ``spoiled_films.py``, as ``inference.py`` does. A result is a
failure where the lung that is found worse has Dice below 0.90, a missing one 0, against what was annotated and then moved
with the film.

The curve is the ROC of ``film_agreement`` for failures against all other films; the score of the lung that is less
certain is its rival. Intervals hold 95 % of bootstrap samples, which are sampled of films with all their spoilt copies.
The threshold in use, ``bag.min_agreement`` of the weights, is judged beside the one that the curve suggests (Youden's J).
A threshold is chosen on films that the networks may know, and reported on others.

``OUT/films.csv`` gets a line for each prediction, ``OUT/uncertainty.json`` the tables and the command.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from spoiled_films import SPOILERS, Spoiler
from tqdm import tqdm

from mask_rcnn.bag.agreement import film_agreement
from mask_rcnn.bag.members import InferenceError, Member, detect, load_members
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.evaluation.roc import roc_area, youden_threshold
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.polarity import is_inverted
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.runtime.choice import KERAS, choose_runtime
from mask_rcnn.runtime.start import add_runtime, start_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.command_line import positive
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes, write_json

AS_IT_IS, ALL, BOTH_SHOWN = "as it is", "all", "showing both"
BAD, GOOD = 0.90, 0.95  # Dice: a result to be caught, a result not to be sent to review
MEASURES = ("agreement", "score")
COLUMNS = ("film", "kind", "dice_left", "dice_right", "dice", *MEASURES, "lungs_found")
SAMPLES = 1000  # of the bootstrap

Row = dict[str, Any]  # by COLUMNS; a Dice is None where the lung is neither annotated nor predicted


def predict_all(
    members: Sequence[Member], records: Sequence[FilmRecord], table: Mapping[str, Spoiler], kinds: Sequence[str]
) -> Iterator[Row]:
    """The rows of every film, as it is and in each of the ``kinds``; one that cannot be read is named and left out."""
    with tqdm(total=len(records) * (1 + len(kinds)), desc="films", unit="prediction", disable=None) as progress:
        for number, record in enumerate(records):
            try:
                film, labels, _ = read_annotated(record)
            except (FilmError, DatasetError) as error:
                tqdm.write(f"skipped {error}", file=sys.stderr)
                progress.update(1 + len(kinds))
                continue
            if labels.shape != film.shape:
                labels = resize_labels(labels, *film.shape)
            yield {"film": record.path.name, "kind": AS_IT_IS} | predict_film(members, film, labels)
            progress.update()
            for kind in kinds:
                # Seeded by the kind's place in the table, so that a kind is spoilt alike whichever others are given.
                rng = np.random.default_rng((number, list(table).index(kind)))
                yield {"film": record.path.name, "kind": kind} | predict_film(members, *table[kind](film, labels, rng))
                progress.update()


def evenly(records: Sequence[FilmRecord], count: int) -> list[FilmRecord]:
    """``count`` of the films, from all over them; all where there are fewer."""
    return [records[k * len(records) // count] for k in range(count)] if count < len(records) else list(records)


def predict_film(members: Sequence[Member], film: np.ndarray, drawn: np.ndarray) -> Row:
    """What ``inference.py`` finds on a film, compared with what is annotated."""
    config = members[0].network.config
    seen = equalise(255 - film if is_inverted(film) else film)
    (detections,) = detect(members, [seen])
    lungs = bag_film(detections, config.bag)
    if config.laterality != "patient":  # the annotated lungs are the patient's
        drawn = (len(CATEGORIES) + 1 - drawn) * (drawn > 0)
    nothing = np.zeros(film.shape, bool)
    dices = [dice(lungs[lung].mask if lung in lungs else nothing, drawn == lung) for lung in CATEGORIES]
    left, right = (None if np.isnan(value) else round(value, 6) for value in dices)
    return {
        "dice_left": left,
        "dice_right": right,
        "dice": min((value for value in (left, right) if value is not None), default=None),
        "agreement": round(film_agreement(lungs, len(members)), 6),
        "score": round(min(lungs[lung].score if lung in lungs else 0.0 for lung in CATEGORIES), 6),
        "lungs_found": len(lungs),
    }


def report(rows: Sequence[Row], thresholds: dict[str, float]) -> dict[str, Any]:
    """A summary of each kind, of all together, and of those where no lung is neither annotated nor predicted.

    A film that shows one lung alone is for review whatever the members predict for that lung, so the latter summary is what
    the agreement finds by itself. Rows without a Dice, where nothing is annotated or predicted, count nowhere.
    """
    rows = [row for row in rows if row["dice"] is not None]
    kinds = dict.fromkeys(row["kind"] for row in rows)
    tables = {kind: summarise([row for row in rows if row["kind"] == kind], thresholds) for kind in kinds}
    both_shown = [row for row in rows if row["dice_left"] is not None and row["dice_right"] is not None]
    return tables | {ALL: summarise(rows, thresholds), BOTH_SHOWN: summarise(both_shown, thresholds)}


def summarise(rows: Sequence[Row], thresholds: dict[str, float]) -> dict[str, Any]:
    """How many films are failures, how well each measure finds them, and what each threshold catches and costs."""
    dices, agreements = np.array([row["dice"] for row in rows]), np.array([row["agreement"] for row in rows])
    return {
        "films": len(rows),
        "failures": int(np.count_nonzero(dices < BAD)),
        "good": int(np.count_nonzero(dices >= GOOD)),
        "roc_area": {measure: area_with_interval(rows, measure) for measure in MEASURES},
        "thresholds": {
            name: {
                "agreement": threshold,
                "reviewed": _share(agreements < threshold),
                "failures_caught": _share(agreements[dices < BAD] < threshold),
                "good_reviewed": _share(agreements[dices >= GOOD] < threshold),
            }
            for name, threshold in thresholds.items()
        },
    }


def area_with_interval(rows: Sequence[Row], measure: str) -> dict[str, float | None]:
    """The area under the curve of a measure, and where 95 % of the bootstrap's lie; None where it is undefined.

    A sample takes a film with all of its rows, which are no independent witnesses.
    """
    dices, values = np.array([row["dice"] for row in rows]), np.array([row[measure] for row in rows])

    def area(chosen: np.ndarray) -> float:
        failed = dices[chosen] < BAD
        return roc_area(values[chosen][failed], values[chosen][~failed])

    value = area(np.arange(len(rows)))
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    names = [row["film"] for row in rows]
    of_film = [np.flatnonzero(np.array(names) == name) for name in dict.fromkeys(names)]
    rng = np.random.default_rng(0)
    samples = [
        area(np.concatenate([of_film[k] for k in rng.integers(len(of_film), size=len(of_film))])) for _ in range(SAMPLES)
    ]
    low, high = np.percentile([sample for sample in samples if not np.isnan(sample)], [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}


def suggest_threshold(rows: Sequence[Row]) -> float:
    """The threshold of the agreement that the curve of all rows suggests; NaN where all are failures, or none is."""
    failures, others = (
        np.array([row["agreement"] for row in rows if row["dice"] is not None and (row["dice"] < BAD) == failed])
        for failed in (True, False)
    )
    return youden_threshold(failures, others)


def _share(chosen: np.ndarray) -> float | None:
    return float(np.mean(chosen)) if len(chosen) else None


def print_report(tables: dict[str, Any], thresholds: dict[str, float]) -> None:
    print("For review is what lies below the threshold "
          + ", or ".join(f"{name}, {threshold:.3f}" for name, threshold in thresholds.items()))
    print(f"{'Dice':14}   all  <{BAD:.2f} >={GOOD:.2f}"
          + "".join(f"  {f'ROC area, {measure}':22}" for measure in MEASURES)
          + "".join(f"  {name + ': <, >=':>18}" for name in thresholds))
    for kind, table in tables.items():
        line = f"{kind:14} {table['films']:5} {table['failures']:6} {table['good']:6}"
        for area in table["roc_area"].values():
            line += f"  {'-':22}" if area["value"] is None else (
                f"  {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})")
        for of_threshold in table["thresholds"].values():
            line += f"      {_percent(of_threshold['failures_caught'])} {_percent(of_threshold['good_reviewed'])}"
        print(line)
    if len(thresholds) < 2:
        print(f"All results have Dice below {BAD:.2f}, or none has: there is no curve and no threshold that it suggests.")


def _percent(value: float | None) -> str:
    return "   -  " if value is None else f"{100 * value:4.0f} %"


def csv_text(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def argument_parser(text: str | None, out: Path) -> argparse.ArgumentParser:
    """The options of a command that predicts some films of a set in several ways."""
    parser = argparse.ArgumentParser(description=(text or "").split("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE", help="the members of the bag")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR",
                        help="a folder with images/ and masks/, or a COCO JSON")
    parser.add_argument("--count", type=positive, default=48, metavar="N", help="films; default: %(default)s")
    parser.add_argument("--out", type=Path, default=out, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N")
    add_runtime(parser, KERAS)  # the same numbers on every machine
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argument_parser(__doc__, Path("results/uncertainty"))
    parser.add_argument("--kinds", nargs="+", choices=SPOILERS, default=list(SPOILERS), metavar="KIND",
                        help=f"of {', '.join(SPOILERS)}; default: all")
    arguments = parser.parse_args(argv)
    try:
        records = evenly(read_records(arguments.data, "patient"), arguments.count)
        runtime = choose_runtime(arguments.runtime, arguments.device)
        start_runtime(runtime, arguments.device)
        members = load_members(arguments.weights, runtime=runtime)
        if len(members) < 2:
            raise InferenceError(f"{members[0].path}: one network has nobody to agree with; give two or more to --weights")
        rows = list(predict_all(members, records, SPOILERS, arguments.kinds))
        if not rows:
            raise InferenceError(f"{arguments.data}: none of its {len(records)} films could be used")
        write_bytes(arguments.out / "films.csv", csv_text(rows).encode("utf-8", "replace"))
        thresholds = {"in use": members[0].network.config.bag.min_agreement, "suggested": suggest_threshold(rows)}
        thresholds = {name: threshold for name, threshold in thresholds.items() if not np.isnan(threshold)}
        tables = report(rows, thresholds)
        command = shlex.join(["scripts/measure_uncertainty.py", *(sys.argv[1:] if argv is None else argv)])
        write_json(arguments.out / "uncertainty.json", {
            "command": command, "data": str(arguments.data), "members": len(members), "thresholds": thresholds,
            "undefined": sum(row["dice"] is None for row in rows), "kinds": tables,
        })
    except (InferenceError, DatasetError, DeviceError, FilmError, OSError) as error:
        print(f"measure_uncertainty: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("measure_uncertainty: stopped, nothing was written", file=sys.stderr)
        return 130
    print_report(tables, thresholds)
    print(f"{arguments.out}: films.csv, uncertainty.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
