"""One engine for long runs over many films, which both ``create_dataset.py`` and ``inference.py`` are.

A run has its output folder for itself, never writes over the results of another run, reads ahead beside the network, and
ends no sooner than all films are done or the disk is full: an error on one film is that film's, and costs a line.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np

from mask_rcnn.films.images import FilmError, in_one_line
from mask_rcnn.films.polarity import with_white_bones
from mask_rcnn.films.radiograph import Radiograph, read_radiograph
from mask_rcnn.run.folder import RunError
from mask_rcnn.system.files import digest_of, file_version
from mask_rcnn.system.memory import is_out_of_memory

# Errors of a disk that takes no further result of any film.
_DISK_IS_FULL = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE, errno.EMFILE, errno.ENFILE,
})  # fmt: skip


class _Named(Protocol):
    @property
    def path(self) -> Path:
        """Of the film's file."""


Film = TypeVar("Film", bound=_Named)
Ready = TypeVar("Ready")  # a film that was read, ready for the network
Prediction = TypeVar("Prediction")  # what the network predicts of it
Entry = TypeVar("Entry")  # all that is kept of it
T = TypeVar("T")


class ReadFilm(NamedTuple):
    """A film as it was read, and by what it will be known again."""

    radiograph: Radiograph  # its bones white
    square: np.ndarray  # the same, as ``stretch_to_square`` gives it
    inverted: bool  # whether its bones were black in the file
    version: list[int]  # of the file, as ``file_version`` gives it
    digest: str  # of the file's bytes


def read_once(path: Path) -> ReadFilm:
    """Reads a film and what its file will be known by.

    Raises:
        FilmError: it cannot be read, or changed meanwhile.
        OSError: it is gone.
    """
    version = file_version(path)
    radiograph = read_radiograph(path)
    digest = digest_of(path)
    if file_version(path) != version:
        raise FilmError(path, "changed while it was read", "the same command reads it again")
    pixels, inverted, square = with_white_bones(radiograph.pixels)
    return ReadFilm(radiograph._replace(pixels=pixels), square, inverted, version, digest)


