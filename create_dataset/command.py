"""Finds the left and the right lung on every film of one or more folders and writes the dataset.

    python create_dataset.py --src kaggle/ --out data/dataset

Every finished film is a line of ``OUT/films.jsonl``: stopped, the same command goes on where it was. Films that
changed, and those that could not be used, are tried again. Thresholds are applied at the end, so that changing them
takes no U-Net. What another run has left in OUT, of other U-Nets or of folders that are not given any more, is set aside
in ``OUT/earlier-DATE``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, or it chats of the CPU

from create_dataset import exports
from create_dataset.assemble import (
    DATASET,
    TABLE,
    count_films,
    judge_films,
    relative_roots,
    write_dataset,
    write_table,
)
from create_dataset.pipeline import KEYS, find_all_lungs
from create_dataset.report import REPORT, write_report
from create_dataset.sources import Source, SourceError, find_films
from create_dataset.unet import WeightsError, encoder_of, load_unet
from mask_rcnn.config import Config, ConfigError, QualityConfig, apply_settings, load_config
from mask_rcnn.dataset.coco import new_dataset, read_dataset
from mask_rcnn.run.folder import RunError, set_aside, sole_run
from mask_rcnn.run.journal import Journal
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import writable, write_json
from mask_rcnn.system.formats import FormatError
from mask_rcnn.system.progress import progress, warn
from mask_rcnn.system.shipped import shipped_unet

if TYPE_CHECKING:
    import keras

OWN_UNET = shipped_unet()
JOURNAL, LEGACY = "films.jsonl", "legacy.json"
RESULTS = (DATASET, TABLE, REPORT, LEGACY)  # in OUT, beside the journal
BATCH = 4
RESULTS_VERSION = 2  # bump when results change; older journals are not resumed


class Unet(NamedTuple):
    """A member of the ensemble."""

    path: Path
    facts: dict[str, str]  # for the dataset: file, sha256, encoder


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status: 0, 1 where nothing could be done, 130 where the user stopped it."""
    forgiving_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(argv)
    try:
        return create_dataset(arguments, "create_dataset.py " + shlex.join(argv))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on where it was (--out {arguments.out})", file=sys.stderr)
        return 130
    except (RunError, FormatError, ConfigError, SourceError, WeightsError, DeviceError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or arguments.out
        print(
            f"{where}: {error.strerror or error}; check --out and the disk, the same command goes on where it was",
            file=sys.stderr,
        )
        return 1


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="create_dataset.py",
        description="Find the lungs on chest films, check each film; write a COCO dataset and a report.",
    )
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of films, or films")
    parser.add_argument("--out", type=Path, default=Path("data/dataset"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--unet", nargs="+", type=Path, default=[OWN_UNET], metavar="FILE",
        help="weights of the ensemble's members, EfficientNetB0 or B7; default: the one in models/unet",
    )  # fmt: skip
    parser.add_argument("--config", metavar="FILE", help="whose section quality has the thresholds; default: its defaults")
    parser.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
        help="a threshold in place of the config's, such as quality.min_area=0.05; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--laterality", choices=["patient", "image"], default="patient",
        help="whose left: the patient's (on the image's right; the default), or the image's",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=positive, default=BATCH, metavar="N",
        help="films at a time, more are faster on a GPU; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--export", choices=["legacy"], help=f"also write {LEGACY}, the published nested lists: 2 MB a film",
    )  # fmt: skip
    parser.add_argument(
        "--copy-images", type=positive, metavar="SIZE",
        help="copy the films, their long side SIZE pixels at most, beside dataset.json, so that the folder can be moved",
    )  # fmt: skip
    return parser.parse_args(argv)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def create_dataset(arguments: argparse.Namespace, command: str) -> int:
    """Everything between the arguments and the exit status.

    Raises:
        ConfigError: the config cannot be used.
        SourceError, WeightsError: a path that was given is not there.
        RunError: another run writes to the output folder, or there is too little memory.
        FormatError: a newer program wrote what is there.
        DeviceError: Keras cannot start.
        OSError: the output folder cannot be written.
        KeyboardInterrupt: after the results are written from the films that are done.
    """
    config = load_config(arguments.config) if arguments.config else Config()
    thresholds = apply_settings(config, arguments.settings, ["quality"]).quality
    unets = find_unets(arguments.unet)
    sources, notes, unreadable = find_sources(arguments.src, arguments.out)
    if not sources:
        print("there is nothing to do; give --src a folder with JPEG, PNG, TIFF, BMP, WebP or DICOM films", file=sys.stderr)
        return 1
    with sole_run(arguments.out):
        journal = open_journal(arguments, unets, sources)
        members: list[keras.Model] = []
        if any(source not in journal for source in sources):
            loaded, members = load_members(unets)
            if loaded != unets:  # a smaller ensemble has a journal of its own
                unets, journal = loaded, open_journal(arguments, loaded, sources)
        if not unets:
            print("no U-Net could be loaded; give its weights with --unet", file=sys.stderr)
            return 1
        with journal:
            skipped = dict(unreadable)
            is_whole = fill_journal(journal, sources, members, arguments, skipped)
            has_films = any(source in journal for source in sources)
            if has_films:
                info = {
                    "date_created": datetime.now(UTC).isoformat(timespec="seconds"), "command": writable(command),
                    "versions": versions(), "unet": [unet.facts for unet in unets], "quality": asdict(thresholds),
                    "notes": notes,
                }  # fmt: skip
                dataset = new_dataset(arguments.laterality, info)
                write_results(arguments.out, dataset, thresholds, journal, sources, skipped)
        if not is_whole:
            raise KeyboardInterrupt
        if not has_films:
            print(f"none of the {len(sources)} files could be used as a film; check --src", file=sys.stderr)
            return 1
        export(arguments)
    return 0


