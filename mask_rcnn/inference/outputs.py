"""The files that a run writes of each film, by the names that ``--save`` takes; each kind has a folder of its name.

Shapes
    pixels  uint8 [height, width], grey, bones white
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mask_rcnn.inference.film import FilmResult
from mask_rcnn.results.names import MASKS, OVERLAYS
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.pictures import label_png, picture_png

Output = Callable[[np.ndarray, FilmResult, str], bytes]  # from pixels, result and laterality to a file's content


def _mask(pixels: np.ndarray, found: FilmResult, laterality: str) -> bytes:
    return label_png(found.labels, laterality)


def _overlay(pixels: np.ndarray, found: FilmResult, laterality: str) -> bytes:
    return picture_png(overlay(pixels, found.labels, found.lungs, laterality))


# Made of a film's pixels and record alone: what a run did not save, a later one adds without a network.
OUTPUTS: Mapping[str, Output] = {MASKS: _mask, OVERLAYS: _overlay}
