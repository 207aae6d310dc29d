"""The inference command: films in, label masks, pictures and tables out, by the vote of several networks.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, 1 left lung, 2 right lung
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mask_rcnn.bag.lung import label_mask
from mask_rcnn.bag.members import InferenceError, Member, expand, load_members, paste, predict
from mask_rcnn.bag.vote import bag_film, majority
from mask_rcnn.commands.devices import DeviceError, choose_device
from mask_rcnn.config import READING_SECTIONS, Config, ConfigError, QualityConfig, apply_settings, config_to_dict
from mask_rcnn.films import finding
from mask_rcnn.films.levels import equalise
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.names import COCO_RESULTS, JOURNAL, MASKS, MEASUREMENTS, OVERLAYS, RUN, result_names
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.pictures import label_png, picture_png
from mask_rcnn.results.records import KEYS, film_record, review_reasons
from mask_rcnn.results.tables import coco_results, measurements, tables
from mask_rcnn.run.engine import ReadFilm, read_once, work_through
from mask_rcnn.run.folder import RunError, set_aside, sole_run
from mask_rcnn.run.journal import Entry, Journal
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import writable, write_bytes, write_json
from mask_rcnn.system.formats import RUN_FORMAT, FormatError, stamp
from mask_rcnn.system.progress import progress, warn

if TYPE_CHECKING:
    from mask_rcnn.model import Prediction

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
RESULTS = (MASKS, OVERLAYS, COCO_RESULTS, MEASUREMENTS, RUN)  # beside the journal
NO_FILM = np.zeros((64, 64), np.uint8)
SETTABLE = (*READING_SECTIONS, "quality")  # sections of the config that --set may change: how results are read and judged
RESULTS_VERSION = 2  # bump when results change; older journals are not resumed


class Film(NamedTuple):
    """One film of the source."""

    root: Path  # the source, or the folder of the film that is the source; absolute
    file_name: str  # below the root, with forward slashes
    path: Path
    result: str  # of its label mask and picture, relative to their folders


class Films(NamedTuple):
    """What there is to work on."""

    films: list[Film]
    unreadable: dict[str, str]  # folders and files that cannot be read, below the root, and why
    passed_over: dict[str, int]  # files that are no films by their place or name, by their kind


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 where nothing could be done, 130 where it was stopped."""
    forgiving_streams()
    arguments = _parse(argv)
    try:
        quality = apply_settings(Config(), arguments.settings, SETTABLE).quality  # all settings are checked before any work
        files = expand(arguments.weights)
        films = find_films(arguments.src, arguments.out)
        with sole_run(arguments.out):
            print(choose_device(arguments.device), flush=True)
            members = load_members(files, [setting for setting in arguments.settings if not setting.startswith("quality.")])
            return _run(arguments, ["inference.py", *(sys.argv[1:] if argv is None else argv)], films, members, quality)
    except (InferenceError, DeviceError, RunError, FormatError, ConfigError) as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"inference: {arguments.out}: cannot be written ({error.strerror or error}); make room or choose another "
              "--out; the same command goes on where it stopped", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("inference: stopped; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="inference.py",
        description="Finds the left and the right lung on chest films (JPEG, PNG, TIFF, BMP, WebP, DICOM).",
    )
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE",
                        help="weights of one network or several, whose results are bagged")
    parser.add_argument("--src", type=Path, default=Path("data"), help="a film or a folder of films (default: data)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (default: results)")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N (default: auto, a GPU if any)")
    parser.add_argument("--batch", type=int, default=8, help="films that the networks see at a time (default: 8)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help=f"a value in place of the weights files', of {', '.join(SETTABLE)}; for example "
                             "bag.min_agreement=0.9, below which a film is for review; may be given several times")
    arguments = parser.parse_args(argv)
    if arguments.batch < 1:
        parser.error("--batch must be 1 or more")
    return arguments


