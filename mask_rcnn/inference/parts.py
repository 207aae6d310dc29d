"""Puts the parts of a run together: their records into its journal, their films' files into its folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mask_rcnn.inference.sources import Film
from mask_rcnn.results.names import JOURNAL, PAGE_FILES, file_names
from mask_rcnn.results.page.pictures import FILMS, THUMBNAILS, picture_name
from mask_rcnn.results.records import KEYS
from mask_rcnn.run.journal import Entry, Journal
from mask_rcnn.run.parts import Part, link_or_copy, part_journal
from mask_rcnn.system.progress import progress


def take_parts(
    out: Path, parts: Collection[Part], batch: int, journal: Journal, films: Sequence[Film], save: Collection[str]
) -> None:
    """Has the journal and the folders of a run hold what its parts have made; the parts stay as they are.

    Args:
        out: folder of the run.
        parts: as ``finished_parts`` gives them.
        batch: films at a time.
        journal: of the run.
        films: all of them, in order, with the names of their results.
        save: kinds of files of a film.

    Raises:
        RunError: a part was made by other networks or settings.
        OSError: something cannot be written.
    """
    with progress(name="putting together", total=len(films)) as bar:
        for part in parts:
            folder = part.folder(out)
            own = [film for place, film in enumerate(films) if part.has(place, batch)]
            with part_journal(folder / JOURNAL, part, journal, own, KEYS) as done:
                for film in own:
                    if film not in journal and film in done and done.result(film) == film.result:
                        entry = done.read(film)
                        for name in _files(film, entry, save):
                            link_or_copy(folder / name, out / name)
                        journal.add(film, {key: value for key, value in entry.items() if key != "film"})
                    bar.update()


def _files(film: Film, entry: Entry, save: Collection[str]) -> list[str]:
    """What may be there of a film, relative to the folder of a run or a part."""
    picture = picture_name(entry["id"], entry["digest"])
    pictures = [f"{PAGE_FILES}/{folder}/{picture}" for folder in (THUMBNAILS, FILMS)]
    return [*pictures, *(name for kind in save for name in file_names(kind, film.result))]
