"""``review``: serves the page of a run on this machine, so that a person's decisions are saved as they are made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mask_rcnn.dataset.decisions import DECISIONS
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.results.names import PAGE
from mask_rcnn.results.page.server import ReviewServer
from mask_rcnn.system.command_line import DONE, NOTHING_DONE, CommandLine

PORT = 8765


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C; returns the exit status.

    Raises:
        SystemExit: the command line is wrong, or wants help.
    """
    parser = CommandLine(
        "scripts/review.py", f"Serves the page of a run on this machine and saves decisions in {DECISIONS} beside it.",
        "FOLDER [--port PORT]", ["scripts/review.py results", "scripts/review.py data/dataset --port 9000"],
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=f"the --out of a run, which holds {PAGE}")
    parser.add_argument("--port", type=int, default=PORT, help="port on 127.0.0.1, 0 for a free one (default: %(default)s)")
    parser.add_argument("-h", "--help", action="help", help="print this help")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if not (folder / PAGE).is_file():
        print(f"review: {folder}: holds no {PAGE}; give the --out of inference.py or create_dataset.py", file=sys.stderr)
        return NOTHING_DONE
    try:
        server = ReviewServer(folder, arguments.port)
    except DatasetError as error:
        print(f"review: {error}", file=sys.stderr)
        return NOTHING_DONE
    except (OSError, OverflowError) as error:
        print(f"review: port {arguments.port} cannot be used ({error}); give another --port", file=sys.stderr)
        return NOTHING_DONE
    with server:
        try:
            print(f"open {server.address} in a browser; decisions go to {folder / DECISIONS}; Ctrl-C ends", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("review: ended; every decision is saved", file=sys.stderr)
    return DONE
