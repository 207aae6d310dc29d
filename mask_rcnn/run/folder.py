"""A run's folder: used by one process at a time; the results of another run are set aside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from mask_rcnn.system.console import note
from mask_rcnn.system.files import remove_partials

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class RunError(ValueError):
    """A run that cannot begin or go on; the message gives the reason and the remedy."""


@contextmanager
def sole_run(folder: Path, wait: bool = False) -> Iterator[None]:
    """Makes a folder, and keeps a second run out of it while the block runs; on Windows and some network disks it cannot.

    What a killed run has left half written in the folder is removed, and so is a new folder that stays empty.

    Args:
        wait: for a run that is at work in it.

    Raises:
        RunError: a run is at work in it, and is not waited for.
        OSError: it cannot be made.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else -1
    try:
        if fcntl:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not wait:
                    raise RunError(f"{folder}: another run is writing to it; wait for it or choose another --out") from error
                note(f"{folder}: waiting for another run that is writing to it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:  # a disk without locks: what looks half written may be another run's
                pass
            else:
                remove_partials(folder)
        yield
    finally:
        if fcntl:
            os.close(descriptor)
        if is_new:
            with suppress(OSError):  # it holds results
                folder.rmdir()


def set_aside(folder: Path, names: Iterable[str]) -> Path | None:
    """Moves results that no longer belong to a folder's run into a dated folder within it, which no later run uses.

    Args:
        folder: of the run.
        names: files and folders relative to it, with forward slashes; those that are not there are passed over. The last
            one is moved last: the file that shows that there is something to move has to outlive a kill meanwhile.

    Returns:
        The dated folder; None where there was nothing to move.

    Raises:
        OSError: something cannot be moved.
    """
    there = [name for name in names if os.path.lexists(folder / name)]
    if not there:
        return None
    dated = _new_folder(folder / f"earlier-{datetime.now():%Y%m%d-%H%M%S}")
    for name in there:
        (dated / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / name, dated / name)
    return dated


def _new_folder(path: Path) -> Path:
    number = 1
    while True:
        new = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            new.mkdir()
            return new
        except FileExistsError:
            number += 1
