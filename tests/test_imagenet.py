"""ImageNet's trunk: ours answers what that of ``keras.applications`` does, and everything else is refused in one line.

This also holds our ResNets, of both depths, to an implementation that is not ours.
"""

from __future__ import annotations

import functools
import shutil
import urllib.request
from pathlib import Path
from string import ascii_lowercase

import h5py
import keras
import numpy as np
import pytest
from keras_2 import write_groups

from mask_rcnn.config import RESNET_BLOCKS, config_from_dict
from mask_rcnn.model import MaskRCNN, Network
from mask_rcnn.weights import checkpoint, imagenet
from mask_rcnn.weights.checkpoint import CheckpointError

SIDE = 64
TRUNK = ("conv1", "bn", "res")
DEPTHS = {"resnet50": keras.applications.ResNet50, "resnet101": keras.applications.ResNet101}
SIZES = {
    "image_size": SIDE,
    "pyramid_channels": 4,
    "pyramid_output_channels": 4,
    "rpn_channels": 4,
    "box_head_channels": 4,
    "mask_head_channels": 4,
}


@functools.cache
def classifier(backbone: str) -> keras.Model:
    """Theirs, with random numbers in place of the downloaded ones; variances for which epsilon matters."""
    keras.utils.set_random_seed(0)
    model, rng = DEPTHS[backbone](weights=None, include_top=False, input_shape=(SIDE, SIDE, 3)), np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name == "gamma":
                low, high = (0.05, 0.3) if "_3_" in layer.name else (0.5, 1.5)  # else the sums of blocks grow
                weight.assign(rng.uniform(low, high, weight.shape))
            elif weight.name == "moving_variance":
                weight.assign(rng.uniform(0.1, 1, weight.shape))
            elif weight.name != "kernel":
                weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


@functools.cache
def network(backbone: str = "resnet50", width: int = 64) -> Network:
    return MaskRCNN(config_from_dict({"network": SIZES | {"backbone": backbone, "backbone_width": width}})).network


def write_as_published(path: Path, model: keras.Model) -> Path:
    write_groups(path, {
        layer.name: {f"{layer.name}/{weight.name}:0": weight.numpy() for weight in layer.weights} for layer in model.layers
    })
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_as_published(tmp_path_factory.mktemp("published") / imagenet.file_name("resnet50"), classifier("resnet50"))


def refusal(source: str | Path, ours: Network) -> str:
    before = ours.get_weights()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.start_from(ours, source)
    message = str(caught.value)
    assert message.startswith(f"{source}: ") and "\n" not in message
    assert all(np.array_equal(old, new) for old, new in zip(before, ours.get_weights(), strict=True))
    return message


def answers(model: keras.Model, first: str | None, names: list[str], x: np.ndarray) -> list[np.ndarray]:
    """What some layers answer where the output of one layer, or the image, is ``x``."""
    start = model.inputs[0] if first is None else model.get_layer(first).output
    part = keras.Model(start, [model.get_layer(name).output for name in names])
    return [keras.ops.convert_to_numpy(answer) for answer in part(x, training=False)]


