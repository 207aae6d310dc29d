"""Several processes that make one training: what is given, what each gets, and that two train to the losses of one."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from lines import problems
from script import ROOT, copy_phantoms
from test_train import TINY

from mask_rcnn.commands import train as train_command
from mask_rcnn.config import config_from_dict
from mask_rcnn.dataset.batches import TrainingBatches
from mask_rcnn.dataset.records import FilmRecord
from mask_rcnn.dataset.training_films import TrainingFilm
from mask_rcnn.network import losses
from mask_rcnn.network.layers import detection_targets
from mask_rcnn.network.normalisation import BatchNormalization
from mask_rcnn.system.workers import ALONE, Workers, WorkersError, workers_given

on_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow",
    reason="several processes train on TensorFlow alone",
)


class Scripted(Workers):
    """One of two processes, whose sums are these."""

    def __init__(self, number: int, *sums: Any) -> None:
        super().__init__(number, 2)
        self.sums = list(sums)

    def total(self, tensor: Any) -> Any:
        return keras.ops.convert_to_tensor(self.sums.pop(0))


def test_who_is_who(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert workers_given(None, None) == ([], 0) == workers_given("a:1", 1)
    assert workers_given("a:1, b:2", 2) == (["a:1", "b:2"], 1)
    monkeypatch.setenv("TF_CONFIG", json.dumps({
        "cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}))
    assert workers_given(None, None) == (["a:1", "b:1", "c:1"], 2)
    assert workers_given("a:1, b:2", 1) == (["a:1", "b:2"], 0), "what is given outweighs the variable"
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}))
    assert workers_given(None, None) == ([], 0)


@pytest.mark.parametrize(("addresses", "number", "message"), [
    (None, 1, "--worker: which of which processes"), ("a:1,b", 1, "--workers: b is no HOST:PORT"),
    ("a:1,b:99999", 1, "b:99999 is no HOST:PORT"), ("a:1,", 1, "--workers: nothing is no HOST:PORT"),
    ("a:1,a:1", 1, "one stands twice"), ("a:1,b:1", 3, "which of the 2 processes"), ("a:1,b:1", None, "which of the 2"),
])  # fmt: skip
def test_who_is_who_must_be_said(addresses: str | None, number: int | None, message: str) -> None:
    with pytest.raises(WorkersError, match=message):
        workers_given(addresses, number)


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"index": 2}}'])
def test_a_variable_that_names_no_processes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(WorkersError, match="TF_CONFIG: names no processes that can train; unset it"):
        workers_given(None, None)


def test_batches_that_cannot_be_shared_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = ["--config", str(tmp_path / "tiny.yaml"), "--workers", "a:1,b:1", "--worker", "1"]
    assert train_command.main(command) == 1
    (line,) = problems(capsys.readouterr().err)
    assert line.startswith("train: training.batch_size 7 is no multiple of the 2 processes that share a batch")


def test_shares_make_up_the_batch_of_one_process() -> None:
    config = config_from_dict({**TINY, "training": {**TINY["training"], "batch_size": 4}})  # type: ignore[dict-item]
    rng = np.random.default_rng(0)
    films = []
    for number in range(5):
        labels = np.zeros((64, 64), np.uint8)
        labels[10:50, 5:25], labels[10:50, 40:60] = 2, 1
        film = rng.integers(0, 256, (64, 64), np.uint8)
        films.append(TrainingFilm(FilmRecord(Path(f"{number}.png"), "one", str(number)), film, labels, (0, 0, 64, 64)))
    for augment in (True, False):
        whole = TrainingBatches(films, config, 3, augment)
        shares = [TrainingBatches(films, config, 3, augment, share=(number, 2)) for number in (0, 1)]
        assert len(whole) == 2 == len(shares[0])
        for epoch in (0, 1):
            for index in range(2):
                expected, targets = whole.batch(epoch, index)
                parts = [share.batch(epoch, index) for share in shares]
                assert [len(part[1]) for part in parts] == [2, 2] and len(targets) == 4
                for name, value in expected.items():
                    np.testing.assert_array_equal(np.concatenate([part[0][name] for part in parts]), value, name)


def test_losses_are_means_over_the_films_of_all() -> None:
    """Also where the processes have unequally many positives, or one of them none."""
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=(4, 9)).astype(np.float32), rng.random((4, 9)) < 0.3
    mask[2:] = False
    whole = float(losses.masked_mean(values, mask))
    count = np.float32(mask.sum())
    parts = [losses.masked_mean(values[rows], mask[rows], Scripted(number, count))
             for number, rows in enumerate((slice(0, 2), slice(2, 4)))]  # fmt: skip
    assert np.mean([float(part) for part in parts]) == pytest.approx(whole, rel=1e-6) and float(parts[1]) == 0
    assert float(losses.masked_mean(values, 0 * mask, Scripted(0, np.float32(0)))) == 0


@on_tensorflow
def test_moments_are_those_of_all_features() -> None:
    features = np.random.default_rng(0).normal(30, 2, (4, 3, 5, 7)).astype(np.float32)
    features[2:] += 5
    halves = features[:2], features[2:]
    own = [np.stack([half.mean((0, 1, 2)), half.var((0, 1, 2))]) for half in halves]
    alone = BatchNormalization(momentum=0.9)
    expected = keras.ops.convert_to_numpy(alone(features, training=True))
    for number, half in enumerate(halves):
        layer = BatchNormalization(momentum=0.9)
        layer.workers = Scripted(number, np.stack(own))
        found = keras.ops.convert_to_numpy(layer(half, training=True))
        np.testing.assert_allclose(found, expected[2 * number : 2 * number + 2], atol=2e-5)
        for one, other in zip(layer.weights, alone.weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_same_regions_are_sampled() -> None:
    config = config_from_dict(TINY)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.5, (4, 40, 2))
    proposals = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (4, 40, 2))], axis=2).astype(np.float32)
    boxes, class_ids = proposals[:, :2], np.tile(np.int32([1, 2]), (4, 1))
    masks = np.ones((4, 64, 64, 2), np.uint8)

    def sampled(films: slice, workers: Workers) -> np.ndarray:
        seed = keras.random.SeedGenerator(1)
        given = (proposals[films], class_ids[films], boxes[films], masks[films])
        return np.asarray(keras.ops.convert_to_numpy(detection_targets(*given, config, seed, workers)["rois"]))

    parts = [sampled(slice(2 * number, 2 * number + 2), Workers(number, 2)) for number in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(parts), sampled(slice(0, 4), ALONE))


# Trains as train.py does; without tracing, which takes longer than the steps, where the first word is "eagerly".
START = """
import contextlib, sys
from tiny import eager_networks
from mask_rcnn.commands import train
with eager_networks() if sys.argv.pop(1) == "eagerly" else contextlib.nullcontext():
    sys.exit(train.main(sys.argv[1:]))
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train(out: Path, config: Path, count: int = 2, how: str = "eagerly") -> list[subprocess.Popen[bytes]]:
    """The processes of a training; what each prints goes to ``out/K.txt``."""
    out.mkdir(exist_ok=True)
    addresses = ",".join(f"localhost:{port}" for port in free_ports(count))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    started = []
    for number in range(1, count + 1):
        command = ["--config", str(config), "--out", str(out / "models"), "--runs", str(out / "runs"), "--device", "cpu"]
        command += ["--set", "training.precision=float32"]
        command += ["--workers", addresses, "--worker", str(number)] if count > 1 else []
        with (out / f"{number}.txt").open("ab") as log:
            started.append(subprocess.Popen([sys.executable, "-c", START, how, *command], env=environment, stdout=log,
                                            stderr=log, cwd=ROOT, start_new_session=True))
    return started


