"""The list of films that nothing is taught on: those to report by, their patients' other films, and copies of any of these.

``configs/held_out.csv`` has a line a film: ``set``, the folder of its source; ``file``, its path there; ``why``, "held" for
the films to report by, "patient" or "copy" for those that only must not be trained on.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from mask_rcnn.dataset.errors import DatasetError

HELD, PATIENT, COPY = "held", "patient", "copy"
COLUMNS = ("set", "file", "why")


class ListedFilm(NamedTuple):
    """A line of the list."""

    set: str
    file: str
    why: str


Item = TypeVar("Item")


class HeldOut:
    """The list, to be asked for films by their paths: the last folders and the name count, wherever the sets lie."""

    def __init__(self, films: Iterable[ListedFilm]) -> None:
        self.films = list(films)
        self._why = {f"{film.set}/{film.file}": film.why for film in self.films}
        self._lengths = sorted({key.count("/") + 1 for key in self._why})

    def why(self, path: Path) -> str:
        """Why a film is in the list, the empty text where it is not."""
        parts = path.absolute().as_posix().split("/")
        keys = ("/".join(parts[-length:]) for length in self._lengths)
        return next((self._why[key] for key in keys if key in self._why), "")

    def to_report(self, paths: Iterable[Path]) -> list[Path]:
        """The films to report by."""
        return [path for path in paths if self.why(path) == HELD]

    def to_learn(self, paths: Iterable[Path]) -> list[Path]:
        """The films that may be trained on and chosen by."""
        return [path for path in paths if not self.why(path)]


def read_held_out(path: str | Path) -> HeldOut:
    """Reads the list.

    Raises:
        DatasetError: it cannot be read, lacks a column, is empty or has an unknown reason.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            films = [ListedFilm(*(row[column] for column in COLUMNS)) for row in csv.DictReader(file, strict=True)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not readable as a table ({error}); make it with scripts/hold_out.py") from error
    except KeyError as error:
        raise DatasetError(f"{path}: has no column {error}; make it with scripts/hold_out.py") from error
    unknown = {film.why for film in films} - {HELD, PATIENT, COPY}
    if unknown or not films:
        wrong = f"has the unknown reason {min(map(str, unknown))!r}" if unknown else "names no film"
        raise DatasetError(f"{path}: {wrong}; make it with scripts/hold_out.py")
    return HeldOut(films)