def work_through(
    films: Iterable[tuple[int, Film]],
    read: Callable[[Film], Ready],
    predict: Callable[[Sequence[Ready | None]], Sequence[Prediction]],
    finish: Callable[[Film, Ready, Prediction], Entry],
    batch: int,
    skip: Callable[[Film, str], None],
) -> Generator[tuple[Film, Entry]]:
    """Each film with what is kept of it, in order.

    Threads read films ahead of the network, and finish those that come from it; the network predicts in the calling
    thread. Some three batches of films are in memory: one being read, one in the network, one that is finished.

    A film has its place in a batch by its place among all films, whichever of them are done: a network's last digits depend
    on that place, as vectors of the processor end within a batch, and so a stopped run ends as an undisturbed one.

    Args:
        films: what to work on, with their rising places among all films of the run, from 0.
        read: makes a film ready.
        predict: from ``batch`` films, None where there is nothing to do, to an answer for each. Where it fails, each film
            is tried alone.
        finish: what is kept of a film; may write files.
        batch: films that the network sees at a time.
        skip: called in the calling thread with a film that has no entry, and the reason.

    Raises:
        RunError: there is too little memory for the network.
        OSError: the disk takes no more results.
    """
    with side_by_side(os.cpu_count()) as pool:
        ready = groupby(_read_ahead(pool, films, read, batch, skip), lambda item: item.place // batch)
        chosen = list(next(ready, (0, ()))[1])
        finishing: list[tuple[Film, Future[Entry | Reason]]] = []
        while chosen or finishing:
            following = []
            for item, answer in zip(chosen, _predictions(predict, chosen, batch), strict=True):
                task: Future[Entry | Reason]
                if isinstance(answer, Reason):
                    task = Future()
                    task.set_result(answer)
                else:
                    task = pool.submit(or_reason, finish, item.film, item.content, answer, writes=True)
                following.append((item.film, task))
            for film, task in finishing:
                if isinstance(entry := task.result(), Reason):
                    skip(film, entry.text)
                else:
                    yield film, entry
            finishing = following
            chosen = list(next(ready, (0, ()))[1])


def work_on_batch(
    films: Sequence[tuple[int, Film]],
    read: Callable[[Film], Ready],
    predict: Callable[[Sequence[Ready | None]], Sequence[Prediction]],
    finish: Callable[[Film, Ready, Prediction], Entry],
    batch: int,
    pool: Executor,
) -> list[Entry | Reason]:
    """What ``work_through`` comes to on one batch of films, each with its entry or the reason why it has none.

    Args:
        films: of one batch, with their places among all films of the run.
        read, predict, finish, batch: as ``work_through`` takes them; ``finish`` writes no file.
        pool: of threads that read and finish films.

    Raises:
        RunError: there is too little memory for the network.
    """
    reading = [pool.submit(or_reason, read, film) for _, film in films]
    contents = [task.result() for task in reading]
    items = [_Item(place, film, content) for (place, film), content in zip(films, contents, strict=True)
             if not isinstance(content, Reason)]  # fmt: skip
    answers = iter(_predictions(predict, items, batch))
    answered = [content if isinstance(content, Reason) else next(answers) for content in contents]
    finishing = [
        answer if isinstance(answer, Reason) else pool.submit(or_reason, finish, film, content, answer)
        for (_, film), content, answer in zip(films, contents, answered, strict=True)
    ]
    return [task if isinstance(task, Reason) else task.result() for task in finishing]


class _Item(NamedTuple, Generic[Film, Ready]):
    """A film that was read."""

    place: int
    film: Film
    content: Ready


class Reason(NamedTuple):
    """Why a film has no entry, and what would help."""

    text: str


def _predictions(
    predict: Callable[[Sequence[Ready | None]], Sequence[Prediction]], chosen: Sequence[_Item[Any, Ready]], batch: int
) -> list[Prediction | Reason]:
    """The network's answer to each film of a batch, or why there is none."""
    if not chosen:
        return []
    films: list[Ready | None] = [None] * batch
    for item in chosen:
        films[item.place % batch] = item.content
    try:
        answers = predict(films)
        return [answers[item.place % batch] for item in chosen]
    except Exception as error:
        if is_out_of_memory(error):
            raise RunError(
                "there is too little memory for the networks; give a smaller --batch, fewer weights or --device cpu"
            ) from error
        if len(chosen) == 1:
            return [Reason(_fault(error))]
    return [answer for item in chosen for answer in _predictions(predict, [item], batch)]


def _read_ahead(
    pool: Executor,
    films: Iterable[tuple[int, Film]],
    read: Callable[[Film], Ready],
    count: int,
    skip: Callable[[Film, str], None],
) -> Iterator[_Item[Film, Ready]]:
    """The films that can be read, in order; the next ``count`` are being read meanwhile."""
    reading: deque[tuple[int, Film, Future[Ready | Reason]]] = deque()
    remaining = iter(films)
    while True:
        for place, film in islice(remaining, count + 1 - len(reading)):
            reading.append((place, film, pool.submit(or_reason, read, film)))
        if not reading:
            return
        place, film, task = reading.popleft()
        if isinstance(content := task.result(), Reason):
            skip(film, content.text)
        else:
            yield _Item(place, film, content)


def or_reason(work: Callable[..., T], film: Any, *arguments: Any, writes: bool = False) -> T | Reason:
    """What the work gives, or why it fails and what would help: a night's run does not end for one film.

    Raises:
        OSError: the work writes files, and the disk takes no more of any film.
    """
    try:
        return work(film, *arguments)
    except FilmError as error:
        return Reason(str(error).removeprefix(f"{film.path}: "))
    except OSError as error:
        if writes:
            if error.errno in _DISK_IS_FULL:
                raise
            return Reason(f"its result cannot be written ({error.strerror or error}); give the file another name")
        if isinstance(error, FileNotFoundError):
            return Reason("there is no such file; check the path")
        return Reason(f"cannot be read ({error.strerror or error}); check that it is still there")
    except Exception as error:
        if is_out_of_memory(error):
            return Reason("needs more memory than there is; scale it down")
        return Reason(_fault(error))


def _fault(error: Exception) -> str:
    return f"cannot be worked on ({type(error).__name__}: {in_one_line(error)}); report this as a fault of the program"


@contextmanager
def side_by_side(count: int | None) -> Iterator[Executor]:
    """Threads beside the networks; what is still queued when the block ends is dropped."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # whole films are what is shared out
    pool = ThreadPoolExecutor(count, "film")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)
