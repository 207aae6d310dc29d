"""``create_dataset.py`` beside its bare U-Net, both in one process.

Bare is the U-Net alone, on batches that are prepared beforehand, as many as the run has; half of them before the run
and half after it, so that a machine that slows down slows both. The run reads every film, predicts it, cuts out the
lungs, measures them and writes the journal. The mirrored films of a single U-Net count in both.

Shapes
    inputs  float32 [passes at a time, 256, 256, 3], as the U-Nets take them
"""

from __future__ import annotations

import math
import resource
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.clock import seconds
from create_dataset import pipeline, run
from create_dataset.members import find_unets, load_members
from create_dataset.unet import BACKENDS, probabilities
from mask_rcnn.dataset.coco import new_dataset
from mask_rcnn.films.images import FilmError
from mask_rcnn.runtime.choice import KERAS, Runtime

PREPARED = 8  # batches, over and over


class Throughput(NamedTuple):
    """Of a dataset."""

    bare: float  # films a second of the U-Net alone
    whole: float  # films a second of the run
    together: float  # seconds to write the dataset, its table and its page
    memory: float  # GiB at most


def throughput(films: Path, unets: Sequence[str], runtime: Runtime, batch: int = run.BATCH) -> Throughput:
    """Of a folder of films.

    Raises:
        ValueError: no film, or no U-Net, can be used.
    """
    if runtime.name == KERAS:
        from mask_rcnn.system.backend import import_keras

        import_keras(BACKENDS)
    with tempfile.TemporaryDirectory() as out:
        settings = run.Settings(Path(out), batch=batch, runtime=runtime)
        sources = run.find_sources([films], Path(out)).films
        kept, members = load_members(find_unets(unets), runtime)
        if not sources or not members:
            raise ValueError("there is nothing to measure; check --src")
        batches = prepare_batches(sources, len(members) == 1, batch)
        count = math.ceil(len(sources) / batch)

        def predict_bare(number: int) -> None:
            for k in range(number):
                probabilities(members, batches[k % len(batches)])

        predict_bare(2)  # the first ones compile the network
        skipped: dict[Path, str] = {}
        with run.open_journal(settings, kept, sources) as journal:
            bare = seconds(lambda: predict_bare(count // 2))
            whole = seconds(lambda: run.fill_journal(journal, sources, members, settings, skipped))
            bare += seconds(lambda: predict_bare(count - count // 2))
            info = {"date_created": "", "command": "", "versions": {}, "unet": [], "quality": {}, "notes": []}
            dataset = new_dataset("patient", info)
            together = seconds(lambda: run.write_results(settings, dataset, journal, sources, skipped))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return Throughput(len(sources) / bare, len(sources) / whole, together, memory)


def prepare_batches(sources: Sequence, is_single: bool, batch: int) -> list[np.ndarray]:
    """Some batches of films, as the run gives them to the U-Nets; of a single one with the mirrored films."""
    films = []
    for source in sources:
        with suppress(FilmError, OSError):
            films.append(pipeline.read(source))
        if len(films) == PREPARED * batch:
            break
    groups = [films[k : k + batch] for k in range(0, len(films), batch)]
    return [pipeline.fill_batch(group, batch, is_single) for group in groups]
