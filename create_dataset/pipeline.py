"""From film files to journal entries: what ``mask_rcnn.run`` does to each film of a dataset.

Shapes
    film      uint8 [height, width], grey, bones white
    square    uint8 [256, 256], the film stretched to the U-Net's square, not equalised
    inputs    float32 [films, 256, 256, 3], as the U-Nets take them
    votes     float32 [members, films, 256, 256], probabilities
    mirrored  the same, the members' probabilities on the mirrored films, mirrored back
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from create_dataset.lungs import enlarge_lungs, find_small_lungs
from create_dataset.quality import measure
from create_dataset.sources import Source
from create_dataset.unet import Network, prepare, probabilities
from mask_rcnn.checks.chest import SIDE
from mask_rcnn.dataset.coco import annotation
from mask_rcnn.films.duplicates import fingerprint
from mask_rcnn.run.cluster import Cluster, work_with
from mask_rcnn.run.engine import ReadFilm, read_once
from mask_rcnn.run.journal import Entry

Skip = Callable[[Source, str], None]  # called with a film that is left out, and the reason

# What the journal has of a film besides its id and its file's version and digest.
KEYS = frozenset({"height", "width", "inverted", "turned", "doubts", "spacing_mm", "fingerprint", "measures", "lungs"})


class Film(NamedTuple):
    """A film that was read, ready for the networks."""

    found: ReadFilm
    inputs: np.ndarray  # float32 [256, 256, 3]


@dataclass(frozen=True)
class LungWork:
    """What a run does to each of its films."""

    batch: int
    laterality: str

    def read(self, film: Source) -> Film:
        """As ``read``."""
        return read(film)

    def predict(
        self, networks: Sequence[Network], films: Sequence[Film | None]
    ) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """The U-Nets' votes on each film of a batch, and those on it mirrored."""
        votes, mirrored = predict_votes(networks, films, self.batch)
        return [(votes[:, k], None if mirrored is None else mirrored[:, k]) for k in range(len(films))]

    def finish(
        self, networks: Sequence[Network], film: Source, ready: Film, prediction: tuple[np.ndarray, np.ndarray | None]
    ) -> Entry:
        """The film's entry."""
        return entry_of(ready, *prediction, self.laterality)


def find_all_lungs(
    sources: Iterable[tuple[int, Source]], members: Sequence[Network] | Cluster[Any], batch: int, laterality: str, skip: Skip
) -> Generator[tuple[Source, Entry]]:
    """Each film with its journal entry but for the id.

    What is found on a film does not depend on the films beside it: a batch is filled up with zeros, as batches of another
    size may round otherwise.

    Args:
        sources: the films, with their places among all films of the run.
        members: the U-Nets, here or on the workers of a cluster. A single one also predicts each film mirrored, for want
            of a second prediction.
        batch: films at a time.
        laterality: "patient" or "image".
        skip: called in this thread for each film that has no entry.
    """
    return work_with(members, sources, LungWork(batch, laterality), lambda _, entry: entry, batch, skip)


def read(source: Source) -> Film:
    """Reads a film and prepares it for the networks.

    Raises:
        FilmError: it cannot be read.
        OSError: it is gone.
    """
    found = read_once(source.path)
    return Film(found, prepare(found.square))


def predict_votes(
    members: Sequence[Network], films: Sequence[Film | None], batch: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The votes on up to ``batch`` films and, of a single member, those on the mirrored films."""
    is_single = len(members) == 1
    votes = probabilities(members, fill_batch(films, batch, is_single))
    mirrored = votes[:, batch : batch + len(films), :, ::-1] if is_single else None
    return votes[:, : len(films)], mirrored


def fill_batch(films: Sequence[Film | None], batch: int, with_mirrored: bool) -> np.ndarray:
    """The inputs of up to ``batch`` films, zeros where there is none; then, if ``with_mirrored``, the same mirrored."""
    inputs = np.zeros((batch, SIDE, SIDE, 3), np.float32)
    for place, film in zip(inputs, films, strict=False):
        if film is not None:
            place[:] = film.inputs
    return np.concatenate([inputs, inputs[:, :, ::-1]]) if with_mirrored else inputs


def entry_of(film: Film, votes: np.ndarray, mirrored: np.ndarray | None, laterality: str) -> Entry:
    """All that the journal holds of a film, but for its id.

    Args:
        film: as ``read`` gives it.
        votes, mirrored: float [members, 256, 256], on this film.
        laterality: "patient" or "image".
    """
    found, (height, width) = film.found, film.found.radiograph.pixels.shape
    small = find_small_lungs(votes, laterality)
    lungs = enlarge_lungs(small, votes, height, width)
    pixels, spacing, turned, doubts, _ = found.radiograph
    return {
        "version": found.version,
        "digest": found.digest,
        "height": height,
        "width": width,
        "inverted": found.inverted,
        "turned": turned,
        "doubts": list(doubts),
        "spacing_mm": None if spacing is None else list(spacing),
        "fingerprint": fingerprint(pixels, np.logical_or.reduce(list(small.values())) if small else None),
        "measures": measure(found.square, votes, mirrored, small, laterality, aspect=width / height),
        "lungs": [annotation(0, 0, category, lung) for category, lung in sorted(lungs.items())],
    }
