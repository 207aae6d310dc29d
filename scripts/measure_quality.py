"""Measures what the quality checks of create_dataset.py catch, and how many good films they cost.

    python scripts/measure_quality.py --drawn ../shared/data/shenzhen ../shared/data/jsrt --others ../shared/data/kaggle

Each folder of ``--drawn`` holds ``images/`` and ``masks/NAME.png``. All of its films are measured as they are, and
``--count`` of them spoilt in each way of ``spoiled_films.py``; so are pictures that are no chest films, drawn by
``other_pictures.py`` or found in ``--pictures``. ``OUT/quality.json`` holds every film's measures, so that other
thresholds (``--config``) need no U-Net: ``--again`` reads them from there.

Dice is the mean over both lungs by name, at 256 x 256 pixels, between the U-Net's prediction and the annotation, which
is moved with the film; a lung that is missing on one side counts 0.

Shapes
    film    uint8 [height, width]
    labels  uint8 [height, width], 0 background, 1 left lung, 2 right lung
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from other_pictures import PICTURES
from spoiled_films import SPOILERS
from tqdm import tqdm

from create_dataset.lungs import find_small_lungs
from create_dataset.quality import measure
from create_dataset.sources import find_films
from create_dataset.unet import SIDE, load_unet, prepare, probabilities, stretch_to_square
from mask_rcnn.checks.quality import ACCEPTED, STATUSES, judge
from mask_rcnn.config import Config, QualityConfig, load_config
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_json
from mask_rcnn.system.shipped import shipped_unet

BATCH = 8
AS_IT_IS, NO_CHEST = "as it is", "no chest"
BAD, GOOD = 0.90, 0.95  # Dice: a result to be caught, a result not to be lost

Row = dict[str, Any]  # set, kind, film, dice (None where nothing was annotated), measures


class Sample(NamedTuple):
    set: str
    kind: str
    film: str
    draw: Callable[[], tuple[np.ndarray, np.ndarray | None]]  # film and labels


def list_samples(arguments: argparse.Namespace) -> list[Sample]:
    """Every film that is measured, none read yet."""
    samples: list[Sample] = []

    def add(name: str, kind: str, film: str, draw: Callable[..., tuple[np.ndarray, np.ndarray | None]], *given: Any) -> None:
        samples.append(Sample(name, kind, film, partial(draw, *given)))

    for folder in arguments.drawn:
        paths = [path for path in find_film_paths(folder / "images") if mask_of(path).is_file()]
        for path in paths:
            add(folder.name, AS_IT_IS, path.stem, read_pair, path)
        for number, kind in enumerate(SPOILERS):
            for k in range(arguments.count if paths else 0):
                path = paths[(k * len(paths) // arguments.count + 3 * number) % len(paths)]
                add(folder.name, kind, path.stem, spoil, path, kind, (k, number))
    for folder in arguments.others:
        for source in find_films(folder):
            add(folder.name, AS_IT_IS, source.file_name, read_alone, source.path)
    for kind in PICTURES:
        for k in range(arguments.count):
            add(NO_CHEST, kind, str(k), draw_picture, kind, k)
    for folder in arguments.pictures:
        for path in find_film_paths(folder):
            add(NO_CHEST, folder.name, path.name, read_alone, path)
    return samples


def mask_of(path: Path) -> Path:
    return path.parent.parent / "masks" / f"{path.stem}.png"


def read_pair(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_film(path), read_labels(mask_of(path))


def spoil(path: Path, kind: str, seed: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return SPOILERS[kind](*read_pair(path), np.random.default_rng(seed))


def read_alone(path: Path) -> tuple[np.ndarray, None]:
    return read_film(path), None


def draw_picture(kind: str, seed: int) -> tuple[np.ndarray, None]:
    return PICTURES[kind](np.random.default_rng(seed)), None


def measure_all(samples: Sequence[Sample]) -> Iterator[Row]:
    """Predicts each film and its mirrored copy with the U-Net, and measures."""
    members = [load_unet(shipped_unet())]
    for start in tqdm(range(0, len(samples), BATCH), desc="films", unit="batch", disable=None):
        films = []
        for sample in samples[start : start + BATCH]:
            try:
                films.append((sample, *sample.draw()))
            except FilmError as error:
                print(f"skipped {error}", file=sys.stderr)
        if not films:
            continue
        inputs = np.stack([prepare(film) for _, film, _ in films])
        votes = probabilities(members, inputs)
        mirrored = probabilities(members, inputs[:, :, ::-1])[..., ::-1]
        for k, (sample, film, labels) in enumerate(films):
            lungs = find_small_lungs(votes[:, k])
            yield {
                "set": sample.set, "kind": sample.kind, "film": sample.film,
                "dice": None if labels is None else dice_by_name(lungs, labels),
                "measures": measure(
                    stretch_to_square(film), votes[:, k], mirrored[:, k], lungs, aspect=film.shape[1] / film.shape[0]
                ),
            }  # fmt: skip


def dice_by_name(lungs: dict[int, np.ndarray], labels: np.ndarray) -> float | None:
    """Mean Dice over the lungs that are annotated or predicted; None where neither is."""
    small = resize_labels(labels, SIDE, SIDE)
    nothing = np.zeros((SIDE, SIDE), bool)
    values = [dice(lungs.get(category, nothing), small == category) for category in CATEGORIES]
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else None


def summarise(rows: Iterable[Row], config: QualityConfig) -> dict[str, Any]:
    """What becomes of some films: their number, the shares of each status, Dice of those accepted and those not."""
    verdicts = [(row["dice"], judge(row["measures"], config)[0]) for row in rows]
    drawn = [(value, status == ACCEPTED) for value, status in verdicts if value is not None]
    return {
        "films": len(verdicts),
        "share": {status: count / len(verdicts) for status, count in Counter(status for _, status in verdicts).items()},
        "dice_accepted": _mean(value for value, accepted in drawn if accepted),
        "dice_not_accepted": _mean(value for value, accepted in drawn if not accepted),
        "bad": sum(value < BAD for value, _ in drawn),
        "bad_caught": _mean(not accepted for value, accepted in drawn if value < BAD),
        "good": sum(value >= GOOD for value, _ in drawn),
        "good_lost": _mean(not accepted for value, accepted in drawn if value >= GOOD),
    }


def count_reasons(rows: Iterable[Row], config: QualityConfig) -> dict[str, tuple[int, int]]:
    """For each reason, how many films have it, and how many have no other."""
    every, alone = Counter[str](), Counter[str]()
    for row in rows:
        # Rejected films are given one reason, though others may hold as well.
        reasons = [reason.split(" (")[0] for reason in judge(row["measures"], replace(config, reject_likeness=-1.0))[1]]
        every.update(reasons)
        alone.update(reasons if len(reasons) == 1 else [])
    return {reason: (count, alone[reason]) for reason, count in every.most_common()}


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return float(np.mean(values)) if values else None


def report(rows: Sequence[Row], config: QualityConfig) -> dict[str, Any]:
    """All tables, as they are printed: {set: {kind: summary}}, with the spoilt films of a set together as well."""
    tables: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        of_set = [row for row in rows if row["set"] == name]
        kinds = dict.fromkeys(row["kind"] for row in of_set)
        tables[name] = {kind: summarise([row for row in of_set if row["kind"] == kind], config) for kind in kinds}
        if len(kinds) > 1:
            tables[name]["all but as it is"] = summarise([row for row in of_set if row["kind"] != AS_IT_IS], config)
    return tables


def print_report(rows: Sequence[Row], tables: dict[str, dict[str, Any]], config: QualityConfig) -> None:
    print(f"{'%':32}  films accepted review rejected   Dice: accepted, not   < {BAD:.2f}: caught   >= {GOOD:.2f}: lost")
    for name, kinds in tables.items():
        for kind, summary in kinds.items():
            shares = "".join(f"{100 * summary['share'].get(status, 0):9.1f}" for status in STATUSES)
            line = f"{name + ', ' + kind:32} {summary['films']:6}{shares}"
            if summary["bad"] + summary["good"]:
                line += (f"       {_number(summary['dice_accepted'])} {_number(summary['dice_not_accepted'])}"
                         f"      {summary['bad']:5}: {_percent(summary['bad_caught'])}"
                         f"   {summary['good']:5}: {_percent(summary['good_lost'])}")
            print(line)
    drawn = [row for row in rows if row["dice"] is not None]
    groups = {
        "bad spoilt": [row for row in drawn if row["kind"] != AS_IT_IS and row["dice"] < BAD],
        "as they are": [row for row in rows if row["kind"] == AS_IT_IS],
        "no chest": [row for row in rows if row["set"] == NO_CHEST],
    }
    counts = {group: count_reasons(members, config) for group, members in groups.items()}
    heading = "".join(f"{f'{group} ({len(members)})':>20}" for group, members in groups.items())
    print(f"\n{'films with a reason, and with it alone':56}{heading}")
    for reason in dict.fromkeys(reason for of_group in counts.values() for reason in of_group):
        cells = [of_group.get(reason, (0, 0)) for of_group in counts.values()]
        print(f"{reason:56}" + "".join(f"{count:14} {alone:5}" for count, alone in cells))


def _number(value: float | None) -> str:
    return "  -  " if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "   -  " if value is None else f"{100 * value:5.1f} %"


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--drawn", nargs="*", type=Path, default=[], metavar="DIR", help="hold images/ and masks/")
    parser.add_argument("--others", nargs="*", type=Path, default=[], metavar="DIR", help="chest films without masks")
    parser.add_argument("--pictures", nargs="*", type=Path, default=[], metavar="DIR", help="pictures of anything else")
    parser.add_argument("--count", type=int, default=48, metavar="N", help="films spoilt in each way; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/quality"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--config", metavar="FILE", help="whose section quality has the thresholds")
    parser.add_argument("--again", action="store_true", help="judge the measures of an earlier run in --out again")
    arguments = parser.parse_args(argv)
    config = (load_config(arguments.config) if arguments.config else Config()).quality
    target = arguments.out / "quality.json"
    if arguments.again:
        if not target.is_file():
            raise SystemExit(f"{target}: there is no earlier run; leave out --again, or give its folder as --out")
        rows = json.loads(target.read_text(encoding="utf-8"))["films"]
    else:
        rows = list(measure_all(list_samples(arguments)))
    tables = report(rows, config)
    print_report(rows, tables, config)
    command = shlex.join(["scripts/measure_quality.py", *(sys.argv[1:] if argv is None else argv)])
    write_json(target, {"command": command, "thresholds": asdict(config), "tables": tables, "films": rows})
    print(f"\n{target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
