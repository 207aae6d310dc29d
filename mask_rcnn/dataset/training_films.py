"""Films to learn from, each equalised and fitted to the square with its labels, and the copies among them.

Shapes
    film     uint8 [side, side], grey, equalised at its own size and then fitted to the square
    labels   uint8 [side, side], 0 background, else the category id

Memory: a film takes 2 side² bytes, 128 KB at 256 pixels; ``film_cache`` keeps those of a training on disk.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.dataset.augmentation import Window
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.sides import Sides, check_sides, check_turned, is_turned_wrongly, sides_of
from mask_rcnn.films.duplicates import find_groups, fingerprint
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import fit_labels_to_square, fit_to_square
from mask_rcnn.system.progress import progress, warn

READ_AHEAD = 32  # films a thread


@dataclass(frozen=True)
class TrainingFilm:
    """A film in memory, as inference would give it to the network, with its lungs."""

    record: FilmRecord
    film: np.ndarray  # uint8 [side, side]
    labels: np.ndarray  # uint8 [side, side]
    window: Window


class Traits(NamedTuple):
    """What a film is compared with others by, and its source judged by."""

    fingerprint: str  # what its copies share
    sides: Sides
    turned_wrongly: bool | None  # as ``sides.is_turned_wrongly``


def load_films(records: Sequence[FilmRecord], side: int) -> list[TrainingFilm]:
    """Films in memory, each read once; a film that a bootstrap sample holds twice is kept once.

    A film that cannot be read, or whose masks do not fit it, is named on standard error and left out.

    Raises:
        DatasetError: none could be read; or a source's masks have one label for both lungs, the labels exchanged, or are
            annotated on films before EXIF turns them.
    """
    unique = list(dict.fromkeys(records))
    check_turned(unique)
    prepared = {film.record: (film, traits) for film, traits in prepare_films(unique, side)}
    sound = set(sound_records({record: traits for record, (_, traits) in prepared.items()}, len(unique)))
    return [prepared[record][0] for record in records if record in sound]


def prepare_films(records: Sequence[FilmRecord], side: int) -> Iterator[tuple[TrainingFilm, Traits]]:
    """Reads films, several at a time; one that cannot be used is named on standard error and left out."""

    def prepare(record: FilmRecord) -> tuple[TrainingFilm, Traits] | str:
        try:
            return prepare_film(record, side)
        except (FilmError, DatasetError) as error:
            return str(error)

    threads = os.cpu_count() or 1
    # Pillow and OpenCV let other threads run while they decode.
    with ThreadPool(threads) as pool, progress(name="films", total=len(records)) as bar:
        # Some at a time: films that are read faster than they are taken would fill the memory.
        for start in range(0, len(records), READ_AHEAD * threads):
            for prepared in pool.imap(prepare, records[start : start + READ_AHEAD * threads]):
                bar.update()
                if isinstance(prepared, str):
                    warn(f"left out {prepared}")
                else:
                    yield prepared


def prepare_film(record: FilmRecord, side: int) -> tuple[TrainingFilm, Traits]:
    """One film and its label mask, equalised at its own size and fitted to the square as inference does.

    Raises:
        FilmError: the film or its mask cannot be read, or the mask holds other labels than the lungs'.
        DatasetError: the mask has another size than the film.
    """
    film, labels, _ = read_annotated(record)
    if labels.shape != film.shape:
        film_size, mask_size = (f"{width} x {height}" for height, width in (film.shape, labels.shape))
        raise DatasetError(
            f"{record.path}: the film has {film_size} pixels, its mask {mask_size}; "
            "make the mask again at the film's size"
        )
    square, window, _ = fit_to_square(equalise(film), side)
    fitted = fit_labels_to_square(labels, side)
    traits = Traits(fingerprint(film, labels > 0), sides_of(fitted), is_turned_wrongly(record, film, labels))
    return TrainingFilm(record, square, fitted, window), traits


def load_film(record: FilmRecord, side: int) -> TrainingFilm:
    """One film in memory; raises as ``prepare_film`` does."""
    return prepare_film(record, side)[0]


def sound_records(traits: Mapping[FilmRecord, Traits], given: int) -> list[FilmRecord]:
    """Of the films that could be read, those to learn from; one of one label for both lungs is named and left out.

    Args:
        given: how many films there were to read.

    Raises:
        DatasetError: there are none, or those of a source have one label for both lungs, or the labels exchanged.
    """
    records = list(traits)
    doubtful = check_sides(records, [of_film.sides for of_film in traits.values()])
    for record in doubtful:
        print(f"left out {record.path}: one label for both lungs? Label each lung by itself", file=sys.stderr)
    left_out = set(doubtful)
    sound = [record for record in records if record not in left_out]
    if not sound:
        raise DatasetError(f"none of the {given} films can be read; the lines above say why")
    return sound


def join_copies(
    records: Sequence[FilmRecord], fingerprints: Sequence[str], known: Path | None = None
) -> list[FilmRecord]:
    """The same films, copies of a film in one group with it, wherever they come from.

    Sources know little of each other: two datasets or folders may hold the same film, and a folder or a published JSON
    does not list the copies within. Copies by fingerprint join the groups and copies of the records. A joined group has
    the first of its names.

    Args:
        known: a file that keeps the copies for the next training, as ``find_groups`` takes it.
    """
    groups = Groups(len(records))
    first_of: dict[tuple[str, str], int] = {}
    for index, (record, first) in enumerate(zip(records, find_groups(fingerprints, known), strict=True)):
        groups.join(index, first)
        groups.join(index, first_of.setdefault(("group", record.group), index))
        if record.copies:
            groups.join(index, first_of.setdefault(("copies", record.copies), index))
    names: dict[int, str] = {}
    for group, record in zip(groups.firsts(), records, strict=True):
        names[group] = min(record.group, names.get(group, record.group))
    return [replace(record, group=names[group]) for group, record in zip(groups.firsts(), records, strict=True)]
