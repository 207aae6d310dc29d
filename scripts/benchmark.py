"""Measures all that is claimed of speed in one run, and writes BENCHMARKS.md: some ten minutes on two idle processors.

    python scripts/benchmark.py

By default it works on the phantoms, enlarged; the time a film depends on its size, not on what it shows. Every measurement
runs in a process of its own, one after the other. A runtime that is not installed is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bench.clock import in_own_process
from bench.dataset import throughput
from bench.document import document, targets
from bench.inference import by_part, end_to_end, published_network, write_films
from bench.training import training_step
from bench.yardsticks import bag_operations, yardsticks
from mask_rcnn.runtime.choice import KERAS, RUNTIMES, Runtime, choose_runtime
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.command_line import positive
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes
from mask_rcnn.system.shipped import shipped_members, shipped_unet

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"
SIDES = (512, 2000)  # pixels: of the films' long sides
BATCH = 8
FILMS = 48  # of fewer, what a run costs once, its first batch being read and its last one written, is much of the time
WITHOUT_PICTURES = "masks"


def main(argv: Sequence[str] | None = None) -> int:
    """Writes and prints the tables; returns 0, or 1 where there is nothing to measure."""
    forgiving_streams()
    parser = argparse.ArgumentParser(prog="benchmark.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--src", type=Path, default=PHANTOMS / "images", metavar="DIR",
                        help="folder of films, scaled to the sizes that are measured (default: the phantoms)")
    parser.add_argument("--films", type=positive, default=FILMS, metavar="N",
                        help="so many, those of the folder in turn (default: %(default)s)")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=RUNTIMES, help="default: all that are installed")
    parser.add_argument("--out", type=Path, default=ROOT / "BENCHMARKS.md", metavar="FILE", help="default: BENCHMARKS.md")
    given = parser.parse_args(argv)
    # As the commands set it: more threads beside those of the networks only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sources = list(islice(cycle(films_of(given.src)), given.films))
    weights = [str(path) for path in shipped_members()]
    runtimes = installed(given.runtimes)
    if not sources or not weights or not runtimes:
        print("benchmark: there is nothing to measure; check --src and --runtimes", file=sys.stderr)
        return 1
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            measured = measure(sources, weights, runtimes, Path(folder))
        except RuntimeError as error:
            print(f"benchmark: {error}", file=sys.stderr)
            return 1
    measured["facts"] = {
        "date": datetime.now(UTC).date().isoformat(), "machine": machine(), "films": len(sources),
        "seconds": time.perf_counter() - started, "command": "python scripts/benchmark.py",
        "versions": {name: version for runtime in runtimes for name, version in runtime.versions().items()},
    }  # fmt: skip
    text = document(measured)
    write_bytes(given.out, text.encode())
    print(text)
    print(f"{given.out}: {sum(target.is_met for target in targets(measured))} of {len(targets(measured))} targets are met")
    return 0


def measure(sources: Sequence[Path], weights: Sequence[str], runtimes: Sequence[Runtime], folder: Path) -> dict[str, Any]:
    """All figures, by subject; each subject's by what was measured.

    Raises:
        RuntimeError: a command failed.
    """
    films = {side: folder / str(side) for side in SIDES}
    for side, path in films.items():
        write_films(sources, path, side)
    say("yardsticks")
    measured: dict[str, Any] = {
        "yardsticks": in_own_process(yardsticks), "operations": in_own_process(bag_operations, weights[0]),
        "ends": {}, "parts": {}, "published": {}, "dataset": {},
    }  # fmt: skip
    for runtime in runtimes:
        say(f"inference, {runtime}")
        for side in SIDES:
            for members in (weights[:1], weights):
                measured["ends"][runtime, side, len(members), BATCH, True] = end_to_end(
                    films[side], members, runtime.name, BATCH
                )
            measured["ends"][runtime, side, len(weights), BATCH, False] = end_to_end(
                films[side], weights, runtime.name, BATCH, WITHOUT_PICTURES
            )
            measured["parts"][runtime, side] = in_own_process(by_part, films[side], weights, runtime, BATCH)
        measured["ends"][runtime, SIDES[0], len(weights), 1, True] = end_to_end(films[SIDES[0]], weights, runtime.name, 1)
        if runtime.name != KERAS:
            measured["published"][runtime] = in_own_process(published_network, runtime, BATCH)
        say(f"dataset, {runtime}")
        measured["dataset"][runtime] = in_own_process(throughput, films[SIDES[0]], [str(shipped_unet())], runtime)
    say("training")
    measured["training"] = {
        "lungs_small": in_own_process(training_step, PHANTOMS, "lungs_small", weights[0]),
        "lungs": in_own_process(training_step, PHANTOMS, "lungs", None),
    }
    return measured


def films_of(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted."""
    endings = (".png", ".jpg", ".jpeg")
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in endings)


def installed(names: Sequence[str]) -> list[Runtime]:
    """Those of the runtimes that are there."""
    runtimes = []
    for name in names:
        try:
            runtimes.append(choose_runtime(name, "cpu"))
        except DeviceError as error:
            print(f"benchmark: left out {error}", file=sys.stderr)
    return runtimes


def machine() -> str:
    """The processor, how many of it this process may use, and their instructions for 16 bits."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name, flags = platform.processor() or platform.machine(), ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        name = lines.get("model name", name)
        flags = " ".join(flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in lines.get("flags", "").split())
    return f"{count} processors, {name}{f' ({flags})' if flags else ''}, Python {platform.python_version()}"


def say(text: str) -> None:
    print(f"measuring: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
