"""A page of the phantoms with their own masks: no network is needed to look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.config import BagConfig, QualityConfig
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import read_labels
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.page.tracing import trace
from mask_rcnn.results.records import result_record, review_reasons
from mask_rcnn.results.report import page_film, write_report
from mask_rcnn.run.engine import read_once
from mask_rcnn.utils import mask_box

PHANTOMS = Path(__file__).parents[1] / "data" / "phantoms"
PROVENANCE: dict[str, Any] = {
    "laterality": "patient", "bag": {"members": 2}, "command": "inference.py --src phantoms", "weights": [],
    "program": "0", "versions": {"python": "3"},
}  # fmt: skip


def phantom_record(path: Path, image_id: int, agreement: float) -> dict[str, Any]:
    """The record of a film whose mask lies beside it; a second member has its lungs five pixels lower."""
    labels = read_labels(PHANTOMS / "masks" / f"{path.stem}.png")
    lungs = {
        category: Lung(labels == category, mask_box(labels == category), 0.99, 2, agreement) for category in CATEGORIES
    }
    one = {str(category): trace(lung.mask) for category, lung in lungs.items()}
    moved = [[value + 5 * (k % 2) for k, value in enumerate(polygon)] for polygon in one["1"]]
    film = read_once(path)
    record = result_record(
        film.radiograph, equalise(film.radiograph.pixels), film.square, film.inverted, lungs,
        label_mask(lungs, labels.shape), 2, "patient", 0.01, [one, {"1": moved, "2": one["2"]}],
    )  # fmt: skip
    return {"id": image_id, "result": f"{path.stem}.png", "version": film.version, "digest": film.digest, **record}


def write_phantom_page(out: Path, paths: list[Path], names: list[str] | None = None) -> list[PageFilm]:
    """Writes the page of these films into a folder, agreement 0.99, 0.98, ...: those below 0.965 are for review."""
    records, films = {}, []
    for k, path in enumerate(paths):
        record = phantom_record(path, 1000 + k, 0.99 - 0.01 * k)
        name = names[k] if names else f"ward/{path.name}"
        film = page_film(record, name, path, review_reasons(record, QualityConfig(), BagConfig(min_agreement=0.965)))
        records[film.image_id] = record
        films.append(film)
    skipped = {"torn.png": "is no image; give a film"}
    write_report(out, films, lambda film: records[film.image_id], PROVENANCE, skipped, "2026-01-02T03:04:05+00:00")
    return films
