"""Chooses the films that are held out, by patient, and lists with them all films that show them or their patients too.

    python scripts/hold_out.py --data ../shared/data --unet models/unet/efficientnetb0.weights.h5 --out configs/held_out.csv

The patients of a set are sorted by a hash of their names and taken until there are as many films as ``SETS`` asks for;
children are taken by class, so that opaque lungs are there in proportion. Copies are found by ``mask_rcnn.films.duplicates``
over all sets, drawn or not; films of a patient are told by tables and names. Run again it writes the same list.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from tqdm import tqdm

from create_dataset.lungs import find_small_lungs
from create_dataset.unet import load_unet, prepare, probabilities
from mask_rcnn.dataset.held_out import COLUMNS, COPY, HELD, PATIENT
from mask_rcnn.dataset.patient_tables import read_table
from mask_rcnn.dataset.patients import state_patients
from mask_rcnn.dataset.split import lot
from mask_rcnn.films.duplicates import find_groups, fingerprint
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

SEED = 14
BATCH = 8
# How many films are held out; of 0 only what shows a held-out film or patient is listed.
SETS = {"openist": 84, "shenzhen": 82, "wingspan": 32, "v7_bedside": 86, "v7_children": 270, "hannover": 0, "kaggle": 0}
ALIKE = {"kaggle": "v7_children"}  # whose files name the same patients by the same names
SERIES = re.compile(r"^NORMAL\d*-(?=IM-)")  # the children's table has patients without it, file names with it
ONLY_WITH = {"shenzhen": "masks_completed"}  # the folder of drawings that a film to report by must have


@dataclass
class Film:
    """A film of a set."""

    set: str
    path: Path
    file: str  # relative to the set's folder
    patient: str  # within the set and those alike; the film itself where no one tells
    stratum: str = ""  # films are taken from each in proportion
    may_be_held: bool = True


def list_films(data: Path, name: str) -> list[Film]:
    """The films of a set."""
    folder = data / name
    paths = find_film_paths(folder / "images" if (folder / "images").is_dir() else folder)
    files = [path.relative_to(folder).as_posix() for path in paths]
    table = read_table(folder, files)
    classes: dict[str, str] = {}
    if (folder / "films.csv").is_file():
        with (folder / "films.csv").open(encoding="utf-8", newline="") as file:
            classes = {row["name"]: row.get("class", "") for row in csv.DictReader(file)}
    drawn = folder / ONLY_WITH.get(name, "images")
    with_drawing = {path.stem for path in drawn.iterdir()} if drawn.is_dir() else set()
    return [
        Film(name, path, file, f"{ALIKE.get(name, name)}:{SERIES.sub('', patient) or file}", classes.get(path.stem, ""),
             path.stem in with_drawing)
        for path, file, (patient, _) in zip(paths, files, state_patients(files, [""] * len(files), table, ""), strict=True)
    ]  # fmt: skip


def fingerprints(films: Sequence[Film], unet: Path) -> Iterator[str]:
    """With the lungs as drawn; as the U-Net finds them where nobody has."""
    network = None
    for start in tqdm(range(0, len(films), BATCH), desc="fingerprints", unit="batch", disable=None):
        some = films[start : start + BATCH]
        pixels = [read_film(film.path) for film in some]
        masks = [film.path.parent.parent / "masks" / f"{film.path.stem}.png" for film in some]
        lungs: list[np.ndarray | None] = [
            read_labels(mask) > 0 if film.set != "kaggle" and mask.is_file() else None
            for film, mask in zip(some, masks, strict=True)
        ]
        if missing := [k for k, found in enumerate(lungs) if found is None]:
            network = network or load_unet(unet)
            votes = probabilities([network], np.stack([prepare(pixels[k]) for k in missing]))
            for place, k in enumerate(missing):
                found = list(find_small_lungs(votes[:, place]).values())
                lungs[k] = np.logical_or.reduce(found) if found else None
        yield from map(fingerprint, pixels, lungs)


def joined(films: Sequence[Film], prints: Sequence[str]) -> np.ndarray:
    """For each film the number of its group: the films that copies and patients tie together."""
    groups, first_of = Groups(len(films)), dict[str, int]()
    for index, (film, first) in enumerate(zip(films, find_groups(prints), strict=True)):
        groups.join(index, first)
        groups.join(index, first_of.setdefault(film.patient, index))
    return np.array(groups.firsts(), int)


def choose(films: Sequence[Film], groups: np.ndarray, seed: int = SEED) -> list[str]:
    """Why each film is listed, the empty text where it is not.

    A set's films come from the groups whose hashes are least. A group that ties many films together (more than a tenth of
    what a set holds out) is left to the training, else the films to report by would be of few patients.
    """

    whys = [""] * len(films)
    held_groups: set[int] = set()
    for name, wanted in SETS.items():
        by_stratum: dict[str, list[int]] = defaultdict(list)
        for index, film in enumerate(films):
            if film.set == name and film.may_be_held:
                by_stratum[film.stratum].append(index)
        total = sum(map(len, by_stratum.values()))
        for stratum, members in sorted(by_stratum.items()):
            of_group: dict[int, list[int]] = defaultdict(list)
            for index in members:
                of_group[int(groups[index])].append(index)
            share = wanted * len(members) / total
            count = sum(whys[index] == HELD for index in members)
            for group in sorted(of_group, key=lambda group: lot(seed, films[int(groups[group])].patient)):
                if count >= share:
                    break
                if group in held_groups or len(of_group[group]) > max(wanted / 10, 2):
                    continue
                held_groups.add(group)
                for index in of_group[group]:
                    whys[index] = HELD
                count += len(of_group[group])
    patients = {films[index].patient for index, why in enumerate(whys) if why == HELD}
    for index, film in enumerate(films):
        if not whys[index] and int(groups[index]) in held_groups:
            whys[index] = PATIENT if film.patient in patients else COPY
    return whys


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--unet", type=Path, required=True, metavar="FILE", help="finds the lungs where no masks are")
    parser.add_argument("--out", type=Path, default=Path("configs/held_out.csv"), metavar="CSV")
    arguments = parser.parse_args(argv)
    films = [film for name in SETS for film in list_films(arguments.data, name)]
    groups = joined(films, list(fingerprints(films, arguments.unet)))
    whys = choose(films, groups)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((film.set, film.file, why) for film, why in zip(films, whys, strict=True) if why)
    write_bytes(arguments.out, table.getvalue().encode())
    for name in SETS:
        counts = Counter(why or "free" for film, why in zip(films, whys, strict=True) if film.set == name)
        print(f"{name}: " + ", ".join(f"{count} {why}" for why, count in sorted(counts.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
