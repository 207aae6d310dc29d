"""The layers of a weights file by their names, and a network's share of them, checked before it is taken.

Two layouts of Keras are known. Version 3, which our files have, gives each layer a group ``.../vars``, the layer's name in
its attribute ``name``, and numbers the variables in it. Version 2, which the reference's files have and those of
``keras.applications``, lists the groups in the attribute ``layer_names`` and the variables of each in ``weight_names``.

A file is not trusted: nothing in it is executed, no link in it is followed, and numbers are read once their header has
shown the shape that the network needs.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

if TYPE_CHECKING:
    import keras

# Of our files, in their attribute "format"; a file without it has 1. Bump it when an older program would misread a file, and
# migrate the older ones where they are read.
#   1  the configuration holds create_dataset.py's thresholds, as ``quality``
#   2  it does not
FORMAT = 2

# By layer and variable: {"conv1": {"kernel": ..., "bias": ...}}; what stands there has a dtype, a shape and numbers.
Layers = Mapping[str, Mapping[str, "h5py.Dataset | np.ndarray"]]
Arrays = dict[str, dict[str, np.ndarray]]
Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]

# Keras 3 numbers a layer's variables; their number distinguishes convolution or dense layer from batch normalisation.
_NUMBERED = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}

# zlib packs no tighter than this: a dataset that claims more was never written.
_TIGHTEST_PACKING = 1032
_LARGEST_ATTRIBUTE = 2**20  # bytes; Keras keeps them below 64 KiB


# What h5py raises on whatever it cannot follow or decode.
_UNREADABLE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError)


class CheckpointError(ValueError):
    """A weights file that cannot be used; the message names the file, the reason and the remedy."""


class WeightsFile(NamedTuple):
    """An open file."""

    layers: Layers
    is_legacy: bool  # of Keras 2
    config: Any  # the attribute of this name, JSON in our files; None where there is none
    notes: Any  # likewise
    format: int  # 1 to FORMAT; it means nothing for files of Keras 2


@contextlib.contextmanager
def open_weights(path: str | Path) -> Iterator[WeightsFile]:
    """Opens a file of either layout; its numbers can be read while it is open.

    Raises:
        CheckpointError: the file is absent, no HDF5, torn, of a newer program, holds no layers, or keeps their numbers
            elsewhere.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such file; check the path")
    with contextlib.ExitStack() as stack:
        try:
            contents = _contents(path, stack.enter_context(h5py.File(path, "r")))
        except CheckpointError:
            raise
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path}: not an HDF5 file, or torn ({one_line(error)}); copy it again from its source"
            ) from error
        yield contents


def _contents(path: str | Path, file: h5py.File) -> WeightsFile:
    number = int(_attribute(file, "format")) if "format" in file.attrs else 1
    if number > FORMAT:
        raise CheckpointError(f"{path}: written by a newer program (format {number}; this one reads up to {FORMAT}); "
                              "update the program")
    nodes: dict[str, h5py.HLObject] = {}
    file.visititems(nodes.__setitem__)  # which passes links by
    root = nodes.get("model_weights", file)  # so far down in a file saved as a whole model
    is_legacy = "layer_names" in root.attrs
    layers = _keras_2_layers(path, nodes, root) if is_legacy else _keras_3_layers(nodes)
    if not layers:
        raise CheckpointError(f"{path}: holds no Mask R-CNN of this program or of the reference; give models/*.weights.h5")
    _refuse_what_is_not_there(path, layers)
    config, notes = (_attribute(file, name) if name in file.attrs else None for name in ("config", "notes"))
    return WeightsFile(layers, is_legacy, config, notes, number)


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _keras_3_layers(nodes: Mapping[str, h5py.HLObject]) -> Layers:
    layers = {}
    for path, node in nodes.items():
        if path.split("/")[-1] != "vars" or "name" not in node.attrs or path.startswith("optimizer/"):
            continue
        members = (nodes.get(f"{path}/{index}") for index in itertools.count())
        numbered = list(itertools.takewhile(lambda member: isinstance(member, h5py.Dataset), members))
        if numbered:
            layers[str(_attribute(node, "name"))] = dict(zip(_NUMBERED.get(len(numbered), ()), numbered, strict=False))
    return layers


