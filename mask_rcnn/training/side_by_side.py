"""Members of a bag side by side: each in a process of its own on a GPU of its own, with a log of its own.

- ``RUNS/NAME_K.txt``, all that the training of member K printed
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from mask_rcnn.system.console import inform

COMMAND = (sys.executable, "-m", "mask_rcnn.commands.train")
_PACKAGE = Path(__file__).resolve().parents[2]
_PATIENCE = 60.0  # seconds for a training to end by itself once it is told to stop


class Training(NamedTuple):
    """Of one member."""

    name: str  # NAME_K
    arguments: Sequence[str]  # of train.py


class _Running(NamedTuple):
    training: Training
    process: subprocess.Popen[bytes]
    log: Path
    lines: IO[bytes]  # of the log, those that are not shown yet


def gpus_to_share() -> list[str]:
    """NVIDIA's GPUs, as ``CUDA_VISIBLE_DEVICES`` names them, without starting a library that would take their memory."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in map(str.strip, visible.split(",")) if name and name != "-1"]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def train_side_by_side(trainings: Sequence[Training], devices: Sequence[str], runs: Path) -> list[str]:
    """Runs every training on a device that no other one is on, in their order.

    What begins and ends is a line, and so is every epoch. One that fails leaves the others at work. Ctrl-C stops all.

    Args:
        devices: GPUs, as ``CUDA_VISIBLE_DEVICES`` names them.
        runs: folder of the logs.

    Returns:
        A line for each training that failed, with the last line of its log.
    """
    runs.mkdir(parents=True, exist_ok=True)
    waiting, running, failed = list(trainings), dict[str, _Running](), list[str]()
    try:
        while waiting or running:
            for device in devices:
                if waiting and device not in running:
                    running[device] = _start(waiting.pop(0), device, runs)
            for device, one in list(running.items()):
                status = one.process.poll()
                _show_epochs(one)
                if status is not None:
                    del running[device]
                    one.lines.close()
                    if status:
                        failed.append(f"{one.training.name}: failed ({_last_line(one.log)}); {one.log} has all that it said")
                        inform(failed[-1])
                    else:
                        inform(f"{one.training.name}: done")
            time.sleep(0.1)
    finally:
        _stop(list(running.values()))
    return failed


def _start(training: Training, device: str, runs: Path) -> _Running:
    log = runs / f"{training.name}.txt"
    paths = os.pathsep.join(filter(None, [str(_PACKAGE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": device, "PYTHONPATH": paths}
    log.touch()
    lines = log.open("rb")
    lines.seek(0, os.SEEK_END)  # an earlier run has shown its own
    with log.open("ab") as file:
        # A session of its own: Ctrl-C comes to it once, from here.
        process = subprocess.Popen(
            [*COMMAND, *training.arguments], env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    inform(f"{training.name}: begun on GPU {device}; {log} has all that it says")
    return _Running(training, process, log, lines)


def _show_epochs(one: _Running) -> None:
    """Passes the log's new lines about epochs on."""
    while True:
        place = one.lines.tell()
        line = one.lines.readline()
        if not line.endswith(b"\n"):
            one.lines.seek(place)
            return
        text = line.decode("utf-8", "replace").rstrip()
        if text.startswith(f"{one.training.name}: epoch "):
            inform(text)


def _last_line(log: Path) -> str:
    return (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


def _stop(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.send_signal(signal.SIGINT)
    for one in running:
        try:
            one.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            one.process.kill()
        one.lines.close()
