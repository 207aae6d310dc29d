"""The patients of films by a table beside them, ``films.csv`` or ``patients.csv``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.films.names import film_stem

# What stands in place of a patient who is not known, letters only.
_NOBODY = frozenset({"", "nan", "na", "none", "null", "unknown", "anonymous", "anonymized", "anonymised", "anon"})

TABLES = ("films.csv", "patients.csv")
_FILM_COLUMNS = ("file", "filename", "film", "filmname", "image", "imagename", "imageid", "imagefile", "imageindex", "name",
                 "filepath", "imagepath", "path", "id")  # fmt: skip
_PATIENT_COLUMNS = ("patient", "patientid", "patientname", "patientnumber", "pid", "subject", "subjectid", "person",
                    "personid")  # fmt: skip


def read_table(folder: Path, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The patients of a folder's films by its table, ``films.csv`` or ``patients.csv``.

    The table has a heading, with a column for the film (``file``, ``image``, ``film``, ``name``, ...: its path, name, or
    name without suffix) and one for the patient (``patient``, ``patient_id``, ``subject``, ...); others do not matter. It is
    comma, semicolon or tab separated, in UTF-8. A table without a column for the patient is ignored.

    Args:
        folder: that of the source.
        names: the films' paths relative to it.

    Returns:
        The table's name, empty where there is none, and the patient of each film that it lists, by path.

    Raises:
        DatasetError: the table cannot be read, has no column for the film, names no film of the folder, or gives one film to
            two patients.
    """
    path = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if path is None:
        return "", {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = file.read()
        heading = lines.partition("\n")[0]
        rows = list(csv.DictReader(lines.splitlines(), delimiter=max(",;\t", key=heading.count), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not readable as a table ({error}); save it as CSV in UTF-8") from error
    columns = {re.sub(r"[^a-z0-9]", "", str(key).lower()): key for row in rows[:1] for key in row}
    patient_column = next((columns[key] for key in _PATIENT_COLUMNS if key in columns), None)
    if patient_column is None:
        return "", {}
    film_columns = [columns[key] for key in _FILM_COLUMNS if key in columns]
    if not film_columns:
        raise DatasetError(f"{path}: has a column {patient_column!r} and none for the film; name that one 'file'")
    told = max((_look_up(path, rows, column, patient_column, names) for column in film_columns), key=len)
    if names and not told and any(is_patient(str(row[patient_column] or "")) for row in rows):
        raise DatasetError(
            f"{path}: its column {film_columns[0]!r} names none of the films, such as {names[0]}; correct it or rename the "
            "table"
        )
    return path.name, told


def _look_up(
    path: Path, rows: Iterable[Mapping[str, str]], film_column: str, patient_column: str, names: Sequence[str]
) -> dict[str, str]:
    """The patients of the films that a column of a table names, by path."""
    patient_by_key: dict[str, str] = {}
    twice: dict[str, str] = {}
    for row in rows:
        key, patient = (str(row[column] or "").strip() for column in (film_column, patient_column))
        key = _table_key(key)
        if key and is_patient(patient) and patient_by_key.setdefault(key, patient) != patient:
            twice[key] = patient
    told = {}
    for name in names:
        parts = _table_key(name).split("/")
        tails = ["/".join(parts[k:]) for k in range(len(parts))]
        key = next((tail for tail in tails if tail in patient_by_key), "")
        if key in twice:
            patients = f"patient {patient_by_key[key]} and to {twice[key]}"
            raise DatasetError(f"{path}: gives {key} to {patients}; correct one of the rows, or write the film's whole path")
        if key:
            told[name] = patient_by_key[key]
    return told


def is_patient(text: str) -> bool:
    """Whether a text of a table or a record is somebody, rather than a word for an unknown patient."""
    return any(letter.isalnum() for letter in text) and re.sub(r"[\W_]", "", text.lower()) not in _NOBODY


def _table_key(name: str) -> str:
    return film_stem(name.replace("\\", "/").removeprefix("./"))
