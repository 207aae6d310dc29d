"""The benchmark counts operations as by hand, and says of each target whether it is met."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from bench.dataset import Throughput
from bench.document import document, targets
from bench.inference import End, random_layers, write_films
from bench.yardsticks import network_operations, operations
from script import PHANTOMS, load_script

from mask_rcnn.config import config_from_dict
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.model import Network
from mask_rcnn.runtime.choice import KERAS, ONNX, Runtime

KERAS_RUN, ONNX_RUN = Runtime(KERAS), Runtime(ONNX)


def test_every_kind_of_layer() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)  # 4 x 4 places of 3 x 3 x 3 x 4
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Conv2DTranspose(5, 2, strides=2)(x)  # 4 x 4 places of 2 x 2 x 4 x 5
    x = keras.layers.Dense(6)(keras.layers.Flatten()(x))  # 8 x 8 x 5 x 6
    expected = 2 * (16 * 3 * 3 * 3 * 4 + 16 * 2 * 2 * 4 * 5 + 8 * 8 * 5 * 6)
    assert operations(keras.Model(image, x)) == expected


def test_of_a_network() -> None:
    small = {
        "image_size": 64, "backbone": "resnet14", "backbone_width": 4, "pyramid_channels": 8, "pyramid_output_channels": 8,
        "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8,
    }
    config = config_from_dict({"network": small, "proposals": {"inference_count": 10}, "detection": {"max_instances": 3}})
    network = Network(config)
    parts = network_operations(network)
    cells = 16**2 + 8**2 + 4**2 + 2**2 + 1
    assert parts["proposals"] == 2 * cells * (9 * 8 * 8 + 8 * 6 + 8 * 12)
    assert parts["boxes"] == 10 * 2 * (49 * 8 * 16 + 16 * 16 + 16 * 3 + 16 * 12)
    assert parts["masks"] == 3 * 2 * (14**2 * (4 * 9 * 8 * 8 + 4 * 8 * 8) + 28**2 * 8 * 3)
    assert network_operations(network, masks=2)["masks"] * 3 == parts["masks"] * 2
    assert parts["pyramid"] > 2 * 32**2 * 49 * 3 * 4
    held = {name: {variable.name for variable in layer.weights} for name, layer in network.named_layers().items()}
    assert {name: set(variables) for name, variables in random_layers(config).items()} == held


def measured() -> dict[str, Any]:
    """Figures of a machine whose ResNet-101 takes 0.1 s."""
    ends = {}
    for runtime, film in ((KERAS_RUN, 0.2), (ONNX_RUN, 0.1)):
        for side, factor in ((512, 1), (2000, 2)):
            for members in (1, 5):
                ends[runtime, side, members, 8, True] = End(8.0 if runtime == KERAS_RUN else 3.0, factor * film, 1.5)
            ends[runtime, side, 5, 8, False] = End(3.0, factor * film / 2, 1.0)
    took = {"step": 0.4, "first step": 9.0, "bare": 0.3, "forward": 0.1, "data of a batch, one thread": 0.02,
            "films a second": 9.0, "share of waiting": 0.1, "memory": 2.0, "batch": 4,
            "precision": "convolutions in float32"}  # fmt: skip
    return {
        "facts": {"date": "2026-01-01", "machine": "a machine", "films": 2, "seconds": 300.0, "versions": {"numpy": "2"},
                  "command": "python scripts/benchmark.py"},
        "yardsticks": {"matrix_rate": 1e11, "resnet_seconds": 0.1, "resnet_operations": 5e9},
        "operations": {"pyramid": 10**9, "masks": 10**9}, "ends": ends,
        "parts": {(ONNX_RUN, 512): {"reading": 0.001, "networks": 0.2}},
        "published": {ONNX_RUN: {"seconds": 0.2}},
        "training": {"lungs_small": took, "lungs": {**took, "share of waiting": 0.0}},
        "dataset": {KERAS_RUN: Throughput(4.0, 3.8, 1.0, 1.0), ONNX_RUN: Throughput(10.0, 8.0, 1.0, 1.0)},
    }  # fmt: skip


def test_targets_are_those_of_the_fastest_runtime() -> None:
    found = targets(measured())
    figures = [1.0, 2.0, 0.5, 3.0, 2.0, 8 / 3.8, 0.8, 0.75, 0.1]
    assert [target.found for target in found] == pytest.approx(figures)
    assert [target.is_met for target in found] == [True, False, True, True, False, True, False, False, False]


def test_the_document_has_every_figure() -> None:
    text = document(measured())
    assert "| at most 1.3 | 2.00 | missed by 54% |" in text and "| at least 0.9 | 0.80 | missed by 11% |" in text
    assert "100 GFLOP/s" in text and "5.0 GFLOPs, 50% of that rate" in text
    assert "10.0 GFLOPs a film with two lungs: 100 ms at that rate" in text
    assert "| ONNX Runtime in float32 | 2000 | 5 | 8 | yes | 200 | 2.00 | 3.0 | 1.50 |" in text
    assert "| networks, share of the rate above | 50% |" in text
    assert "| Keras in float32 | 4.00 | 3.80 | 95% |" in text and "| step, ms | 400 | 400 |" in text
    for line in text.splitlines():  # whole tables
        assert not line.startswith("|") or line.endswith("|")


def test_films_are_scaled_to_a_long_side(tmp_path: Path) -> None:
    paths = sorted((PHANTOMS / "images").glob("*.png"))[:2]
    write_films(paths, tmp_path / "films", 100)
    sizes = [np.asarray(read_film(path)).shape for path in sorted((tmp_path / "films").iterdir())]
    assert len(sizes) == 2 and all(max(size) == 100 for size in sizes)


def test_nothing_to_measure_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_script("benchmark").main(["--src", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line == "benchmark: there is nothing to measure; check --src and --runtimes"
