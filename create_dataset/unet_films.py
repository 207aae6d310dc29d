"""The films that a whole-lung U-Net learns from: drawn in either convention, without those that are held out.

Shapes
    square  uint8 [256, 256], the film stretched to the U-Net's square, equalised
    drawn   uint8 [256, 256], the labels as drawn: 0 background, 1 left lung, 2 right lung
    labels  uint8 [256, 256], what of them is learnt from; ``conventions.UNKNOWN`` where nobody can tell
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.checks.chest import SIDE
from mask_rcnn.dataset.conventions import HEART_DRAWN_IN, convention_of, known_labels
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import HeldOut
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.split import split_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.films.square import resize_labels, stretch_to_square
from mask_rcnn.system.progress import progress, warn


class UNetFilm(NamedTuple):
    """A film in memory."""

    source: str  # the name of its folder
    square: np.ndarray
    drawn: np.ndarray
    labels: np.ndarray

    @property
    def holds_heart(self) -> bool:
        """Whether its drawing holds the heart, so that only part of it is known."""
        return self.labels is not self.drawn


def read_films(
    folders: Sequence[Path], held_out: HeldOut | None, hearts: Path | None, train_fraction: float, seed: int
) -> tuple[list[UNetFilm], list[UNetFilm]]:
    """Films to train on and films to choose the best epoch by, of other patients, without those that are held out.

    A film that cannot be read is named on standard error and left out.

    Args:
        folders: each with ``images/`` and ``masks/``, or a dataset JSON.
        held_out: the list of films that are neither for the one nor for the other; None where there is none.
        hearts: holds SET/NAME.png, above 0 where a heart may lie (scripts/find_hearts.py), for films whose drawings hold it;
            of a set without a folder there, hearts are not left out.
        train_fraction: of the patients of each folder.
        seed: of the split.

    Raises:
        DatasetError: a folder cannot be used, a heart or every folder of hearts is missing, or no film is left for one side.
    """
    if hearts and not any((hearts / folder.name).is_dir() for folder in folders):
        raise DatasetError(f"{hearts}: has no folder of {', '.join(folder.name for folder in folders)}; "
                           "make it with scripts/find_hearts.py")
    records = [record for folder in folders for record in read_records(folder, "patient")]
    if held_out is not None:
        kept = set(held_out.to_learn([record.path for record in records]))
        records = [record for record in records if record.path in kept]
    train, validation = (_load(side, hearts) for side in split_records(records, train_fraction, seed))
    if not train or not validation:
        names = ", ".join(map(str, folders))
        raise DatasetError(f"{names}: too few films could be read that are not held out: {len(train)} to train on, "
                           f"{len(validation)} to choose the best epoch by")
    return train, validation


def _load(records: Sequence[FilmRecord], hearts: Path | None) -> list[UNetFilm]:
    conventions = {source: convention_of(source) for source in {record.source for record in records}}
    films = []
    for record in progress(records, name="films", total=len(records)):
        try:
            film, drawn, _ = read_annotated(record)
        except (FilmError, DatasetError) as error:
            warn(f"left out {error}")
            continue
        drawn = labels = resize_labels(drawn, SIDE, SIDE)
        name = Path(record.source).name
        if conventions[record.source] == HEART_DRAWN_IN:
            heart = None
            if hearts and (hearts / name).is_dir():
                heart = _read_heart(hearts / name / f"{record.path.stem}.png")
            labels = known_labels(drawn, heart)
        films.append(UNetFilm(name, equalise(stretch_to_square(film)), drawn, labels))
    return films


def _read_heart(path: Path) -> np.ndarray:
    try:
        return resize_labels((read_film(path) > 0).astype(np.uint8), SIDE, SIDE) > 0
    except FilmError as error:
        raise DatasetError(f"{error}; make it with scripts/find_hearts.py") from error
