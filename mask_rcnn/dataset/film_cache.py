"""The films of trainings on disk, fitted to the square with their labels: prepared once, read one by one by each training.

For each side of the square a folder holds two files, to which films are only ever added:

- ``films_SIDE.bin``, the film and its labels one behind the other, 2 side² bytes a film: 128 KB at 256 pixels
- ``films_SIDE.jsonl``, a line that names the format, then one a film in the same order: its key, window, traits and a digest
  of its pixels, by which a training knows its films again without reading them

A film's key is a digest of all that its pixels depend on: path, size and time of its file and its mask's, run lengths. So a
film that was changed is prepared anew, and trainings of any config share what they have in common. Both files are whole
after a kill at any moment; what lies behind the last whole line is cut off when the next training begins.

Shapes
    film     uint8 [side, side], equalised and fitted to the square
    labels   uint8 [side, side], 0 background, else the category id
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from mask_rcnn.dataset.augmentation import Window
from mask_rcnn.dataset.records import FilmRecord
from mask_rcnn.dataset.sides import Sides, check_turned
from mask_rcnn.dataset.training_films import TrainingFilm, Traits, prepare_films, sound_records
from mask_rcnn.run.folder import sole_run
from mask_rcnn.system.console import inform, note
from mask_rcnn.system.files import file_version, journal_contents, journal_line
from mask_rcnn.system.formats import stamp

FORMAT = 2  # bump when a film is read, equalised or fitted otherwise: caches of other formats are made anew
FILMS_AT_ONCE = 64  # written, and told to the disk, before their lines are


class Place(NamedTuple):
    """Where a cache holds a film."""

    number: int  # from 0, of the film in the file
    window: Window
    pixels: str  # the digest of film and labels, as ``pixels_digest`` gives it


class CachedFilms(Sequence[TrainingFilm]):
    """Films of a cache; each is read when it is asked for, and nothing of its pixels is kept.

    Args:
        path: of the file of pixels.
        side: of the square.
        places: of the films, by their records.
        records: which films, in their order; a film may be there several times.
    """

    def __init__(self, path: Path, side: int, places: Mapping[FilmRecord, Place], records: Sequence[FilmRecord]) -> None:
        self.path, self.side, self.places, self.records = path, side, places, records

    def of(self, records: Sequence[FilmRecord]) -> CachedFilms:
        """Some of the films, in any order."""
        return CachedFilms(self.path, self.side, self.places, records)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> TrainingFilm: ...

    @overload
    def __getitem__(self, index: slice) -> CachedFilms: ...

    def __getitem__(self, index: int | slice) -> TrainingFilm | CachedFilms:
        if isinstance(index, slice):
            return self.of(self.records[index])
        record = self.records[index]
        number, window, _ = self.places[record]
        count = _size(self.side)
        # Read and not mapped: pages of a mapped file would count as this process's memory.
        pixels = np.fromfile(self.path, np.uint8, count, offset=number * count).reshape(2, self.side, self.side)
        return TrainingFilm(record, pixels[0], pixels[1], window)


def cache_films(records: Sequence[FilmRecord], side: int, folder: Path) -> tuple[CachedFilms, list[str]]:
    """The films, in a cache from then on, and the fingerprint of each; those that are not in it yet are read.

    What a record holds of pixels and run lengths is dropped. A film that cannot be used is named on standard error and left
    out, as by ``load_films``. A second process waits until the first has its films.

    Raises:
        DatasetError: as ``load_films``.
        OSError: the folder cannot be written to.
    """
    path = pixels_path(folder, side)
    keys = {record: key_of(record) for record in records}
    folder.mkdir(parents=True, exist_ok=True)  # here, so that no run that waits sees it go
    with sole_run(folder, wait=True), _naming(path):
        known = _read_index(path, side)
        check_turned(list(keys), {record: known[key][1].turned_wrongly for record, key in keys.items() if key in known})
        wanted = {key: record for record, key in keys.items() if key not in known}  # two sources may hold the same film
        if wanted:
            note(f"reading {len(wanted)} films into {path}, {len(wanted) * _size(side) / 1e6:.1f} MB")
            known |= _add(path, side, {record: key for key, record in wanted.items()}, len(known))
    traits = {record: known[key][1] for record, key in keys.items() if key in known}
    others = len(known) - len(traits)
    told = f", {others} of them not of this training" if others else ""
    inform(f"{path}: {len(known)} films{told}, {len(known) * _size(side) / 1e6:.1f} MB")
    places, fingerprints = {}, []
    for record in sound_records(traits, len(keys)):
        slim = replace(record, segmentations=(), mask_path=None, pixels=None)
        places[slim] = known[keys[record]][0]
        fingerprints.append(traits[record].fingerprint)
    return CachedFilms(path, side, places, list(places)), fingerprints


def _size(side: int) -> int:
    """Bytes of a film."""
    return 2 * side**2


def key_of(record: FilmRecord) -> str:
    """Equal for films whose pixels and labels are."""
    parts = [_file(record.path), record.mask_path and _file(record.mask_path), record.segmentations, record.inverted,
             record.are_upright, "" if record.pixels is None else hashlib.sha256(record.pixels.tobytes()).hexdigest()]
    return hashlib.blake2b(json.dumps(parts).encode("ascii"), digest_size=16).hexdigest()


def _file(path: Path) -> list[Any]:
    try:
        return [str(path.absolute()), *file_version(path)]
    except OSError:  # a film of a published JSON is no file; reading others will report it
        return [str(path.absolute())]


def pixels_path(folder: Path, side: int) -> Path:
    """The file of pixels of a cache."""
    return folder / f"films_{side}.bin"


def index_path(folder: Path, side: int) -> Path:
    """The file of lines of a cache."""
    return pixels_path(folder, side).with_suffix(".jsonl")


def head(side: int) -> dict[str, Any]:
    """The first line of a cache."""
    return {**stamp(FORMAT), "side": side}


def index_line(key: str, window: Window, pixels: str, traits: Traits) -> bytes:
    """A film's line."""
    return journal_line({"film": key, "window": window, "pixels": pixels, **traits._asdict()})


