"""Weights with fewer digits, for files that history keeps for ever."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from script import load_script
from tiny import tiny_config

from mask_rcnn.model import MaskRCNN
from mask_rcnn.weights.checkpoint import read_config, save


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None)
    return arrays


def test_numbers_are_rounded_to_the_nearest_and_ties_to_the_even() -> None:
    script = load_script("round_weights")
    given = np.array([1, 1 + 2**-7, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-10, 0, 2**-24, 0.3], np.float16)
    expected = [1, 1 + 2**-7, 1, 1 + 2**-6, -1 - 2**-7, 0, 0, 0.30078125]
    assert script.rounded(given).tolist() == expected


def test_a_rounded_file_loads_and_only_its_kernels_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config()
    model = MaskRCNN(config)
    whole, path = tmp_path / "tiny_1.weights.h5", tmp_path / "out" / "tiny_1.weights.h5"
    save(model.network, config, whole, notes={"films": 3})
    script = load_script("round_weights")
    assert script.main([str(whole), "--out", str(path.parent)]) == 0
    before, after = arrays_of(whole), arrays_of(path)
    assert before.keys() == after.keys() and path.stat().st_size < 0.95 * whole.stat().st_size
    for name, values in before.items():
        kernel = values.ndim > 1  # its smallest numbers have fewer digits anyway
        np.testing.assert_allclose(after[name], values, rtol=2**-8 if kernel else 0, atol=2**-22 if kernel else 0)
    assert any((after[name] != values).any() for name, values in before.items())
    with h5py.File(path) as file:
        assert json.loads(file.attrs["notes"]) == {"films": 3}
    assert read_config(path) == config
    model.load_weights(path)
    kernel = model.network.named_layers()["fpn_c5p5"].get_weights()[0]
    assert (kernel == script.rounded(kernel.astype(np.float16))).all()


def test_a_checkpoint_of_32_bits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config()
    path = tmp_path / "tiny_1.weights.h5"
    save(MaskRCNN(config).network, config, path, half=False)
    assert load_script("round_weights").main([str(path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert str(path) in error and "is of float32; give the final weights of a training" in error and error.count("\n") == 1
    assert not list((tmp_path / "out").iterdir())