def _keras_2_layers(path: str | Path, nodes: Mapping[str, h5py.HLObject], root: h5py.Group) -> Layers:
    """Models within the model, as the reference's RPN is, are flattened."""
    layers: dict[str, dict[str, h5py.Dataset]] = {}
    for group in map(_text, _attribute(root, "layer_names")):
        where = f"{root.name}/{group}".strip("/")
        try:
            names = [_text(name) for name in _attribute(nodes[where], "weight_names")]
            held = [(*f"{group}/{name}".split("/")[-2:], nodes[f"{where}/{name}"]) for name in names]
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path}: torn at layer {group!r} ({one_line(error)}); copy it again from its source"
            ) from error
        # TensorFlow 1 numbered the names of a second network, so a variable's may be conv1_1/kernel in the group conv1.
        is_layer = len({layer for layer, _, _ in held}) == 1
        for layer, variable, dataset in held:
            layers.setdefault(group if is_layer else layer, {})[variable.split(":")[0]] = dataset
    return layers


def _attribute(node: h5py.HLObject, name: str) -> Any:
    header = node.attrs.get_id(name)
    if math.prod(header.shape) * header.dtype.itemsize > _LARGEST_ATTRIBUTE:
        raise ValueError(f"the attribute {name} claims shape {header.shape}")
    return node.attrs[name]


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _refuse_what_is_not_there(path: str | Path, layers: Layers) -> None:
    for name, variables in layers.items():
        for held in variables.values():
            if not isinstance(held, h5py.Dataset) or held.dtype.kind not in "fiu":
                raise CheckpointError(f"{path}: its layer {name!r} holds no numbers; copy it again from its source")
            if held.is_virtual or held.external:
                raise CheckpointError(f"{path}: its layer {name!r} lies in other files; write it with MaskRCNN.save")
            if held.nbytes > _TIGHTEST_PACKING * held.id.get_storage_size():
                raise CheckpointError(
                    f"{path}: its layer {name!r} claims {held.nbytes} bytes and has {held.id.get_storage_size()}; "
                    "copy it again from its source"
                )


def shapes_of(layers: Mapping[str, keras.layers.Layer]) -> Shapes:
    """The shapes that a network's layers have."""
    return {name: {variable.name: tuple(variable.shape) for variable in layer.weights} for name, layer in layers.items()}


def read_fitting(path: str | Path, layers: Layers, wanted: Shapes, remedy: str) -> Arrays:
    """The variables of some layers, float32, of the shapes that are wanted.

    Args:
        path: for messages.
        layers: of an open file, or in memory.
        wanted: by the layer's name and the variable's, in the order of the network.
        remedy: what to do where one does not fit.

    Raises:
        CheckpointError: a layer is absent, of another shape, or holds NaN or infinity; the message names the first one.
    """
    for name, shapes in wanted.items():
        if name not in layers:
            raise CheckpointError(f"{path}: lacks the layer {name}; {remedy}")
        for variable, needed in shapes.items():
            held = layers[name].get(variable)
            if held is None or held.shape != needed:
                there = "nothing" if held is None else held.shape
                raise CheckpointError(f"{path}: {name}/{variable} needs {needed}, the file holds {there}; {remedy}")
    return {
        name: {variable: _numbers(path, f"{name}/{variable}", layers[name][variable]) for variable in shapes}
        for name, shapes in wanted.items()
    }


def _numbers(path: str | Path, name: str, held: h5py.Dataset | np.ndarray) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused as that
            values = np.asarray(held[()]).astype(np.float32)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: torn at {name} ({one_line(error)}); copy it again from its source") from error
    if not np.isfinite(values).all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity; the file is damaged, copy it again from its source")
    return values


def assign(network: keras.Model, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Fills the network's layers of these names."""
    layers = network.named_layers()
    for name, variables in values.items():
        for variable in layers[name].weights:
            variable.assign(variables[variable.name])
