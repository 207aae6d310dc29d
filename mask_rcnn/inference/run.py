"""A run: every film that is not done yet is predicted, voted on and written; the tables are made of all records.

A run has its folder for itself. What another run has left there, of other networks, settings or sources, is set aside.
Every finished film is a line of ``OUT/films.jsonl``, by which a stopped run goes on. A film whose record is there and
of whose files some are missing, as ``--save`` may want more than before, gets these from its record.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mask_rcnn.bag.members import Described, Member
from mask_rcnn.config import QualityConfig, config_to_dict
from mask_rcnn.films.dicom import is_dicom
from mask_rcnn.films.images import FilmError, read_head
from mask_rcnn.films.sidecar import read_sidecar
from mask_rcnn.inference.outputs import BY_DEFAULT, OF_DICOM, OF_PREDICTIONS, OUTPUTS, check_outputs
from mask_rcnn.inference.parts import take_parts
from mask_rcnn.inference.provenance import provenance
from mask_rcnn.inference.sources import Film, Films, name_films, name_in_tables
from mask_rcnn.inference.work import FilmWork, Made, Task, facts_of, kinds_of, warm_up
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.names import COCO_RESULTS, JOURNAL, MEASUREMENTS, PAGE, PAGE_FILES, RUN, file_names
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.records import KEYS, review_reasons
from mask_rcnn.results.report import page_film, write_report
from mask_rcnn.results.tables import coco_results, measurements, tables
from mask_rcnn.run.cluster import Cluster, work_with
from mask_rcnn.run.folder import set_aside
from mask_rcnn.run.journal import Entry, Journal
from mask_rcnn.run.parts import Part, begin_part, end_part
from mask_rcnn.runtime.choice import KERAS
from mask_rcnn.system.console import detail, inform, step
from mask_rcnn.system.files import writable, write_bytes, write_json
from mask_rcnn.system.progress import progress, warn

BATCH = 8  # films that the networks see at a time
RESULTS_VERSION = 2  # bump when results change; older journals are not resumed
PAGE_KIND = "page"  # what --save calls the page
SAVED = (*OUTPUTS, PAGE_KIND)
SAVED_BY_DEFAULT = (*BY_DEFAULT, PAGE_KIND)
_RESULTS = (*OUTPUTS, PAGE, PAGE_FILES, COCO_RESULTS, MEASUREMENTS, RUN)  # beside the journal


class Summary(NamedTuple):
    """What a run has come to."""

    images: list[dict[str, Any]]  # what ``run.json`` has of each film with a result
    skipped: int  # files that could not be used
    predicted: int  # films that this run predicted
    seconds: float  # that it took, from the first film to the last


class InferenceRun:
    """One run of a bag over films, to be called once; its folder must be this run's alone (``sole_run``).

    Args:
        source: the films, as ``find_films`` gives them.
        networks: of the bag, as ``load_members`` gives them, or workers of a cluster that have them.
        out: folder of the results.
        quality: thresholds of the checks.
        save: of ``SAVED``: what is written of each film, and whether the page is.
        batch: films that the networks see at a time.
        command: for ``run.json``.
        part: whose films alone are predicted, into ``out``; it gets neither tables nor page.
        merged: finished parts, which are put together in ``out`` first.

    Raises:
        InferenceError: files of these kinds cannot be written.
    """

    def __init__(
        self, source: Films, networks: Sequence[Member] | Cluster[list[Described]], out: Path,
        quality: QualityConfig | None = None, save: Iterable[str] = SAVED_BY_DEFAULT, batch: int = BATCH,
        command: Sequence[str] = (), part: Part | None = None, merged: Sequence[Part] = (),
    ) -> None:  # fmt: skip
        save = set(save)
        self.source, self.networks, self.out = source, networks, out
        if isinstance(networks, Cluster):
            self.members, self.versions = networks.facts, networks.versions
        else:
            self.members, self.versions = facts_of(networks)
        self.quality = quality or QualityConfig()
        self.with_page = PAGE_KIND in save
        self.save = [kind for kind in OUTPUTS if kind in save]
        self.batch, self.command = batch, command
        self.part, self.merged = part, merged
        self.films = source.films  # named once the journal knows the roots; of a part its own alone
        self._beside = cache(_spacing_beside)  # the tables and the page want it, and it is said once
        config = self.members[0].config
        check_outputs(self.save, config.laterality)
        self.settings = {  # what a film's result depends on besides the film
            "command": "inference.py",
            "answers": RESULTS_VERSION,
            "weights": [member.sha256 for member in self.members],
            "laterality": config.laterality,
            "detection": [config_to_dict(member.config)["detection"] for member in self.members],
            "bag": [config.bag.pixels, config.bag.min_votes, config.bag.opening],
        }
        if self.members[0].runtime.name != KERAS:
            self.settings["runtime"] = list(self.members[0].runtime)
        self.dicom = {film.path for film in self.films if OF_DICOM & set(self.save) and _is_dicom(film.path)}

    def __call__(self) -> Summary:
        """Runs.

        Raises:
            InferenceError, RunError: there is too little memory.
            FormatError: a newer program wrote what is there.
            OSError: a result cannot be written.
            KeyboardInterrupt: after the tables are written of the films that are done.
        """
        with self._open_journal() as journal:
            return self._run(journal)

    def _run(self, journal: Journal) -> Summary:
        if self.part:
            begin_part(self.out)
        batch = min(self.batch, len(self.source.films))
        all_films = name_films(self.source.films, self.source.roots, journal)
        if self.merged:
            take_parts(self.out, self.merged, batch, journal, all_films, self.save)
        own = [(place, film) for place, film in enumerate(all_films) if not self.part or self.part.has(place, batch)]
        self.films = [film for _, film in own]
        before = journal.results()
        self._forget_renamed(journal)
        unwanted = [film for film in self.films if film not in journal]
        self._forget_without_predictions(journal)
        fresh = [film for film in self.films if film not in journal]
        todo = [(place, film) for place, film in own if film not in journal or self._missing(film, journal)]
        self._report(len(todo), len(todo) - len(fresh))
        journal.open()
        self._set_unwanted_aside(unwanted)
        if fresh and not isinstance(self.networks, Cluster):  # so that the time a film is that of a film
            with step("compiling"):
                warm_up(self.networks, batch)
        ids = journal.assign_ids(all_films)
        skipped = {name_in_tables(film, self.source.roots, journal): reason for film, reason in self.source.unreadable}

        def skip(task: Task, reason: str) -> None:
            film = task.film
            skipped[film.name] = reason
            journal.forget(film)  # one whose files were to be made from its record
            warn(f"skipped {film.path}: {reason}")
            bar.update()

        started, finished = time.perf_counter(), False
        try:
            work = FilmWork(self.save, self.with_page, batch, json.dumps(self.settings, sort_keys=True))
            tasks = ((place, self._task(film, journal, ids[journal.key(film)])) for place, film in todo)
            entries = work_with(self.networks, tasks, work, self._keep, batch, skip)
            done = len(self.films) - len(todo)
            with progress(name="inference", total=len(self.films), done=done) as bar, closing(entries):
                for task, entry in entries:
                    if "id" not in entry:  # one from the journal has it
                        journal.add(task.film, {"id": task.image_id, **entry})
                    bar.update()
            self._set_stale_aside(journal, before)
            finished = True
        finally:  # a stopped run leaves whole tables too
            seconds = time.perf_counter() - started
            images = [] if self.part else self._write_results(journal, skipped, seconds, finished)
        if self.part:
            end_part(self.out, self.part, batch, all_films)
        detail(f"{len(todo)} films: {seconds:.1f} s; tables: {time.perf_counter() - started - seconds:.1f} s")
        return Summary(images, len(skipped), sum(film in journal for film in fresh), seconds)

    def _write_results(
        self, journal: Journal, skipped: dict[str, str], seconds: float, finished: bool
    ) -> list[dict[str, Any]]:
        """Writes what is of all films; returns what ``run.json`` has of each."""
        images, pages = self._write_tables(journal)
        provenance = self._write_provenance(images, skipped, seconds, finished)
        if self.with_page:
            self._write_page(pages, journal, provenance, skipped)
        return images

    def _open_journal(self) -> Journal:
        """The journal of these networks and sources, with the films that are as they were when they were done."""
        path = self.out / JOURNAL
        journal = Journal(path, self.settings, KEYS)
        others = journal.find_roots(self.source.roots)
        if journal.is_other or others:
            folder = set_aside(self.out, (*_RESULTS, JOURNAL))
            what = "another source" if others else "other weights or settings, or of an older program"
            inform(f"{self.out}: holds another run's results, of {what}; begun anew, they are kept in "
                   f"{folder.name if folder else self.out}")
            journal = Journal(path, self.settings, KEYS)
            journal.find_roots(self.source.roots)
        journal.forget_changed(progress(self.films, name="checking", total=len(self.films)))
        return journal

    def _forget_renamed(self, journal: Journal) -> None:
        """Forgets films whose files have other names now, as another film took theirs."""
        for film in self.films:
            if film in journal and journal.result(film) != film.result:
                journal.forget(film)

    def _forget_without_predictions(self, journal: Journal) -> None:
        """Forgets films that lack files which are made of predictions: they are predicted again, to the same result."""
        wanted = [kind for kind in self.save if kind in OF_PREDICTIONS]
        for film in self.films if wanted else ():
            if film in journal and not all(self._is_there(kind, film) for kind in wanted):
                journal.forget(film)

    def _missing(self, film: Film, journal: Journal) -> list[str]:
        """The kinds of files that are wanted of a film of the journal and not there."""
        missing = [kind for kind in kinds_of(self.save, film.path in self.dicom) if not self._is_there(kind, film)]
        if OF_DICOM & set(missing) and not journal.read(film)["lungs"]:
            return [kind for kind in missing if kind not in OF_DICOM]
        return missing

    def _is_there(self, kind: str, film: Film) -> bool:
        return all((self.out / name).is_file() for name in file_names(kind, film.result))

    def _report(self, todo: int, recorded: int) -> None:
        count = len(self.films)
        if todo < count:
            inform(f"{self.out}: going on with a run of the same weights and source, "
                   f"{count - todo} of {count} films are done")
        if recorded:
            inform(f"{self.out}: {recorded} films lack some of {', '.join(self.save)}, which are made from their records")
        kinds = [kind for kind in self.save if kind in OF_DICOM]
        if kinds and (others := count - sum(film.path in self.dicom for film in self.films)):
            warn(f"{others} of {count} films are no DICOM: there is no {' and no '.join(kinds)} of them")

    def _set_unwanted_aside(self, films: Iterable[Film]) -> None:
        """Sets aside files of films to be done that this run does not save: they would be of earlier contents."""
        films = list(films)
        page = () if self.with_page or not films else (PAGE_FILES, PAGE)
        self._set_aside((film.result for film in films), [kind for kind in OUTPUTS if kind not in self.save], page)

    def _set_stale_aside(self, journal: Journal, before: set[str]) -> None:
        """Sets aside what no table lists: results of films that are gone, renamed, or cannot be read any more."""
        current = {film.result for film in self.films if film in journal}
        self._set_aside((before | {film.result for film in self.films}) - current, OUTPUTS)

    def _set_aside(self, results: Iterable[str], kinds: Iterable[str], page: Iterable[str] = ()) -> None:
        kinds = list(kinds)
        names = [name for result in sorted(results) for kind in kinds for name in file_names(kind, result)]
        folder = set_aside(self.out, [*names, *page])
        if folder:
            inform(f"{self.out}: results of films that changed, are gone or cannot be read any more are kept in "
                   f"{folder.name}")

    def _task(self, film: Film, journal: Journal, image_id: int) -> Task:
        """A film with what its worker has to know; without its record where it is to be predicted."""
        has_record = film in journal
        missing = self._missing(film, journal) if has_record else []
        record = journal.read(film) if has_record else None
        return Task(film, image_id, film.path in self.dicom, record, missing)

    def _keep(self, task: Task, made: Made) -> Entry:
        """Writes what was made of a film; returns its record."""
        for line in made.warnings:
            warn(line)
        for name, content in made.contents.items():
            write_bytes(self.out / name, content)
        if not made.is_recorded:  # DICOM objects of the film as it was before, where it has none now
            for name in {name for kind in self.save for name in file_names(kind, task.film.result)} - made.contents.keys():
                (self.out / name).unlink(missing_ok=True)
        return made.entry

    def _write_tables(self, journal: Journal) -> tuple[list[dict[str, Any]], list[PageFilm]]:
        """Writes ``measurements.csv`` and ``results.json``; returns what ``run.json`` and the page have of each film."""
        config = self.members[0].config
        images, shown = [], []
        with tables(self.out) as add:
            for film in self.films:
                if film not in journal:
                    continue
                record = self._record(film, journal)
                reasons = review_reasons(record, self.quality, config.bag)
                row = measurements(record, record["id"], film.name, config.laterality, len(self.members), reasons)
                add(row, coco_results(record, record["id"], reasons))
                images.append({
                    "id": record["id"], "file_name": film.name, "height": record["height"], "width": record["width"],
                    "inverted": record["inverted"], "turned": record["turned"], "lungs": len(record["lungs"]),
                    "review": bool(reasons), "reasons": reasons,
                })  # fmt: skip
                shown.append(page_film(record, film.name, film.path, reasons))
        return images, shown

    def _write_page(
        self, shown: Sequence[PageFilm], journal: Journal, provenance: Mapping[str, Any], skipped: Mapping[str, str]
    ) -> None:
        films = {film.path: film for film in self.films}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_report(self.out, shown, lambda film: self._record(films[film.path], journal), provenance, skipped, now)

    def _record(self, film: Film, journal: Journal) -> Entry:
        """A film's record; where its own file gives no spacing, with that of the file beside it, as it is today."""
        record = journal.read(film)
        if record.get("spacing") is None:
            record |= self._beside(film.path)
        return record

    def _write_provenance(
        self, images: Sequence[dict[str, Any]], skipped: dict[str, str], seconds: float, finished: bool
    ) -> dict[str, Any]:
        content = provenance(self.command, self.members, self.versions) | {
            "quality": asdict(self.quality),
            "save": [*self.save, *[PAGE_KIND] * self.with_page],
            "finished": finished,
            "seconds": round(seconds, 2),
            "images": images,
            "categories": [{"id": category, "name": name} for category, name in CATEGORIES.items()],
            "skipped": [{"file": name, "reason": writable(reason)} for name, reason in sorted(skipped.items())],
            "passed_over": dict(self.source.passed_over),
        }  # fmt: skip
        write_json(self.out / RUN, content)
        return content


