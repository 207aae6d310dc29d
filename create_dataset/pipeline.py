"""From film files to journal entries: reading, the networks and what follows them run side by side.

Threads read films ahead of the networks and cut out the lungs of those that come from them; the networks run in the calling
thread. Some three batches of films are in memory: one being read, one in the networks, one whose lungs are cut out.

Shapes
    film      uint8 [height, width], grey, bones white
    square    uint8 [256, 256], the film stretched to the U-Net's square, not equalised
    inputs    float32 [films, 256, 256, 3], as the U-Nets take them
    votes     float32 [members, films, 256, 256], probabilities
    mirrored  the same, what the members say of the mirrored films, turned back
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import cv2
import numpy as np

from create_dataset.journal import Entry
from create_dataset.lungs import enlarge_lungs, find_small_lungs
from create_dataset.quality import measure
from create_dataset.sources import Source
from create_dataset.unet import SIDE, prepare, probabilities, stretch_to_square
from mask_rcnn.coco import annotation
from mask_rcnn.duplicates import fingerprint
from mask_rcnn.files import file_version
from mask_rcnn.images import in_one_line
from mask_rcnn.polarity import is_inverted
from mask_rcnn.radiograph import FilmError, read_radiograph

if TYPE_CHECKING:
    import keras

T = TypeVar("T")

Skip = Callable[[Source, str], None]  # told of a film that is left out, and why


class Film(NamedTuple):
    """A film that was read, ready for the networks."""

    source: Source
    version: list[int]  # of its file
    pixels: np.ndarray  # uint8 [height, width], bones white
    inverted: bool  # whether its bones were black in the file
    spacing: tuple[float, float] | None  # millimetres between rows, and between columns
    square: np.ndarray  # uint8 [256, 256]
    inputs: np.ndarray  # float32 [256, 256, 3]


def find_all_lungs(
    sources: Iterable[Source], members: Sequence[keras.Model], batch: int, laterality: str, skip: Skip
) -> Generator[tuple[Source, Entry]]:
    """Each film with its journal entry but for the id.

    What is found on a film does not depend on the films beside it: a batch is filled up with zeros, as batches of another
    size may round otherwise.

    Args:
        sources: the films.
        members: the U-Nets. A single one is also asked about each film mirrored, for want of a second opinion.
        batch: films at a time.
        laterality: "patient" or "image".
        skip: called in this thread for each film that has no entry.
    """
    with _side_by_side() as pool:
        films = _read_ahead(pool, sources, batch, skip)
        chosen = list(islice(films, batch))
        cutting: list[tuple[Source, Future[Entry | str]]] = []
        while chosen or cutting:
            following = []
            if chosen:
                votes, mirrored = ask(members, chosen, batch)
                for k, film in enumerate(chosen):
                    of_mirrored = None if mirrored is None else mirrored[:, k]
                    task = pool.submit(_or_reason, film.source, entry_of, film, votes[:, k], of_mirrored, laterality)
                    following.append((film.source, task))
            for source, task in cutting:
                if isinstance(entry := task.result(), str):
                    skip(source, entry)
                else:
                    yield source, entry
            cutting = following
            chosen = list(islice(films, batch))


def read(source: Source) -> Film:
    """Reads a film and prepares it for the networks.

    Raises:
        FilmError: it cannot be read.
        OSError: it is gone.
    """
    version = file_version(source.path)  # before it is read: a change meanwhile makes it another film
    pixels, spacing, *_ = read_radiograph(source.path)
    inverted = is_inverted(pixels)
    if inverted:
        pixels = 255 - pixels
    square = stretch_to_square(pixels)
    return Film(source, version, pixels, inverted, spacing, square, prepare(square))


def ask(
    members: Sequence[keras.Model], films: Sequence[Film], batch: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """The votes on up to ``batch`` films and, of a single member, those on the mirrored films."""
    is_single = len(members) == 1
    votes = probabilities(members, fill_batch(films, batch, is_single))
    mirrored = votes[:, batch : batch + len(films), :, ::-1] if is_single else None
    return votes[:, : len(films)], mirrored


def fill_batch(films: Sequence[Film], batch: int, with_mirrored: bool) -> np.ndarray:
    """The inputs of up to ``batch`` films, zeros after them; then, where asked for, the same mirrored."""
    inputs = np.zeros((batch, SIDE, SIDE, 3), np.float32)
    inputs[: len(films)] = [film.inputs for film in films]
    return np.concatenate([inputs, inputs[:, :, ::-1]]) if with_mirrored else inputs


def entry_of(film: Film, votes: np.ndarray, mirrored: np.ndarray | None, laterality: str) -> Entry:
    """All that the journal holds of a film, but for its id.

    Args:
        film: as ``read`` gives it.
        votes, mirrored: float [members, 256, 256], on this film.
        laterality: "patient" or "image".
    """
    height, width = film.pixels.shape
    small = find_small_lungs(votes, laterality)
    lungs = enlarge_lungs(small, votes, height, width)
    return {
        "version": film.version,
        "height": height,
        "width": width,
        "inverted": film.inverted,
        "spacing_mm": None if film.spacing is None else list(film.spacing),
        "fingerprint": fingerprint(film.pixels, np.logical_or.reduce(list(small.values())) if small else None),
        "measures": measure(film.square, votes, mirrored, small, laterality, aspect=width / height),
        "lungs": [annotation(0, 0, category, lung) for category, lung in sorted(lungs.items())],
    }


def _read_ahead(pool: Executor, sources: Iterable[Source], count: int, skip: Skip) -> Iterator[Film]:
    """The films that can be read, in order; the next ``count`` are being read meanwhile."""
    reading: deque[tuple[Source, Future[Film | str]]] = deque()
    remaining = iter(sources)
    while True:
        for source in islice(remaining, count + 1 - len(reading)):
            reading.append((source, pool.submit(_or_reason, source, read, source)))
        if not reading:
            return
        source, task = reading.popleft()
        if isinstance(film := task.result(), str):
            skip(source, film)
        else:
            yield film


def _or_reason(source: Source, work: Callable[..., T], *arguments: Any) -> T | str:
    """What the work gives, or why it fails and what would help: a night's run does not end for one film."""
    try:
        return work(*arguments)
    except FilmError as error:
        return str(error).removeprefix(f"{source.path}: ")
    except FileNotFoundError:
        return "there is no such file; check the path"
    except OSError as error:
        return f"cannot be read ({error.strerror or error}); check that it is still there"
    except MemoryError:
        return "needs more memory than there is; scale it down"
    except Exception as error:
        return f"cannot be worked on ({type(error).__name__}: {in_one_line(error)}); report this as a fault of the program"


@contextmanager
def _side_by_side() -> Iterator[Executor]:
    """Threads beside the networks; what is still queued when the block ends is dropped."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # whole films are what is shared out
    with warnings.catch_warnings():
        # Readers silence Pillow and pydicom too, but warnings are silenced for all threads at once, or sound for all.
        warnings.simplefilter("ignore", UserWarning)
        pool = ThreadPoolExecutor(os.cpu_count(), "film")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
            cv2.setNumThreads(threads)