def finish(processes: list[subprocess.Popen[bytes]], out: Path, seconds: float = 1200) -> None:
    try:
        codes = [process.wait(seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * len(codes), [(out / f"{number + 1}.txt").read_text()[-1500:] for number in range(len(codes))]


def log_of(out: Path) -> list[dict[str, float]]:
    lines = (out / "runs" / "tiny_1" / "log.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in ("seconds", "films_per_second", "waited")}
            for line in lines]  # fmt: skip


def write_config(folder: Path, **training: Any) -> Path:
    """Two films to train on and two to validate on, in batches of two."""
    values: dict[str, Any] = {**TINY, "data": {
        "sources": [str(copy_phantoms(folder / "films", 4))], "members": "all", "train_fraction": 0.5}}
    settings = {"heads_epochs": 0, "all_epochs": 2, "batch_size": 2, **training}
    values["training"] = {**TINY["training"], **settings}  # type: ignore[dict-item]
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def assert_equal_losses(out: Path, other: Path) -> None:
    """To the rounding of sums; the last digits of the log are those of 1e-5."""
    one, two = log_of(out), log_of(other)
    assert len(one) == len(two) > 1
    for expected, found in zip(one, two, strict=True):
        assert found.keys() == expected.keys()
        for key in (key for key in expected if "loss" in key):
            assert found[key] == pytest.approx(expected[key], rel=5e-4, abs=5e-5), (expected["epoch"], key)


def train_alone(out: Path, config: Path) -> None:
    command = ["--config", str(config), "--out", str(out / "models"), "--runs", str(out / "runs"), "--device", "cpu"]
    assert train_command.main([*command, "--set", "training.precision=float32"]) == 0


@on_tensorflow
@pytest.mark.usefixtures("eagerly")
def test_two_processes_train_to_the_losses_of_one(tmp_path: Path) -> None:
    """Batch normalisation learns; only the first one writes."""
    config, two = write_config(tmp_path), tmp_path / "two"
    processes = train(two, config)
    train_alone(tmp_path / "one", config)
    finish(processes, two)
    assert_equal_losses(tmp_path / "one", two)
    weights = two / "models" / "tiny_1.weights.h5"
    first, second = ((two / f"{number}.txt").read_text() for number in (1, 2))
    assert weights.exists() and f"written to {weights}" in first
    assert f"written to {weights}" not in second and "tiny_1: epoch 2/2, loss " in second


@on_tensorflow
@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("killed", [1, 2])
def test_killed_all_end_and_go_on(killed: int, tmp_path: Path) -> None:
    """The command as it is, traced; gone on with, it shows the losses of one process that nothing disturbed."""
    config, two = write_config(tmp_path, heads_epochs=1, all_epochs=3), tmp_path / "two"
    processes = train(two, config, how="traced")
    log = two / "runs" / "tiny_1" / "log.jsonl"
    while not log.exists() or b"\n" not in log.read_bytes():
        assert [process.poll() for process in processes] == [None, None], (two / "1.txt").read_text()
        time.sleep(0.05)
    processes[killed - 1].kill()
    other = processes[2 - killed]
    assert other.wait(180) not in (0, None)
    assert not (two / "models" / "tiny_1.weights.h5").exists()
    finish(train(two, config, how="traced"), two)
    assert "tiny_1: going on after epoch" in (two / "1.txt").read_text()
    train_alone(tmp_path / "one", config)
    assert_equal_losses(tmp_path / "one", two)
