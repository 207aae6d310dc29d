"""Which of a COCO dataset's categories are the lungs, by their names, however another tool spells them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG


def lung_numbers(path: Path, categories: Sequence[Mapping[str, Any]]) -> dict[Any, int]:
    """For the id of each category the lung's number here, 0 where it is none.

    Raises:
        DatasetError: the names do not name a left and a right lung, or one id has two names.
    """
    named = {record["id"]: str(record["name"]) for record in categories}
    numbers = {key: _lung_of(name) for key, name in named.items()}
    if not all(numbers.values()) and not {LEFT_LUNG, RIGHT_LUNG} <= set(numbers.values()):
        alone = {"left": LEFT_LUNG, "right": RIGHT_LUNG}
        numbers = {key: number or alone.get(named[key].strip().lower(), 0) for key, number in numbers.items()}
    ids = Counter(record["id"] for record in categories)
    twice = [key for key in ids if len({str(record["name"]) for record in categories if record["id"] == key}) > 1]
    if twice or not {LEFT_LUNG, RIGHT_LUNG} <= set(numbers.values()):
        listed = ", ".join(f"{record['id']} {record['name']}" for record in categories) or "none"
        raise DatasetError(
            f"{path}: its categories are {listed}; it takes one for each lung, named {' and '.join(CATEGORIES.values())}"
        )
    return numbers


def _lung_of(name: str) -> int:
    """The lung that a category clearly names, else 0: ``Left Lung``, ``lung_L``, ``rightLung``; no ``left node``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.sub(r"[^a-z]+", " ", re.sub(r"(?i)(left|right)(?=lung)|(lung)(?=left|right)", r"\1\2 ", words).lower())
    parts = set(words.split()) - {"the", "field", "fields", "mask", "region", "area", "patient", "s"}
    sides = {"left": LEFT_LUNG, "l": LEFT_LUNG, "right": RIGHT_LUNG, "r": RIGHT_LUNG}
    side = parts - {"lung", "lungs"}
    return sides.get(next(iter(side)), 0) if len(side) == 1 and len(parts) == 2 else 0
