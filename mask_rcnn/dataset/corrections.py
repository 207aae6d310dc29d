"""Lungs that a person corrected: ``corrections.json``, which ``scripts/corrections.py`` writes and datasets obey.

A COCO JSON of the corrected films alone, whose masks replace those of the program. Of each film it has ``id`` and
``file_name`` as in all tables, ``corrected`` (ISO 8601) and ``tool``. The file is no result of a run: none sets it aside or
writes over it, and it outweighs whatever a later run finds.

Shapes
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mask_rcnn.dataset.coco import annotation, new_dataset, read_dataset
from mask_rcnn.dataset.decisions import ACCEPT, Decision
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.dataset.run_lengths import compress, decode_mask, encode_mask
from mask_rcnn.films.square import resize_labels
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import write_json
from mask_rcnn.system.progress import warn

CORRECTIONS = "corrections.json"


@dataclass(frozen=True, slots=True)
class Correction:
    """A person's lungs of one film, which lies upright, as ``corrections.py export`` and the tables have it."""

    image_id: int | None
    file: str  # path below the source, with forward slashes
    size: tuple[int, int]  # height, width
    lungs: Mapping[int, dict[str, Any]]  # COCO's compressed run lengths by category id
    tool: str = ""
    decided: str = ""  # ISO 8601

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether a film of this size, (height, width), has the corrected film's proportions, but for a pixel's rounding."""
        return abs(size[0] * self.size[1] - size[1] * self.size[0]) <= 2 * max(*size, *self.size)

    def lungs_at(self, size: tuple[int, int]) -> Mapping[int, dict[str, Any]]:
        """The lungs on a copy of the film of another size, (height, width), which it fits."""
        if size == self.size:
            return self.lungs
        return encode_labels(resize_labels(decode_lungs(self.lungs, self.size), *size))


def encode_labels(labels: np.ndarray) -> dict[int, dict[str, Any]]:
    """The run lengths of each lung of a label mask, by category id."""
    return {category: encode_mask(labels == category) for category in CATEGORIES if (labels == category).any()}


def decode_lungs(lungs: Mapping[int, dict[str, Any]], size: tuple[int, int]) -> np.ndarray:
    """The label mask, uint8 [height, width], of lungs in run lengths."""
    labels = np.zeros(size, np.uint8)
    for category, lung in sorted(lungs.items()):
        labels[decode_mask(lung)] = category
    return labels


def read_corrections(path: Path, laterality: str) -> list[Correction]:
    """The corrections of a file; none where there is no file.

    Args:
        path: of ``corrections.json``.
        laterality: "patient" or "image": by which the lungs are to be named; a file of the other kind has them renamed.

    Raises:
        DatasetError: it cannot be read, or a film of it not.
    """
    if not path.exists():
        return []
    dataset = read_dataset(path)
    exchanged = dataset.get("info", {}).get("laterality", "patient") != laterality
    lungs: dict[Any, dict[int, dict[str, Any]]] = defaultdict(dict)
    try:
        for record in dataset["annotations"]:
            category = LEFT_LUNG + RIGHT_LUNG - record["category_id"] if exchanged else record["category_id"]
            lungs[record["image_id"]][category] = compress(record["segmentation"], None)
        return [
            Correction(image["id"], image["file_name"], (image["height"], image["width"]), lungs[image["id"]],
                       image.get("tool", ""), image.get("corrected", ""))
            for image in dataset["images"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: no file of corrections ({error}); import the corrected masks again") from error


def match_corrections(
    corrections: Iterable[Correction], films: Sequence[tuple[object, str]], sizes: Sequence[tuple[Any, Any]]
) -> dict[int, Correction]:
    """The correction of each film that has one, by the film's place, as ``match_films`` knows them.

    One that does not fit its film, which is another one since, is named on standard error and left out.

    Args:
        corrections: of films that are there, or not.
        films: image id, or None, and path of each.
        sizes: height and width of each, or None.

    Raises:
        DatasetError: a correction without a known id fits several films.
    """
    matched = match_films(corrections, films, CORRECTIONS)
    for place, item in list(matched.items()):
        height, width = sizes[place]
        if not height or not width or not item.fits((height, width)):
            warn(f"{films[place][1]}: corrected at {item.size[1]} x {item.size[0]} pixels, the film has {width} x {height}; "
                 "the correction is passed over: correct the film again")
            del matched[place]
    return matched


def write_corrections(path: Path, corrections: Iterable[Correction], laterality: str) -> None:
    """Writes the file, by path of the films, whole or not at all.

    Args:
        corrections: of films whose image ids are known.
        laterality: by which their lungs are named.

    Raises:
        OSError: it cannot be written; an older one stays.
    """
    content = new_dataset(laterality, {"description": "Left and right lung as a person corrected them"})
    for item in sorted(corrections, key=lambda item: item.file):
        assert item.image_id is not None
        content["images"].append({
            "id": item.image_id, "file_name": item.file, "height": item.size[0], "width": item.size[1],
            "corrected": item.decided, "tool": item.tool,
        })  # fmt: skip
        content["annotations"] += [
            annotation(2 * item.image_id + category, item.image_id, category, decode_mask(lung))
            for category, lung in sorted(item.lungs.items())
        ]
    write_json(path, content)


def is_wanted(checked: bool, decision: Decision | None, correction: Correction | None) -> bool:
    """Whether a film takes part: as a person decided, else if its lungs were corrected, else as the checks say.

    A correction answers what was marked wrong with the lungs before it; other rejections stand.
    """
    if decision is None:
        return checked or correction is not None
    if decision.decision == ACCEPT or correction is None:
        return decision.decision == ACCEPT
    return rejects_lungs(decision) and decision.decided[:19] <= correction.decided[:19]  # to a second; both are in UTC


def rejects_lungs(decision: Decision) -> bool:
    """Whether a film is rejected for its lungs' outlines alone."""
    return bool(decision.wrong) and set(decision.wrong) <= set(CATEGORIES.values())
