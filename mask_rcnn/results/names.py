"""The names of what inference writes into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from mask_rcnn.films.names import film_stem
from mask_rcnn.lungs import CATEGORIES

PROBABILITIES, DICOM_SEG, DICOM_SR = "probabilities", "dicom-seg", "dicom-sr"
DATASET = "dataset.json"  # of create_dataset.py
JOURNAL, COCO_RESULTS, MEASUREMENTS, RUN = "films.jsonl", "results.json", "measurements.csv", "run.json"
OVERLAYS, MASKS = "overlays", "masks"
PAGE, PAGE_FILES = "report.html", "report_files"  # the page, and what it shows


def result_names(films: Sequence[str]) -> list[str]:
    """The path of each film's pictures below ``masks/`` and ``overlays/``: ``a/b.jpeg`` gives ``a/b.png``.

    Of films that would share one, as ``a/b.jpeg`` and ``a/b.png``, the second keeps its full name: ``a/b.png.png``.

    Args:
        films: paths relative to the source, with forward slashes.
    """
    # Names that differ by case alone are one file on Windows and macOS.
    taken = {str(folder).casefold() for film in films for folder in PurePosixPath(film).parents}
    names = []
    for film in films:
        name = f"{film_stem(film)}.png"
        while name.casefold() in taken:
            film = name = f"{film}.png"
        taken.add(name.casefold())
        names.append(name)
    return names


def file_names(kind: str, result: str) -> tuple[str, ...]:
    """The files of a kind of a film, relative to the run's folder; one a lung of probabilities, in the order of the ids.

    Args:
        kind: a name that ``--save`` takes.
        result: of the film, as ``result_names`` gives it.
    """
    if kind == PROBABILITIES:
        return tuple(f"{kind}/{lung}/{result}" for lung in CATEGORIES.values())
    if kind in (DICOM_SEG, DICOM_SR):
        return (f"{kind}/{result.removesuffix('.png')}.dcm",)
    return (f"{kind}/{result}",)
