"""COCO's segmentations, checked before pycocotools sees them: it trusts what it is given, with all the memory there is.

Shapes
    polygon  list of float, x, y, x, y, ... in pixels of the film
    runs     int [count], lengths of background, lung, background, ... down the columns (COCO's uncompressed counts)
    size     (height, width) in pixels
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mask_rcnn.films.images import MAX_PIXELS

MAX_OUTSIDE = 0.1  # of the film's side: how far beyond its edge a corner may lie; what is beyond the edge does not count
_FEWEST_OUTSIDE = 8.0  # pixels that are always allowed
_LARGEST = 1e15


def is_number(value: Any) -> bool:
    """Whether a value of a JSON is a number, finite, and small enough to reckon with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_LARGEST < value < _LARGEST


def check_size(size: Any) -> tuple[int, int]:
    """(height, width) as whole numbers.

    Raises:
        ValueError: they are no two sides of a film.
    """
    sides = list(size) if isinstance(size, (list, tuple)) else []
    if len(sides) != 2 or not all(is_number(side) and side == int(side) for side in sides):
        raise ValueError(f"the film's height and width are {_short(size)}")
    height, width = (int(side) for side in sides)
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(f"a film of {width} x {height} pixels")
    return height, width


def polygons_of(segmentation: Any) -> list[list[float]]:
    """The polygons of a segmentation, each ``[x, y, x, y, ...]``, whether it nests them, their corners, or neither.

    Parts of one or two corners beside whole polygons, slips of the mouse, are left out.

    Raises:
        ValueError: it is no list of polygons, or a coordinate is no finite number.
    """
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("it has no outline, a box at most")
    if not isinstance(segmentation[0], list):
        segmentation = [segmentation]  # a polygon by itself
    elif all(isinstance(part, list) and len(part) == 2 and not isinstance(part[0], list) for part in segmentation):
        segmentation = [segmentation]  # the corners of one
    polygons = []
    for part in segmentation:
        if not isinstance(part, list):
            raise ValueError(f"{_short(part)} among its polygons")
        if any(isinstance(corner, list) for corner in part):
            if not all(isinstance(corner, list) and len(corner) == 2 for corner in part):
                raise ValueError("a corner is no pair of coordinates")
            part = [value for corner in part for value in corner]
        if wrong := [value for value in part if not is_number(value)]:
            raise ValueError(f"a coordinate is no number but {_short(wrong[0])}")
        if len(part) % 2:
            raise ValueError(f"a polygon has {len(part)} coordinates, which are no pairs")
        polygons.append([float(value) for value in part])
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    if not whole:
        raise ValueError("a polygon has three corners or more")
    return whole


