"""Weights written under the backend that the tests run with answer alike under every other that is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from answers import answer
from tiny import batch_of, build_sober, draw_instances, drawing_all_config

from mask_rcnn.network.losses import LOSS_NAMES

TESTS = Path(__file__).resolve().parent
TOLERANCE = 1e-4
BACKENDS = ("tensorflow", "jax", "torch")
OTHERS = [
    name for name in BACKENDS if name != keras.backend.backend() and importlib.util.find_spec(name) is not None
]

pytestmark = pytest.mark.skipif(
    not OTHERS, reason=f"only {keras.backend.backend()} is installed here; bash scripts/test_backends.sh brings the others"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, a batch of films with lessons, and what the running backend answers to it."""
    folder = tmp_path_factory.mktemp("backends")
    config = drawing_all_config()
    rng = np.random.default_rng(0)
    inputs, _ = batch_of(config, [draw_instances(rng, 64, count) for count in (5, 2, 0)], rng)
    inputs["windows"] = np.array([[0, 0, 1, 1], [0, 0.1, 1, 0.9], [0.2, 0, 0.8, 1]], np.float32)
    build_sober(config).save(folder / "tiny.weights.h5")
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "own.npz", **answer(folder / "tiny.weights.h5", inputs))
    return folder


@pytest.mark.parametrize("backend", OTHERS)
def test_weights_answer_alike(folder: Path, backend: str) -> None:
    files = [str(folder / name) for name in ("tiny.weights.h5", "inputs.npz", f"{backend}.npz")]
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    subprocess.run([sys.executable, str(TESTS / "answers.py"), *files], env=environment, check=True)
    ours, theirs = dict(np.load(folder / "own.npz")), dict(np.load(folder / f"{backend}.npz"))
    assert ours.keys() == theirs.keys() >= {"detections", "masks", *LOSS_NAMES}
    assert (ours["detections"][..., 4] > 0).any() and all(ours[name] > 0 for name in LOSS_NAMES)
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name], values, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
