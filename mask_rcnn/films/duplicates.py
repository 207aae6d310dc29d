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
    bits        uint64 [3, 2, films], as ``candidates`` has them
    pairs       int [pairs, 2], places of films
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from mask_rcnn.films.alignment import agreements
from mask_rcnn.films.candidates import FREQUENCIES, bits_of, candidates, first_mappings, near_candidates, views_of
from mask_rcnn.films.groups import Groups
from mask_rcnn.films.known_groups import NOTHING, KnownGroups, key_of, read_known, write_known
from mask_rcnn.system.progress import progress

SIDE, LEVELS = 32, 64
LETTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)  # one a level
DIGEST, REGION = 16, 8  # hexadecimal digits of a fingerprint; then a letter a pixel

# The lungs' middle lies between these shares of their area, by row and by column. From one copy to the next the U-Net
# moves the tip of a lung by up to a tenth of its height, and these lines hardly at all.
MIDDLE_SHARES = (0.1, 0.9)
MIN_MIDDLE = 0.05  # of the film's height and width; what is smaller is no landmark

# Of half a million pairs of different films (kaggle and shenzhen in ../shared/data) the closest agree by 0.9941; of copies,
# cropped and all, 99 of 100 by 0.9969.
MIN_AGREEMENT = 0.9965

# Standard deviation of the grey levels: 0.29 where they are spread evenly. A black film with a letter on it has less, and
# all such films are alike.
MIN_DEVIATION = 0.2

BLOCK_BITS, BLOCK_PAIRS = 4096, 128  # films and pairs at a time: what fits in a processor's cache
FILMS_A_TASK = 64  # compared by one thread with all others
PAIRS_A_TASK = 2048  # registered by one thread

