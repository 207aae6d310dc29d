"""A run shared out among the jobs of a cluster: each does a part of the films, the last one puts the parts together.

All parts are given the same films and settings. Part K of N does every Nth batch of the films, since a network's last digits
depend on a film's place in its batch: so the parts come to the bytes of one run. A part writes to a folder of its own in the
output folder, ``part-K-of-N``, with a journal and the films' files. ``part.json`` is there once all its films are done.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mask_rcnn.run.folder import RunError
from mask_rcnn.run.journal import Film, Journal
from mask_rcnn.system.files import write_json
from mask_rcnn.system.formats import check_format, stamp

MERGE = "merge"  # what --part takes besides K/N
FACTS, FORMAT = "part.json", 1
_FOLDER = re.compile(r"part-(\d+)-of-(\d+)")


@dataclass(frozen=True)
class Part:
    """A share of a run's films."""

    number: int  # from 1
    of: int

    def __str__(self) -> str:
        return f"part {self.number} of {self.of}"

    def has(self, place: int, batch: int) -> bool:
        """Whether a film is of this part, by its place among all, from 0."""
        return place // batch % self.of == self.number - 1

    def folder(self, out: Path) -> Path:
        """Where its results go."""
        return out / f"part-{self.number}-of-{self.of}"


def part_or_merge(text: str) -> Part | str:
    """``K/N`` or ``merge``, as ``type`` of an option."""
    if text == MERGE:
        return MERGE
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"must be K/N, such as 1/3 to 3/3, or {MERGE}, not {text}")
    return Part(int(match[1]), int(match[2]))


def begin_part(folder: Path) -> None:
    """Takes back that a part is done, while it is worked on again."""
    (folder / FACTS).unlink(missing_ok=True)


def end_part(folder: Path, part: Part, batch: int, films: Sequence[Film]) -> None:
    """Notes that a part is done, and of which films it is a part.

    Args:
        films: of the whole run.

    Raises:
        OSError: it cannot be written.
    """
    facts = {"part": part.number, "of": part.of, "batch": batch, "films": _digest(films)}
    write_json(folder / FACTS, {**stamp(FORMAT), **facts})


def _digest(films: Iterable[Film]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    roots: dict[Path, int] = {}
    for film in films:
        number = roots.setdefault(film.root, len(roots))
        digest.update(f"{number}/{film.file_name}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def finished_parts(out: Path, batch: int, films: Sequence[Film]) -> list[Part]:
    """The parts of a run, all of them, whose results lie in a folder.

    Args:
        batch: films at a time.
        films: of the whole run, as they are now.

    Raises:
        RunError: there are none, one is missing or not done, or some are of another run.
        FormatError: a newer program wrote one.
    """
    matches = [match for path in out.glob("part-*-of-*") if (match := _FOLDER.fullmatch(path.name)) and path.is_dir()]
    found = sorted((int(match[2]), int(match[1])) for match in matches)
    if not found:
        raise RunError(f"{out}: holds no parts; run the command with --part 1/N to N/N first")
    counts = sorted({of for of, _ in found})
    if len(counts) > 1:
        listed = " and of ".join(map(str, counts))
        raise RunError(f"{out}: holds parts of {listed}, each film twice; remove the folders of one of them")
    parts = [Part(number, counts[0]) for number in range(1, counts[0] + 1)]
    there = {number for _, number in found}
    for part in parts:
        again = f"run the command with --part {part.number}/{part.of}"
        if part.number not in there:
            raise RunError(f"{out}: {part} is missing; {again}")
        facts = _facts(part.folder(out) / FACTS)
        if facts is None:
            raise RunError(f"{part.folder(out)}: not done yet; {again}, which goes on where it was")
        if (facts.get("films"), facts.get("batch")) != (_digest(films), batch):
            raise RunError(f"{part.folder(out)}: made of other films than there are now, or with another --batch; {again} "
                           "again, which predicts what is new")  # fmt: skip
    return parts


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(facts, dict):
        return None
    check_format(path, facts.get("format"), FORMAT, "part")
    return facts


def part_journal(path: Path, part: Part, whole: Journal, films: Sequence[Film], keys: Iterable[str]) -> Journal:
    """The journal of a part, without the films that have changed since.

    Args:
        whole: the journal of the run, of the same settings.
        films: of the part.
        keys: what an entry holds.

    Raises:
        RunError: the part was made by other networks or settings.
    """
    journal = Journal(path, whole.settings, keys)
    if journal.is_other:
        raise RunError(f"{path.parent}: made with other weights or settings than those given now; give the same, or run the "
                       f"command with --part {part.number}/{part.of} again")  # fmt: skip
    journal.find_roots(dict.fromkeys(film.root for film in films))
    journal.forget_changed(films)
    return journal


def link_or_copy(source: Path, target: Path) -> None:
    """Has a file of a part in the whole run too, in the place of one that may be there; nothing where there is none.

    Raises:
        OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not source.is_file():
        return
    with suppress(OSError):  # some disks have no links, or only so many to a file
        os.link(source, target)
        return
    shutil.copyfile(source, target)
