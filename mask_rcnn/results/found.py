"""The films of a finished run with their lungs, of ``create_dataset.py`` as of ``inference.py``, for those who correct them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mask_rcnn.checks.quality import ACCEPTED, REVIEW
from mask_rcnn.dataset.annotators import FoundFilm
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.corrections import (
    CORRECTIONS,
    Correction,
    is_wanted,
    match_corrections,
    read_corrections,
    rejects_lungs,
)
from mask_rcnn.dataset.decisions import DECISIONS, read_decisions
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.results.names import DATASET, JOURNAL, RUN
from mask_rcnn.system.files import journal_contents


class FoundFilms(NamedTuple):
    """The films of a run."""

    films: list[FoundFilm]  # with the lungs that they have so far, those that a person corrected among them
    to_correct: list[FoundFilm]  # for review, or whose lungs a person marked as wrong; not corrected since
    corrections: dict[int, Correction]  # by image id
    laterality: str


def read_found(folder: Path) -> FoundFilms:
    """The films of the folder that a run wrote, with what a person has done to them there.

    Raises:
        DatasetError: the folder is of no run, or a file in it cannot be read.
    """
    if (folder / DATASET).is_file():
        films, statuses, laterality = _of_dataset(folder)
    elif (folder / RUN).is_file() and (folder / JOURNAL).is_file():
        films, statuses, laterality = _of_inference(folder)
    else:
        raise DatasetError(f"{folder}: holds neither {DATASET} nor {RUN}; give the --out of create_dataset.py or inference.py")
    keys = [(film.image_id, film.file) for film in films]
    decided = match_films(read_decisions(folder / DECISIONS), keys, DECISIONS)
    corrected = match_corrections(read_corrections(folder / CORRECTIONS, laterality), keys, [film.size for film in films])
    to_correct = []
    for place, film in enumerate(films):
        decision, correction = decided.get(place), corrected.get(place)
        if correction:
            films[place] = film = replace(film, lungs=correction.lungs_at(film.size))
        is_wrong = rejects_lungs(decision) if decision else statuses[place] == REVIEW
        if is_wrong and not (correction and is_wanted(False, decision, correction)):
            to_correct.append(film)
    by_id = {films[place].image_id: correction for place, correction in corrected.items()}
    return FoundFilms(films, to_correct, by_id, laterality)


def _of_dataset(folder: Path) -> tuple[list[FoundFilm], list[str], str]:
    path = folder / DATASET
    dataset = read_dataset(path)
    lungs: dict[int, dict[int, dict[str, Any]]] = {image["id"]: {} for image in dataset["images"]}
    try:
        for record in dataset["annotations"]:
            lungs[record["image_id"]][record["category_id"]] = record["segmentation"]
        films = [
            FoundFilm(image["id"], image.get("original_name", image["file_name"]),
                      folder / dataset["info"]["roots"][image["root"]] / image["file_name"],
                      (image["height"], image["width"]), image["inverted"], lungs[image["id"]])
            for image in dataset["images"]
        ]  # fmt: skip
        return films, [image["quality"] for image in dataset["images"]], dataset["info"]["laterality"]
    except (KeyError, IndexError, TypeError) as error:
        raise DatasetError(f"{path}: is not of create_dataset.py; masks of other tools are corrected in those") from error


def _of_inference(folder: Path) -> tuple[list[FoundFilm], list[str], str]:
    path = folder / RUN
    try:
        run = json.loads(path.read_bytes())
        with closing(journal_contents(folder / JOURNAL)) as contents:
            paths, lungs = _of_journal(folder, (line for *_, line in contents))
        films = [
            FoundFilm(image["id"], image["file_name"], paths[image["id"]], (image["height"], image["width"]),
                      image["inverted"], lungs[image["id"]])
            for image in run["images"]
        ]  # fmt: skip
        statuses = [REVIEW if image["review"] else ACCEPTED for image in run["images"]]
        return films, statuses, run["laterality"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: is not of a run of inference.py ({error}); run it again") from error


def _of_journal(
    folder: Path, lines: Iterable[Mapping[str, Any]]
) -> tuple[dict[int, Path], dict[int, dict[int, dict[str, Any]]]]:
    """By image id each film's path, and its lungs in run lengths by category id."""
    roots: dict[str, Path] = {}
    keys: dict[int, str] = {}
    lungs = {}
    for line in lines:
        if "root" in line:
            near = folder / line["relative"]
            roots[line["root"]] = near if line["relative"] and near.is_dir() else Path(line["path"])
        elif "film" in line:
            keys[line["id"]] = line["film"]
            lungs[line["id"]] = {int(category): lung["segmentation"] for category, lung in line["lungs"].items()}
    paths = {}
    for image_id, key in keys.items():
        label, _, below = key.partition("//")
        paths[image_id] = roots[label] / below
    return paths, lungs