# Up to so many pairs, new films times all, are all compared: 20,000 films, or a few new ones. Beyond, each film with its
# nearest alone.
MAX_ALL_PAIRS = 20_000**2


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
    ranks = mean_ranks(cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()) / SIDE**2
    return str(digest + region + LETTERS[np.minimum(ranks * LEVELS, LEVELS - 1).astype(int)].tobytes().decode("ascii"))


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """The ranks of values [n], 1 the smallest, float64 [n]; equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray(((last - counts + 1 + last) / 2)[places])


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


def find_groups(fingerprints: Sequence[str], known: Path | None = None) -> list[int]:
    """For each film the index of the first film of its group; its own where it has no copy.

    Copies of copies are one group. Films of the same pixels always are; films of next to one grey level only then. Which
    films make a group does not depend on their order, and up to ``MAX_ALL_PAIRS`` not on what is known. Beyond, films are
    compared with their nearest alone: a film that was among another's nearest when fewer were known need not be later.
    Memory grows with the films, 2 KB each; time up to ``MAX_ALL_PAIRS`` with all films times the new ones, then with the
    new films times the root of all.

    Args:
        fingerprints: as ``fingerprint`` makes them.
        known: a file that keeps the groups for the next search; it need not be there.

    Raises:
        ValueError: a fingerprint is of another length.
        OSError: the file cannot be read or written.
    """
    groups = Groups(len(fingerprints))
    first_of: dict[str, int] = {}
    for index, text in enumerate(fingerprints):
        groups.join(index, first_of.setdefault(text[:DIGEST], index))
    distinct = list(first_of.values())
    earlier = read_known(known) if known else NOTHING
    place_of = {key: place for place, key in enumerate(earlier.keys)}
    keys = {index: key_of(fingerprints[index]) for index in distinct}
    old = [index for index in distinct if keys[index] in place_of]
    new = _telling(fingerprints, [index for index in distinct if keys[index] not in place_of])
    films, places = [*new, *old], np.array([place_of[keys[index]] for index in old], int)
    texts = [fingerprints[index] for index in films]
    bits = np.concatenate([_bits(texts[: len(new)]), earlier.bits[:, :, places]], axis=2)
    for members, is_whole in _members(earlier.groups, places):
        members = members + len(new)
        if is_whole:
            for member in members:
                groups.join(films[members[0]], films[member])
        else:
            some = [texts[k] for k in members]
            _join_copies(some, bits[:, :, members], len(members), [films[k] for k in members], groups)
    _join_copies(texts, bits, len(new), films, groups)
    if known and (new or len(old) < len(earlier.keys)):
        numbers = np.array([groups.first(index) for index in films], np.int32)
        write_known(known, KnownGroups([keys[index] for index in films], bits, numbers))
    return groups.firsts()


def _telling(fingerprints: Sequence[str], films: Sequence[int]) -> list[int]:
    """Those of the films that have enough grey levels to be compared."""
    telling: list[int] = []
    for k in range(0, len(films), BLOCK_BITS):
        some = np.array(films[k : k + BLOCK_BITS])
        deviations = _thumbnails([fingerprints[index] for index in some]).std(axis=(1, 2))
        telling += some[deviations >= MIN_DEVIATION].tolist()
    return telling


def _members(groups: np.ndarray, places: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """The groups of several films that an earlier search has found.

    Args:
        groups: int [films], the number of each film's group.
        places: int [old], the films that are still there.

    Yields:
        Which of the places are of the group, and whether all its films are there.
    """
    sizes = np.unique_counts(groups)
    size_of = dict(zip(sizes.values.tolist(), sizes.counts.tolist(), strict=True))
    order = np.argsort(groups[places], kind="stable")
    numbers, starts = np.unique(groups[places][order], return_index=True)
    for number, members in zip(numbers.tolist(), np.split(order, starts[1:]), strict=False):
        if len(members) > 1:
            yield members, len(members) == size_of[number]


def _thumbnails(fingerprints: Sequence[str]) -> np.ndarray:
    level_of = np.zeros(128, np.uint8)
    level_of[LETTERS] = np.arange(LEVELS)
    letters = "".join(text[DIGEST + REGION :] for text in fingerprints).encode("ascii")
    levels = level_of[np.frombuffer(letters, np.uint8)].reshape(len(fingerprints), SIDE, SIDE)
    return (levels + np.float32(0.5)) / LEVELS


def _regions(fingerprints: Sequence[str]) -> np.ndarray:
    digits = "".join(text[DIGEST : DIGEST + REGION] for text in fingerprints)
    return np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-1, 4).astype(np.float32) / 255


def _bits(texts: Sequence[str]) -> np.ndarray:
    blocks = [texts[k : k + BLOCK_BITS] for k in range(0, len(texts), BLOCK_BITS)]
    nothing = np.zeros((3, 2, 0), np.uint64)
    return np.concatenate([nothing, *(bits_of(_thumbnails(block), _regions(block)) for block in blocks)], axis=2)


def _near(texts: Sequence[str], bits: np.ndarray, new: int) -> np.ndarray:
    """The candidates among the nearest of the first ``new`` films, whatever their order, int [pairs, 2]."""
    order = np.array([*sorted(range(new), key=texts.__getitem__), *sorted(range(new, len(texts)), key=texts.__getitem__)])
    views = np.empty((3, len(order), FREQUENCIES), np.float32)
    for k in range(0, len(order), BLOCK_BITS):
        some = [texts[index] for index in order[k : k + BLOCK_BITS]]
        views[:, k : k + len(some)] = views_of(_thumbnails(some), _regions(some))
    return np.asarray(order[near_candidates(bits[:, :, order], views, new)])


def _join_copies(texts: Sequence[str], bits: np.ndarray, new: int, films: Sequence[int], groups: Groups) -> None:
    """Joins the groups of films that are copies, of which one at least is among the first ``new``.

    Args:
        texts: fingerprints, all different.
        bits: of the same.
        new: how many of them are compared with all others behind them.
        films: their numbers in ``groups``.
        groups: pairs that are in one group already are passed over.
    """

    def copies_of(found: np.ndarray) -> np.ndarray:
        swapped = np.array([texts[one] > texts[other] for one, other in found], bool)
        found[swapped] = found[swapped, ::-1]  # so that a pair is compared the same way round whichever is new
        copies = [found[:0]]
        for k in range(0, len(found), BLOCK_PAIRS):
            some = found[k : k + BLOCK_PAIRS]
            apart = np.array([groups.first(films[one]) != groups.first(films[other]) for one, other in some], bool)
            if apart.any():
                one, other = some[apart].T
                first, second = ([texts[index] for index in side] for side in (one, other))
                starts = first_mappings(bits[:, :, one], bits[:, :, other], _regions(first), _regions(second))
                agree = agreements(_thumbnails(first), _thumbnails(second), starts) >= MIN_AGREEMENT
                copies.append(some[apart][agree])
        return np.concatenate(copies)

    if new * len(texts) <= MAX_ALL_PAIRS:
        total, step = new, FILMS_A_TASK

        def copies_from(start: int) -> np.ndarray:
            return copies_of(candidates(bits, range(start, min(start + step, new))))
    else:
        near = _near(texts, bits, new)
        total, step = len(near), PAIRS_A_TASK

        def copies_from(start: int) -> np.ndarray:
            return copies_of(near[start : start + step])

    pool = ThreadPoolExecutor(os.cpu_count(), "copies")  # NumPy lets other threads run while it counts and multiplies
    try:
        with progress(name="comparing", total=total) as bar:
            for pairs in pool.map(copies_from, range(0, total, step)):
                for one, other in pairs:
                    groups.join(films[one], films[other])
                bar.update(min(step, total - bar.n))
    finally:
        pool.shutdown(cancel_futures=True)