@pytest.mark.parametrize("backbone", ["resnet50", pytest.param("resnet101", marks=pytest.mark.slow)])
def test_the_trunk_answers_as_theirs(backbone: str, published: Path, tmp_path: Path) -> None:
    """In two parts, since the pooling between them pads differently."""
    ours, theirs, rng = network(backbone), classifier(backbone), np.random.default_rng(1)
    before = {name: layer.get_weights() for name, layer in ours.named_layers().items()}
    if backbone == "resnet101":
        published = write_as_published(tmp_path / "published.h5", theirs)
    (said,) = checkpoint.start_from(ours, published)
    layers = {"resnet50": 106, "resnet101": 208}[backbone]
    assert said == f"the trunk, {backbone} in {layers} layers, is ImageNet's; the pyramid and the heads are random"

    image = rng.uniform(-128, 128, (1, SIDE, SIDE, 3)).astype(np.float32)
    (stem,) = answers(theirs, None, ["conv1_relu"], image[..., ::-1])  # blue, green, red
    assert stem.std() > 1
    np.testing.assert_allclose(answers(ours.pyramid, None, ["conv1_relu"], image)[0], stem, rtol=1e-4, atol=1e-3)

    pooled = rng.normal(size=(1, SIDE // 4, SIDE // 4, 64)).astype(np.float32)
    last = [(f"conv{stage}_block{count}_out", f"res{stage}{ascii_lowercase[count - 1]}_out")
            for stage, count in enumerate(RESNET_BLOCKS[backbone], start=2)]
    expected = answers(theirs, "pool1_pool", [name for name, _ in last], pooled)
    for stage, answer in zip(expected, answers(ours.pyramid, "pool1", [name for _, name in last], pooled), strict=True):
        assert np.isfinite(stage).all() and stage.std() > 0.1
        np.testing.assert_allclose(answer, stage, rtol=1e-4, atol=1e-5 * stage.max())

    for name, layer in ours.named_layers().items():
        if not name.startswith(TRUNK):
            for old, new in zip(before[name], layer.get_weights(), strict=True):
                np.testing.assert_array_equal(old, new, err_msg=name)


def test_the_name_alone_has_keras_fetch_it(
    monkeypatch: pytest.MonkeyPatch, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetch(weights: str, include_top: bool) -> keras.Model:
        assert weights == "imagenet" and not include_top
        print("Downloading data from https://example.org", "\r10/10 ====", sep="\n")
        return classifier("resnet50")

    monkeypatch.setattr(keras.applications, "ResNet50", fetch)
    checkpoint.start_from(network(), published)
    trunk = [layer for name, layer in network().named_layers().items() if name.startswith(TRUNK)]
    from_file = [layer.get_weights() for layer in trunk]
    for layer in trunk:
        layer.set_weights([np.zeros(weight.shape) for weight in layer.weights])
    checkpoint.start_from(network(), "imagenet")
    for expected, variables in zip(from_file, trunk, strict=True):
        for old, new in zip(expected, variables.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new, err_msg=variables.name)
    assert capsys.readouterr() == ("", "")


def test_without_network_the_file_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers proxies
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))  # nothing fetched yet
    message = refusal("imagenet", network())
    assert "could not be downloaded (URL fetch failure" in message
    assert "fetch resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 elsewhere" in message
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("backbone", "width"), [("resnet26", 64), ("resnet50", 8)])
def test_a_trunk_that_imagenet_has_not_taught_is_refused(published: Path, backbone: str, width: int) -> None:
    for source in ("imagenet", published):
        message = refusal(source, network(backbone, width))
        assert f"there are no such weights for {backbone} of backbone_width {width}" in message


@pytest.mark.slow
def test_another_depth_is_refused(published: Path) -> None:
    wanted = imagenet.file_name("resnet101")
    assert f"lacks the layer conv4_block7_1_conv; give {wanted}" in refusal(published, network("resnet101"))


def test_deeper_ones_are_refused(tmp_path: Path) -> None:
    path = write_as_published(tmp_path / "published.h5", classifier("resnet101"))
    assert "its layer 'conv4_block7_1_conv' has no place in a resnet50; give resnet50_" in refusal(path, network())


def test_damaged_ones_are_refused(published: Path, tmp_path: Path) -> None:
    published = Path(shutil.copy(published, tmp_path / "published.h5"))
    with h5py.File(published, "a") as file:
        file["conv3_block2_1_bn/conv3_block2_1_bn/beta:0"][3] = np.nan
        del file["conv5_block1_0_conv/conv5_block1_0_conv/bias:0"]
    assert "torn at layer 'conv5_block1_0_conv'" in refusal(published, network())
    with h5py.File(published, "a") as file:
        file["conv5_block1_0_conv/conv5_block1_0_conv/bias:0"] = np.zeros(7)
    reason = "conv5_block1_0_conv/bias needs (2048,), the file holds (7,); give resnet50_weights"
    assert reason in refusal(published, network())
    with h5py.File(published, "a") as file:
        del file["conv5_block1_0_conv/conv5_block1_0_conv/bias:0"]
        file["conv5_block1_0_conv/conv5_block1_0_conv/bias:0"] = np.zeros(2048)
    assert "conv3_block2_1_bn/beta holds NaN or infinity" in refusal(published, network())


def test_it_is_no_mask_rcnn(published: Path) -> None:
    with pytest.raises(CheckpointError, match="lacks the layer conv1; give a whole Mask R-CNN checkpoint"):
        MaskRCNN.load(published)