def check_inside(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> None:
    """Raises a ValueError where a corner lies far outside the film; a little outside, annotators often go."""
    for polygon in polygons:
        for values, side in (polygon[0::2], size[1]), (polygon[1::2], size[0]):
            margin = max(MAX_OUTSIDE * side, _FEWEST_OUTSIDE)
            if min(values) < -margin or max(values) > side + margin:
                far = min(values) if min(values) < -margin else max(values)
                raise ValueError(f"a corner lies at {far:g}, far outside the film of {size[1]} x {size[0]} pixels")


def check_runs(counts: Any, size: tuple[int, int]) -> np.ndarray:
    """The run lengths of either encoding, int64, which cover the film exactly once.

    Args:
        counts: a list of run lengths, or COCO's compressed text.
        size: of the film.

    Raises:
        ValueError: they do not.
    """
    if isinstance(counts, str):
        runs = _decompress(counts)
    elif isinstance(counts, list):
        if wrong := [value for value in counts if not is_number(value) or value != int(value)]:
            raise ValueError(f"a run length is {_short(wrong[0])}")
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("no run lengths")
    if not len(runs) or runs.min() < 0:
        raise ValueError("a run length is negative" if len(runs) else "no run lengths")
    if (covered := int(runs.sum())) != size[0] * size[1]:
        raise ValueError(f"its run lengths cover {covered} pixels of a film of {size[1]} x {size[0]}")
    return runs


def _decompress(text: str) -> np.ndarray:
    """COCO's compressed counts: five bits a character, the lowest first, 32 for "more follows", the last one's 16 for the
    sign; from the fourth on each is the difference from the last but one."""
    codes = np.frombuffer(text.encode("utf-8", "replace"), np.uint8) - np.uint8(48)  # what is below wraps to above 63
    if len(codes) and codes.max() > 63:
        raise ValueError("its run lengths are torn: a character that they never have")
    ends = np.flatnonzero(codes < 32)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("its run lengths are torn: cut off")
    lengths = np.diff(ends, prepend=-1)
    if lengths.max() > 7:
        raise ValueError("its run lengths are torn: one is longer than any film")
    runs = _deltas(codes, ends, lengths)
    for first in (1, 2):  # the first run is by itself
        runs[first::2].cumsum(out=runs[first::2])
    return runs


def are_whole(texts: Sequence[str], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which of these compressed counts ``check_runs`` takes, bool [texts]: many at once, in a tenth of the time.

    Args:
        texts: COCO's compressed counts.
        sizes: of their films.
    """
    encoded = [text.encode("utf-8", "replace") for text in texts]
    lengths = np.array([len(text) for text in encoded], np.int64)
    codes = np.frombuffer(b"".join(encoded), np.uint8) - np.uint8(48)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    whole, lasts = lengths > 0, np.cumsum(lengths)[lengths > 0] - 1
    whole[text_of[codes > 63]] = False
    whole[text_of[lasts]] &= codes[lasts] < 32
    is_end = codes < 32
    is_end[lasts] = True  # one that is cut off has no part in the next
    ends = np.flatnonzero(is_end)
    text_of, characters = text_of[ends], np.diff(ends, prepend=-1)
    whole[text_of[characters > 7]] = False
    deltas = _deltas(codes, ends, np.minimum(characters, 7))
    counts = np.bincount(text_of, minlength=len(texts))
    # A row for each text, zeros behind its last run.
    runs = np.zeros((len(texts), counts.max(initial=0)), np.int64)
    is_run = np.arange(runs.shape[1]) < counts[:, None]
    runs[is_run] = deltas
    for first in (1, 2):  # the first run is by itself
        runs[:, first::2].cumsum(axis=1, out=runs[:, first::2])
    runs *= is_run
    pixels = np.array([height * width for height, width in sizes], np.int64)
    return np.asarray(whole & (runs >= 0).all(axis=1) & (runs.sum(axis=1) == pixels))


def _deltas(codes: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers of five bits a character, from characters, the places of their last ones and how many they have."""
    starts = ends - lengths + 1
    values = (codes[starts] & 31).astype(np.int64)
    for place in range(1, lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        values[longer] += (codes[starts[longer] + place] & 31).astype(np.int64) << (5 * place)
    return np.asarray(values - ((codes[ends] >> 4 & 1).astype(np.int64) << (5 * lengths)))


# annotation id, image id, category, polygons, and the film's size where the file holds it
Outline = tuple[Any, Any, int, list[list[float]], tuple[int, int] | None]


def find_units(outlines: Iterable[Outline]) -> tuple[Any, str]:
    """Whether a file's polygons are in pixels, or in shares or percent of the film, as other tools count.

    One outline is not enough: a spot in a corner has small coordinates too. All outlines of a file are: in shares none
    reaches beyond 1, and in percent all lie in a corner of every film where no chest is, and spread there as lungs spread
    over a film.

    Returns:
        The id of the first annotation that is not in pixels, and "in shares of the film?" or "in percent of the film?"; or
        None and the empty text.
    """
    first: Any = None
    lowest, highest = math.inf, -math.inf
    spans: dict[Any, tuple[float, float]] = {}
    lungs: dict[Any, set[int]] = defaultdict(set)
    sizes: dict[Any, tuple[int, int] | None] = {}
    for annotation_id, image_id, category, polygons, size in outlines:
        first = annotation_id if first is None else first
        values = [value for polygon in polygons for value in polygon]
        lowest, highest = min(lowest, *values), max(highest, *values)
        low, high = spans.get(image_id, (math.inf, -math.inf))
        spans[image_id] = (min(low, *values), max(high, *values))
        lungs[image_id].add(category)
        sizes[image_id] = size
    if highest < lowest:
        return None, ""
    if lowest >= -0.1 and highest <= 1.1:
        return first, "in shares of the film?"
    judged = [key for key in spans if len(lungs[key]) > 1] or (list(spans) if len(spans) > 2 else [])
    known = [(spans[key][1] - spans[key][0], min(size)) for key in judged if (size := sizes[key])]
    if lowest >= -10 and highest <= 110 and known:
        spread = float(np.median([span for span, _ in known]))
        share = float(np.median([highest / side for _, side in known]))
        if spread >= 40 and share < 0.6:
            return first, "in percent of the film?"
    return None, ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
