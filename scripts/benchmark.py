"""Measures how much of the U-Net's bare speed create_dataset.py keeps, both in one run of one process.

    python scripts/benchmark.py --src ../shared/data/kaggle

Bare is the U-Net alone, on batches that are prepared beforehand, as many as the run has; half of them before the run
and half after it, so that a machine that slows down slows both. The run reads every film, predicts it, cuts out the
lungs, measures them and writes the journal. The mirrored films of a single U-Net count in both.

Shapes
    inputs  float32 [passes at a time, 256, 256, 3], as the U-Nets take them
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from create_dataset import pipeline, run
from create_dataset.members import find_unets, load_members
from create_dataset.unet import probabilities
from mask_rcnn.dataset.coco import new_dataset
from mask_rcnn.films.images import FilmError
from mask_rcnn.system.command_line import positive
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.shipped import shipped_unet

PREPARED = 8  # batches, over and over


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both speeds; returns 0, or 1 where there is nothing to measure."""
    forgiving_streams()
    parser = argparse.ArgumentParser(prog="benchmark.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--src", nargs="+", type=Path, required=True, metavar="DIR", help="folders of films")
    parser.add_argument("--unet", nargs="+", type=Path, default=[shipped_unet()], metavar="FILE")
    parser.add_argument("--batch", type=positive, default=run.BATCH, metavar="N", help="default: %(default)s")
    parser.add_argument("--films", type=positive, metavar="N", help="the first N of each folder; default: all")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as out:
        settings = run.Settings(Path(out), batch=given.batch)
        sources = [film for root in given.src for film in run.find_sources([root], Path(out)).films[: given.films]]
        unets, members = load_members(find_unets(given.unet))
        if not sources or not members:
            print("there is nothing to measure; check --src and --unet", file=sys.stderr)
            return 1
        batches = prepare_batches(sources, members, given.batch)
        count = math.ceil(len(sources) / given.batch)

        def predict_bare(number: int) -> None:
            for k in range(number):
                probabilities(members, batches[k % len(batches)])

        def fill() -> None:
            run.fill_journal(journal, sources, members, settings, skipped)

        predict_bare(2)  # TensorFlow compiles the network, and chooses its kernels
        skipped: dict[Path, str] = {}
        with run.open_journal(settings, unets, sources) as journal:
            bare = seconds(lambda: predict_bare(count // 2))
            whole = seconds(fill)
            bare += seconds(lambda: predict_bare(count - count // 2))
            info = {"date_created": "", "command": "", "versions": {}, "unet": [], "quality": {}, "notes": []}
            dataset = new_dataset("patient", info)
            written = seconds(lambda: run.write_results(settings, dataset, journal, sources, skipped))
    passes = sum(len(batches[0]) * count for _ in members)
    print(f"{len(sources)} films, {len(skipped)} skipped; {len(members)} U-Net(s), {len(batches[0])} passes at a time, "
          f"{passes} in all")
    print(f"bare U-Net        {bare:7.1f} s  {len(sources) / bare:6.2f} films a second")
    print(f"create_dataset.py {whole:7.1f} s  {len(sources) / whole:6.2f} films a second, {bare / whole:.0%} of the bare")
    print(f"putting together  {written:7.1f} s  dataset.json, quality.csv, report.html")
    print(f"memory at most    {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:7.2f} GiB")
    return 0


def prepare_batches(sources: Sequence, members: Sequence, batch: int) -> list[np.ndarray]:
    """Some batches of films, as the run gives them to the U-Nets."""
    films = []
    for source in sources:
        with suppress(FilmError, OSError):
            films.append(pipeline.read(source))
        if len(films) == PREPARED * batch:
            break
    groups = [films[k : k + batch] for k in range(0, len(films), batch)]
    return [pipeline.fill_batch(group, batch, len(members) == 1) for group in groups]


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
