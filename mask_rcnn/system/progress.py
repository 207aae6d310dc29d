"""Progress of long work on standard error: a bar on a terminal, now and then a line where it is a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from mask_rcnn.system.console import is_quiet

LINE_EVERY = 60.0  # seconds


class _Lines:
    """Takes what tqdm writes to redraw its bar, and makes lines of it."""

    def write(self, text: str) -> None:
        if line := text.strip():
            print(line, file=sys.stderr, flush=True)

    def flush(self) -> None:
        pass


def progress(
    items: Iterable[Any] | None = None, *, name: str, total: int | None = None, done: int = 0, unit: str = "films",
    lines: bool = True, leave: bool = True,
) -> tqdm:  # fmt: skip
    """A progress of ``total`` films, ``done`` of them done before, with rate and time left.

    Nothing of short work, nor with ``-q``.

    Args:
        lines: whether a file gets lines; False of work that reports itself.
        leave: whether the bar stays on the terminal when the work is done.
    """
    on_terminal = sys.stderr.isatty()
    interval = 0.5 if on_terminal else LINE_EVERY
    # A slow average, since films differ and those of a batch end at once.
    return tqdm(
        items, name, total, initial=done, unit=f" {unit}", smoothing=0.05, delay=interval, mininterval=interval,
        maxinterval=max(interval, 10), file=None if on_terminal else _Lines(), ncols=None if on_terminal else 0,
        disable=is_quiet() or not (on_terminal or lines), leave=leave,
    )  # fmt: skip


def warn(line: str) -> None:
    """A line on standard error, above a bar that may be there."""
    tqdm.write(line, file=sys.stderr)
