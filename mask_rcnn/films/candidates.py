"""Which pairs of films may be copies: by a few hundred bits of each, of which few differ.

A few films are all compared with each other. That grows with their square, and no index by bands of bits reads fewer pairs:
the bits of chest films are far from random, so that bands of 16 bits would read 12 % of all pairs for what is alike in the
films, and 92 % for the lungs, whose 128 bits may differ in 43 (980 real films). Besides, one pair in 2,200 is a candidate,
nearly all of them two patients. So of many films each is compared with its nearest alone, by the same frequencies as real
numbers, each divided by its deviation over the films, which takes away what all chest films share; their bits have to be
alike too. What is known is kept (``known_groups``), so that new films alone are compared.

Shapes
    thumbnails  float32 [films, side, side], grey levels 0 to 1
    regions     float32 [films, 4], (y1, x1, y2, x2) of the lungs' middle, 0 to 1 over the film
    mappings    float32 [films, 4], as ``alignment`` takes them
    bits        uint64 [3, 2, films]: of the film, of the film without margins, of the lungs
    views       float32 [3, films, FREQUENCIES]: the lowest frequencies of the same
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dctn

from mask_rcnn.films.alignment import MAX_SCALE, sample
from mask_rcnn.films.neighbours import Cells

BITS = 128  # of a film, of its inner part and of its lungs, the lowest frequencies; no more than two words hold

# How many bits of a candidate differ: of the films' 128, or of one film's and those of the other without its margins; or of
# the lungs' 128 together with half of the films'.
MAX_FILM_BITS = 18
MAX_LUNG_BITS = 43

# The margin that is left out, of the film's height and width: bits hardly change where a copy lacks 3 or 5 % of a side.
MARGIN = 0.04

# How a candidate's films lie to each other, as ``alignment`` takes it, by what is alike: both films; the second and the
# first without its margins; the first and the second without its margins. Where the lungs are alike, these give the mapping.
STARTS = np.array([
    (1, 0, 1, 0),
    (1 / (1 - 2 * MARGIN), -MARGIN / (1 - 2 * MARGIN)) * 2,
    (1 - 2 * MARGIN, MARGIN) * 2,
], np.float32)  # fmt: skip
LUNGS_ALIKE = len(STARTS)

FREQUENCIES = 32
NEAREST = 8  # films, of each view of a film
WHOLE, INNER, LUNGS = range(3)
COMPARED = ((WHOLE, WHOLE), (INNER, WHOLE), (WHOLE, INNER), (LUNGS, LUNGS))  # a film's view, and the others' view

BLOCK_ROWS, BLOCK_COLUMNS = 16, 4096  # what fits in a processor's cache


def between(regions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mappings that lay regions over others."""
    scales = np.clip((others[:, 2:] - others[:, :2]) / (regions[:, 2:] - regions[:, :2]), 1 / MAX_SCALE, MAX_SCALE)
    return np.stack([scales, others[:, :2] - scales * regions[:, :2]], axis=2).reshape(-1, 4)


def bits_of(thumbnails: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The bits of films, from their thumbnails and where their lungs lie."""
    signs = np.packbits(_frequencies(thumbnails, regions, BITS) > 0, axis=2)
    return np.ascontiguousarray(signs).view(np.uint64).transpose(0, 2, 1)


def views_of(thumbnails: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The views of films, from their thumbnails and where their lungs lie."""
    return _frequencies(thumbnails, regions, FREQUENCIES)


def _frequencies(thumbnails: np.ndarray, regions: np.ndarray, lowest: int) -> np.ndarray:
    """The lowest frequencies but the mean of film, film without margins and lungs, float32 [3, films, lowest]."""
    count, side, _ = thumbnails.shape
    _, y, x = np.array(sorted((y * y + x * x, y, x) for y in range(side) for x in range(side))[1 : lowest + 1]).T
    whole, inner = (
        np.tile(np.array((edge, edge, 1 - edge, 1 - edge), np.float32), (count, 1)) for edge in (0, MARGIN)
    )
    parts = (sample(thumbnails, between(whole, part))[0] for part in (whole, inner, regions))
    return np.stack([dctn(part, axes=(1, 2))[:, y, x] for part in parts])


def candidates(bits: np.ndarray, rows: range) -> np.ndarray:
    """Pairs of films of ``rows`` with films behind them whose bits are alike, int [pairs, 2], the smaller place first."""
    found = [np.zeros((0, 2), np.intp)]
    for start in range(rows.start, rows.stop, BLOCK_ROWS):
        of_rows = bits[:, :, start : min(start + BLOCK_ROWS, rows.stop)]
        for first in range(start, bits.shape[2], BLOCK_COLUMNS):
            of_columns = bits[:, :, first : first + BLOCK_COLUMNS]
            conditions = _alike(of_rows[..., None], of_columns[:, :, None])
            pairs = np.argwhere(conditions[0] | conditions[1] | conditions[2] | conditions[3]) + (start, first)
            found.append(pairs[pairs[:, 1] > pairs[:, 0]])
    return np.concatenate(found)


def near_candidates(bits: np.ndarray, views: np.ndarray, new: int) -> np.ndarray:
    """Pairs of the first ``new`` films with others that are among their nearest and whose bits are alike.

    Args:
        bits: of all films.
        views: of all films; the order of the films decides, very little, which ones are found.
        new: how many are searched for.

    Returns:
        int [pairs, 2], the smaller place first, each pair once, sorted.
    """
    count = views.shape[1]
    found = [np.zeros(0, np.int64)]
    scales = 1 / np.maximum(views.std(axis=1, dtype=np.float64), 1e-9).astype(np.float32)
    for view, other_view in COMPARED:
        scale = scales[LUNGS if view == LUNGS else WHOLE]
        one, other = Cells(views[other_view] * scale).nearest(views[view, :new] * scale, NEAREST)
        alike = np.logical_or.reduce(_alike(bits[:, :, one], bits[:, :, other])) & (one != other)
        one, other = one[alike].astype(np.int64), other[alike].astype(np.int64)
        found.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def first_mappings(bits: np.ndarray, others: np.ndarray, regions: np.ndarray, other_regions: np.ndarray) -> np.ndarray:
    """How the films of candidate pairs lie to each other as far as bits and lungs tell: the mappings to start from."""
    starts = between(regions, other_regions)
    kinds = np.select(_alike(bits, others)[:LUNGS_ALIKE], range(LUNGS_ALIKE), LUNGS_ALIKE)
    starts[kinds < LUNGS_ALIKE] = STARTS[kinds[kinds < LUNGS_ALIKE]]
    return starts


def _alike(bits: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
    """What is alike, one bool array for each kind, between bits [3, 2, ...] and others [3, 2, ...] of shapes that fit."""
    films_differing = _differing(bits[0], others[0])
    return [
        films_differing <= MAX_FILM_BITS,
        _differing(bits[1], others[0]) <= MAX_FILM_BITS,
        _differing(bits[0], others[1]) <= MAX_FILM_BITS,
        _differing(bits[2], others[2]) + films_differing // 2 <= MAX_LUNG_BITS,
    ]


def _differing(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many bits differ, uint8 [...], between uint64 [2, ...] and [2, ...]."""
    counts = np.bitwise_count(words[0] ^ others[0])
    counts += np.bitwise_count(words[1] ^ others[1])
    return np.asarray(counts)
