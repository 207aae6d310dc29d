"""A worker of a cluster: a process, perhaps on another machine, that loads the networks once and does batches of films."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mask_rcnn.run.engine import Reason, side_by_side, work_on_batch
from mask_rcnn.run.folder import RunError
from mask_rcnn.version import __version__

# Loads the networks: gives them, what a run has to know of them, and the versions of the libraries.
Load = Callable[[], tuple[Any, Any, dict[str, str]]]


class FilmWorker:
    """Several threads call it at a time.

    Args:
        threads: that read and finish films.
    """

    def __init__(self, threads: int) -> None:
        self._networks: Any = None
        self._network_is_free = threading.Lock()
        self._threads = side_by_side(threads)  # for as long as the process lives
        self._pool = self._threads.__enter__()

    def load(self, load: Load, folder: str, must_see: Sequence[Path]) -> tuple[Any, dict[str, str], str, str]:
        """Loads the networks.

        Args:
            load: loads them.
            folder: that relative paths start from, if it is there.
            must_see: files and folders that have to be there.

        Returns:
            What the run has to know of them, the versions of the libraries and of this program, and what was written to
            standard error.

        Raises:
            RunError: something of ``must_see`` is not there.
            ValueError: the networks cannot be loaded; the message gives the reason and the remedy.
        """
        with contextlib.suppress(OSError):
            os.chdir(folder)
        for path in must_see:
            if not path.exists():
                raise RunError(f"does not see {path}; films have to lie where all nodes see them under the same path")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self._networks, facts, versions = load()
        return facts, versions, __version__, said.getvalue()

    def work(self, work: Any, films: Sequence[tuple[int, Any]], batch: int) -> list[Any | Reason]:
        """What is to be kept of each film of a batch, or why there is nothing.

        Args:
            work: what is done to each film, as ``cluster.Work``.
            films: with their places among all films of the run.
            batch: films that the networks see at a time.

        Raises:
            RunError: there is too little memory for the networks.
        """

        def predict(ready: Sequence[Any]) -> Sequence[Any]:
            with self._network_is_free:
                answers: Sequence[Any] = work.predict(self._networks, ready)
                return answers

        return work_on_batch(films, work.read, predict, partial(work.finish, self._networks), batch, self._pool)
