"""Finds the left and the right lung on every film of one or more folders and writes the dataset JSON.

    python create_dataset.py --src kaggle/ --out data/dataset

Every finished film is a line of ``OUT/films.jsonl``: stopped, the same command goes on where it was. Films that
changed, and those that could not be read, are tried again.

Shapes
    inputs  float32 [batch, 256, 256, 3], films as the U-Nets take them
    votes   float32 [members, batch, 256, 256], probabilities
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, or it chats of the CPU

import numpy as np
from tqdm import tqdm

from create_dataset.lungs import find_lungs
from create_dataset.sources import Source, SourceError, find_films
from create_dataset.unet import WeightsError, encoder_of, load_unet, prepare, probabilities
from mask_rcnn.coco import annotation, new_dataset, write_json
from mask_rcnn.radiograph import FilmError, read_film

if TYPE_CHECKING:
    import keras

OWN_UNET = Path(__file__).resolve().parent.parent / "models" / "unet" / "efficientnetb0.weights.h5"

Entry = dict[str, Any]  # what the journal keeps of a film; lungs are COCO annotations whose ids are still 0
ENTRY_KEYS = ("stamp", "height", "width", "lungs")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0, 1 where no film could be done, 130 where the user stopped it."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="create_dataset.py", description="Find the lungs on chest films; write a COCO dataset.",
    )  # fmt: skip
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of films, or films")
    parser.add_argument("--out", type=Path, default=Path("data/dataset"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--unet", nargs="+", type=Path, default=[OWN_UNET], metavar="FILE",
        help="weights of the ensemble's members, EfficientNetB0 or B7; default: the one in models/unet",
    )  # fmt: skip
    parser.add_argument(
        "--laterality", choices=["patient", "image"], default="patient",
        help="whose left: the patient's (on the image's right; the default), or the image's",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=positive, default=1, metavar="N",
        help="films at once, which a killed run does again; 8 are 1.6 times as fast on two cores (default: %(default)s)",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    try:
        return create_dataset(arguments, "create_dataset.py " + shlex.join(argv))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on where it was (--out {arguments.out})", file=sys.stderr)
        return 130
    except OSError as error:
        where = error.filename or arguments.out
        print(f"{where}: {error.strerror or error}; check --out and the disk", file=sys.stderr)
        return 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def create_dataset(arguments: argparse.Namespace, command: str) -> int:
    """Everything between the arguments and the exit status.

    Raises:
        OSError: the output folder cannot be written.
        KeyboardInterrupt: after ``dataset.json`` is written from the films that are done.
    """
    sources = find_sources(arguments.src)
    if not sources:
        print("there is nothing to do; give --src a folder with JPEG, PNG, TIFF, BMP or DICOM films", file=sys.stderr)
        return 1
    files, members = load_members(arguments.unet)
    if not members:
        print("no U-Net could be loaded; give its weights with --unet", file=sys.stderr)
        return 1
    settings = {"unet": sorted(file["sha256"] for file in files), "laterality": arguments.laterality}
    arguments.out.mkdir(parents=True, exist_ok=True)
    journal = arguments.out / "films.jsonl"
    entries = open_journal(journal, settings, sources)
    provenance = {
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions(),
        "unet": files,
    }
    skipped: list[dict[str, str]] = []
    target = arguments.out / "dataset.json"
    try:
        if todo := [source for source in sources if str(source.path) not in entries]:
            with journal.open("a", encoding="utf-8") as lines:
                for source, entry in find_all_lungs(
                    todo, members, arguments.batch, arguments.laterality, len(sources) - len(todo), skipped
                ):
                    entries[str(source.path)] = entry
                    lines.write(json.dumps({"film": str(source.path), **entry}) + "\n")
                    lines.flush()
    finally:
        dataset = assemble(sources, entries, arguments.out, new_dataset(arguments.laterality, provenance), skipped)
        if entries:
            write_json(target, dataset)
    if not entries:
        print(f"none of the {len(sources)} files could be read as a film; check --src", file=sys.stderr)
        return 1
    counts = dataset["info"]["counts"]
    print(
        f"{target}: {counts['films']} films, two lungs on {counts['two_lungs']}, one on {counts['one_lung']}, "
        f"none on {counts['no_lung']}; {counts['skipped']} skipped"
    )
    return 0


def warn(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def find_sources(roots: Iterable[Path]) -> list[Source]:
    """The films of all roots; one that lies under two roots belongs to the first."""
    sources: dict[Path, Source] = {}
    for root in roots:
        try:
            found = find_films(root, warn)
        except SourceError as error:
            warn(str(error))
            continue
        if not found:
            warn(f"{root}: holds no film; give a folder with JPEG, PNG, TIFF, BMP or DICOM films that are no masks")
        for source in found:
            sources.setdefault(source.path.resolve(), source)
    return list(sources.values())


def load_members(paths: Iterable[Path]) -> tuple[list[dict[str, str]], list[keras.Model]]:
    """The ensemble and what the dataset says of its files; a file that does not load is named and left out."""
    files, members = [], []
    for path in paths:
        try:
            encoder = encoder_of(path)
            members.append(load_unet(path))
        except WeightsError as error:
            warn(str(error))
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append({"file": path.name, "sha256": digest, "encoder": encoder})
    return files, members


def find_all_lungs(
    sources: Sequence[Source],
    members: Sequence[keras.Model],
    batch: int,
    laterality: str,
    done: int,
    skipped: list[dict[str, str]],
) -> Iterator[tuple[Source, Entry]]:
    """Films to journal entries, batch by batch; those that cannot be read are told and added to ``skipped``."""
    with tqdm(total=done + len(sources), initial=done, desc="lungs", unit="film", disable=None) as progress:
        for readable in read_batches(sources, batch, skipped, progress):
            votes = probabilities(members, np.stack([inputs for _, _, inputs in readable]))
            for k, (source, entry, _) in enumerate(readable):
                lungs = find_lungs(votes[:, k], entry["height"], entry["width"], laterality)
                entry["lungs"] = [annotation(0, 0, category, lung) for category, lung in sorted(lungs.items())]
                progress.update()
                yield source, entry


def read_batches(
    sources: Iterable[Source], batch: int, skipped: list[dict[str, str]], progress: tqdm
) -> Iterator[list[tuple[Source, Entry, np.ndarray]]]:
    """Readable films with their U-Net input, ``batch`` at a time, the last fewer."""
    readable: list[tuple[Source, Entry, np.ndarray]] = []
    for source in sources:
        try:
            film = read_film(source.path)
            stamp = stamp_of(source.path)
        except (FilmError, OSError) as error:
            warn(f"skipped {error}")
            skipped.append({"file": str(source.path), "reason": str(error).removeprefix(f"{source.path}: ")})
            progress.update()
            continue
        readable.append((source, {"stamp": stamp, "height": film.shape[0], "width": film.shape[1]}, prepare(film)))
        if len(readable) == batch:
            yield readable
            readable = []
    if readable:
        yield readable


def stamp_of(path: Path) -> list[int]:
    """Size and time of change: a film that has another stamp than its journal entry is done again."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def open_journal(path: Path, settings: dict[str, Any], sources: Sequence[Source]) -> dict[str, Entry]:
    """The finished films of the sources by path, and a journal that holds the settings and every whole line.

    A journal of other settings (U-Nets, laterality) is begun anew; a line torn by a kill is dropped.
    """
    kept: dict[str, Entry] = {}
    if path.exists():
        lines = list(whole_lines(path))
        if not lines or lines[0].get("settings") != settings:
            warn(f"{path}: made with other U-Nets or another laterality; beginning anew")
        else:
            kept = {line.pop("film"): line for line in lines[1:] if {"film", *ENTRY_KEYS} <= line.keys()}
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        for line in [{"settings": settings}, *({"film": film, **entry} for film, entry in kept.items())]:
            file.write(json.dumps(line) + "\n")
    os.replace(partial, path)
    entries: dict[str, Entry] = {}
    for source in sources:
        name = str(source.path)
        with suppress(OSError):  # gone meanwhile: reading it will say so
            if name in kept and kept[name]["stamp"] == stamp_of(source.path):
                entries[name] = kept[name]
    if entries:
        warn(f"{path}: {len(entries)} of {len(sources)} films are done already")
    return entries


def whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield line


def assemble(
    sources: Sequence[Source],
    entries: dict[str, Entry],
    out: Path,
    dataset: dict[str, Any],
    skipped: list[dict[str, str]],
) -> dict[str, Any]:
    """Fills an empty dataset with the finished films.

    A film on which the U-Nets found anything but two lungs is marked ``review``: far more often they failed than a
    lung is missing, and training takes only what is ``accepted``. ``info["roots"]`` are the folders that the films'
    ``root`` and ``file_name`` refer to, relative to ``out``.
    """
    roots = list(dict.fromkeys(source.root for source in sources))
    image_ids: set[int] = set()
    for source in sources:
        if (entry := entries.get(str(source.path))) is None:
            continue
        image_id = image_id_of(source, image_ids)
        image_ids.add(image_id)
        dataset["images"].append({
            "id": image_id, "root": roots.index(source.root), "file_name": source.file_name,
            "height": entry["height"], "width": entry["width"],
            "collection": source.collection, "split": source.split, "label": source.label, "patient": source.patient,
            "quality": "accepted" if len(entry["lungs"]) == 2 else "review",
        })  # fmt: skip
        for lung in entry["lungs"]:
            dataset["annotations"].append({**lung, "id": 2 * image_id + lung["category_id"], "image_id": image_id})
    found = [len(entries[str(source.path)]["lungs"]) for source in sources if str(source.path) in entries]
    dataset["info"] |= {
        "counts": {
            "films": len(found), "two_lungs": found.count(2), "one_lung": found.count(1), "no_lung": found.count(0),
            "skipped": len(skipped), "not_done": len(sources) - len(found) - len(skipped),
        },
        "skipped": skipped,
        "roots": [relative_to(out, root) for root in roots],
    }  # fmt: skip
    return dataset


def image_id_of(source: Source, taken: set[int]) -> int:
    """A number below 2 ** 48 that stays the same when films are added around this one: a hash of its path."""
    path = f"{source.root.name}/{source.file_name}".encode()
    image_id = int.from_bytes(hashlib.blake2b(path, digest_size=6).digest(), "big")
    while image_id in taken:
        image_id += 1
    return image_id


def relative_to(out: Path, root: Path) -> str:
    """A root as seen from the dataset's folder, so that both can move together."""
    try:
        return Path(os.path.relpath(root, out.resolve())).as_posix()
    except ValueError:  # another drive
        return root.as_posix()


def versions() -> dict[str, str]:
    import cv2
    import keras
    import segmentation_models
    import tensorflow

    modules = (tensorflow, keras, segmentation_models, np, cv2)
    return {module.__name__: module.__version__ for module in modules}
