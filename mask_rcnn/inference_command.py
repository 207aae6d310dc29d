"""The inference command: films in, label masks, pictures and tables out, by the vote of several networks.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, 1 left lung, 2 right lung
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from mask_rcnn import results
from mask_rcnn.coco import CATEGORIES, write_json
from mask_rcnn.config import config_to_dict
from mask_rcnn.devices import DeviceError, choose_device
from mask_rcnn.ensemble import Lung, bag_film, label_mask, majority
from mask_rcnn.files import file_version, journal_line, writable, write_bytes
from mask_rcnn.members import InferenceError, Member, draw, load_members, look
from mask_rcnn.polarity import is_inverted
from mask_rcnn.radiograph import FilmError, equalise, find_film_paths, read_film
from mask_rcnn.visualize import overlay

if TYPE_CHECKING:
    from mask_rcnn.model import Answer

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


class Film(NamedTuple):
    """One film of the source."""

    image_id: int  # its place in the sorted list of the source's films, from 1
    path: Path
    name: str  # relative to the source, with forward slashes
    result: str  # of its label mask and picture, relative to their folders


class _ReadFilm(NamedTuple):
    pixels: np.ndarray  # bones white
    inverted: bool  # whether they were black
    version: list[int]  # of the file, as ``file_version`` gives it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 where nothing could be done, 130 where it was stopped."""
    arguments = _parse(argv)
    try:
        films = find_films(arguments.src, arguments.out)
        print(choose_device(arguments.device), flush=True)
        members = load_members(arguments.weights)
        return _run(arguments, ["inference.py", *(sys.argv[1:] if argv is None else argv)], films, members)
    except (InferenceError, DeviceError) as error:
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
        description="Finds the left and the right lung on chest films (JPEG, PNG, TIFF, BMP, DICOM).",
    )
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE",
                        help="weights of one network or several, whose results are bagged")
    parser.add_argument("--src", type=Path, default=Path("data"), help="a film or a folder of films (default: data)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder of the results (default: results)")
    parser.add_argument("--device", default="auto", help="auto, cpu, gpu or gpu:N (default: auto, a GPU if any)")
    parser.add_argument("--batch", type=int, default=8, help="films that the networks see at a time (default: 8)")
    arguments = parser.parse_args(argv)
    if arguments.batch < 1:
        parser.error("--batch must be 1 or more")
    return arguments


def find_films(source: Path, out: Path) -> list[Film]:
    """The films of a file or folder, sorted by path; not those in ``out``.

    Raises:
        InferenceError: there is no such source, or no film in it.
    """
    if not source.exists():
        raise InferenceError(f"{source}: there is no such file or folder; give --src")
    paths = find_film_paths(source, skip=[out] if out.resolve() != source.resolve() else [])
    if not paths:
        raise InferenceError(f"{source}: no film in it (JPEG, PNG, TIFF, BMP, DICOM); give --src")
    names = [path.name if path == source else path.relative_to(source).as_posix() for path in paths]
    names = [writable(name) for name in names]
    outputs = results.result_names(names)
    return [Film(k, *film) for k, film in enumerate(zip(paths, names, outputs, strict=True), start=1)]


def _run(arguments: argparse.Namespace, command: list[str], films: list[Film], members: list[Member]) -> int:
    out: Path = arguments.out
    config = members[0].network.config
    identity = {"weights": [member.sha256 for member in members], "source": writable(str(arguments.src.resolve()))}
    records = _records_to_keep(out, identity, films)
    todo = [film for film in films if film.name not in records]
    batch = min(arguments.batch, len(todo))
    if todo:  # compiles the networks, so that the time a film is that of a film
        look(members, [np.zeros((64, 64), np.uint8)], batch)

    def row(film: Film) -> dict[str, Any]:
        return results.measurements(
            records[film.name], film.image_id, config.laterality, len(members), config.bag.min_agreement
        )

    def done() -> list[Film]:
        return [film for film in films if film.name in records]

    write_bytes(out / results.JOURNAL, b"".join(map(journal_line, [identity, *records.values()])))
    write_bytes(out / results.MEASUREMENTS, results.csv_text(map(row, done()), header=True).encode("utf-8"))
    provenance = _provenance(command, members)
    skipped: dict[str, str] = {}
    started, finished = time.perf_counter(), False
    try:
        with (
            (out / results.JOURNAL).open("ab") as journal,
            (out / results.MEASUREMENTS).open("a", encoding="utf-8", newline="") as table,
        ):
            for film, outcome in _outcomes(todo, members, batch, out):
                if isinstance(outcome, str):
                    skipped[film.name] = outcome
                    tqdm.write(f"skipped {outcome}", file=sys.stderr)
                    continue
                records[film.name] = outcome
                journal.write(journal_line(outcome))
                journal.flush()
                table.write(results.csv_text([row(film)], header=False))
                table.flush()
        finished = True
    finally:  # a stopped run leaves whole tables too
        seconds = time.perf_counter() - started
        found = [result for film in done() for result in results.coco_results(records[film.name], film.image_id)]
        write_json(out / results.COCO_RESULTS, found)
        write_bytes(out / results.MEASUREMENTS, results.csv_text(map(row, done()), header=True).encode("utf-8"))
        write_json(out / results.RUN, provenance | {
            "finished": finished,
            "seconds": round(seconds, 2),
            "images": [{"id": film.image_id, "file_name": film.name, "height": records[film.name]["height"],
                        "width": records[film.name]["width"]} for film in done()],
            "categories": [{"id": category, "name": name} for category, name in CATEGORIES.items()],
            "skipped": [{"file": name, "reason": writable(reason)} for name, reason in skipped.items()],
        })
    _print_summary(records, skipped, seconds, len(todo) - len(skipped), out, config.bag.min_agreement)
    return 0 if records else 1


