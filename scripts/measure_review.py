"""Measures which failures ``inference.py`` sends to review, by all its checks, and how many good films beside them.

    python scripts/measure_review.py --weights models/*.h5 --held-out configs/held_out.csv --data ../shared/data/openist

``--data`` is as for ``evaluate.py``; of a set that ``--held-out`` lists films of, these alone are measured. A failure is a
film with a lung whose Dice is below 0.90: of whole lungs, or of the lateral third where the drawings hold the heart. Each
set gets a line, and one says how often each check spoke on the failures and on the others. With ``--films``, a CSV has
every film: its Dice, its risk and the reasons.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mask_rcnn.api import Bag, load_bag
from mask_rcnn.bag.members import InferenceError
from mask_rcnn.bag.risk import FAILED
from mask_rcnn.config import ConfigError
from mask_rcnn.dataset.conventions import HEART_DRAWN_IN, convention_of
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import read_held_out
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.evaluation.lateral import lung_dices
from mask_rcnn.evaluation.sets import measured_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.square import resize_labels
from mask_rcnn.runtime.start import add_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.progress import progress, warn


class Judged(NamedTuple):
    """A film."""

    of_set: str
    name: str
    left: float  # Dice; NaN of a lung neither drawn nor found
    right: float
    risk: float
    reasons: tuple[str, ...]  # none where it is not sent to review

    @property
    def failed(self) -> bool:
        return self.left < FAILED or self.right < FAILED


def judged_films(bag: Bag, source: Path, records: Sequence[FilmRecord]) -> Iterator[Judged]:
    """What the bag makes of each annotated film, judged as ``inference.py`` judges it; one that cannot be read is named."""
    holds_heart = convention_of(source) == HEART_DRAWN_IN
    for record in progress(records, name=source.name, total=len(records)):
        try:
            labels = read_annotated(record).labels
            result = bag.predict(record.path)
        except (FilmError, DatasetError) as error:
            warn(f"left out {error}")
            continue
        found = result.labels if result.labels.shape == labels.shape else resize_labels(result.labels, *labels.shape)
        left, right = lung_dices(found, labels, holds_heart)
        yield Judged(source.name, record.path.name, left, right, result.risk, result.reasons)


def lines_of(name: str, films: Sequence[Judged]) -> Iterator[str]:
    """How many films of either kind are for review, and which checks spoke."""
    kinds = {"failures": [film for film in films if film.failed], "others": [film for film in films if not film.failed]}
    told = [f"{sum(bool(film.reasons) for film in some)} of {len(some)} {kind}" for kind, some in kinds.items()]
    yield f"{name}: for review {', '.join(told)}"
    for kind, some in kinds.items():
        # A reason's measured numbers stand in brackets at its end.
        counts = Counter(reason.partition(" (")[0] for film in some for reason in film.reasons)
        if counts:
            yield f"  {kind}: " + "; ".join(f"{reason} {count}" for reason, count in counts.most_common())


def write_films(path: Path, films: Iterable[Judged]) -> None:
    """One line a film."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "file", "dice_left", "dice_right", "risk", "reasons"])
        writer.writerows([*film[:2], *(f"{value:.4f}" for value in film[2:5]), "; ".join(film.reasons)] for film in films)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the lines; returns 0, or 1 with a reason where something cannot be used."""
    forgiving_streams()
    parser = argparse.ArgumentParser(prog="measure_review.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE", help="the members of the bag")
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--held-out", type=Path, metavar="CSV", help="of a set that it lists films of, only these")
    parser.add_argument("--films", type=Path, metavar="CSV", help="to write a line a film to")
    add_runtime(parser)
    arguments = parser.parse_args(argv)
    films: list[Judged] = []
    try:
        held_out = read_held_out(arguments.held_out) if arguments.held_out else None
        records_of = {source: measured_records(source, held_out) for source in arguments.data}
        bag = load_bag(arguments.weights, runtime=arguments.runtime)
        for source, records in records_of.items():
            films += (own := list(judged_films(bag, source, records)))
            print(*lines_of(str(source), own), sep="\n", flush=True)
        if len(records_of) > 1:
            print(*lines_of("all", films), sep="\n")
        if arguments.films:
            write_films(arguments.films, films)
    except (InferenceError, ConfigError, DatasetError, DeviceError, OSError) as error:
        print(f"measure_review: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
