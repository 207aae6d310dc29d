"""Finds copies of a film, whether recompressed, resized, cropped, brightened, renamed or in another collection.

A film's fingerprint is a small equalised thumbnail, where the lungs lie in it, and a digest of its pixels. Two films
are compared in two steps.

1. The signs of the 128 lowest frequencies of the thumbnail's cosine transform are 128 bits: the DCT hash of Zauner
   (Implementation and Benchmarking of Perceptual Image Hash Functions, 2010) with twice the bits and zero in place of
   the median. 128 more are those of the lungs' part alone, since a crop does not move the lungs relative to
   themselves, and 128 those of the film without its margins, as an evenly cropped copy has them. Few different bits
   make a candidate.
2. All chest films are alike: of 100,000 films a million pairs are candidates, nearly all of them two patients. So a
   candidate's thumbnails are laid over each other, and must agree almost wholly where they overlap.

``scripts/measure_duplicates.py`` measures precision and recall.

Shapes
    thumbnails  float32 [films, 32, 32], 64 grey levels, spread evenly over 0 to 1
    regions     float32 [films, 4], (y1, x1, y2, x2) of the lungs' middle, 0 to 1 over the film
    kinds       int [pairs], what is alike: a row of STARTS, or LUNGS_ALIKE
    bits        uint64 [3, 2, films]: of the film, of the film without margins, of the lungs
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from scipy.fft import dctn
from scipy.stats import rankdata

from mask_rcnn.films.alignment import MAX_SCALE, agreements, sample
from mask_rcnn.films.groups import Groups
from mask_rcnn.system.progress import progress

SIDE, LEVELS = 32, 64
LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)  # one a level
DIGEST, REGION = 16, 8  # hexadecimal digits of a fingerprint; then a letter a pixel

# The lungs' middle lies between these shares of their area, by row and by column. From one copy to the next the U-Net
# moves the tip of a lung by up to a tenth of its height, and these lines hardly at all.
MIDDLE_SHARES = (0.1, 0.9)
MIN_MIDDLE = 0.05  # of the film's height and width; what is smaller is no landmark

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

# Of half a million pairs of different films (kaggle and shenzhen in ../shared/data) the closest agree by 0.9941; of copies,
# cropped and all, 99 of 100 by 0.9969.
MIN_AGREEMENT = 0.9965

# Standard deviation of the grey levels: 0.29 where they are spread evenly. A black film with a letter on it has less, and
# all such films are alike.
MIN_DEVIATION = 0.2

BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_PAIRS = 64, 4096, 256  # what fits in a processor's cache


def fingerprint(film: np.ndarray, lungs: np.ndarray | None) -> str:
    """What copies of a film share, as 1048 ASCII characters.

    Args:
        film: uint8 [height, width], bones white.
        lungs: bool [any height, any width], both lungs in one mask, which is stretched over the film; None where none
            was found.
    """
    digest = hashlib.blake2b(f"{film.shape}".encode() + film.tobytes(), digest_size=DIGEST // 2).hexdigest()
    region = np.rint(255 * _lungs_middle(lungs)).astype(np.uint8).tobytes().hex()
    # Twice, since one reduction of uint8 would round the few levels of a dark film to fewer.
    small = cv2.resize(film, (4 * SIDE, 4 * SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    ranks = rankdata(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_AREA)) / SIDE**2
    return str(digest + region + LETTERS[np.minimum(ranks * LEVELS, LEVELS - 1).astype(int)].tobytes().decode("ascii"))


def _lungs_middle(lungs: np.ndarray | None) -> np.ndarray:
    """The rows and columns that hold the lungs' middle, (y1, x1, y2, x2); the whole film where there are no lungs."""
    if lungs is not None and lungs.any():
        edges = []
        for axis in (1, 0):
            share = np.concatenate([[0], np.cumsum(lungs.sum(axis)) / lungs.sum()])
            edges.append(np.interp(MIDDLE_SHARES, share, np.linspace(0, 1, len(share))))
        if min(last - first for first, last in edges) >= MIN_MIDDLE:
            return np.array(edges).T.ravel()
    return np.array([0.0, 0.0, 1.0, 1.0])


def find_groups(fingerprints: Sequence[str]) -> list[int]:
    """For each film the index of the first film of its group; its own where it has no copy.

    Copies of copies are one group. Films of the same pixels always are; films of next to one grey level only then. Which
    films make a group does not depend on their order. Memory grows with the films, 4 KB each; time with their square.

    Args:
        fingerprints: as ``fingerprint`` makes them.

    Raises:
        ValueError: a fingerprint is of another length.
    """
    groups = Groups(len(fingerprints))
    first_of: dict[str, int] = {}
    distinct = []
    for index, text in enumerate(fingerprints):
        groups.join(index, first_of.setdefault(text[:DIGEST], index))
        if groups.first(index) == index and _thumbnails([text]).std() >= MIN_DEVIATION:
            distinct.append(index)
    texts = sorted((fingerprints[index], index) for index in distinct)  # so that every pair is compared the same way round
    films = [index for _, index in texts]
    for pairs in _copies([text for text, _ in texts], groups, films):
        for one, other in pairs:
            groups.join(films[one], films[other])
    return groups.firsts()