def find_films(source: Path, out: Path) -> Films:
    """The films of a file or folder, sorted by path; not those in ``out``.

    Raises:
        InferenceError: there is no such source, or no film in it.
    """
    if not os.path.exists(source):
        raise InferenceError(f"{source}: there is no such file or folder; give --src")
    root = source if source.is_dir() else source.parent
    found = finding.find_films(source, skip=[out] if os.path.realpath(out) != os.path.realpath(source) else [])

    def below(path: Path) -> str:
        return writable(path.relative_to(root).as_posix())

    if found.passed_over:
        warn(f"{source}: passed over {found.summary()}; no films by their place or name")
    for path, reason in found.unreadable.items():
        warn(f"skipped {writable(str(path))}: {reason}")
    if not found.films:
        raise InferenceError(f"{source}: no film in it (JPEG, PNG, TIFF, BMP, WebP, DICOM); give --src")
    names: dict[str, Path] = {}
    for path in found.films:
        name = below(path)
        while name in names:  # of two names, one spells the bytes that the other has
            name += "~"
        names[name] = path
    home = Path(os.path.realpath(root))
    outputs = result_names(list(names))
    films = [Film(home, name, path, result) for (name, path), result in zip(names.items(), outputs, strict=True)]
    return Films(films, {below(path): reason for path, reason in found.unreadable.items()}, dict(found.passed_over))


def _run(
    arguments: argparse.Namespace, command: list[str], source: Films, members: list[Member], quality: QualityConfig
) -> int:
    out: Path = arguments.out
    films = source.films
    skipped = dict(source.unreadable)
    with _open_journal(out, films, members) as journal:
        todo = [(place, film) for place, film in enumerate(films) if film not in journal]
        done = len(films) - len(todo)
        if done:
            print(f"{out}: going on with a run of the same weights and source, {done} of {len(films)} films are done",
                  flush=True)
        journal.open()
        batch = min(arguments.batch, len(films))
        if todo:  # compiles the networks, so that the time a film is that of a film
            predict(members, [NO_FILM], batch)
        ids = journal.assign_ids(films)

        def skip(film: Film, reason: str) -> None:
            skipped[film.file_name] = reason
            warn(f"skipped {film.path}: {reason}")
            bar.update()

        started, finished = time.perf_counter(), False
        try:
            records = _find_lungs(todo, members, batch, out, skip)
            with progress(name="inference", total=len(films), done=done) as bar, closing(records):
                for film, record in records:
                    journal.add(film, {"id": ids[journal.key(film)], **record})
                    bar.update()
            _put_stale_results_away(out, journal, films)
            finished = True
        finally:  # a stopped run leaves whole tables too
            seconds = time.perf_counter() - started
            there = [film for film in films if film in journal]
            images = _write_tables(out, journal, there, members, quality)
            write_json(out / RUN, _provenance(command, members) | {
                "quality": asdict(quality),
                "finished": finished,
                "seconds": round(seconds, 2),
                "images": images,
                "categories": [{"id": category, "name": name} for category, name in CATEGORIES.items()],
                "skipped": [{"file": name, "reason": writable(reason)} for name, reason in sorted(skipped.items())],
                "passed_over": source.passed_over,
            })
    _print_summary(images, len(skipped), seconds, sum(film in journal for _, film in todo), out)
    return 0 if there else 1


def _open_journal(out: Path, films: Sequence[Film], members: Sequence[Member]) -> Journal:
    """The journal of these networks and this source, with the films that are as they were when they were done and whose
    results are still there. What another run has left is set aside."""
    config = members[0].network.config
    settings = {
        "command": "inference.py",
        "answers": RESULTS_VERSION,
        "weights": [member.sha256 for member in members],
        "laterality": config.laterality,
        "detection": [config_to_dict(member.network.config)["detection"] for member in members],
        "bag": [config.bag.pixels, config.bag.min_votes, config.bag.opening],
    }
    path, roots = out / JOURNAL, [films[0].root]
    journal = Journal(path, settings, KEYS)
    others = journal.find_roots(roots)
    if journal.is_other or others:
        folder = set_aside(out, (*RESULTS, JOURNAL))
        what = "another source" if others else "other weights or settings, or of an older program"
        print(f"{out}: holds another run's results, of {what}; begun anew, they are kept in "
              f"{folder.name if folder else out}", flush=True)
        journal = Journal(path, settings, KEYS)
        journal.find_roots(roots)
    journal.forget_changed(progress(films, name="checking", total=len(films)))
    for film in films:
        if film in journal and not (journal.result(film) == film.result and all(
                (out / folder / film.result).is_file() for folder in (MASKS, OVERLAYS))):
            journal.forget(film)
    return journal


