"""Which files below a folder are films: by their names, and those without a known suffix by their first bytes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mask_rcnn.films.dicom import looks_like_dicom
from mask_rcnn.films.images import HEAD
from mask_rcnn.films.names import FILM_SUFFIXES

# Folders of results beside films, and what archives made on a Mac leave behind.
_NOT_FILMS = {
    "masks": "masks", "mask": "masks", "overlays": "overlays", "report_files": "overlays",
    "probabilities": "probabilities",
    "dicom-seg": "DICOM results", "dicom-sr": "DICOM results", "__macosx": "hidden",
}  # fmt: skip

# Results of an earlier run that ``run.set_aside`` has put into a folder of their own.
SET_ASIDE = re.compile(r"earlier-\d{8}-\d{6}(-\d+)?")


class Found(NamedTuple):
    """What a walk through a folder came upon."""

    films: list[Path]  # sorted
    unreadable: dict[Path, str]  # folders and files that may hold films and cannot be read: the reason and the remedy
    passed_over: Counter[str]  # files that are no films by their place or name, counted by "masks", "hidden", ".csv", ...

    def summary(self) -> str:
        """What was passed over, as "12 masks, 3 .csv"; empty where nothing was."""
        ordered = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in ordered)


def find_films(
    root: Path, skip: Collection[Path] = (), watch: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> Found:
    """Every file under ``root`` that looks like a film; ``root`` itself where it is a file.

    A film has one of ``FILM_SUFFIXES``, or any other name and begins as DICOM does. Hidden files and folders, folders of
    masks and of other results, ``__MACOSX`` and earlier results are passed over and counted, the folders of ``skip`` are
    not even counted; linked folders are entered once. Nothing is decoded: ``read_film`` refuses what is no film.

    Args:
        root: a folder or a film.
        skip: folders that hold no films.
        watch: sees each folder go by, and hands it on.
    """
    found = Found([], {}, Counter())
    if not root.is_dir():
        found.films.append(root)
        return found

    def note(error: OSError) -> None:
        path = Path(os.fsdecode(error.filename or root))
        found.unreadable[path] = f"cannot be read ({error.strerror or error}); check its permissions"

    entered = {os.path.realpath(path) for path in skip}
    for folder, subfolders, names in watch(os.walk(root, followlinks=True, onerror=note)):
        resolved = os.path.realpath(folder)
        if resolved in entered:
            subfolders.clear()
            continue
        entered.add(resolved)
        kept = []
        for name in sorted(subfolders):
            if kind := _kind_of_folder(name):
                found.passed_over[kind] += _count_files(Path(folder, name))
            else:
                kept.append(name)
        subfolders[:] = kept
        for name in names:
            _sort(Path(folder, name), found)
    found.films.sort()
    return found


def find_film_paths(
    root: Path, skip: Collection[Path] = (), watch: Callable[[Iterable[Any]], Iterable[Any]] = iter
) -> list[Path]:
    """The films alone that ``find_films`` finds."""
    return find_films(root, skip, watch).films


def _kind_of_folder(name: str) -> str:
    """What a folder is passed over as; empty for one that may hold films."""
    if name.startswith("."):
        return "hidden"
    if SET_ASIDE.fullmatch(name):
        return "earlier results"
    return _NOT_FILMS.get(name.lower(), "")


def _count_files(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def _sort(path: Path, found: Found) -> None:
    """Adds a file to the films, to what cannot be read, or to what is passed over."""
    if path.name.startswith("."):
        found.passed_over["hidden"] += 1
    elif path.suffix.lower() in FILM_SUFFIXES:
        found.films.append(path)
    elif path.is_symlink() and not os.path.exists(path):
        found.unreadable[path] = "is a link to nothing; remove it"
    elif not path.is_file():  # opening a named pipe would wait for ever
        found.passed_over["special files"] += 1
    else:
        try:
            with path.open("rb") as file:
                is_film = looks_like_dicom(file.read(HEAD))
        except OSError as error:
            found.unreadable[path] = f"cannot be read ({error.strerror or error}); check its permissions"
            return
        if is_film:
            found.films.append(path)
        else:
            found.passed_over[path.suffix.lower() or "without a suffix"] += 1