def _thumbnails(fingerprints: Sequence[str]) -> np.ndarray:
    level_of = np.zeros(128, np.uint8)
    level_of[LETTERS] = np.arange(LEVELS)
    letters = "".join(text[DIGEST + REGION :] for text in fingerprints).encode("ascii")
    levels = level_of[np.frombuffer(letters, np.uint8)].reshape(len(fingerprints), SIDE, SIDE)
    return (levels + np.float32(0.5)) / LEVELS


def _regions(fingerprints: Sequence[str]) -> np.ndarray:
    digits = "".join(text[DIGEST : DIGEST + REGION] for text in fingerprints)
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 4).astype(np.float32) / 255


def _copies(texts: Sequence[str], groups: Groups, films: Sequence[int]) -> Iterator[np.ndarray]:
    """Pairs of copies among different fingerprints, int [pairs, 2] positions, some at a time.

    ``groups`` of ``films`` may change in between: pairs that are in one group already are passed over.
    """
    if not texts:
        return
    regions = _regions(texts)
    blocks = [slice(k, k + BLOCK_COLUMNS) for k in range(0, len(texts), BLOCK_COLUMNS)]
    bits = np.concatenate([_bits(texts[block], regions[block]) for block in blocks], axis=2)
    for candidates, all_kinds in _candidates(bits):
        for k in range(0, len(candidates), BLOCK_PAIRS):
            pairs, kinds = candidates[k : k + BLOCK_PAIRS], all_kinds[k : k + BLOCK_PAIRS]
            new = np.array([groups.first(films[one]) != groups.first(films[other]) for one, other in pairs], bool)
            if new.any():
                pairs, kinds = pairs[new], kinds[new]
                starts = _between(regions[pairs[:, 0]], regions[pairs[:, 1]])
                starts[kinds != LUNGS_ALIKE] = STARTS[kinds[kinds != LUNGS_ALIKE]]
                first, second = (_thumbnails([texts[index] for index in side]) for side in pairs.T)
                yield pairs[agreements(first, second, starts) >= MIN_AGREEMENT]


def _between(regions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The mappings that lay regions over others, as ``alignment`` takes them."""
    scales = np.clip((others[:, 2:] - others[:, :2]) / (regions[:, 2:] - regions[:, :2]), 1 / MAX_SCALE, MAX_SCALE)
    return np.stack([scales, others[:, :2] - scales * regions[:, :2]], axis=2).reshape(-1, 4)


def _bits(texts: Sequence[str], regions: np.ndarray) -> np.ndarray:
    """uint64 [3, 2, films]."""
    thumbnails = _thumbnails(texts)
    _, y, x = np.array(sorted((y * y + x * x, y, x) for y in range(SIDE) for x in range(SIDE))[1:129]).T
    whole, inner = (
        np.tile(np.array((edge, edge, 1 - edge, 1 - edge), np.float32), (len(texts), 1)) for edge in (0, MARGIN)
    )
    words = []
    for part in (whole, inner, regions):
        signs = dctn(sample(thumbnails, _between(whole, part))[0], axes=(1, 2))[:, y, x] > 0
        words.append(np.ascontiguousarray(np.packbits(signs, axis=1)).view(np.uint64).T)
    return np.stack(words)


def _candidates(bits: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs whose bits are alike, int [pairs, 2], the smaller index first, and their kinds."""
    whole, inner, lungs = (np.ascontiguousarray(words) for words in bits)
    count = bits.shape[2]
    with progress(name="comparing", total=count) as bar:
        for start in range(0, count, BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            pairs, kinds = [], []
            for first_column in range(start, count, BLOCK_COLUMNS):
                columns = slice(first_column, first_column + BLOCK_COLUMNS)
                films_differing = _differing(whole[:, rows], whole[:, columns])
                conditions = (
                    films_differing <= MAX_FILM_BITS,
                    _differing(inner[:, rows], whole[:, columns]) <= MAX_FILM_BITS,
                    _differing(whole[:, rows], inner[:, columns]) <= MAX_FILM_BITS,
                    _differing(lungs[:, rows], lungs[:, columns]) + films_differing // 2 <= MAX_LUNG_BITS,
                )
                one, other = np.nonzero(np.logical_or.reduce(conditions))
                pairs.append(np.stack([one + start, other + first_column], axis=1))
                kinds.append(np.select([condition[one, other] for condition in conditions], range(4)))
            found, found_kinds = np.concatenate(pairs), np.concatenate(kinds)
            later = found[:, 1] > found[:, 0]
            yield found[later], found_kinds[later]
            bar.update(min(BLOCK_ROWS, count - start))


def _differing(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many bits differ, uint8 [films, others], between uint64 [2, films] and [2, others]."""
    counts = np.bitwise_count(words[0, :, None] ^ others[0])
    counts += np.bitwise_count(words[1, :, None] ^ others[1])
    return np.asarray(counts)