def _records_to_keep(out: Path, identity: dict[str, Any], films: Sequence[Film]) -> dict[str, dict[str, Any]]:
    """The records of a stopped run of the same weights and source whose films and results are still there."""
    journal = out / results.JOURNAL
    earlier = results.read_journal(journal, identity)
    if earlier is None:
        if journal.exists():
            print(f"{out}: holds another run's results, of other weights or another source; begun anew, its tables are "
                  "written over", flush=True)
        return {}
    kept = {}
    for film in films:
        record = earlier.get(film.name)
        # An older program's record does not say whether the film was inverted, and it looked at it as it was; nor does it
        # say how far the members agree on the film.
        if record and {"inverted", "agreement"} <= record.keys() and record["result"] == film.result and all(
                (out / folder / film.result).is_file() for folder in (results.MASKS, results.OVERLAYS)):
            try:
                if record["version"] == file_version(film.path):
                    kept[film.name] = record
            except OSError:  # vanished since it was listed: reading it will say so
                pass
    print(f"{out}: going on with a run of the same weights and source, {len(kept)} of {len(films)} films are done",
          flush=True)
    return kept


def _outcomes(
    films: Sequence[Film], members: Sequence[Member], batch: int, out: Path
) -> Iterator[tuple[Film, dict[str, Any] | str]]:
    """Each film with its record, its files written, or with the reason why it was skipped."""
    bag, laterality = members[0].network.config.bag, members[0].network.config.laterality

    def finish(film: Film, read: _ReadFilm, answers: Sequence[Answer]) -> dict[str, Any]:
        shape = read.pixels.shape
        lungs = bag_film(draw(members, answers, shape), bag)
        _write_pictures(film, read.pixels, lungs, laterality, out)
        return results.film_record(film.name, film.result, read.version, shape, read.inverted, lungs, len(members))

    # While the networks look at a batch, the pictures of the one before are drawn and written beside them; by one thread
    # alone the drawing of large films would take longer than the looking.
    finisher = ThreadPoolExecutor(2)
    waiting: list[tuple[Film, Future[dict[str, Any]]]] = []
    try:
        with tqdm(total=len(films), desc="inference", unit="film", disable=None) as progress:
            for start in range(0, len(films), batch):
                chosen = []
                for film in films[start : start + batch]:
                    try:
                        chosen.append((film, _read(film.path)))
                    except (FilmError, OSError) as error:
                        yield film, str(error)
                        progress.update()
                answers = look(members, [equalise(read.pixels) for _, read in chosen], batch) if chosen else []
                done, waiting = waiting, [
                    (film, finisher.submit(finish, film, read, of_film))
                    for (film, read), of_film in zip(chosen, answers, strict=True)
                ]
                for film, record in done:
                    yield film, record.result()
                    progress.update()
            for film, record in waiting:
                yield film, record.result()
                progress.update()
    finally:
        finisher.shutdown(cancel_futures=True)


def _read(path: Path) -> _ReadFilm:
    pixels, version = read_film(path), file_version(path)
    inverted = is_inverted(pixels)
    return _ReadFilm(255 - pixels if inverted else pixels, inverted, version)


def _write_pictures(film: Film, pixels: np.ndarray, lungs: dict[int, Lung], laterality: str, out: Path) -> None:
    labels = label_mask(lungs, pixels.shape)
    write_bytes(out / results.MASKS / film.result, results.label_png(labels, laterality))
    picture = results.picture_png(overlay(pixels, labels, lungs, laterality))
    write_bytes(out / results.OVERLAYS / film.result, picture)


def _provenance(command: Sequence[str], members: Sequence[Member]) -> dict[str, Any]:
    import cv2
    import keras

    config = members[0].network.config
    backend = keras.backend.backend()
    return {
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
    records: dict[str, dict[str, Any]],
    skipped: dict[str, str],
    seconds: float,
    new: int,
    out: Path,
    min_agreement: float,
) -> None:
    lungs = Counter(len(record["lungs"]) for record in records.values())
    pace = f"; {1000 * seconds / new:.0f} ms a film" if new else ""
    print(f"{len(records)} films: both lungs on {lungs[2]}, one on {lungs[1]}, none on {lungs[0]}; "
          f"{len(skipped)} files skipped{pace}")
    written = (f"{results.MASKS}/", f"{results.OVERLAYS}/", results.COCO_RESULTS, results.MEASUREMENTS, results.RUN)
    print(f"{out}: {', '.join(written)}", flush=True)
    verdicts = [results.needs_review(record, min_agreement) for record in records.values()]
    if None not in verdicts:
        print(f"{sum(map(bool, verdicts))} of {len(verdicts)} films are to be looked at: the networks agree less than "
              f"{min_agreement:g} (review in {results.MEASUREMENTS})", flush=True)
