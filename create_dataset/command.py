"""``create_dataset.py``: folders of films in, a COCO dataset of their lungs and a report out."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from create_dataset.members import find_unets
from create_dataset.run import BATCH, LEGACY, Settings, create_dataset, find_sources
from create_dataset.sources import SourceError
from create_dataset.unet import WeightsError
from mask_rcnn.config import Config, ConfigError, apply_settings, load_config
from mask_rcnn.dataset.corrections import CORRECTIONS
from mask_rcnn.dataset.decisions import DECISIONS
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.run.folder import RunError
from mask_rcnn.run.parts import MERGE, Part, finished_parts, part_or_merge
from mask_rcnn.run.ray_nodes import joined
from mask_rcnn.runtime.on_cluster import add_ray, runtime_on
from mask_rcnn.runtime.start import add_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, CommandLine, positive, run_command
from mask_rcnn.system.formats import FormatError
from mask_rcnn.system.shipped import shipped_unet


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, as ``run_command`` does; returns its exit status."""
    return run_command(argv, parse, run, complaint)


def complaint(error: BaseException, arguments: argparse.Namespace) -> str | None:
    """The line about an error; None where it is a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return f"stopped; the same command goes on where it was (--out {arguments.out})"
    if isinstance(error, (RunError, FormatError, ConfigError, SourceError, WeightsError, DatasetError, DeviceError)):
        return str(error)
    if isinstance(error, OSError):
        where = error.filename or arguments.out
        return f"{where}: {error.strerror or error}; check --out and the disk, the same command goes on where it was"
    return None


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Calls the library and prints what it returns; all that was given is checked before any work."""
    config = load_config(arguments.config) if arguments.config else Config()
    part = arguments.part if isinstance(arguments.part, Part) else None
    settings = Settings(
        part.folder(arguments.out) if part else arguments.out, arguments.laterality,
        apply_settings(config, arguments.settings, ["quality"]).quality, arguments.batch,
        legacy=arguments.export == "legacy", copies=arguments.copy_images, command=f"create_dataset.py {shlex.join(argv)}",
        decisions=arguments.decisions, corrections=arguments.corrections, part=part,
    )  # fmt: skip
    unets = find_unets(arguments.unet or [shipped_unet()])
    sources = find_sources(arguments.src, arguments.out)
    if not sources.films:
        print("there is nothing to do; give --src a folder with JPEG, PNG, TIFF, BMP, WebP or DICOM films", file=sys.stderr)
        return NOTHING_DONE
    if arguments.part == MERGE:
        settings = replace(settings, merged=finished_parts(settings.out, settings.batch, sources.films))
    with joined(arguments.ray) as nodes:
        runtime, device = runtime_on(nodes, arguments.runtime, arguments.device)
        settings = replace(settings, nodes=nodes, runtime=runtime, device=device)
        print(*create_dataset(sources, unets, settings), sep="\n", flush=True)
    return DONE


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = CommandLine(
        "create_dataset.py",
        "Finds the lungs on chest films, checks each film, and writes a COCO dataset and a report.",
        "--src FILM_OR_FOLDER ... [--out FOLDER] [options]",
        ["create_dataset.py --src kaggle/ --out data/dataset",
         "create_dataset.py --src kaggle/ 'more/*.dcm' --copy-images 512 --set quality.min_area=0.05"],
    )  # fmt: skip
    parser.add_argument("--src", nargs="+", action="extend", required=True, metavar="PATH",
                        help="folders of films, films, or glob patterns")
    parser.add_argument("--out", type=Path, default=Path("data/dataset"), metavar="FOLDER",
                        help="folder of the dataset (default: %(default)s)")
    parser.add_argument("--unet", nargs="+", action="extend", metavar="PATH",
                        help="weights of the ensemble's members, EfficientNetB0 or B7: files, folders or glob patterns "
                             "(default: the one that ships)")
    parser.add_argument("--config", metavar="FILE",
                        help="a config whose section quality has the thresholds (default: those of every config)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help="a threshold in place of the config's, such as quality.min_area=0.05; may be given "
                             "several times")
    parser.add_argument("--laterality", choices=["patient", "image"], default="patient",
                        help="whose left: the patient's, on the image's right, or the image's (default: %(default)s)")
    parser.add_argument("--batch", type=positive, default=BATCH, metavar="N",
                        help="films at a time, more are faster on a GPU (default: %(default)s)")
    add_runtime(parser)
    add_ray(parser)
    parser.add_argument("--export", choices=["legacy"],
                        help=f"also write {LEGACY}, the published nested lists: 2 MB a film (default: none)")
    parser.add_argument("--copy-images", type=positive, metavar="SIZE",
                        help="copy the films, their long side SIZE pixels at most, beside dataset.json, so that the folder "
                             "can be moved (default: they stay where they are)")
    parser.add_argument("--decisions", nargs="+", action="extend", type=Path, default=[], metavar="FILE",
                        help=f"a person's decisions on films, as the page saves them: rejected films are out, accepted "
                             f"ones in (default: {DECISIONS} in --out, which is always read)")
    parser.add_argument("--corrections", nargs="+", action="extend", type=Path, default=[], metavar="FILE",
                        help=f"lungs that a person corrected, as scripts/corrections.py imports them, in place of what is "
                             f"found (default: {CORRECTIONS} in --out, which is always read)")
    parser.add_argument("--part", type=part_or_merge, metavar="K/N",
                        help=f"for a cluster: find the lungs on the Kth of N shares of the films, into a folder of its own "
                             f"in --out; afterwards --part {MERGE} makes the dataset of all parts (default: all films)")
    parser.add_common()
    return parser.parse_args(argv)
