"""``inference.py``: films in; label masks, pictures and tables out, by the vote of several networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mask_rcnn.bag.members import InferenceError, expand, load_members
from mask_rcnn.config import READING_SECTIONS, Config, ConfigError, apply_settings
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.inference.run import BATCH, SAVED, InferenceRun, summary_lines
from mask_rcnn.inference.sources import FORMATS, find_films
from mask_rcnn.run.folder import RunError, sole_run
from mask_rcnn.system.backend import library_versions
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, STOPPED, CommandLine, names_among, positive
from mask_rcnn.system.console import console, detail, forgiving_streams, inform
from mask_rcnn.system.devices import DeviceError, choose_device
from mask_rcnn.system.formats import FormatError
from mask_rcnn.system.shipped import shipped_members

SETTABLE = (*READING_SECTIONS, "quality")  # sections of the config that --set may change: how results are read and judged


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status.

    Raises:
        SystemExit: the command line is wrong, or wants help or the version.
    """
    forgiving_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(argv)
    with console(arguments.verbosity):
        try:
            return run(arguments, ["inference.py", *argv])
        except (InferenceError, DatasetError, DeviceError, RunError, FormatError, ConfigError) as error:
            print(f"inference: {error}", file=sys.stderr)
            return NOTHING_DONE
        except OSError as error:
            print(f"inference: {arguments.out}: cannot be written ({error.strerror or error}); make room or choose another "
                  "--out; the same command goes on where it stopped", file=sys.stderr)
            return NOTHING_DONE
        except KeyboardInterrupt:
            print("inference: stopped; the same command goes on from there", file=sys.stderr)
            return STOPPED


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Calls the library and prints what it returns; all that was given is checked before any work."""
    quality = apply_settings(Config(), arguments.settings, SETTABLE).quality
    files = expand(arguments.weights or shipped_members())
    films = find_films(arguments.src or [Path("data")], arguments.out)
    with sole_run(arguments.out):
        inform(choose_device(arguments.device))
        detail(", ".join(f"{name} {version}" for name, version in library_versions().items()))
        members = load_members(files, [setting for setting in arguments.settings if not setting.startswith("quality.")])
        summary = InferenceRun(films, members, arguments.out, quality, arguments.save, arguments.batch, command)()
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
    parser.add_argument("--save", type=names_among(SAVED), default=list(SAVED), metavar="LIST",
                        help=f"what to write of each film, and the page, of {','.join(SAVED)} (default: all)")
    parser.add_argument("--batch", type=positive, default=BATCH, metavar="N",
                        help="films that the networks see at a time (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE",
                        help=f"a value in place of the weights files', of {', '.join(SETTABLE)}; for example "
                             "bag.min_agreement=0.9, below which a film is for review; may be given several times")
    parser.add_common()
    arguments: argparse.Namespace = parser.parse_args(argv)
    return arguments
