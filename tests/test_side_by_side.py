"""Members that train side by side: one on a device at a time, logs apart, failures told, stopped together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from lines import problems
from script import ROOT, copy_phantoms
from test_train import TINY

from mask_rcnn.commands import train as train_command
from mask_rcnn.training import side_by_side
from mask_rcnn.training.side_by_side import Training, gpus_to_share, train_side_by_side
from mask_rcnn.weights.checkpoint import read_notes

# In train.py's place: notes when it ran and on which GPU, and does what its argument says.
STAND_IN = """
import json, os, sys, time
began = time.monotonic()
name, what = sys.argv[1:]
print(f"{name}: epoch 1/1, loss 1.000", flush=True)
print("another line", flush=True)
if what == "long":
    time.sleep(60)
time.sleep(0.4)
with open("ran.jsonl", "a") as file:
    file.write(json.dumps([name, os.environ["CUDA_VISIBLE_DEVICES"], began, time.monotonic()]) + "\\n")
sys.exit("train: no such film" if what == "fail" else 0)
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(side_by_side, "COMMAND", (sys.executable, "-c", STAND_IN))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_device_has_one_at_a_time(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainings = [Training(f"tiny_{k}", [f"tiny_{k}", "fail" if k == 2 else "well"]) for k in range(1, 6)]
    failed = train_side_by_side(trainings, ["0", "GPU-7"], stand_in / "runs")
    assert failed == [f"tiny_2: failed (train: no such film); {stand_in / 'runs' / 'tiny_2.txt'} has all that it said"]
    ran = [json.loads(line) for line in (stand_in / "ran.jsonl").read_text().splitlines()]
    assert sorted(name for name, *_ in ran) == [training.name for training in trainings]
    assert {device for _, device, *_ in ran} == {"0", "GPU-7"}
    for device in ("0", "GPU-7"):
        times = sorted((began, ended) for _, other, began, ended in ran if other == device)
        assert all(ended < began for (_, ended), (began, _) in zip(times, times[1:], strict=False))
    out = capsys.readouterr().out
    assert out.count(": begun on GPU ") == 5 and out.count(": done") == 4 and out.count(": epoch 1/1, loss 1.000") == 5
    assert "another line" not in out and "another line" in (stand_in / "runs" / "tiny_3.txt").read_text()


def test_ctrl_c_stops_all(stand_in: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has what runs behind it ignore
    trainings = [Training(f"tiny_{k}", [f"tiny_{k}", "long"]) for k in (1, 2, 3)]

    def interrupt() -> None:
        while not all((stand_in / "runs" / f"tiny_{k}.txt").exists() for k in (1, 2)):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        train_side_by_side(trainings, ["0", "1"], stand_in / "runs")
    assert time.monotonic() - began < 50 and not (stand_in / "runs" / "tiny_3.txt").exists()
    assert not (stand_in / "ran.jsonl").exists()


def test_which_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("2, 3", ["2", "3"]), ("GPU-a", ["GPU-a"]), ("", []), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert gpus_to_share() == expected
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "0000:01:00.0", self / "0000:02:00.0"]))
    assert gpus_to_share() == ["0", "1"]


def write_config(folder: Path, **training: Any) -> Path:
    source = copy_phantoms(folder / "films", 6)
    values = {**TINY, "data": {"sources": [str(source)], "members": "all", "train_fraction": 0.5},
              "bag": {"members": 2, "min_votes": 1}}  # fmt: skip
    values["training"] = {**TINY["training"], "batch_size": 2, "heads_epochs": 0, **training}  # type: ignore[dict-item]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_command_gives_every_gpu_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[Any] = []

    def note(trainings: Any, devices: Any, runs: Path) -> list[str]:
        begun.extend([*trainings, devices, runs])
        return ["tiny_2: failed (a reason); its log"]

    monkeypatch.setattr(train_command, "gpus_to_share", lambda: ["0", "1", "2"])
    monkeypatch.setattr(train_command, "train_side_by_side", note)
    command = ["--config", str(write_config(tmp_path)), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "models")]
    assert train_command.main(command) == 1
    assert begun == [*(Training(f"tiny_{k}", [*command, "--member", str(k), "--device", "gpu"]) for k in (1, 2)),
                     ["0", "1", "2"], tmp_path / "runs"]  # fmt: skip
    (line,) = problems(capsys.readouterr().err)
    assert line == "train: tiny_2: failed (a reason); its log"


@pytest.mark.slow
def test_two_members_side_by_side(tmp_path: Path) -> None:
    """On the CPU, in the place of two GPUs."""
    config = write_config(tmp_path, all_epochs=1)
    command = ["--config", str(config), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "models")]
    command += ["--device", "cpu"]
    trainings = [Training(f"tiny_{k}", [*command, "--member", str(k)]) for k in (1, 2)]
    assert train_side_by_side(trainings, ["a", "b"], tmp_path / "runs") == []
    for member in (1, 2):
        assert read_notes(tmp_path / "models" / f"tiny_{member}.weights.h5")["member"] == member
        assert f"tiny_{member}: epoch 1/1, loss" in (tmp_path / "runs" / f"tiny_{member}.txt").read_text()


def test_the_module_is_a_command() -> None:
    command = [sys.executable, "-m", "mask_rcnn.commands.train", "--version"]
    assert b"train.py" in subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
