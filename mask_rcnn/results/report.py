"""The page of a run of ``inference.py``, made of its journal's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mask_rcnn.checks.quality import ACCEPTED, REVIEW
from mask_rcnn.dataset.decisions import DECISIONS, read_decisions
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG, SIDES
from mask_rcnn.results.page.films import PageFilm
from mask_rcnn.results.page.write import Details, Page, write_page
from mask_rcnn.results.tables import OF_A_LUNG, measurements

Record = Mapping[str, Any]

# Columns of measurements.csv that the page shows elsewhere.
_ELSEWHERE = frozenset({"file", "review", "reasons", "lungs_found", "agreement", "risk", "result"})


def page_film(record: Record, name: str, path: Path, reasons: Sequence[str]) -> PageFilm:
    """A film as the page has it.

    Args:
        record: as ``result_record`` makes it, with its id.
        name: in the tables.
        path: of its file.
        reasons: for review.
    """
    areas = {int(category): lung["area"] for category, lung in record["lungs"].items()}
    return PageFilm(
        record["id"], name, path, record["digest"], REVIEW if reasons else ACCEPTED, tuple(reasons), record["agreement"],
        sum(areas.values()) / (record["height"] * record["width"]),
        areas[LEFT_LUNG] / areas[RIGHT_LUNG] if len(areas) == 2 else None,
        record["inverted"], str(PurePosixPath(name).parent).removeprefix("."), risk=record.get("risk"),
    )  # fmt: skip


def write_report(
    out: Path, films: Sequence[PageFilm], record_of: Callable[[PageFilm], Record], provenance: Mapping[str, Any],
    skipped: Mapping[str, str], date: str,
) -> None:  # fmt: skip
    """Writes the page.

    Args:
        out: folder of the run.
        films: all of them.
        record_of: a film's record.
        provenance: as ``run.json`` holds it.
        skipped: files and why.
        date: of the run, ISO 8601.

    Raises:
        DatasetError: the decisions that are there cannot be read.
        OSError: the page cannot be written.
    """
    laterality, members = provenance["laterality"], provenance["bag"]["members"]
    matched = match_films(read_decisions(out / DECISIONS), [(film.image_id, film.file) for film in films], DECISIONS)

    def details(film: PageFilm) -> Details:
        record = record_of(film)
        row = measurements(record, film.image_id, film.file, laterality, members, film.reasons)
        of_a_lung = {f"{side}_{column}" for side in SIDES.values() for column in OF_A_LUNG}
        return Details(
            (record["height"], record["width"]),
            {int(category): lung["segmentation"] for category, lung in record["lungs"].items()},
            record.get("outlines", ()),
            [(name, value) for name, value in row.items() if name not in of_a_lung and name not in _ELSEWHERE],
            {column: {category: row[f"{side}_{column}"] for category, side in SIDES.items() if f"{side}_{column}" in row}
             for column in OF_A_LUNG},
        )  # fmt: skip

    lungs = Counter((film.area or 0) > 0 and (2 if film.ratio is not None else 1) for film in films)
    write_page(out, Page(
        title=f"Lungs found on {len(films):,} chest films" if len(films) != 1 else "Lungs found on a chest film",
        date=date, laterality=laterality, films=films, details_of=details,
        sentences=f"Two lungs on {lungs[2]:,}, one on {lungs[1]:,}, none on {lungs[0]:,}. Decisions are read from "
                  f"{DECISIONS}, by create_dataset.py --decisions too.",
        skipped=[{"file": name, "reason": reason} for name, reason in sorted(skipped.items())], notes=(),
        settings={
            "command": provenance["command"],
            **{f"weights {k}": f"{item['file']}, SHA-256 {item['sha256']}"
               for k, item in enumerate(provenance["weights"], start=1)},
            **{f"bag.{key}": value for key, value in provenance["bag"].items()},
            **{f"quality.{key}": value for key, value in provenance.get("quality", {}).items()},
            "program": provenance["program"], **provenance["versions"],
        },
        decisions={films[place].image_id: decision for place, decision in matched.items()},
    ))  # fmt: skip
