"""Two conventions of drawing a lung: with the heart left out, as here, or with what lies behind the heart drawn into it.

Of the second kind the outer edge, apex and base are true, and often truer than others' on ill lungs; the inner edge is not
a lung's. So of each row only the lateral part of a drawn lung is known, and what lies outside it; the rest is unknown.

Shapes
    drawn   bool [height, width], one lung as drawn
    labels  uint8 [height, width], 0 background, 1 left lung, 2 right lung; ``UNKNOWN`` where nobody can tell
    heart   bool [height, width], where a heart may lie
    band    bool [height, width], the columns that count in each row
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mask_rcnn.config import CONFIG_FOLDER
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.lungs import CATEGORIES, RIGHT_LUNG
from mask_rcnn.utils import row_edges

HEART_LEFT_OUT, HEART_DRAWN_IN = "heart left out", "heart drawn in"
CONVENTIONS = (HEART_LEFT_OUT, HEART_DRAWN_IN)
FILE_NAME = "convention.txt"  # in a folder: one line, the convention
TABLE = CONFIG_FOLDER / "conventions.csv"  # of public sets, by the names of their folders

UNKNOWN = 255  # a label

# Of the drawn width in each row. The lateral third is what such drawings are compared by; a little more of it is learnt
# from, since beyond a limit that all films share the network would not know how to go on.
LATERAL_SHARE, LEARNT_SHARE = 0.35, 0.38


def convention_of(source: str | Path) -> str:
    """Which convention the drawings of a source follow.

    A folder's ``convention.txt`` tells, else the table by the folder's name, else the heart is left out; so it is for a
    dataset JSON, too, by the folder that it lies in.

    Raises:
        DatasetError: the file or the table names another convention.
    """
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    path = folder / FILE_NAME
    if path.is_file():
        told, where = path.read_text(encoding="utf-8", errors="replace").strip(), path
    else:
        with TABLE.open(encoding="utf-8", newline="") as file:
            table = {row["set"]: row["convention"] for row in csv.DictReader(file)}
        told, where = table.get(folder.resolve().name, HEART_LEFT_OUT), TABLE
    if told not in CONVENTIONS:
        raise DatasetError(f"{where}: says {told!r}; write {' or '.join(CONVENTIONS)}")
    return told


def lateral_band(drawn: np.ndarray, category: int, share: float = LATERAL_SHARE) -> np.ndarray:
    """What lies on the lateral side of a limit in each row, bool [height, width]; all of it where nothing is drawn.

    The limit lies ``share`` of the drawn width from the drawn lung's lateral edge; above and below the drawn lung that of
    its nearest row holds, of two the upper one's. What is found beyond the lateral edge lies within the band, and counts as
    an excess.

    Args:
        drawn: the patient's lung of this category: the left lung's lateral side lies on the image's right.
        share: of the drawn width. A pixel belongs to the band where its centre does.
    """
    if category == RIGHT_LUNG:
        return _band_to_the_right(drawn[:, ::-1], share)[:, ::-1]
    return _band_to_the_right(drawn, share)


def _band_to_the_right(drawn: np.ndarray, share: float) -> np.ndarray:
    height, width = drawn.shape
    rows, first, end = row_edges(drawn)
    if not len(rows):
        return np.ones(drawn.shape, bool)
    limits = end - share * (end - first)
    every = np.arange(height)
    below = np.clip(np.searchsorted(rows, every), 0, len(rows) - 1)
    above = np.maximum(below - 1, 0)
    nearest = np.where(np.abs(every - rows[above]) <= np.abs(rows[below] - every), above, below)
    result: np.ndarray = np.arange(width) + 0.5 >= limits[nearest][:, None]
    return result


def known_labels(labels: np.ndarray, heart: np.ndarray | None = None, share: float = LEARNT_SHARE) -> np.ndarray:
    """What a drawing with the heart in it tells: the lateral part of each lung, and all that lies outside of both.

    Args:
        labels: 0, 1 and 2, the heart drawn in.
        heart: where a heart may lie: there a drawn lung is unknown, too. Where a large heart meets the chest wall such
            drawings hold heart out to the wall.
        share: of each row's drawn width that is known to be lung.
    """
    known = labels.copy()
    for category in CATEGORIES:
        drawn = labels == category
        known[drawn & ~lateral_band(drawn, category, share)] = UNKNOWN
    if heart is not None:
        known[heart & (labels > 0)] = UNKNOWN
    return known
