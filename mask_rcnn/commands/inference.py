"""``inference.py``: films in; label masks, pictures and tables out, by the vote of several networks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mask_rcnn.bag.members import SETTABLE, Described, InferenceError, Member, expand, load_members, split_settings
from mask_rcnn.config import ConfigError
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.inference.outputs import check_outputs
from mask_rcnn.inference.run import BATCH, SAVED, SAVED_BY_DEFAULT, InferenceRun, summary_lines
from mask_rcnn.inference.sources import FORMATS, find_films
from mask_rcnn.inference.work import load_on_worker
from mask_rcnn.run.cluster import Cluster
from mask_rcnn.run.folder import RunError, sole_run
from mask_rcnn.run.parts import MERGE, Part, finished_parts, part_or_merge
from mask_rcnn.run.ray_nodes import joined
from mask_rcnn.runtime.on_cluster import add_ray, runtime_on, start_workers
from mask_rcnn.runtime.start import add_runtime, start_runtime
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, CommandLine, names_among, positive, run_command
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.formats import FormatError
from mask_rcnn.system.shipped import shipped_members


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command, as ``run_command`` does; returns its exit status."""
    return run_command(argv, parse, run, complaint)


def complaint(error: BaseException, arguments: argparse.Namespace) -> str | None:
    """The line about an error; None where it is a fault of the program."""
    if isinstance(error, KeyboardInterrupt):
        return "inference: stopped; the same command goes on from there"
    if isinstance(error, (InferenceError, DatasetError, DeviceError, RunError, FormatError, ConfigError)):
        return f"inference: {error}"
    if isinstance(error, OSError):
        return (f"inference: {arguments.out}: cannot be written ({error.strerror or error}); make room or choose another "
                "--out; the same command goes on where it stopped")
    return None


def run(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Calls the library and prints what it returns; all that was given is checked before any work."""
    quality, of_networks = split_settings(arguments.settings)
    check_outputs(arguments.save)
    files = expand(arguments.weights or shipped_members())
    films = find_films(arguments.src or [Path("data")], arguments.out)
    part = arguments.part if isinstance(arguments.part, Part) else None
    out = part.folder(arguments.out) if part else arguments.out
    batch = min(arguments.batch, len(films.films))
    merged = finished_parts(out, batch, films.films) if arguments.part == MERGE else []
    with joined(arguments.ray) as nodes:
        runtime, device = runtime_on(nodes, arguments.runtime, arguments.device)
        with sole_run(out):
            networks: Sequence[Member] | Cluster[list[Described]]
            if nodes:
                load = partial(load_on_worker, files, of_networks, runtime, device, batch)
                must_see = [*films.roots, films.films[0].path]
                networks = start_workers(nodes, runtime, device, -(-len(films.films) // batch), load, must_see)
            else:
                start_runtime(runtime, device)
                networks = load_members(files, of_networks, runtime)
            command = ["inference.py", *argv]
            summary = InferenceRun(films, networks, out, quality, arguments.save, batch, command, part, merged)()
    if part:
        print(f"{out}: {part} is done, {summary.predicted} films predicted and {summary.skipped} files skipped now; "
              f"--part {MERGE} puts all parts together", flush=True)  # fmt: skip
        return DONE
    print(*summary_lines(summary, arguments.out, arguments.save), sep="\n", flush=True)
    return DONE if summary.images else NOTHING_DONE


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = CommandLine(
        "inference.py",
        f"Finds the left and the right lung on chest films ({FORMATS}).",
        "--src FILM_OR_FOLDER ... [--out FOLDER] [options]",
        ["inference.py --src my_films --out results",
         "inference.py --src ward_a 'ward_b/*.dcm' --weights models/my_lungs_*.h5 --save masks --set bag.min_agreement=0.9"],
    )  # fmt: skip
    parser.add_argument("--src", nargs="+", action="extend", metavar="PATH",
                        help="films, folders of films, or glob patterns (default: data)")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER",
                        help="folder of the results (default: %(default)s)")
    parser.add_argument("--weights", nargs="+", action="extend", metavar="PATH",
                        help="weights of one network or several, whose results are bagged: files, folders or glob patterns "
                             "(default: the five networks that ship)")
    parser.add_argument("--save", type=names_among(SAVED), default=list(SAVED_BY_DEFAULT), metavar="LIST",
                        help=f"what to write of each film, and the page, of {','.join(SAVED)} (default: "
                             f"{','.join(SAVED_BY_DEFAULT)}); dicom-seg and dicom-sr of DICOM films alone")
    parser.add_argument("--batch", type=positive, default=BATCH, metavar="N",
                        help="films that the networks see at a time (default: %(default)s)")
    add_runtime(parser)
    add_ray(parser)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help=f"a value in place of the weights files', of {', '.join(SETTABLE)}; for example "
                             "bag.min_agreement=0.9, below which a film is for review; may be given several times")
    parser.add_argument("--part", type=part_or_merge, metavar="K/N",
                        help=f"for a cluster: do the Kth of N shares of the films, into a folder of its own in --out; "
                             f"afterwards --part {MERGE} puts all parts together (default: all films)")
    parser.add_common()
    return parser.parse_args(argv)
