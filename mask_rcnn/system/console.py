"""The console of the commands: what is written to it by ``-q`` and ``-v``, and streams that end no run.

Results go to standard output (``print``), warnings to standard error (``progress.warn``), at any verbosity. In between are
the lines of this module: ``inform`` on standard output, ``note``, ``detail`` and ``step`` by the logger ``mask_rcnn``,
which writes to standard error while a command runs and nowhere in other programs, unless they set it up.
"""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from mask_rcnn.system.silence import ignore_reader_warnings

QUIET, NORMAL, VERBOSE = -1, 0, 1  # of -q, of neither, of -v

_LOG = logging.getLogger("mask_rcnn")
_LEVELS = {QUIET: logging.WARNING, NORMAL: logging.INFO, VERBOSE: logging.DEBUG}


class _Console(logging.Handler):
    """Writes to the standard error of the moment, above a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


@contextmanager
def console(verbosity: int = NORMAL) -> Iterator[None]:
    """Has the block write as much as a command's ``-q`` or ``-v`` wants: QUIET, NORMAL or VERBOSE."""
    handler, level, propagates = _Console(), _LOG.level, _LOG.propagate
    _LOG.addHandler(handler)
    _LOG.setLevel(_LEVELS[verbosity])
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        _LOG.setLevel(level)
        _LOG.propagate = propagates


def is_quiet() -> bool:
    """Whether results and warnings are all that is wanted: with ``-q``, or where the logger was set so."""
    return _LOG.level >= logging.WARNING


def is_verbose() -> bool:
    """Whether details are wanted: with ``-v``, or where the logger was set so."""
    return _LOG.isEnabledFor(logging.DEBUG)


def inform(line: str) -> None:
    """A line on standard output that is no result; nothing with ``-q``."""
    if not is_quiet():
        print(line, flush=True)


def note(line: str) -> None:
    """A line on standard error that is no warning; nothing with ``-q``."""
    _LOG.info("%s", line)


def detail(line: str) -> None:
    """A line on standard error with ``-v`` alone."""
    _LOG.debug("%s", line)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Names what takes seconds before it begins; with ``-v`` its seconds follow."""
    note(name)
    began = time.perf_counter()
    yield
    detail(f"{name}: {time.perf_counter() - began:.1f} s")


class _Pipe(io.FileIO):
    """A file whose reader may go, as in ``| head -1``: what is written then goes nowhere."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def forgiving_streams() -> None:
    """Lets a command print any name to any terminal, and go on when nobody reads it any more.

    Characters that the stream's encoding lacks, and bytes of file names that are no text, are written as ``\\xfc`` and
    ``\\udcff``. Streams that somebody has put in the place of the process's own are left in place. What Pillow and pydicom
    warn of is ignored.
    """
    ignore_reader_warnings()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # None of a process that has none
            continue
        stream.reconfigure(errors="backslashreplace")
        raw = getattr(stream.buffer, "raw", stream.buffer)
        if stream is not getattr(sys, f"__{name}__") or not isinstance(raw, io.FileIO):  # as the console of Windows is none
            continue
        try:
            pipe = _Pipe(stream.fileno(), "w", closefd=False)
        except (OSError, ValueError):  # a closed one
            continue
        buffer: Any = pipe if raw is stream.buffer else io.BufferedWriter(pipe)  # python -u has no buffer
        setattr(sys, name, io.TextIOWrapper(
            buffer, stream.encoding, "backslashreplace", line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        ))