def find_sources(roots: Iterable[Path], out: Path) -> tuple[list[Source], list[str], dict[Path, str]]:
    """The films of all roots, what there is to say of the roots, and what in them cannot be read, with the reasons.

    A film under two roots belongs to the first. An output folder within a root holds copies of its films, which are none of
    its own.

    Raises:
        SourceError: a root is not there.
    """
    out = out.resolve()
    sources: dict[str, Source] = {}
    notes: list[str] = []
    unreadable: dict[Path, str] = {}

    def note(line: str) -> None:
        warn(line)
        notes.append(writable(line))

    def skip(path: Path, reason: str) -> None:
        warn(f"skipped {writable(str(path))}: {reason}")
        unreadable[path] = reason

    for root in roots:
        found = find_films(root, note, skip)
        if not found:
            note(f"{root}: holds no film; give a folder with JPEG, PNG, TIFF, BMP, WebP or DICOM films that are no masks")
        holds_out = out.is_relative_to(os.path.realpath(root))
        for source in found:
            if not (holds_out and out in source.path.parents):
                sources.setdefault(os.path.realpath(source.path), source)
    return list(sources.values()), notes, unreadable


def find_unets(paths: Iterable[Path]) -> list[Unet]:
    """What the files of an ensemble are; one that is no U-Net's is named and left out.

    Raises:
        WeightsError: one is not there.
    """
    unets = []
    for path in paths:
        if not path.exists():
            raise WeightsError(f"{path}: there is no such file; check the path given to --unet")
        try:
            encoder = encoder_of(path)
        except WeightsError as error:
            warn(str(error))
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        unets.append(Unet(path, {"file": path.name, "sha256": digest, "encoder": encoder}))
    return unets


def load_members(unets: Iterable[Unet]) -> tuple[list[Unet], list[keras.Model]]:
    """The U-Nets that load, and their networks; one that does not is named and left out."""
    loaded, members = [], []
    for unet in unets:
        try:
            members.append(load_unet(unet.path))
        except WeightsError as error:
            warn(str(error))
            continue
        loaded.append(unet)
    return loaded, members


def open_journal(arguments: argparse.Namespace, unets: Iterable[Unet], sources: Sequence[Source]) -> Journal:
    """The journal of these U-Nets and this laterality, with the films that are as they were when they were done."""
    settings = {
        "command": "create_dataset.py",
        "answers": RESULTS_VERSION,
        "unet": sorted(unet.facts["sha256"] for unet in unets),
        "laterality": arguments.laterality,
    }
    journal = Journal(arguments.out / JOURNAL, settings, KEYS)
    journal.find_roots(dict.fromkeys(source.root for source in sources))
    journal.forget_changed(progress(sources, name="checking", total=len(sources)))
    return journal