def _put_stale_results_away(out: Path, journal: Journal, films: Sequence[Film]) -> None:
    """Sets aside what no table lists: results of films that are gone, or that cannot be read any more."""
    current = {film.result for film in films if film in journal}
    stale = sorted((journal.results() | {film.result for film in films}) - current)
    folder = set_aside(out, [f"{kind}/{name}" for name in stale for kind in (MASKS, OVERLAYS)])
    if folder:
        print(f"{out}: results of films that are gone or cannot be read any more are kept in {folder.name}", flush=True)


def _find_lungs(
    films: Sequence[tuple[int, Film]], members: Sequence[Member], batch: int, out: Path, skip: Callable[[Film, str], None]
) -> Generator[tuple[Film, Entry]]:
    """Each film with its record, its files written."""
    bag, laterality = members[0].network.config.bag, members[0].network.config.laterality

    def predict_batch(read: Sequence[ReadFilm | None]) -> list[list[Prediction]]:
        return predict(members, [equalise(film.radiograph.pixels) if film else NO_FILM for film in read], batch)

    def finish(film: Film, read: ReadFilm, predictions: Sequence[Prediction]) -> Entry:
        pixels = read.radiograph.pixels
        lungs = bag_film(paste(members, predictions, pixels.shape), bag)
        labels = label_mask(lungs, pixels.shape)
        picture = picture_png(overlay(pixels, labels, lungs, laterality))
        record = film_record(read, film.result, lungs, labels, len(members))
        write_bytes(out / MASKS / film.result, label_png(labels, laterality))
        write_bytes(out / OVERLAYS / film.result, picture)
        return record

    return work_through(films, lambda film: read_once(film.path), predict_batch, finish, batch, skip)


def _write_tables(
    out: Path, journal: Journal, films: Sequence[Film], members: Sequence[Member], quality: QualityConfig
) -> list[dict[str, Any]]:
    """Writes ``measurements.csv`` and ``results.json``; returns what ``run.json`` says of each film."""
    config = members[0].network.config
    images = []
    with tables(out) as add:
        for film in films:
            record = journal.read(film)
            reasons = review_reasons(record, quality, config.bag.min_agreement)
            row = measurements(
                record, record["id"], film.file_name, config.laterality, len(members), reasons
            )
            add(row, coco_results(record, record["id"], reasons))
            images.append({
                "id": record["id"], "file_name": film.file_name, "height": record["height"], "width": record["width"],
                "inverted": record["inverted"], "turned": record["turned"], "lungs": len(record["lungs"]),
                "review": bool(reasons), "reasons": reasons,
            })  # fmt: skip
    return images


def _provenance(command: Sequence[str], members: Sequence[Member]) -> dict[str, Any]:
    import cv2
    import keras

    config = members[0].network.config
    backend = keras.backend.backend()
    return {
        **stamp(RUN_FORMAT),
        "command": writable(shlex.join(command)),
        "laterality": config.laterality,
        "bag": {"members": len(members), "pixels": config.bag.pixels,
                "min_votes": majority(len(members), config.bag.min_votes), "opening": config.bag.opening,
                "min_agreement": config.bag.min_agreement},
        "weights": [{"file": writable(str(member.path)), "sha256": member.sha256,
                     "config": config_to_dict(member.network.config)} for member in members],
        "versions": {
            "python": platform.python_version(), "keras": keras.__version__, "numpy": np.__version__,
            "opencv": cv2.__version__, backend: sys.modules[backend].__version__,
        },
    }


def _print_summary(
    images: Sequence[dict[str, Any]], skipped: int, seconds: float, new: int, out: Path
) -> None:
    lungs = Counter(image["lungs"] for image in images)
    pace = f"; {1000 * seconds / new:.0f} ms a film" if new else ""
    print(f"{len(images)} films: both lungs on {lungs[2]}, one on {lungs[1]}, none on {lungs[0]}; "
          f"{skipped} files skipped{pace}")
    written = (f"{MASKS}/", f"{OVERLAYS}/", COCO_RESULTS, MEASUREMENTS, RUN)
    print(f"{out}: {', '.join(written)}", flush=True)
    reasons = Counter(reason.partition(" (")[0] for image in images for reason in image["reasons"])
    if images:
        told = f": {', '.join(f'{count} {reason}' for reason, count in reasons.most_common())}" if reasons else ""
        print(f"{sum(image['review'] for image in images)} of {len(images)} films are for review{told} "
              f"(reasons in {MEASUREMENTS})", flush=True)
