"""From the journal to the dataset: every film gets its verdict and its group, then dataset.json and quality.csv are written.

Films are read from the journal one at a time; in memory is what the split and the report need of each, under a kilobyte.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from create_dataset.sources import Source
from mask_rcnn.checks.quality import ACCEPTED, REJECTED, STATUSES, judge
from mask_rcnn.config import QualityConfig
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.dataset.corrections import Correction, is_wanted, match_corrections
from mask_rcnn.dataset.decisions import DECISIONS, Decision
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.duplicates import find_groups
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.known_groups import KNOWN_COPIES
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.run.journal import Entry, Journal
from mask_rcnn.system.files import replacing
from mask_rcnn.system.progress import progress

TABLE = "quality.csv"
COLUMNS = ("file", "root", "collection", "split", "label", "patient", "group", "status", "reasons", "inverted",
           "turned", "decision", "corrected")


@dataclass(frozen=True, slots=True)
class JudgedFilm:
    """What is known of a finished film once all are."""

    source: Source
    image_id: int
    status: str
    reasons: tuple[str, ...]
    inverted: bool
    lungs: int
    area: float  # of both lungs, of the film's
    ratio: float | None  # left over right lung's area, where there are both
    agreement: float
    original: int  # the image id of the first of its copies; its own where it has none
    group: int  # the smallest image id of its copies and of the films of its patient, and of their copies, and so on
    digest: str = ""  # of its file
    decision: Decision | None = None  # a person's, which the status follows
    correction: Correction | None = None  # a person's lungs, in place of what was found


def judge_films(
    sources: Sequence[Source], journal: Journal, config: QualityConfig, decisions: Iterable[Decision] = (),
    corrections: Iterable[Correction] = (),
) -> list[JudgedFilm]:  # fmt: skip
    """The verdicts and groups of films that are all in the journal; what a person decided or corrected outweighs the checks.

    The groups of copies are kept beside the journal, so that the next run compares new films alone.

    Raises:
        DatasetError: a decision or a correction fits several films.
        OSError: the groups cannot be kept.
    """
    verdicts, fingerprints, facts, sizes = [], [], [], []
    for source in progress(sources, name="judging", total=len(sources)):
        entry = journal.read(source)
        fingerprints.append(entry["fingerprint"])
        verdicts.append(judge(entry["measures"], config, entry["doubts"]))
        facts.append(_facts(entry))
        sizes.append((entry["height"], entry["width"]))
    ids = [fact["image_id"] for fact in facts]
    keys = [(image_id, source.file_name) for image_id, source in zip(ids, sources, strict=True)]
    decided = match_films(decisions, keys, DECISIONS)
    corrected = match_corrections(corrections, keys, sizes)
    for place in decided.keys() | corrected.keys():
        verdicts[place] = decide(*verdicts[place], decided.get(place), corrected.get(place))
    for place, correction in corrected.items():
        facts[place] = _facts(with_correction(journal.read(sources[place]), correction))
    firsts = find_groups(fingerprints, journal.path.with_name(KNOWN_COPIES))
    groups = group_films(ids, firsts, [(source.collection, source.patient) for source in sources])
    return [
        JudgedFilm(source, status=status, reasons=tuple(reasons), original=ids[first], group=group,
                   decision=decided.get(place), correction=corrected.get(place), **fact)
        for place, (source, (status, reasons), fact, first, group)
        in enumerate(zip(sources, verdicts, facts, firsts, groups, strict=True))
    ]  # fmt: skip


def decide(
    status: str, reasons: list[str], decision: Decision | None, correction: Correction | None
) -> tuple[str, list[str]]:
    """The verdict on a film that a person decided on or corrected; what the checks hold against it stays a reason."""
    if is_wanted(status == ACCEPTED, decision, correction):
        return ACCEPTED, reasons
    return REJECTED, [*([decision.reason] if decision else []), *reasons]


def with_correction(entry: Entry, correction: Correction | None) -> Entry:
    """A film's entry of the journal with a person's lungs in place of those that were found; its measures stay."""
    if correction is None:
        return entry
    lungs = correction.lungs_at((entry["height"], entry["width"]))
    return entry | {"lungs": [annotation(0, 0, category, decode_mask(lung)) for category, lung in sorted(lungs.items())]}


def _facts(entry: Entry) -> dict[str, Any]:
    areas = {lung["category_id"]: lung["area"] for lung in entry["lungs"]}
    return {
        "image_id": entry["id"],
        "digest": entry["digest"],
        "inverted": entry["inverted"],
        "lungs": len(areas),
        "area": sum(areas.values()) / (entry["height"] * entry["width"]),
        "ratio": areas[LEFT_LUNG] / areas[RIGHT_LUNG] if len(areas) == 2 else None,
        "agreement": entry["measures"]["agreement"],
    }


def group_films(ids: Sequence[int], firsts: Sequence[int], patients: Sequence[tuple[str, str]]) -> list[int]:
    """The group of each film: films of one group never stand on both sides of the split.

    Args:
        ids: image ids.
        firsts: for each film the index of the first of its copies.
        patients: collection and patient of each; an empty patient is not known.

    Returns:
        For each film the smallest image id among those that are tied to it by copies and patients.
    """
    groups = Groups(len(ids))
    first_of_patient: dict[tuple[str, str], int] = {}
    for index, (first, patient) in enumerate(zip(firsts, patients, strict=True)):
        groups.join(index, first)
        if patient[1]:
            groups.join(index, first_of_patient.setdefault(patient, index))
    smallest: dict[int, int] = {}
    for image_id, first in zip(ids, groups.firsts(), strict=True):
        smallest[first] = min(image_id, smallest.get(first, image_id))
    return [smallest[first] for first in groups.firsts()]


def count_films(films: Sequence[JudgedFilm], skipped: int, not_done: int) -> dict[str, int]:
    """How many films there are of each kind, for ``info["counts"]``."""
    lungs, statuses = Counter(film.lungs for film in films), Counter(film.status for film in films)
    return {
        "films": len(films), "two_lungs": lungs[2], "one_lung": lungs[1], "no_lung": lungs[0],
        **{status: statuses[status] for status in STATUSES},
        "corrected": sum(film.correction is not None for film in films),
        "inverted": sum(film.inverted for film in films),
        "copies": sum(film.original != film.image_id for film in films),
        "skipped": skipped, "not_done": not_done,
    }  # fmt: skip


def write_dataset(
    path: Path, dataset: Mapping[str, Any], films: Sequence[JudgedFilm], journal: Journal, roots: Iterable[Path]
) -> None:
    """Writes ``dataset.json``, one record a line.

    Args:
        path: of the file.
        dataset: all but the images and annotations, which come from the films.
        films: in the order of the images.
        journal: holds all of them.
        roots: what a record's ``root`` counts, in the order of ``info["roots"]``.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    head = {key: value for key, value in dataset.items() if key not in ("images", "annotations")}
    numbers = {root: number for number, root in enumerate(roots)}
    # Annotations wait in a file of their own, as all images come first.
    with replacing(path) as file, TemporaryFile(dir=path.parent) as annotations:
        file.write(_json(head)[:-1] + b',"images":[')
        for k, film in enumerate(progress(films, name="writing", total=len(films))):
            entry = with_correction(journal.read(film.source), film.correction)
            file.write((b",\n" if k else b"\n") + _json(_image(film, entry, numbers[film.source.root])))
            for lung in entry["lungs"]:
                lung |= {"id": 2 * film.image_id + lung["category_id"], "image_id": film.image_id}
                annotations.write((b",\n" if annotations.tell() else b"\n") + _json(lung))
        file.write(b'\n],"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        file.write(b"\n]}\n")


def _image(film: JudgedFilm, entry: Entry, root: int) -> dict[str, Any]:
    source = film.source
    record = {
        "id": film.image_id, "root": root, "file_name": source.file_name,
        "height": entry["height"], "width": entry["width"],
        "collection": source.collection, "split": source.split, "label": source.label, "patient": source.patient,
        "group": film.group, "inverted": film.inverted, "turned": entry["turned"], "spacing_mm": entry["spacing_mm"],
        "quality": film.status, "agreement": film.agreement,
    }  # fmt: skip
    if film.decision:
        record["decision"] = film.decision.decision
    if film.correction:
        record["corrected"] = film.correction.decided
    return record | ({"reasons": film.reasons} if film.reasons else {})


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def write_table(path: Path, films: Sequence[JudgedFilm], journal: Journal, roots: Mapping[Path, str]) -> None:
    """Writes ``quality.csv``, a row a film: ``COLUMNS`` and every measure.

    Args:
        roots: how the table calls each root.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    with replacing(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        for k, film in enumerate(films):
            source, entry = film.source, journal.read(film.source)
            measures = entry["measures"]
            if k == 0:
                writer.writerow((*COLUMNS, *measures))
            writer.writerow((
                source.file_name, roots[source.root], source.collection, source.split, source.label, source.patient,
                film.group, film.status, "; ".join(film.reasons), int(film.inverted), entry["turned"],
                film.decision.decision if film.decision else "", film.correction.decided if film.correction else "",
                *measures.values(),
            ))  # fmt: skip


def relative_roots(roots: Iterable[Path], folder: Path) -> dict[Path, str]:
    """Roots as seen from the dataset's folder, so that all can move together."""
    return {root: _relative(root, folder.resolve()) for root in roots}


def _relative(root: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(root, folder)).as_posix()
    except ValueError:  # another drive
        return root.as_posix()