def put_away(out: Path, names: Sequence[str], why: str) -> None:
    """Sets results aside that the run would write over, and says so."""
    if folder := set_aside(out, names):
        warn(f"{out}: holds what was {why}; beginning anew, it is kept in {folder.name}")


def fill_journal(
    journal: Journal,
    sources: Sequence[Source],
    members: Sequence[keras.Model],
    arguments: argparse.Namespace,
    skipped: dict[Path, str],
) -> bool:
    """Finds the lungs on the films that are not in the journal; those that cannot be used are told and added to ``skipped``.

    Returns:
        False where the user stopped it.

    Raises:
        RunError: there is too little memory.
        OSError: the journal cannot be written.
    """
    todo = [(place, source) for place, source in enumerate(sources) if source not in journal]
    if journal.is_other:
        put_away(arguments.out, (*RESULTS, JOURNAL), "made with other U-Nets, another laterality or an older program")
    elif len(todo) < len(sources):
        warn(f"{journal.path}: {len(sources) - len(todo)} of {len(sources)} films are done already")
    journal.open()
    if not todo:
        return True
    ids = journal.assign_ids(sources)

    def skip(source: Source, reason: str) -> None:
        warn(f"skipped {source.path}: {reason}")
        skipped[source.path] = reason
        bar.update()

    entries = find_all_lungs(todo, members, arguments.batch, arguments.laterality, skip)
    try:
        with progress(name="lungs", total=len(sources), done=len(sources) - len(todo)) as bar, closing(entries):
            for source, entry in entries:
                journal.add(source, {"id": ids[journal.key(source)], **entry})
                bar.update()
    except KeyboardInterrupt:
        warn("stopping; what is done is put together now (Ctrl-C again leaves that to the next run)")
        return False
    return True


def write_results(
    out: Path,
    dataset: dict[str, Any],
    thresholds: QualityConfig,
    journal: Journal,
    sources: Sequence[Source],
    skipped: Mapping[Path, str],
) -> None:
    """Writes the dataset, the table and the report of the films that are in the journal, and prints what there is.

    ``info["roots"]`` are the folders that the films' ``root`` and ``file_name`` refer to, relative to ``out``.

    Raises:
        OSError: one cannot be written.
    """
    films = judge_films([source for source in sources if source in journal], journal, thresholds)
    if others := journal.other_results():
        put_away(out, RESULTS, f"made of other folders too ({', '.join(others)})")
    journal.claim_results()
    roots = relative_roots(dict.fromkeys(source.root for source in sources), out)
    dataset["info"] |= {
        "counts": count_films(
            films, len(skipped), sum(source not in journal and source.path not in skipped for source in sources)
        ),
        "skipped": [{"file": writable(str(path)), "reason": writable(reason)} for path, reason in sorted(skipped.items())],
        "roots": list(roots.values()),
    }
    write_dataset(out / DATASET, dataset, films, journal, roots)
    write_table(out / TABLE, films, journal, roots)
    write_report(out / REPORT, dataset["info"], films, journal)
    counts = dataset["info"]["counts"]
    print(
        f"{out / DATASET}: {counts['films']} films, {counts['accepted']} accepted, {counts['review']} to review, "
        f"{counts['rejected']} rejected; {counts['skipped']} skipped"
    )
    print(f"{out / REPORT}: look at them there")


def export(arguments: argparse.Namespace) -> None:
    """What is made of a finished dataset where the user asks for it.

    Raises:
        OSError: it cannot be written.
    """
    out, side = arguments.out, arguments.copy_images
    if not arguments.export and not side:
        return
    dataset = read_dataset(out / DATASET)
    if arguments.export:
        written = exports.write_legacy(dataset, out, out / LEGACY)
        print(f"{out / LEGACY}: {written} accepted films as the published nested lists")
    if side:
        write_json(out / DATASET, exports.copy_images(dataset, out, side))
        print(f"{out / exports.COPIES}: the films, which {DATASET} now refers to")


def versions() -> dict[str, str]:
    """The versions of what makes the masks, without importing it."""
    distributions = metadata.packages_distributions()
    modules = ("tensorflow", "keras", "segmentation_models", "numpy", "cv2")
    return {module: metadata.version(names[0]) for module in modules if (names := distributions.get(module))}
