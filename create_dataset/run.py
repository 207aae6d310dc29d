"""A run: finds the lungs on every film that is not done yet, and writes the dataset of all that are.

Every finished film is a line of ``OUT/films.jsonl``: stopped, a run goes on where it was. Films that changed, and those that
could not be used, are tried again. Thresholds are applied at the end, so that changing them takes no U-Net. What another run
has left in OUT, of other U-Nets or of folders that are not given any more, is set aside in ``OUT/earlier-DATE``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from create_dataset import exports
from create_dataset.assemble import (
    TABLE,
    count_films,
    judge_films,
    relative_roots,
    write_dataset,
    write_table,
)
from create_dataset.members import Unet, load_members, load_on_worker
from create_dataset.pipeline import KEYS, find_all_lungs
from create_dataset.report import write_report
from create_dataset.sources import Source, SourceError, find_films
from create_dataset.unet import BACKENDS, Network
from mask_rcnn.config import QualityConfig
from mask_rcnn.dataset.coco import new_dataset, read_dataset
from mask_rcnn.dataset.corrections import CORRECTIONS, Correction, read_corrections
from mask_rcnn.dataset.decisions import DECISIONS, Decision, read_decisions
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.results.names import DATASET, PAGE, PAGE_FILES
from mask_rcnn.run.cluster import Cluster
from mask_rcnn.run.folder import RunError, set_aside, sole_run
from mask_rcnn.run.journal import Journal
from mask_rcnn.run.parts import MERGE, Part, begin_part, end_part, part_journal
from mask_rcnn.run.ray_nodes import Node
from mask_rcnn.runtime.choice import KERAS, Runtime
from mask_rcnn.runtime.on_cluster import start_workers
from mask_rcnn.runtime.start import start_runtime
from mask_rcnn.system.console import note
from mask_rcnn.system.files import writable, write_json
from mask_rcnn.system.paths import PathError, expand_paths
from mask_rcnn.system.progress import progress, warn

JOURNAL, LEGACY = "films.jsonl", "legacy.json"
RESULTS = (DATASET, TABLE, PAGE, PAGE_FILES, LEGACY)  # in OUT, beside the journal
BATCH = 4
OF_OTHERS = "made with other U-Nets, another laterality or an older program"
RESULTS_VERSION = 2  # bump when results change; older journals are not resumed


@dataclass(frozen=True)
class Settings:
    """What a run does besides finding the lungs of its films."""

    out: Path
    laterality: str = "patient"  # or image: whose left
    thresholds: QualityConfig = field(default_factory=QualityConfig)
    batch: int = BATCH  # films that the U-Nets see at a time
    device: str = "auto"  # as ``choose_device`` takes it
    runtime: Runtime = Runtime(KERAS)  # what runs the U-Nets
    legacy: bool = False  # whether the published nested lists are written too
    copies: int | None = None  # pixels: the long side of the films copied beside the dataset; None copies none
    command: str = ""  # for the dataset
    decisions: Sequence[Path] = ()  # files of a person's decisions, beside the one in the output folder
    corrections: Sequence[Path] = ()  # files of lungs that a person corrected, likewise
    part: Part | None = None  # whose films alone are done, into ``out``, and no dataset is written
    merged: Sequence[Part] = ()  # finished parts, which are put together in ``out`` first
    nodes: Sequence[Node] = ()  # of the cluster whose workers have the U-Nets; without any they are loaded here


def create_dataset(sources: FoundSources, unets: list[Unet], settings: Settings) -> list[str]:
    """Runs; returns lines on what is written.

    Raises:
        RunError: another run writes to the output folder, no U-Net loads, no film can be used, or there is too little
            memory.
        FormatError: a newer program wrote what is there.
        DatasetError: decisions or corrections cannot be read, or one fits several films.
        DeviceError: Keras cannot start, or not on that device.
        OSError: the output folder cannot be written.
        KeyboardInterrupt: after the results are written from the films that are done.
    """
    films, skipped, lines = sources.films, dict(sources.unreadable), []
    all_decisions(settings), all_corrections(settings)  # refused before any work
    own = [film for place, film in enumerate(films) if not settings.part or settings.part.has(place, settings.batch)]
    with sole_run(settings.out):
        if settings.part:
            begin_part(settings.out)
        journal = open_journal(settings, unets, films)
        if settings.merged:
            journal = take_parts(settings, unets, journal, films)
        members: Sequence[Network] | Cluster[list[Unet]] = []
        if any(film not in journal for film in own):
            loaded, members = load_networks(unets, settings, films)
            if loaded != unets:  # a smaller ensemble has a journal of its own
                unets, journal = loaded, open_journal(settings, loaded, films)
        if not unets:
            raise RunError("no U-Net could be loaded; give its weights with --unet")
        with journal:
            is_whole = fill_journal(journal, films, members, settings, skipped)
            if settings.part and is_whole:
                end_part(settings.out, settings.part, settings.batch, films)
                return [f"{settings.out}: {settings.part} is done, {sum(film in journal for film in own)} films; "
                        f"--part {MERGE} puts all parts together"]  # fmt: skip
            has_films = not settings.part and any(film in journal for film in films)
            if has_films:
                info = {
                    "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "command": writable(settings.command), "versions": versions() | settings.runtime.versions(),
                    "runtime": settings.runtime._asdict(),
                    "unet": [unet.facts for unet in unets], "quality": asdict(settings.thresholds), "notes": sources.notes,
                }  # fmt: skip
                dataset = new_dataset(settings.laterality, info)
                lines = write_results(settings, dataset, journal, films, skipped)
        if not is_whole:
            print(*lines, sep="\n")
            raise KeyboardInterrupt
        if not has_films:
            raise RunError(f"none of the {len(films)} files could be used as a film; check --src")
        return lines + export(settings)


def load_networks(
    unets: list[Unet], settings: Settings, films: Sequence[Source]
) -> tuple[list[Unet], Sequence[Network] | Cluster[list[Unet]]]:
    """The U-Nets that load, and their networks, here or on the workers of a cluster."""
    runtime, device = settings.runtime, settings.device
    if settings.nodes:
        batches = -(-len(films) // settings.batch)
        must_see = [*dict.fromkeys(film.root for film in films), films[0].path]
        load = partial(load_on_worker, unets, runtime, device)
        workers = start_workers(settings.nodes, runtime, device, batches, load, must_see)
        return workers.facts, workers
    start_runtime(runtime, device, BACKENDS)
    return load_members(unets, runtime)


@dataclass(frozen=True)
class FoundSources:
    """What there is to work on."""

    films: list[Source]
    notes: list[str]  # what there is to know of the roots
    unreadable: dict[Path, str]  # what in them cannot be read, and why


def find_sources(patterns: Iterable[str | os.PathLike[str]], out: Path) -> FoundSources:
    """The films of all roots: of folders, films and glob patterns.

    A film under two roots belongs to the first. An output folder within a root holds copies of its films, which are none of
    its own.

    Raises:
        SourceError: a root is not there, or a pattern matches nothing.
    """
    try:
        roots = [Path(path) for path in expand_paths(patterns, "--src")]
    except PathError as error:
        raise SourceError(str(error)) from error
    out = out.resolve()
    sources: dict[str, Source] = {}
    notes: list[str] = []
    unreadable: dict[Path, str] = {}

    def report(line: str) -> None:
        note(line)
        notes.append(writable(line))

    def skip(path: Path, reason: str) -> None:
        warn(f"skipped {writable(str(path))}: {reason}")
        unreadable[path] = reason

    for root in roots:
        found = find_films(root, report, skip)
        if not found:
            line = f"{root}: holds no film; give a folder with JPEG, PNG, TIFF, BMP, WebP or DICOM films that are no masks"
            warn(line)
            notes.append(writable(line))
        holds_out = out.is_relative_to(os.path.realpath(root))
        for source in found:
            if not (holds_out and out in source.path.parents):
                sources.setdefault(os.path.realpath(source.path), source)
    return FoundSources(list(sources.values()), notes, unreadable)


def open_journal(settings: Settings, unets: Iterable[Unet], films: Sequence[Source]) -> Journal:
    """The journal of these U-Nets and this laterality, with the films that are as they were when they were done."""
    kept = {
        "command": "create_dataset.py",
        "answers": RESULTS_VERSION,
        "unet": sorted(unet.facts["sha256"] for unet in unets),
        "laterality": settings.laterality,
    }
    if settings.runtime.name != KERAS:
        kept["runtime"] = list(settings.runtime)
    journal = Journal(settings.out / JOURNAL, kept, KEYS)
    journal.find_roots(dict.fromkeys(film.root for film in films))
    journal.forget_changed(progress(films, name="checking", total=len(films)))
    return journal


def take_parts(settings: Settings, unets: Iterable[Unet], journal: Journal, films: Sequence[Source]) -> Journal:
    """The journal with the entries of all parts.

    Raises:
        RunError: a part was made by other U-Nets or settings.
        OSError: the journal cannot be written.
    """
    if journal.is_other:
        put_away(settings.out, (*RESULTS, JOURNAL), OF_OTHERS)
        journal = open_journal(settings, unets, films)
    for part in settings.merged:
        own = [film for place, film in enumerate(films) if part.has(place, settings.batch)]
        with part_journal(part.folder(settings.out) / JOURNAL, part, journal, own, KEYS) as done:
            for film in progress(own, name=str(part), total=len(own)):
                if film not in journal and film in done:
                    journal.add(film, {key: value for key, value in done.read(film).items() if key != "film"})
    return journal


def put_away(out: Path, names: Sequence[str], why: str) -> None:
    """Sets results aside that the run would write over, and names their new place."""
    if folder := set_aside(out, names):
        note(f"{out}: holds what was {why}; beginning anew, it is kept in {folder.name}")


def fill_journal(
    journal: Journal, films: Sequence[Source], members: Sequence[Network] | Cluster[list[Unet]], settings: Settings,
    skipped: dict[Path, str],
) -> bool:
    """Finds the lungs on the films that are not in the journal; those that cannot be used are added to ``skipped``.

    Returns:
        False where the user stopped it.

    Raises:
        RunError: there is too little memory.
        OSError: the journal cannot be written.
    """
    part = settings.part
    own = [(place, film) for place, film in enumerate(films) if not part or part.has(place, settings.batch)]
    todo = [(place, film) for place, film in own if film not in journal]
    if journal.is_other:
        put_away(settings.out, (*RESULTS, JOURNAL), OF_OTHERS)
    elif len(todo) < len(own):
        note(f"{journal.path}: {len(own) - len(todo)} of {len(own)} films are done already")
    journal.open()
    if not todo:
        return True
    ids = journal.assign_ids(films)

    def skip(film: Source, reason: str) -> None:
        warn(f"skipped {film.path}: {reason}")
        skipped[film.path] = reason
        bar.update()

    note("finding the lungs; the first films wait until the networks are compiled")
    entries = find_all_lungs(todo, members, settings.batch, settings.laterality, skip)
    try:
        with progress(name="lungs", total=len(own), done=len(own) - len(todo)) as bar, closing(entries):
            for film, entry in entries:
                journal.add(film, {"id": ids[journal.key(film)], **entry})
                bar.update()
    except KeyboardInterrupt:
        warn("stopping; what is done is put together now (Ctrl-C again leaves that to the next run)")
        return False
    return True


def write_results(
    settings: Settings, dataset: dict[str, Any], journal: Journal, films: Sequence[Source], skipped: Mapping[Path, str]
) -> list[str]:
    """Writes the dataset, the table and the report of the films that are in the journal; returns lines on what is there.

    ``info["roots"]`` are the folders that the films' ``root`` and ``file_name`` refer to, relative to the output folder.

    Raises:
        OSError: one cannot be written.
    """
    out = settings.out
    done = [film for film in films if film in journal]
    judged = judge_films(done, journal, settings.thresholds, all_decisions(settings), all_corrections(settings))
    if others := journal.other_results():
        put_away(out, RESULTS, f"made of other folders too ({', '.join(others)})")
    journal.claim_results()
    roots = relative_roots(dict.fromkeys(film.root for film in films), out)
    dataset["info"] |= {
        "counts": count_films(
            judged, len(skipped), sum(film not in journal and film.path not in skipped for film in films)
        ),
        "skipped": [{"file": writable(str(path)), "reason": writable(reason)} for path, reason in sorted(skipped.items())],
        "roots": list(roots.values()),
    }
    write_dataset(out / DATASET, dataset, judged, journal, roots)
    write_table(out / TABLE, judged, journal, roots)
    write_report(out, dataset["info"], judged, journal)
    counts = dataset["info"]["counts"]
    corrected = f", {counts['corrected']} corrected by a person" if counts["corrected"] else ""
    return [
        f"{out / DATASET}: {counts['films']} films, {counts['accepted']} accepted, {counts['review']} to review, "
        f"{counts['rejected']} rejected{corrected}; {counts['skipped']} skipped",
        f"{out / PAGE}: shows them",
    ]


def all_decisions(settings: Settings) -> list[Decision]:
    """What a person decided, from the files that were given and the one in the output folder.

    Raises:
        DatasetError: one cannot be read, or was given and is not there.
    """
    _check_given(settings.decisions, "--decisions")
    return [item for path in (*settings.decisions, settings.out / DECISIONS) for item in read_decisions(path)]


def all_corrections(settings: Settings) -> list[Correction]:
    """The lungs that a person corrected, from the files that were given and the one in the output folder.

    Raises:
        DatasetError: one cannot be read, or was given and is not there.
    """
    _check_given(settings.corrections, "--corrections")
    paths = (*settings.corrections, settings.out / CORRECTIONS)
    return [item for path in paths for item in read_corrections(path, settings.laterality)]


def _check_given(paths: Iterable[Path], option: str) -> None:
    for path in paths:
        if not path.is_file():
            raise DatasetError(f"{path}: there is no such file; check the path given to {option}")


def export(settings: Settings) -> list[str]:
    """Writes what else is wanted of a finished dataset; returns lines on what is there.

    Raises:
        OSError: it cannot be written.
    """
    out, lines = settings.out, []
    if not settings.legacy and settings.copies is None:
        return []
    dataset = read_dataset(out / DATASET)
    if settings.legacy:
        written = exports.write_legacy(dataset, out, out / LEGACY)
        lines.append(f"{out / LEGACY}: {written} accepted films as the published nested lists")
    if settings.copies is not None:
        write_json(out / DATASET, exports.copy_images(dataset, out, settings.copies))
        lines.append(f"{out / exports.COPIES}: the films, which {DATASET} now refers to")
    return lines


def versions() -> dict[str, str]:
    """The versions of what makes the masks, without importing it."""
    distributions = metadata.packages_distributions()
    modules = ("tensorflow", "keras", "segmentation_models", "numpy", "cv2")
    return {module: metadata.version(names[0]) for module in modules if (names := distributions.get(module))}
