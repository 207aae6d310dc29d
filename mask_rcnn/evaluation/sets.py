"""Measuring networks on a set of annotated films.

Shapes
    film       uint8 [height, width], grey, bones white
    annotated  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mask_rcnn.bag.lung import Lung
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import HeldOut
from mask_rcnn.dataset.records import AnnotatedFilm, FilmRecord, read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation.film import coco_result, dice_moved, error_map, is_right, measure_film
from mask_rcnn.evaluation.lateral import measure_thirds
from mask_rcnn.evaluation.predictors import Find, unique_names
from mask_rcnn.evaluation.summary import average_precision, calibration, drawn_offset, summarise
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.system.progress import progress, warn

BATCH, BATCH_PIXELS = 8, 16_000_000  # films, and pixels of them, that are in memory at once
ERRORS = ("missed", "excess")  # in the order of ``error_map``
WORST = 10  # films that are kept to be shown


@dataclass
class Evidence:
    """What is kept of one network: numbers and run lengths, no pixels."""

    rows: list[dict[str, Any]] = field(default_factory=list)  # of the CSV, one a film
    results: list[dict[str, Any]] = field(default_factory=list)  # COCO's, one a detection
    right: list[bool] = field(default_factory=list)  # of each detection
    errors: dict[int, list[np.ndarray]] = field(default_factory=lambda: {category: [] for category in CATEGORIES})
    moved: list[tuple[np.ndarray, float]] = field(default_factory=list)  # of each annotated lung, by ``dice_moved``


@dataclass
class Evaluation:
    """What is kept of all films."""

    images: list[dict[str, Any]] = field(default_factory=list)  # COCO's
    annotations: list[dict[str, Any]] = field(default_factory=list)  # COCO's, the annotated lungs
    networks: dict[str, Evidence] = field(default_factory=dict)
    worst: list[tuple[float, int, FilmRecord, dict[int, Lung]]] = field(default_factory=list)  # Dice, number, film, found


def measured_records(source: Path, held_out: HeldOut | None) -> list[FilmRecord]:
    """The films of a source: those of them that are held out, where any is.

    Raises:
        DatasetError: as ``read_records``.
    """
    records = read_records(source, "patient")
    if held_out is None:
        return records
    held = set(held_out.to_report([record.path for record in records]))
    return [record for record in records if record.path in held] or records


def read_batches(
    records: Sequence[FilmRecord], spacing: float | None
) -> Iterator[list[tuple[int, AnnotatedFilm]]]:
    """The films with their numbers, as many at a time as memory should hold; one that cannot be read is named and left out.

    ``spacing`` is that of the annotated masks' pixels in mm where neither the film nor the dataset holds one.
    """
    batch: list[tuple[int, AnnotatedFilm]] = []
    for number, record in enumerate(progress(records, name="evaluation", total=len(records))):
        try:
            annotated_film = read_annotated(record)
        except (FilmError, DatasetError) as error:
            warn(f"skipped {error}")
            continue
        if spacing and annotated_film.spacing is None:
            annotated_film = annotated_film._replace(spacing=(spacing, spacing))
        batch.append((number, annotated_film))
        if len(batch) == BATCH or sum(film.size for _, (film, _, _) in batch) >= BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def fit(lung: Lung, shape: tuple[int, int]) -> Lung:
    """A lung brought to the size of the annotations."""
    if lung.mask.shape == shape:
        return lung
    mask = resize_labels(lung.mask.astype(np.uint8), *shape) > 0
    down, across = np.divide(shape, lung.mask.shape).tolist()
    y1, x1, y2, x2 = lung.box
    return lung._replace(mask=mask, box=(y1 * down, x1 * across, y2 * down, x2 * across))


def evaluate(find: Find, judged: str, records: Sequence[FilmRecord], spacing: float | None = None) -> Evaluation:
    """Measures every network on every film; of the one that is ``judged`` the worst films are kept."""
    names = unique_names([record.path for record in records])
    kept = Evaluation()
    for batch in read_batches(records, spacing):
        for number, (_, annotated, _) in batch:
            kept.images.append({"id": number, "height": annotated.shape[0], "width": annotated.shape[1]})
            for category in CATEGORIES:
                if (annotated == category).any():
                    lung_id = len(kept.annotations) + 1
                    kept.annotations.append(annotation(lung_id, number, category, annotated == category))
        for network, findings in find([film for _, (film, _, _) in batch]).items():
            evidence = kept.networks.setdefault(network, Evidence())
            for (number, (_, annotated, mm)), finding in zip(batch, findings, strict=True):
                lungs = {category: fit(lung, annotated.shape) for category, lung in finding.lungs.items()}
                row = measure_film(lungs, annotated, mm) | measure_thirds(lungs, annotated)
                evidence.rows.append({"network": network, "film": names[number], **row})
                for category, maps in evidence.errors.items():
                    if (annotated == category).any():
                        mask = lungs[category].mask if category in lungs else np.zeros(annotated.shape, bool)
                        maps.append(error_map(mask, annotated == category, category))
                        evidence.moved.append(dice_moved(mask, annotated == category))
                for category, lung in finding.detections:
                    lung = fit(lung, annotated.shape)
                    evidence.results.append(coco_result(number, category, lung))
                    evidence.right.append(is_right(category, lung.mask, annotated))
                dices = [row[f"dice_{side}"] for side in SIDES.values()]
                if network == judged and not np.isnan(dices).all():
                    kept.worst.append((float(np.nanmin(dices)), number, records[number], lungs))
            kept.worst = sorted(kept.worst, key=lambda film: film[:2])[:WORST]
    return kept


def summaries_of(kept: Evaluation) -> dict[str, dict[str, Any]]:
    """For each network its ``summarise``, average precision, calibration, error maps and the annotations' offset."""
    return {
        network: summarise(evidence.rows)
        | {"average_precision": average_precision(kept.images, kept.annotations, evidence.results)}
        | {"calibration": calibration([found["score"] for found in evidence.results], evidence.right)}
        | {"error_map": {SIDES[category]: dict(zip(ERRORS, np.mean(maps, axis=0).tolist(), strict=True))
                         for category, maps in evidence.errors.items() if maps}}
        | {"drawn_offset": drawn_offset(evidence.moved)}
        for network, evidence in kept.networks.items()
    }
