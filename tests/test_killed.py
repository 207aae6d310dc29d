"""Each command, killed at random moments and given again, ends with the bytes of an undisturbed run.

The real commands with the networks that ship, in processes of their own; train.py with a tiny one. Slow: some minutes each.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from script import copy_phantoms

ROOT = Path(__file__).resolve().parents[1]
KILLS = int(os.environ.get("KILLS", "30"))
WHEN = re.compile(rb'\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00| UTC)|"(seconds|films_per_second|waited)": ?[\d.]+'
                  rb"|\d+ (s|min) \|")

pytestmark = pytest.mark.slow


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but TensorBoard's, which has the time in each line; times and the folder's name left out."""
    return {
        path.relative_to(folder).as_posix(): WHEN.sub(b"", path.read_bytes().replace(folder.name.encode(), b"out-nn"))
        for path in sorted(folder.rglob("*")) if path.is_file() and "events.out" not in path.name
    }  # fmt: skip


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file, start_new_session=True)


def finish(arguments: list[str], log: Path) -> None:
    assert start(arguments, log).wait(600) == 0, log.read_text()[-2000:]


@pytest.mark.parametrize("command", ["inference", "create_dataset", "train"])
def test_killed_at_random_moments(command: str, tmp_path: Path) -> None:
    films = copy_phantoms(tmp_path / "films", 8 if command == "train" else 16)
    make: dict[str, Callable[[Path], list[str]]] = {
        "inference": lambda out: ["inference.py", "--weights", "models/lungs_small_1.weights.h5", "--device", "cpu",
                                  "--batch", "2", "--src", str(films), "--out", str(out)],
        "create_dataset": lambda out: ["create_dataset.py", "--src", str(films), "--batch", "2", "--out", str(out),
                                       "--copy-images", "200", "--export", "legacy"],
        "train": lambda out: ["train.py", "--config", str(tmp_path / "tiny.yaml"), "--device", "cpu",
                              "--out", str(out / "models"), "--runs", str(out / "runs")],
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({
        "name": "tiny", "data": {"sources": [str(films)], "train_fraction": 0.75},
        "network": {"image_size": 128, "backbone": "resnet14", "backbone_width": 8, "pyramid_channels": 16,
                    "pyramid_output_channels": 16, "rpn_channels": 16, "box_head_channels": 32, "mask_head_channels": 16,
                    "train_batch_norm": True, "anchor_scales": [8, 16, 32, 64, 128]},
        "proposals": {"before_nms": 200, "training_count": 30, "inference_count": 30},
        "training": {"heads_epochs": 2, "all_epochs": 3, "batch_size": 2, "optimiser": "adam", "schedule": "cosine",
                     "augmentation": {"rotation": 4.0, "scale": 0.05, "noise": 0.03, "apparatus": 0.5}},
        "bag": {"members": 1, "min_votes": 1},
    }))  # fmt: skip
    arguments, log = make[command], tmp_path / "log.txt"
    began = time.monotonic()
    finish(arguments(tmp_path / "out-99"), log)
    seconds = time.monotonic() - began
    expected = contents(tmp_path / "out-99")
    assert len(expected) > 3

    lots, number, killed = random.Random(0), 0, 0
    while killed < KILLS:
        out = tmp_path / f"out-{number:02}"
        process = start(arguments(out), log)
        try:
            process.wait(lots.uniform(0.1 * seconds, 0.98 * seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            killed += 1
            continue
        assert process.returncode == 0, log.read_text()[-2000:]
        assert contents(out) == expected
        number += 1
    finish(arguments(tmp_path / f"out-{number:02}"), log)
    assert contents(tmp_path / f"out-{number:02}") == expected
    print(f"{command}: {KILLS} kills, {number + 1} runs that ended with the bytes of an undisturbed one")
