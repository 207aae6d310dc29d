"""The ResNet trunk pretrained on ImageNet: the weights of ``keras.applications.ResNet50`` and ``ResNet101``.

Theirs is our architecture (He et al., CVPR 2016, first version, the stride in a block's first 1 x 1 convolution) by other
names. The weights make up for two differences, so that our trunk gives the features of theirs: the epsilon of batch
normalisation and the order of the colours. A third stays: theirs pads before the first pooling, ours as the reference does.
"""

from __future__ import annotations

import contextlib
import io
import string
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mask_rcnn.config import RESNET_BLOCKS, NetworkConfig
from mask_rcnn.weights.weights_file import Arrays, CheckpointError, Layers, assign, one_line, read_fitting, shapes_of

if TYPE_CHECKING:
    import keras

NAME = "imagenet"  # instead of a file

_MODELS = {"resnet50": "ResNet50", "resnet101": "ResNet101"}
_WIDTH = 64
_EPSILON = 1.001e-5  # of their batch normalisation


def is_classifier(layers: Layers) -> bool:
    """Whether these are the layers of a ResNet of ``keras.applications``."""
    return "conv1_conv" in layers


def file_name(backbone: str) -> str:
    """The name under which Keras publishes the weights without the classifying layer."""
    return f"{backbone}_weights_tf_dim_ordering_tf_kernels_notop.h5"


def refuse_others(source: str | Path, network: NetworkConfig) -> None:
    """Raises CheckpointError for a trunk without weights pretrained on ImageNet."""
    if network.backbone not in _MODELS or network.backbone_width != _WIDTH:
        raise CheckpointError(
            f"{source}: there are no such weights for {network.backbone} of backbone_width {network.backbone_width}; "
            f"set network.backbone to {' or '.join(_MODELS)} and backbone_width to {_WIDTH}, or leave --weights out"
        )


def download(backbone: str) -> Layers:
    """The layers of the classifier, which Keras fetches once and keeps in ``~/.keras/models``.

    Raises:
        CheckpointError: it could not be fetched.
    """
    import keras

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # thousands of lines of progress in a log
            model = getattr(keras.applications, _MODELS[backbone])(weights="imagenet", include_top=False)
    except Exception as error:  # Keras raises bare ones
        raise CheckpointError(
            f"{NAME}: could not be downloaded ({one_line(error)}); fetch {file_name(backbone)} elsewhere and give "
            "its path to --weights"
        ) from error
    return {
        layer.name: {variable.name: keras.ops.convert_to_numpy(variable) for variable in layer.weights}
        for layer in model.layers
    }


def fill_trunk(network: keras.Model, source: str | Path, layers: Layers) -> str:
    """Fills the trunk and returns a sentence about it; the pyramid and the heads keep their weights.

    Raises:
        CheckpointError: these are the layers of another ResNet, or damaged.
    """
    sizes = network.settings.network
    refuse_others(source, sizes)
    remedy = f"give {file_name(sizes.backbone)}"
    names = dict(_names(RESNET_BLOCKS[sizes.backbone]))
    beyond = next((name for name in layers if name.endswith("_conv") and name not in names.values()), None)
    if beyond:
        raise CheckpointError(f"{source}: its layer {beyond!r} has no place in a {sizes.backbone}; {remedy}")
    ours = network.named_layers()
    wanted = {names[name]: layer for name, layer in ours.items() if name in names}
    values = read_fitting(source, layers, shapes_of(wanted), remedy)
    assign(network, _as_ours({name: values[theirs] for name, theirs in names.items()}, ours))
    return f"the trunk, {sizes.backbone} in {len(names)} layers, is ImageNet's; the pyramid and the heads are random"


def _names(blocks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """Our name and theirs of every layer of the trunk that has weights, in our order."""
    yield "conv1", "conv1_conv"
    yield "bn_conv1", "conv1_bn"
    for stage, count in enumerate(blocks, start=2):
        for block, letter in enumerate(string.ascii_lowercase[:count], start=1):
            for branch, number in (("2a", 1), ("2b", 2), ("2c", 3), *([("1", 0)] if block == 1 else [])):
                yield f"res{stage}{letter}_branch{branch}", f"conv{stage}_block{block}_{number}_conv"
                yield f"bn{stage}{letter}_branch{branch}", f"conv{stage}_block{block}_{number}_bn"


def _as_ours(values: Arrays, layers: dict[str, keras.layers.Layer]) -> Arrays:
    changed = {}
    for name, variables in values.items():
        if "gamma" in variables:
            variance = variables["moving_variance"].astype(np.float64)
            ratio = np.sqrt((variance + layers[name].epsilon) / (variance + _EPSILON))
            variables = {**variables, "gamma": (variables["gamma"] * ratio).astype(np.float32)}
        changed[name] = variables
    # They see blue, green, red, as Caffe did; our films are red, green, blue with the same means taken away.
    stem = changed["conv1"]
    return {**changed, "conv1": {**stem, "kernel": stem["kernel"][:, :, ::-1]}}
