"""A U-Net of the ensemble as an ONNX graph, written from its weights file without Keras.

Shapes (b films)
    inputs         float32 [b, 256, 256, 3], as ``unet.prepare`` gives them
    probabilities  float32 [b, 256, 256, 1]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from create_dataset.unet import IMAGENET_DEVIATION, IMAGENET_MEAN, WeightsError, encoder_of
from mask_rcnn.checks.chest import SIDE
from mask_rcnn.runtime.choice import Runtime
from mask_rcnn.runtime.graph import FLOAT, Graph, Variables, affine
from mask_rcnn.runtime.sessions import as_array, open_session
from mask_rcnn.weights.weights_file import CheckpointError, one_line, open_weights

EPSILON = 1e-3  # of batch normalisation in segmentation_models

# Blocks whose first one halves the map, by their number (Tan and Le, EfficientNet, ICML 2019, table 1); the U-Net takes
# the map before the halving of four of them into its decoder, the last one first.
_HALVING = ("2", "3", "4", "6")
_DECODER_STAGES = 5

Layers = Mapping[str, Variables]


class ExportedUnet:
    """A U-Net that ONNX Runtime or OpenVINO runs, in place of the Keras model that ``unet.load_unet`` gives.

    Args:
        path: a weights file, in Keras 2's layout or 3's.
        runtime: not Keras.

    Raises:
        WeightsError: the file is no such weights file, or is torn.
    """

    def __init__(self, path: str | Path, runtime: Runtime) -> None:
        self._run = open_session(build_unet_graph(path).SerializeToString(), runtime)

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs to probabilities."""
        return as_array(self._run({"inputs": inputs.astype(np.float32, copy=False)})["probabilities"])


def build_unet_graph(
    path: str | Path, metadata: Mapping[str, str] | None = None, description: str = "", half: bool = False
) -> onnx.ModelProto:
    """The graph of the U-Net that a weights file holds, from ``inputs`` to ``probabilities``.

    Args:
        metadata, description: kept in the model.
        half: whether its weights have 16 bits; it computes in 32.

    Raises:
        WeightsError: the file is no such weights file, or is torn.
    """
    encoder_of(path)  # which refuses what is none
    try:
        with open_weights(path) as file:
            layers = {name: {kind.removeprefix("depthwise_"): np.asarray(held[()], np.float32) for kind, held in of.items()}
                      for name, of in file.layers.items()}  # fmt: skip
            is_legacy = file.is_legacy
        return _unet(layers, is_legacy, half).model(metadata, description)
    except CheckpointError as error:
        reason = str(error).removeprefix(f"{path}: ").partition(";")[0]
    except KeyError as error:
        reason = f"lacks {error}"
    except (ValueError, OSError) as error:
        reason = one_line(error)
    raise WeightsError(f"{path}: does not fit the U-Net ({reason}); copy it again from its source")


def _unet(layers: Layers, is_legacy: bool, half: bool) -> Graph:
    graph = Graph("unet", half)
    x = graph.node("Transpose", graph.input("inputs", FLOAT, ["films", SIDE, SIDE, 3]), perm=[0, 3, 1, 2])
    if is_legacy:  # as the published U-Nets were trained
        mean, deviation = (np.reshape(values, (1, 3, 1, 1)) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        x = graph.node("Div", graph.subtract(x, graph.constant(mean)), graph.constant(deviation))
    x = _swish(graph, _convolution(graph, layers, x, "stem_conv", "stem_bn", 2))
    taken = []
    for name in sorted(layer.removesuffix("_dwconv") for layer in layers if layer.endswith("_dwconv")):
        number, is_first = name.removeprefix("block")[:-1], name.endswith("a")
        halves = is_first and number in _HALVING
        expanded = x
        if f"{name}_expand_conv" in layers:
            expanded = _swish(graph, _convolution(graph, layers, x, f"{name}_expand_conv", f"{name}_expand_bn"))
        if halves:
            taken.append(expanded)
        y = _convolution(graph, layers, expanded, f"{name}_dwconv", f"{name}_bn", 2 if halves else 1, depthwise=True)
        y = _excited(graph, layers, _swish(graph, y), name)
        y = _convolution(graph, layers, y, f"{name}_project_conv", f"{name}_project_bn")
        x = y if is_first else graph.add(y, x)
    x = _swish(graph, _convolution(graph, layers, x, "top_conv", "top_bn"))
    for stage in range(_DECODER_STAGES):
        x = graph.doubled(x)
        if taken:
            x = graph.node("Concat", x, taken.pop(), axis=1)
        for letter in "ab":
            name = f"decoder_stage{stage}{letter}"
            x = graph.relu(_convolution(graph, layers, x, f"{name}_conv", f"{name}_bn"))
    x = graph.node("Sigmoid", graph.convolution(x, layers["final_conv"], padding=(1, 1, 1, 1)))
    graph.output(graph.node("Transpose", x, perm=[0, 2, 3, 1]), "probabilities", FLOAT, ["films", SIDE, SIDE, 1])
    return graph


def _convolution(
    graph: Graph, layers: Layers, features: str, name: str, normalisation: str, stride: int = 1, depthwise: bool = False
) -> str:
    """With the normalisation behind it; padded as Keras pads maps of an even side to the same size, or half of it."""
    missing = layers[name]["kernel"].shape[0] - stride
    before, after = missing // 2, missing - missing // 2
    return graph.convolution(
        features, layers[name], affine(layers[normalisation], EPSILON), stride, (before, before, after, after), depthwise
    )


def _excited(graph: Graph, layers: Layers, features: str, name: str) -> str:
    """Squeeze and excitation (Hu et al., CVPR 2018)."""
    squeezed = graph.node("GlobalAveragePool", features)
    reduced = _swish(graph, graph.convolution(squeezed, layers[f"{name}_se_reduce"]))
    return graph.multiply(features, graph.node("Sigmoid", graph.convolution(reduced, layers[f"{name}_se_expand"])))


def _swish(graph: Graph, features: str) -> str:
    return graph.multiply(features, graph.node("Sigmoid", features))
