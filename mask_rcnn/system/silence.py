"""Silence on standard error: of C libraries, which write to descriptor 2, and of the libraries that read odd films."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Pillow and pydicom warn of odd metadata in films that decode perfectly well, highdicom of what it takes over from them.
_READERS = r"(PIL|pydicom|highdicom)\."


def silence_descriptor() -> None:
    """Whatever this process writes to descriptor 2 from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def silent_descriptor() -> Iterator[None]:
    """While the block runs, whatever any thread of this process writes to descriptor 2 goes nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    silence_descriptor()
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def ignore_reader_warnings() -> None:
    """Has the process ignore what Pillow, pydicom and highdicom warn of.

    Called once, before threads read films: Python's ``catch_warnings`` changes the filters of all threads, and puts back
    those of another thread.
    """
    warnings.filterwarnings("ignore", module=_READERS)
