"""The journal of a run: all that is known of each finished film, a line each, so that a stopped run goes on where it was.

A film's key is the label of the folder that was given and the film's path below it: it stays the same when the films move,
with their results or without. The lines of a journal are JSON objects:

- the first: ``format``, ``program``, and ``settings``, what a film's result depends on besides the film
- ``{"root": LABEL, "path": ..., "relative": ...}``: where a folder lies, absolute and as seen from the journal's folder
- ``{"film": KEY, "id": ..., "version": ..., "digest": ..., ...}``: a finished film; of several the last one counts
- ``{"unchanged": KEY, "version": ...}``: the same film, touched or moved
- ``{"results": [LABEL, ...]}``: the folders whose films the results beside the journal are of
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from mask_rcnn.system.files import digest_of, file_version, journal_contents, journal_line, write_bytes
from mask_rcnn.system.formats import JOURNAL_FORMAT, check_format, stamp

# Of a film: "id", "version" and "digest" of its file, and whatever the command keeps of it.
Entry = dict[str, Any]


class Film(Protocol):
    """A film to work on."""

    @property
    def path(self) -> Path:
        """Of its file."""

    @property
    def root(self) -> Path:
        """The folder that was given, or that of the film that was given; absolute."""

    @property
    def file_name(self) -> str:
        """Its path below the root, with forward slashes; text that can be written as UTF-8."""


class _Place(NamedTuple):
    offset: int  # of the line, in bytes
    version: list[int]
    digest: str
    result: str  # of the files that hold the film's result; empty where the command writes none


class _Root(NamedTuple):
    path: str
    relative: str


class Journal:
    """The finished films of one folder; in memory are places in the file alone, some half a kilobyte a film.

    Args:
        path: of the journal, which need not be there.
        settings: what a film's result depends on besides the film. A journal of other settings, or of an older format, is
            as good as none, and ``is_other``: it has to be set aside before the first film is added.
        keys: what an entry holds; lines that lack one are as good as none.

    Raises:
        FormatError: a newer program wrote it.
        OSError: the journal cannot be read, or, from ``add``, not be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], keys: Iterable[str] = ()) -> None:
        self.path, self.settings = path, settings
        self.ids: dict[str, int] = {}  # every image id that was given, by key
        self._places: dict[str, _Place] = {}
        self._roots: dict[str, _Root] = {}  # by label, as the file has them
        self._labels: dict[Path, str] = {}  # of the roots of this run
        self._results: list[str] = []
        self._reader: IO[bytes] | None = None
        self._writer: IO[bytes] | None = None
        self._whole = 0  # bytes up to the end of the last line that is not torn
        with closing(journal_contents(path)) as contents:
            _, end, first = next(contents, (0, 0, {}))
            check_format(path, first.get("format"), JOURNAL_FORMAT, "journal")
            self._goes_on = first.get("format") == JOURNAL_FORMAT and first.get("settings") == settings
            # Whether there is a journal of other settings, with films in it.
            self.is_other = not self._goes_on and (
                "file" in first or any(line.keys() & {"film", "file"} for *_, line in contents)
            )
            if self._goes_on:
                self._whole = end
                self._load(contents, {"id", "version", "digest", *keys})

    def _load(self, contents: Iterable[tuple[int, int, dict[str, Any]]], keys: set[str]) -> None:
        for offset, self._whole, line in contents:
            if isinstance(film := line.get("film"), str) and line.keys() >= keys:
                self._places[film] = _Place(offset, line["version"], line["digest"], str(line.get("result", "")))
                self.ids[film] = line["id"]
            elif (film := line.get("unchanged")) in self._places:
                self._places[film] = self._places[film]._replace(version=line["version"])
            elif isinstance(labels := line.get("results"), list):
                self._results = labels
            elif isinstance(label := line.get("root"), str):
                self._roots[label] = _Root(str(line.get("path")), str(line.get("relative")))

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._reader, self._writer):
            if file is not None:
                file.close()

    def __contains__(self, film: Film) -> bool:
        return self.key(film) in self._places

    def key(self, film: Film) -> str:
        """A film's key; ``find_roots`` has to have seen its root."""
        return f"{self._labels[film.root]}//{film.file_name}"

    def find_roots(self, roots: Iterable[Path]) -> set[str]:
        """Learns the roots of this run, and which of them the journal knows, wherever they lie today.

        A root is known by its path, by its place relative to the journal, or, where it has moved, by a film that lies in it
        unchanged.

        Returns:
            The labels of the roots that the journal knows and that are none of these.
        """
        free = dict(self._roots)

        def take(root: Path, label: str) -> None:
            self._labels[root] = label
            free.pop(label, None)

        known_by: tuple[Callable[[Path, str], bool], ...] = (
            lambda root, label: self._roots[label].path == str(root),
            lambda root, label: self._roots[label].relative == self._relative(root),
            self._has_moved_to,
        )
        roots = list(roots)
        for is_known in known_by:
            for root in roots:
                if root not in self._labels and (label := next((label for label in free if is_known(root, label)), None)):
                    take(root, label)
        for root in roots:
            if root not in self._labels:
                take(root, self._new_label(root))
        return {label for label in free if any(key.startswith(f"{label}//") for key in self._places)}

    def _relative(self, root: Path) -> str:
        try:
            return Path(os.path.relpath(root, self.path.parent.resolve())).as_posix()
        except ValueError:  # another drive
            return ""

    def _has_moved_to(self, root: Path, label: str) -> bool:
        start = f"{label}//"
        return any(
            self._is_unchanged(root / key.removeprefix(start), place)
            for key, place in self._places.items() if key.startswith(start)
        )  # fmt: skip

    def _new_label(self, root: Path) -> str:
        """The root's name, with as many of the folders above as make it unique among the roots'."""
        taken = {*self._roots, *self._labels.values()}
        names = ["/".join(root.parts[-count:]).strip("/") or "films" for count in range(1, len(root.parts) + 1)]
        names += [f"{names[-1]} {number}" for number in range(2, len(taken) + 3)]
        return next(name for name in names if name not in taken)

    def forget_changed(self, films: Iterable[Film]) -> None:
        """Forgets those that changed since they were done, or are gone. One that was touched or copied is compared."""
        for film in films:
            place = self._places.get(key := self.key(film))
            if place is None:
                continue
            try:
                version = file_version(film.path)
            except OSError:  # gone meanwhile: reading it will fail with the reason
                version = []
            if version != place.version:
                if self._is_unchanged(film.path, place):
                    self._places[key] = place._replace(version=version)
                    self._write({"unchanged": key, "version": version})
                else:
                    del self._places[key]

    @staticmethod
    def _is_unchanged(path: Path, place: _Place) -> bool:
        try:
            version = file_version(path)
            return version == place.version or (version[0] == place.version[0] and digest_of(path) == place.digest)
        except OSError:
            return False

    def forget(self, film: Film) -> None:
        """Forgets a film, so that it is worked on again."""
        self._places.pop(self.key(film), None)

    def result(self, film: Film) -> str:
        """What the entry of a film has as ``result``."""
        return self._places[self.key(film)].result

    def results(self) -> set[str]:
        """The ``result`` of every film that the journal knows, of this run or not."""
        return {place.result for place in self._places.values()} - {""}

    def add(self, film: Film, entry: Entry) -> None:
        """Writes a film's line; once this returns, a kill cannot lose it."""
        key = self.key(film)
        offset = self._write({"film": key, **entry})
        self._places[key] = _Place(offset, entry["version"], entry["digest"], str(entry.get("result", "")))

    def read(self, film: Film) -> Entry:
        """A film's entry, from the file."""
        if self._reader is None:
            self._reader = self.path.open("rb")
        self._reader.seek(self._places[self.key(film)].offset)
        return dict(json.loads(self._reader.readline()))

    def open(self) -> None:
        """Makes the file ready for ``add``, if it is not yet: begun, its torn end cut off, this run's roots in it."""
        if self._writer is not None:
            return
        if self._goes_on:
            os.truncate(self.path, self._whole)
        else:
            write_bytes(self.path, journal_line({**stamp(JOURNAL_FORMAT), "settings": self.settings}))
        self._writer = self.path.open("ab")
        for root, label in self._labels.items():
            place = _Root(str(root), self._relative(root))
            if self._roots.get(label) != place:
                self._write({"root": label, **place._asdict()})
                self._roots[label] = place

    def other_results(self) -> list[str]:
        """The folders not given to this run whose films are in the results that lie beside the journal."""
        return [label for label in self._results if label not in self._labels.values()]

    def claim_results(self) -> None:
        """Notes that the results beside the journal are of this run's folders from now on."""
        labels = sorted(self._labels.values())
        if labels != self._results:
            self._write({"results": labels})
            self._results = labels

    def _write(self, content: Mapping[str, Any]) -> int:
        """Writes a line; returns its offset."""
        self.open()
        assert self._writer is not None
        offset = self._writer.tell()
        self._writer.write(journal_line(content))
        self._writer.flush()
        return offset

    def assign_ids(self, films: Iterable[Film]) -> dict[str, int]:
        """An image id below 2 ** 48 for each film, by key: the one it had, else a hash of the key.

        So ids do not change when films are added or moved, and another machine gives the same ones.
        """
        taken = set(self.ids.values())
        ids: dict[str, int] = {}
        for film in films:
            key = self.key(film)
            if (image_id := self.ids.get(key)) is None:
                name = key.replace("//", "/", 1).encode()
                image_id = int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big")
                while image_id in taken:
                    image_id += 1
                taken.add(image_id)
            ids[key] = image_id
        return ids
