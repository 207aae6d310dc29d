"""The films of a run: of one source or several, each film by its place below its source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mask_rcnn.bag.members import InferenceError
from mask_rcnn.films import finding
from mask_rcnn.results.names import result_names
from mask_rcnn.run.journal import Journal
from mask_rcnn.system.console import note
from mask_rcnn.system.files import writable
from mask_rcnn.system.paths import PathError, expand_paths
from mask_rcnn.system.progress import warn

FORMATS = "JPEG, PNG, TIFF, BMP, WebP, DICOM"


class Film(NamedTuple):
    """One film of a source."""

    root: Path  # the source, or the folder of the film that is the source; absolute
    file_name: str  # below the root, with forward slashes
    path: Path
    name: str = ""  # in the tables: the file name, behind its root's label where there are several roots
    result: str = ""  # of its label mask and picture, relative to their folders


class Films(NamedTuple):
    """What there is to work on."""

    films: list[Film]
    roots: list[Path]  # of the sources, each once
    unreadable: list[tuple[Film, str]]  # folders and files that cannot be read, and why
    passed_over: Counter[str]  # files that are no films by their place or name, by their kind


def find_films(sources: Iterable[str | os.PathLike[str]], out: Path) -> Films:
    """The films of files, folders and glob patterns: by source, and by path within one; none that lie in ``out``.

    A film of two sources belongs to the first.

    Raises:
        InferenceError: a source is not there, a pattern matches nothing, or there is no film in any source.
    """
    try:
        paths = [Path(path) for path in expand_paths(sources, "--src")]
    except PathError as error:
        raise InferenceError(str(error)) from error
    found = Films([], [], [], Counter())
    known: set[str] = set()  # films of earlier sources
    names: dict[Path, set[str]] = {}  # that are taken, by root
    for source in paths:
        known |= {os.path.realpath(film) for film in _add_source(source, out, found, known, names)}
    if not found.films:
        where = "none of the sources holds a film" if len(paths) > 1 else f"{paths[0]}: no film in it"
        raise InferenceError(f"{where} ({FORMATS}); give --src")
    return found


def _add_source(source: Path, out: Path, found: Films, known: set[str], names: dict[Path, set[str]]) -> list[Path]:
    """Adds the films of a source; returns their paths."""
    folder = source if source.is_dir() else source.parent
    root = Path(os.path.realpath(folder))
    if root not in found.roots:
        found.roots.append(root)
    taken = names.setdefault(root, set())
    walked = finding.find_films(source, skip=[out] if os.path.realpath(out) != os.path.realpath(source) else [])
    if walked.passed_over:
        note(f"{source}: passed over {walked.summary()}; no films by their place or name")
        found.passed_over.update(walked.passed_over)
    for path, reason in walked.unreadable.items():
        warn(f"skipped {writable(str(path))}: {reason}")
        found.unreadable.append((Film(root, _below(folder, path), path), reason))
    films = [path for path in walked.films if os.path.realpath(path) not in known]
    for path in films:
        name = _below(folder, path)
        while name in taken:  # of two names, one spells the bytes that the other has
            name += "~"
        taken.add(name)
        found.films.append(Film(root, name, path))
    return films


def _below(folder: Path, path: Path) -> str:
    return writable(path.relative_to(folder).as_posix())


def name_films(films: Sequence[Film], roots: Sequence[Path], journal: Journal) -> list[Film]:
    """The films with their names in the tables and those of their results, which no two share.

    Args:
        journal: that has seen the roots: its labels tell the films of several roots apart.
    """
    names = [name_in_tables(film, roots, journal) for film in films]
    return [
        film._replace(name=name, result=result)
        for film, name, result in zip(films, names, result_names(names), strict=True)
    ]


def name_in_tables(film: Film, roots: Sequence[Path], journal: Journal) -> str:
    """A film's path below its root; of several roots, behind the root's label."""
    return film.file_name if len(roots) == 1 else journal.key(film).replace("//", "/", 1)
