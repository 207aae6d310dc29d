"""Training films in memory, and the copies among them.

Shapes
    film     uint8 [side, side], grey, equalised at its own size and then fitted to the square
    labels   uint8 [side, side], 0 background, else the category id

Memory: a film ready to learn from takes 2 side² bytes, 128 KB at 256 pixels; 10,000 films take 1.3 GB. One that comes out
of a published JSON keeps its pixels too, 64 KB.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.pool import ThreadPool

import numpy as np

from mask_rcnn.dataset.augmentation import Window
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.sides import check_sides, check_turned
from mask_rcnn.films.duplicates import find_groups, fingerprint
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import fit_labels_to_square, fit_to_square
from mask_rcnn.system.progress import progress, warn


@dataclass(frozen=True)
class TrainingFilm:
    """A film in memory, as inference would give it to the network, with its lungs."""

    record: FilmRecord
    film: np.ndarray  # uint8 [side, side]
    labels: np.ndarray  # uint8 [side, side]
    window: Window
    fingerprint: str  # what its copies share


def load_films(records: Sequence[FilmRecord], side: int) -> list[TrainingFilm]:
    """Reads, equalises and fits each film once; a film that a bootstrap sample holds twice is kept once.

    A film that cannot be read, or whose masks do not fit it, is named on standard error and left out.

    Raises:
        DatasetError: none could be read; or a source's masks have one label for both lungs, the labels exchanged, or are
            annotated on films before EXIF turns them.
    """
    unique = list(dict.fromkeys(records))
    check_turned(unique)

    def load(record: FilmRecord) -> TrainingFilm | str:
        try:
            return load_film(record, side)
        except (FilmError, DatasetError) as error:
            return str(error)

    loaded: dict[FilmRecord, TrainingFilm] = {}
    with ThreadPool(os.cpu_count()) as pool:  # Pillow and OpenCV let other threads run while they decode
        read = progress(pool.imap(load, unique), name="films", total=len(unique))
        for record, film in zip(unique, read, strict=True):
            if isinstance(film, str):
                warn(f"left out {film}")
            else:
                loaded[record] = film
    for record in check_sides(list(loaded), [film.labels for film in loaded.values()]):
        del loaded[record]
        print(f"left out {record.path}: one label for both lungs? Label each lung by itself", file=sys.stderr)
    if not loaded:
        raise DatasetError(f"none of the {len(unique)} films can be read; the lines above say why")
    return [loaded[record] for record in records if record in loaded]


def load_film(record: FilmRecord, side: int) -> TrainingFilm:
    """One film, equalised at its own size and fitted to the square as inference does, and its label mask.

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
    return TrainingFilm(record, square, fit_labels_to_square(labels, side), window, fingerprint(film, labels > 0))


def join_copies(films: Sequence[TrainingFilm]) -> list[TrainingFilm]:
    """The same films, copies of a film in one group with it, wherever they come from.

    Sources know little of each other: two datasets or folders may hold the same film, and a folder or a published JSON
    does not list the copies within. Copies by fingerprint join the groups and copies of the records. A joined group has
    the first of its names.
    """
    groups = Groups(len(films))
    first_of: dict[tuple[str, str], int] = {}
    for index, (film, first) in enumerate(zip(films, find_groups([film.fingerprint for film in films]), strict=True)):
        groups.join(index, first)
        groups.join(index, first_of.setdefault(("group", film.record.group), index))
        if film.record.copies:
            groups.join(index, first_of.setdefault(("copies", film.record.copies), index))
    names: dict[int, str] = {}
    for group, film in zip(groups.firsts(), films, strict=True):
        names[group] = min(film.record.group, names.get(group, film.record.group))
    return [
        replace(film, record=replace(film.record, group=names[group]))
        for group, film in zip(groups.firsts(), films, strict=True)
    ]
