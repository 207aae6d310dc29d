"""U-Net weights in every layout that users have: Keras 3, Keras 2 weights, Keras 2 whole models, B0 and B7."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import h5py
import keras
import numpy as np
import pytest

from create_dataset import unet as unet_module
from create_dataset.unet import SIDE, Network, WeightsError, build_unet, encoder_of, load_unet, prepare, probabilities
from mask_rcnn.films.levels import equalise
from mask_rcnn.runtime.choice import ONNX, Runtime


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(3).random((2, SIDE, SIDE, 3), np.float32)


@pytest.fixture(scope="module")
def unet() -> keras.Model:
    keras.utils.set_random_seed(11)
    model = build_unet("efficientnetb0")
    rng = np.random.default_rng(11)
    # Fresh statistics are all 0 and 1: swapped among themselves they would pass unnoticed.
    model.set_weights([weights + rng.normal(0, 0.02, weights.shape) ** 2 for weights in model.get_weights()])
    return model


def write_keras_2(model: keras.Model, path: Path, whole_model: bool = False) -> None:
    """Writes the layout of Keras 2's ``save_weights`` (or ``save``): a group a layer, datasets ``layer/weight:0``."""
    renamed = {"DepthwiseConv2D": {"kernel": "depthwise_kernel"}}
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        root.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.3.1"
        for layer in model.layers:
            group = root.create_group(layer.name)
            names = renamed.get(type(layer).__name__, {})
            weight_names = [f"{layer.name}/{names.get(w.name, w.name)}:0" for w in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in weight_names]
            for name, weight in zip(weight_names, layer.weights, strict=True):
                group[name] = weight.numpy()
        if whole_model:  # the optimiser's slots have the kernels' shapes and must not confuse the encoder's choice
            stem = next(w for w in model.weights if w.shape[:3] == (3, 3, 3))
            file["optimizer_weights/Adam/stem_conv/kernel/m:0"] = np.zeros(stem.shape, np.float32)


def normalised(inputs: np.ndarray) -> np.ndarray:
    """What the published U-Nets were trained on (segmentation_models' preprocessing of EfficientNets)."""
    return ((inputs - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


def loaders() -> list[Callable[[Path], Network]]:
    """Keras's, and that of the other runtimes where one is installed; ``test_runtime.py`` has the rest about these."""
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        return [load_unet]
    from create_dataset.unet_graph import ExportedUnet

    return [load_unet, lambda path: ExportedUnet(path, Runtime(ONNX))]


def write_stem(path: Path, filters: int) -> Path:
    with h5py.File(path, "w") as file:
        file["stem_conv/stem_conv/kernel:0"] = np.zeros((3, 3, 3, filters), np.float32)
        file["block1a_dwconv/block1a_dwconv/depthwise_kernel:0"] = np.zeros((3, 3, filters, 1), np.float32)
    return path


def test_a_film_is_stretched_before_it_is_equalised() -> None:
    """As the networks were taught: grain that the square does not show takes no part in the histogram."""
    film = np.random.default_rng(0).integers(0, 256, (4 * SIDE, 3 * SIDE), np.uint8)
    square = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    channels = np.moveaxis(prepare(film), -1, 0)
    for channel in channels:
        np.testing.assert_allclose(channel, equalise(square) / 255, atol=1e-6)
    assert np.abs(channels[0] - cv2.resize(equalise(film), (SIDE, SIDE), interpolation=cv2.INTER_AREA) / 255).mean() > 0.1


def test_the_unet_takes_a_prepared_film_and_gives_probabilities(unet: keras.Model) -> None:
    film = np.random.default_rng(0).integers(60, 90, (300, 200), np.uint8)
    prepared = prepare(film)
    assert prepared.shape == (SIDE, SIDE, 3)
    assert prepared.dtype == np.float32
    assert prepared.min() < 0.1 and prepared.max() > 0.9  # equalised: the film itself spans a ninth of the greys
    votes = probabilities([unet, unet], np.stack([prepared, prepared[::-1]]))
    assert votes.shape == (2, 2, SIDE, SIDE)
    assert votes.min() >= 0 and votes.max() <= 1 and votes.std() > 0
    assert np.array_equal(votes[0], votes[1])


@pytest.fixture
def build_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that a file describes is built once, which takes seconds, and holds other weights before it is filled."""

    def build(encoder: str) -> keras.Model:
        model = built(encoder)
        model.set_weights([np.full(weight.shape, 0.5, np.float32) for weight in model.weights])
        return model

    monkeypatch.setattr(unet_module, "build_unet", build)


built = functools.cache(build_unet)


@pytest.mark.usefixtures("build_once")
@pytest.mark.parametrize("layout", ["keras 3", "keras 2 weights", "keras 2 model"])
def test_weights_of_every_layout_give_equal_answers(
    layout: str, unet: keras.Model, inputs: np.ndarray, tmp_path: Path
) -> None:
    if layout == "keras 3":
        path = tmp_path / "unet.weights.h5"
        unet.save_weights(path)
    else:
        path = tmp_path / "unet.hdf5"
        write_keras_2(unet, path, whole_model=layout == "keras 2 model")
    assert encoder_of(path) == "efficientnetb0"
    expected = probabilities([unet], inputs if layout == "keras 3" else normalised(inputs))
    assert expected.std() > 1e-4  # a network that answers the same everywhere would equal anything
    for load in loaders():
        np.testing.assert_allclose(probabilities([load(path)], inputs), expected, atol=1e-5)


@pytest.mark.slow
def test_efficientnet_b7_in_the_keras_2_layout(inputs: np.ndarray, tmp_path: Path) -> None:
    keras.utils.set_random_seed(12)
    model = build_unet("efficientnetb7")
    write_keras_2(model, tmp_path / "b7.hdf5")
    assert encoder_of(tmp_path / "b7.hdf5") == "efficientnetb7"
    expected = probabilities([model], normalised(inputs))
    for load in loaders():
        np.testing.assert_allclose(probabilities([load(tmp_path / "b7.hdf5")], inputs), expected, atol=1e-5)


@pytest.mark.parametrize(("filters", "encoder"), [(32, "efficientnetb0"), (64, "efficientnetb7")])
def test_the_encoder_is_told_from_the_stem(filters: int, encoder: str, tmp_path: Path) -> None:
    assert encoder_of(write_stem(tmp_path / "any name.h5", filters)) == encoder


@pytest.mark.usefixtures("build_once")
def test_weights_that_cannot_be_used_are_named_in_one_line(unet: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "empty.h5").touch()
    write_stem(tmp_path / "b3.h5", 40)
    write_stem(tmp_path / "no_decoder.hdf5", 32)
    unet.save_weights(tmp_path / "whole.weights.h5")
    whole = (tmp_path / "whole.weights.h5").read_bytes()
    (tmp_path / "torn.weights.h5").write_bytes(whole[: len(whole) // 2])
    reasons = {
        "absent.h5": "no such file",
        "text.h5": "not an HDF5 file",
        "empty.h5": "not an HDF5 file",
        "torn.weights.h5": "not an HDF5 file",
        "b3.h5": "no EfficientNetB0 or EfficientNetB7",
        "no_decoder.hdf5": "does not fit",
    }
    for (name, reason), load in itertools.product(reasons.items(), loaders()):
        with pytest.raises(WeightsError, match=reason) as caught:
            load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
        assert ";" in str(caught.value)  # the remedy
