"""A run over the machines of a Ray cluster: workers with the networks do the films, this process keeps what comes of them.

The process of the command alone has the list of films, the journal and the folder of the run. It hands batches of films to
workers, actors of Ray that have loaded the networks once, and gets back all that is to be kept of each film, which it
writes in the order of the films. So nothing is lost with a worker that dies, as its batches go to others, and no film is
kept twice.

A film has its place in a batch as on one machine, and all workers have the same networks, runtime and versions: so the
results are those of one machine.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from mask_rcnn.films.images import in_one_line
from mask_rcnn.run.engine import Entry, Film, Reason, or_reason, side_by_side, work_through
from mask_rcnn.run.folder import RunError
from mask_rcnn.run.ray_nodes import Seat
from mask_rcnn.run.ray_worker import FilmWorker, Load
from mask_rcnn.system.console import detail, note
from mask_rcnn.system.memory import is_out_of_memory
from mask_rcnn.system.progress import warn
from mask_rcnn.version import __version__

AHEAD = 3  # batches that a worker has at a time: one is read, one predicted, one finished
LOSSES = 3  # workers that may end with a batch before its films are tried one by one, and then before a film is left out
PATIENCE = 60.0  # seconds without any worker after which the wait is explained

# Settings of the process that its workers have as well.
_INHERITED = ("KERAS_BACKEND", "OPENBLAS_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL", "OMP_WAIT_POLICY")

Networks = TypeVar("Networks")
Facts = TypeVar("Facts")  # what the run has to know of them


class Work(Protocol):
    """What is done to each film; it is sent to other processes, so it holds neither networks nor files."""

    def read(self, film: Any) -> Any:
        """Makes a film ready."""

    def predict(self, networks: Any, films: Sequence[Any]) -> Sequence[Any]:
        """From a batch of ready films, None where there is nothing to do, to an answer for each."""

    def finish(self, networks: Any, film: Any, ready: Any, prediction: Any) -> Any:
        """All that is to be kept of a film."""


def work_with(
    networks: Sequence[Any] | Cluster[Any],
    films: Iterable[tuple[int, Film]],
    work: Work,
    keep: Callable[[Film, Any], Entry],
    batch: int,
    skip: Callable[[Film, str], None],
) -> Generator[tuple[Film, Entry]]:
    """Each film with what is kept of it, in order, as ``engine.work_through`` gives it, by networks here or on a cluster.

    Args:
        networks: of this process, or workers that have loaded them.
        films, batch, skip: as ``engine.work_through`` takes them.
        work: what is done to each film.
        keep: writes what ``work`` made of a film, in a thread of this process; returns the film's entry.

    Raises:
        RunError, OSError: as ``engine.work_through``; or no worker of the cluster is left.
    """
    if isinstance(networks, Cluster):
        return networks.work_through(films, work, keep, batch, skip)

    def finish(film: Film, ready: Any, prediction: Any) -> Entry:
        return keep(film, work.finish(networks, film, ready, prediction))

    return work_through(films, work.read, partial(work.predict, networks), finish, batch, skip)


@dataclass
class _Batch(Generic[Film]):
    films: tuple[tuple[int, Film], ...]  # with their places among all
    losses: int = 0  # workers that ended with it
    alone: bool = False  # whether it may have ended one, and so has a worker for itself


@dataclass(eq=False)
class _Seated:
    """A worker in its seat."""

    seat: Seat
    actor: Any
    ready: bool = False
    batches: int = 0  # that it has
    alone: bool = False  # whether it gets no other batch meanwhile


class Cluster(Generic[Facts]):
    """Workers of the cluster that this process has joined.

    Args:
        seats: where they are to be.
        load: loads the networks in each of them.
        must_see: files and folders that each worker has to find, wherever it is.

    Raises:
        RunError: a worker cannot load the networks or see the films, or loads other ones than the first, or no worker stays
            alive.
    """

    facts: Facts  # as ``load`` gave them, the same on all workers
    versions: dict[str, str]  # of their libraries

    def __init__(self, seats: Sequence[Seat], load: Load, must_see: Sequence[Path]) -> None:
        import ray

        self._ray, self._load, self._must_see = ray, load, must_see
        self._workers: list[_Seated] = []
        self._at_work: dict[Any, tuple[_Seated, _Batch[Any] | None]] = {}  # by what Ray promises; None: it is loading
        self._first: str = ""  # node of the worker that the others are compared to
        self._again: deque[_Batch[Any]] = deque()  # lost with their workers
        self._failures: dict[Seat, int] = {}  # workers that ended while they were loading
        for seat in seats:
            self._start(seat)
        while not self._first:
            for _ in self._finished():
                pass

    def _start(self, seat: Seat) -> None:
        threads = str(max(1, seat.cpus))
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._ray.remote(FilmWorker).options(
            num_cpus=seat.cpus, num_gpus=seat.gpus, max_concurrency=AHEAD,
            scheduling_strategy=NodeAffinitySchedulingStrategy(seat.node_id, soft=True),
            runtime_env={"env_vars": {**inherited, "OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}},
        ).remote(max(1, seat.cpus))  # fmt: skip
        worker = _Seated(seat, actor)
        self._workers.append(worker)
        self._at_work[actor.load.remote(self._load, os.getcwd(), self._must_see)] = worker, None

    def work_through(
        self,
        films: Iterable[tuple[int, Film]],
        work: Work,
        keep: Callable[[Film, Any], Entry],
        batch: int,
        skip: Callable[[Film, str], None],
    ) -> Generator[tuple[Film, Entry]]:
        """As ``work_with``."""
        sent = self._ray.put(work)
        batches = (_Batch(tuple(films_of)) for _, films_of in groupby(films, lambda item: item[0] // batch))
        in_order: deque[tuple[int, Film]] = deque()
        outcomes: dict[int, Future[Entry | Reason]] = {}  # by place
        most = batch * AHEAD * (len(self._workers) + 1) * 2  # films that are not kept yet, if one holds up the others
        with side_by_side(os.cpu_count()) as pool:
            while True:
                for worker in self._free():
                    following = self._again.popleft() if self._again else None
                    if following is None:
                        following = next(batches, None) if len(in_order) < most else None
                        if following is None:
                            break
                        in_order.extend(following.films)
                    worker.batches, worker.alone = worker.batches + 1, following.alone
                    self._at_work[worker.actor.work.remote(sent, following.films, batch)] = worker, following
                if not in_order:
                    return
                while in_order and in_order[0][0] in outcomes:
                    place, film = in_order.popleft()
                    if isinstance(entry := outcomes.pop(place).result(), Reason):
                        skip(film, entry.text)
                    else:
                        yield film, entry
                for (place, film), made in self._finished() if in_order else ():
                    outcomes[place] = pool.submit(or_reason, _kept, film, keep, made, writes=True)

    def _free(self) -> Iterator[_Seated]:
        """Workers for the next batch, each time the one that has the fewest; of a batch that is to be alone an idle one."""
        while True:
            able = [worker for worker in self._workers if worker.ready and not worker.alone]
            worker = min(able, key=lambda worker: worker.batches, default=None)
            if worker is None or worker.batches >= (1 if self._again else AHEAD):
                return
            yield worker

    def _finished(self) -> Iterator[tuple[tuple[int, Any], Any]]:
        """Waits for something to end; films with what was made of them, or the reason why nothing was."""
        if not self._at_work:
            raise RunError("--ray: every worker ended while it was loading the networks; look into Ray's logs "
                           "(/tmp/ray/session_latest/logs), and whether a node has too little memory")  # fmt: skip
        ended, _ = self._ray.wait(list(self._at_work), timeout=PATIENCE)
        if not ended and not any(worker.ready for worker in self._workers):
            note("waiting for the cluster to have room for a worker, or for its networks to be loaded")
        for promise in ended:
            worker, batch = self._at_work.pop(promise)
            try:
                answer = self._ray.get(promise)
            except self._ray.exceptions.RayTaskError as error:
                raise _as_here(error, worker.seat) from error
            except self._ray.exceptions.RayError as error:
                if missing := re.search(r"No module named '(\w+)", str(error)):
                    raise RunError(f"--ray: {worker.seat.node} has no {missing[1]}; install this program and what it needs "
                                   "on every node") from error  # fmt: skip
                yield from self._lost(worker, batch, error)
                continue
            if batch is None:
                self._check(worker, *answer)
            else:
                worker.batches, worker.alone = worker.batches - 1, False
                yield from zip(batch.films, answer, strict=True)

    def _check(self, worker: _Seated, facts: Facts, versions: dict[str, str], program: str, said: str) -> None:
        """Takes a worker that has loaded its networks into service."""
        name = worker.seat.node
        if not self._first:
            self._first, self.facts, self.versions = name, facts, versions
            sys.stderr.write(said)
        found, expected = {**versions, "program": program}, {**self.versions, "program": __version__}
        for key in sorted(found.keys() | expected.keys()):
            if found.get(key) != expected.get(key):
                raise RunError(f"--ray: {name} has {key} {found.get(key, 'not')}, {self._first} "
                               f"{expected.get(key, 'not')}; install the same on every node")  # fmt: skip
        if facts != self.facts:
            raise RunError(f"--ray: {name} has loaded other weights than {self._first}; give weights that lie on a file "
                           "system of all nodes")  # fmt: skip
        worker.ready = True
        detail(f"a worker on {name} is ready")

    def _lost(
        self, worker: _Seated, batch: _Batch[Any] | None, error: Exception
    ) -> Iterator[tuple[tuple[int, Any], Any]]:
        """Puts another worker in the place of one that ended; its batch is done again, or given up for a film of it."""
        seat = worker.seat
        if worker in self._workers:
            detail(in_one_line(error))
            ended = f"ended{', for want of memory' if is_out_of_memory(error) else ''}"
            self._workers.remove(worker)
            self._ray.kill(worker.actor)
            failures = self._failures[seat] = self._failures.get(seat, 0) + (batch is None)
            if failures < LOSSES:
                warn(f"a worker on {seat.node} {ended}; what it was doing is done again")
                self._start(seat)
            else:
                warn(f"a worker on {seat.node} {ended} while it loaded, as {LOSSES - 1} before; going on without")
        if batch is None:
            return
        batch.losses += 1
        if batch.losses < LOSSES:
            batch.alone = True
            self._again.append(batch)
        elif len(batch.films) > 1:
            self._again.extend(_Batch((film,), alone=True) for film in batch.films)
        else:
            yield batch.films[0], Reason(f"ended {LOSSES} workers of the cluster; try it alone on one machine")


def _kept(film: Film, keep: Callable[[Film, Any], Entry], made: Any) -> Entry | Reason:
    return made if isinstance(made, Reason) else keep(film, made)


def _as_here(error: Any, seat: Seat) -> BaseException:
    """An error of a worker as this process would raise it, with the node where it is one for the user."""
    cause: BaseException = error.cause
    return RunError(f"{seat.node}: {cause}") if isinstance(cause, ValueError) else cause
