"""The journal of a run: all that is known of each finished film, a line each, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from create_dataset.sources import Source
from mask_rcnn.files import file_version, journal_contents, journal_line, write_bytes

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Of a film: "version" as file_version gives it, "lungs" as COCO annotations whose ids are still 0, others as in the dataset.
Entry = dict[str, Any]
KEYS = frozenset({"id", "version", "height", "width", "inverted", "spacing_mm", "fingerprint", "measures", "lungs"})


class BusyError(ValueError):
    """Another run is writing to the same folder; the message names it and the remedy."""


class _Place(NamedTuple):
    offset: int  # of the line, in bytes
    version: list[int]


class Journal:
    """The finished films of one folder by their paths; of several lines on a film the last one counts.

    In memory are places in the file alone, half a kilobyte a film. A journal of other settings is as good as none: it is
    set aside, as ``NAME.previous``, when the first film is added.

    Args:
        path: of the journal, which need not be there.
        settings: what a film's answer depends on besides the film: the U-Nets and so on.

    Raises:
        OSError: the journal cannot be read, or, from ``add``, not be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, settings
        self.ids: dict[str, int] = {}  # every image id that was given, by film
        self._places: dict[str, _Place] = {}
        self._reader: IO[bytes] | None = None
        self._writer: IO[bytes] | None = None
        contents = journal_contents(path) if path.exists() else iter(())
        self._goes_on = next(contents, (0, {}))[1].get("settings") == settings
        # Whether there is a journal of other settings, with films in it.
        self.is_other = not self._goes_on and any("film" in line for _, line in contents)
        for offset, line in contents if self._goes_on else ():
            if isinstance(film := line.get("film"), str) and line.keys() >= KEYS:
                self._places[film] = _Place(offset, line["version"])
                self.ids[film] = line["id"]

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._reader, self._writer):
            if file is not None:
                file.close()

    def __contains__(self, film: Path) -> bool:
        return str(film) in self._places

    def forget_changed(self, films: Iterable[Path]) -> None:
        """Forgets those that changed since they were done, or are gone."""
        for film in films:
            if film in self and self._places[str(film)].version != _version_or_none(film):
                del self._places[str(film)]

    def add(self, film: Path, entry: Entry) -> None:
        """Writes a film's line; once this returns, a kill cannot lose it."""
        if self._writer is None:
            self._writer = self._open()
        place = _Place(self._writer.tell(), entry["version"])
        self._writer.write(journal_line({"film": str(film), **entry}))
        self._writer.flush()
        self._places[str(film)] = place

    def read(self, film: Path) -> Entry:
        """A film's entry, from the file."""
        if self._reader is None:
            self._reader = self.path.open("rb")
        self._reader.seek(self._places[str(film)].offset)
        return json.loads(self._reader.readline())

    def _open(self) -> IO[bytes]:
        if self.is_other:
            os.replace(self.path, previous_path(self.path))
        if not self._goes_on:
            write_bytes(self.path, journal_line({"settings": self.settings}))
        with self.path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # torn by a kill; the next line must not continue it
                file.write(b"\n")
        return self.path.open("ab")


def _version_or_none(film: Path) -> list[int] | None:
    try:
        return file_version(film)
    except OSError:  # gone meanwhile: reading it will say so
        return None


def assign_ids(sources: Iterable[Source], known: Mapping[str, int]) -> dict[Path, int]:
    """An image id below 2 ** 48 for each film: the one it had, else a hash of its path below the folder given.

    So ids do not change when films are added, and another machine gives the same ones.
    """
    taken = set(known.values())
    ids: dict[Path, int] = {}
    for source in sources:
        path = source.path
        if (image_id := known.get(str(path))) is None:
            name = f"{source.root.name}/{source.file_name}".encode()
            image_id = int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big")
            while image_id in taken:
                image_id += 1
            taken.add(image_id)
        ids[path] = image_id
    return ids


def previous_path(path: Path) -> Path:
    """Where a journal of other settings is kept, in case the settings were a mistake."""
    return path.with_name(f"{path.name}.previous")


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Keeps a second run out of a folder while the block runs; on Windows and some network disks it cannot.

    Raises:
        BusyError: a run is at work in it.
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        if fcntl:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"{folder}: another run is writing to it; wait for it or choose another --out") from error
            except OSError:  # a disk without locks
                pass
        yield
    finally:
        if fcntl:
            os.close(descriptor)