def _spacing_beside(path: Path) -> Entry:
    """What a record has of the spacing that lies beside a film; one that cannot be used is said."""
    try:
        spacing, calibration = read_sidecar(path)
    except FilmError as error:
        warn(str(error))
        return {}
    return {"spacing": spacing, "calibration": calibration and calibration._asdict()}


def _is_dicom(path: Path) -> bool:
    try:
        return is_dicom(path, read_head(path))
    except FilmError:  # which reading it will say again
        return False


def summary_lines(summary: Summary, out: Path, save: Iterable[str]) -> list[str]:
    """What a person wants to know of a run at its end."""
    images, lungs = summary.images, Counter(image["lungs"] for image in summary.images)
    pace = f"; {1000 * summary.seconds / summary.predicted:.0f} ms a film" if summary.predicted else ""
    written = (*(PAGE if kind == PAGE_KIND else f"{kind}/" for kind in save), COCO_RESULTS, MEASUREMENTS, RUN)
    lines = [
        f"{len(images)} films: both lungs on {lungs[2]}, one on {lungs[1]}, none on {lungs[0]}; "
        f"{summary.skipped} files skipped{pace}",
        f"{out}: {', '.join(written)}",
    ]
    reasons = Counter(reason.partition(" (")[0] for image in images for reason in image["reasons"])
    if images:
        listed = f": {', '.join(f'{count} {reason}' for reason, count in reasons.most_common())}" if reasons else ""
        lines.append(f"{sum(image['review'] for image in images)} of {len(images)} films are for review{listed} "
                     f"(reasons in {MEASUREMENTS})")
    return lines
