"""Time, memory, and processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes, once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """How long the work takes, the median of some times after a first one that does not count."""
    work()
    return sorted(seconds(work) for _ in range(repeats))[repeats // 2]


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns in a new process, which no other measurement has warmed or filled."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def run(command: Sequence[str]) -> tuple[float, float]:
    """Runs a Python program: its seconds, and its memory at most in GiB.

    Raises:
        RuntimeError: it failed; the message is the end of what it wrote to standard error.
    """
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said[-500:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 2**20
