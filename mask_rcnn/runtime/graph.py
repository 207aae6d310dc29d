"""An ONNX graph under construction, with the layers that the networks here are made of.

Nothing here imports Keras: a graph is written from arrays, which takes a second where converting a Keras model takes a
minute.

Shapes
    features  float32 [b, c, h, w], channels first, as ONNX has convolutions
    kernel    float32 [h, w, c in, c out], as Keras has it; depthwise [h, w, c in, 1], transposed [h, w, c out, c in]
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mask_rcnn.version import __version__

OPSET = 18  # of ONNX's operators: the lowest that has all that is used here
_IR_VERSION = 9  # of the file, so that older runtimes read it too

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8

Variables = Mapping[str, np.ndarray]


class Affine(NamedTuple):
    """What batch normalisation does after training: ``scale`` x + ``shift``, both [c]."""

    scale: np.ndarray
    shift: np.ndarray


class Graph:
    """Nodes, constants, inputs and outputs; every method that adds a node returns the name of what it gives.

    Args:
        name: of the graph.
        half: whether the weights of layers are kept in 16 bits, which halves the file; all is computed in 32.
    """

    def __init__(self, name: str, half: bool = False) -> None:
        self.name, self._half = name, half
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """An input; a size that is a text may be any."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, value: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Gives a value out under this name."""
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [name if other == value else other for other in names]
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant array; equal ones are one."""
        array = np.array(values, dtype, order="C")
        content = array.tolist() if array.size <= 16 else hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()
        name = f"{array.dtype}{array.shape}{content}"
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(array, name)
        return name

    def _weights(self, values: np.ndarray) -> str:
        half = self._half and np.abs(values).max(initial=0) <= np.finfo(np.float16).max
        return self.node("Cast", self.constant(values, np.float16), to=FLOAT) if half else self.constant(values)

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The only output of a node."""
        return self.nodes(operator, 1, *inputs, **attributes)[0]

    def nodes(self, operator: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """The outputs of a node."""
        name = f"{operator}_{len(self._nodes)}"
        outputs = [name if count == 1 else f"{name}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), outputs, name=name, **attributes))
        return outputs

    def model(self, metadata: Mapping[str, str] | None = None, description: str = "") -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, list(self._constants.values()), doc_string=description
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION,
            producer_name="lung-mask-rcnn", producer_version=__version__, doc_string=description,
        )  # fmt: skip
        helper.set_model_props(model, dict(metadata or {}))
        return model

    # Layers of networks.

    def convolution(
        self, features: str, layer: Variables, after: Affine | None = None, stride: int = 1,
        padding: Sequence[int] = (0, 0, 0, 0), depthwise: bool = False,
    ) -> str:  # fmt: skip
        """A convolution, the batch normalisation behind it folded in; ``padding`` is top, left, bottom, right."""
        kernel = layer["kernel"]
        weights = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
        weights, bias = _folded(weights, layer.get("bias"), after)
        return self.node(
            "Conv", features, self._weights(weights), self.constant(bias), strides=[stride, stride], pads=list(padding),
            kernel_shape=list(weights.shape[2:]), group=len(weights) if depthwise else 1,
        )  # fmt: skip

    def doubling_convolution(self, features: str, layer: Variables) -> str:
        """A transposed convolution of a 2 x 2 kernel and stride 2."""
        weights = layer["kernel"].transpose(3, 2, 0, 1)
        return self.node(
            "ConvTranspose", features, self._weights(weights), self.constant(layer["bias"]), strides=[2, 2],
            kernel_shape=[2, 2],
        )  # fmt: skip

    def dense(self, rows: str, kernel: np.ndarray, bias: np.ndarray, after: Affine | None = None) -> str:
        """Rows [n, c in] by a kernel [c in, c out]."""
        weights, bias = _folded(kernel.T, bias, after)
        return self.node("Gemm", rows, self._weights(weights), self.constant(bias), transB=1)

    def relu(self, features: str) -> str:
        return self.node("Relu", features)

    def doubled(self, features: str) -> str:
        """Every cell four times."""
        return self.node(
            "Resize", features, "", self.constant([1, 1, 2, 2]), mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        )  # fmt: skip

    # Arithmetic.

    def ints(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(list(values), np.int64)

    def slice(self, value: str, axis: int, start: int, end: int) -> str:
        return self.node("Slice", value, self.ints(start), self.ints(end), self.ints(axis))

    def reshape(self, value: str, *shape: int) -> str:
        """To a shape, in which 0 keeps a size and -1 takes what is left."""
        return self.node("Reshape", value, self.ints(*shape))

    def add(self, a: str, b: str) -> str:
        return self.node("Add", a, b)

    def subtract(self, a: str, b: str) -> str:
        return self.node("Sub", a, b)

    def multiply(self, a: str, b: str) -> str:
        return self.node("Mul", a, b)


def affine(layer: Variables, epsilon: float) -> Affine:
    """A batch normalisation as it is after training (Ioffe and Szegedy, ICML 2015)."""
    scale = layer["gamma"].astype(np.float64) / np.sqrt(layer["moving_variance"].astype(np.float64) + epsilon)
    return Affine(scale, layer["beta"] - layer["moving_mean"] * scale)


def _folded(weights: np.ndarray, bias: np.ndarray | None, after: Affine | None) -> tuple[np.ndarray, np.ndarray]:
    """Weights [c out, ...] and bias [c out] of a layer together with the normalisation behind it."""
    held = np.zeros(len(weights), np.float64) if bias is None else bias.astype(np.float64)
    if after is not None:
        weights = weights * after.scale.reshape(-1, *[1] * (weights.ndim - 1))
        held = held * after.scale + after.shift
    return weights.astype(np.float32), held.astype(np.float32)
