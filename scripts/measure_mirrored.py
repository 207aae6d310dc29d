"""Measures how many mirrored films ``inference.py`` sends to review, and how many of the same films as they are.

    python scripts/measure_mirrored.py --weights models/*.h5 --src ../shared/data/shenzhen/images ../shared/data/kaggle

Of each folder some films, evenly spread over its list, are written as they are read and mirrored, and given to the command.
Names of lungs follow the place in the film, so that on every mirrored film both are wrong.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from mask_rcnn.commands import inference as inference_command
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.system.console import forgiving_streams

MIRRORED = "perhaps mirrored"  # how the reason begins


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line a folder; returns 0, or what the command returned where it failed."""
    forgiving_streams()
    parser = argparse.ArgumentParser(prog="measure_mirrored.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", nargs="+", required=True, metavar="FILE")
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of films")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="films of each folder; default: %(default)s")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for number, source in enumerate(arguments.src):
            write_films(source, arguments.count, Path(folder, "films", str(number)))
        status = inference_command.main(
            ["--weights", *arguments.weights, "--src", str(Path(folder, "films")), "--out", str(Path(folder, "out"))]
        )
        if status:
            return status
        with Path(folder, "out", "measurements.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    for number, source in enumerate(arguments.src):
        print(f"{source}: {report(rows, f'{number}/as_it_is/')} as they are; {report(rows, f'{number}/mirrored/')} mirrored")
    print(f"all: {report(rows, '/as_it_is/')} as they are; {report(rows, '/mirrored/')} mirrored")
    return 0


def write_films(source: Path, count: int, out: Path) -> None:
    """Writes ``count`` films of a folder, or as many as there are, as they are and mirrored."""
    paths = find_film_paths(source)
    for path in paths[:: max(1, len(paths) // count)][:count]:
        with suppress(FilmError):
            film = read_film(path)
            for kind, pixels in (("as_it_is", film), ("mirrored", film[:, ::-1])):
                target = out / kind / f"{path.relative_to(source).as_posix().replace('/', '_')}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(target)


def report(rows: Sequence[dict[str, str]], part: str) -> str:
    """How many of the films whose path holds ``part`` are for review, and how many of them for being mirrored."""
    own = [row for row in rows if part in row["file"]]
    review, mirrored = (sum(of_kind) for of_kind in (
        [row["review"] == "1" for row in own], [MIRRORED in row["reasons"] for row in own],
    ))  # fmt: skip
    return f"{review} of {len(own)} for review ({mirrored} as mirrored)"


if __name__ == "__main__":
    sys.exit(main())