def pixels_digest(film: TrainingFilm) -> str:
    """A SHA-256 of a film and its labels."""
    return hashlib.sha256(film.film.tobytes() + film.labels.tobytes()).hexdigest()


def _read_index(path: Path, side: int) -> dict[str, tuple[Place, Traits]]:
    """The films of a cache by their keys; makes an empty one where there is none, or one of another program."""
    index = index_path(path.parent, side)
    lines = journal_contents(index)
    _, end, first = next(lines, (0, 0, {}))
    known: dict[str, tuple[Place, Traits]] = {}
    if first == head(side) and path.exists():
        room = path.stat().st_size // _size(side)
        for _, last, line in islice(lines, room):
            try:
                place = Place(len(known), tuple(line["window"]), line["pixels"])
                known[line["film"]] = place, Traits(line["fingerprint"], Sides(*line["sides"]), line["turned_wrongly"])
            except (LookupError, TypeError):  # what follows is not known to lie where it should
                break
            end = last
    else:
        index.write_bytes(journal_line(head(side)))
        end = index.stat().st_size
        path.touch()
    lines.close()
    os.truncate(index, end)
    os.truncate(path, len(known) * _size(side))
    return known


def _add(path: Path, side: int, keys: Mapping[FilmRecord, str], count: int) -> dict[str, tuple[Place, Traits]]:
    """Prepares films and adds them to the ``count`` that are there; gives them as ``_read_index`` does."""
    added: dict[str, tuple[Place, Traits]] = {}
    prepared = prepare_films(list(keys), side)
    with path.open("ab") as pixels, index_path(path.parent, side).open("ab") as index:
        while some := list(islice(prepared, FILMS_AT_ONCE)):
            lines = []
            for film, traits in some:
                pixels.write(film.film.tobytes() + film.labels.tobytes())
                key = keys[film.record]
                place = Place(count + len(added), film.window, pixels_digest(film))
                added[key] = place, traits
                lines.append(index_line(key, film.window, place.pixels, traits))
            pixels.flush()
            os.fsync(pixels.fileno())
            index.write(b"".join(lines))
            index.flush()
    return added


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Has an error that names no file, as of a full disk, name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
