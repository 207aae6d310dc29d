"""Which pairs of films may be copies: by a few hundred bits of each, of which few differ.

Every new film is compared with every other, since no index finds the same pairs and reads much fewer. The bits of chest
films are far from random: an index by bands of 16 bits would read 12 % of all pairs for what is alike in the films, and 92 %
for the lungs, whose 128 bits may differ in 43 (980 real films). One pair in 2,200 is a candidate anyway, so that candidates
alone grow with the square. A matrix product of bits takes longer than counting them (13 and 7 nanoseconds a pair). What is
known is kept (``known_groups``), so that new films alone are compared.

Shapes
    thumbnails  float32 [films, side, side], grey levels 0 to 1
    regions     float32 [films, 4], (y1, x1, y2, x2) of the lungs' middle, 0 to 1 over the film
    mappings    float32 [films, 4], as ``alignment`` takes them
    bits        uint64 [3, 2, films]: of the film, of the film without margins, of the lungs
"""

from __future__ import annotations

import numpy as np
from scipy.fft import dctn

from mask_rcnn.films.alignment import MAX_SCALE, sample

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

BLOCK_ROWS, BLOCK_COLUMNS = 16, 4096  # what fits in a processor's cache


def between(regions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mappings that lay regions over others."""
    scales = np.clip((others[:, 2:] - others[:, :2]) / (regions[:, 2:] - regions[:, :2]), 1 / MAX_SCALE, MAX_SCALE)
    return np.stack([scales, others[:, :2] - scales * regions[:, :2]], axis=2).reshape(-1, 4)


def bits_of(thumbnails: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """The bits of films, from their thumbnails and where their lungs lie."""
    count, side, _ = thumbnails.shape
    _, y, x = np.array(sorted((y * y + x * x, y, x) for y in range(side) for x in range(side))[1 : BITS + 1]).T
    whole, inner = (
        np.tile(np.array((edge, edge, 1 - edge, 1 - edge), np.float32), (count, 1)) for edge in (0, MARGIN)
    )
    words = []
    for part in (whole, inner, regions):
        signs = dctn(sample(thumbnails, between(whole, part))[0], axes=(1, 2))[:, y, x] > 0
        words.append(np.ascontiguousarray(np.packbits(signs, axis=1)).view(np.uint64).T)
    return np.stack(words)


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
