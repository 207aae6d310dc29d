"""Weights on disk: our own files, which carry their configuration, and those of the reference implementation.

Ours are what Keras 3 writes as ``.weights.h5``, with the configuration as JSON in the attribute ``config`` and, when final,
floats of 16 bits. The reference's have the layout of Keras 2: one group a layer, named in the attributes ``layer_names`` and
``weight_names``; architecture and sizes are told from their shapes. Nothing in a file is ever executed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mask_rcnn.config import RESNET_BLOCKS, Config, config_from_dict, config_to_dict

if TYPE_CHECKING:
    import keras


# What of a network's configuration the shapes of its weights follow.
_SHAPING = (
    "backbone",
    "backbone_width",
    "class_count",
    "pyramid_channels",
    "pyramid_output_channels",
    "rpn_channels",
    "box_head_channels",
    "box_pool_size",
    "mask_head_channels",
)


class CheckpointError(ValueError):
    """A weights file that cannot be used; the message names the file, the reason and the remedy."""


def save(
    network: keras.Model, config: Config, path: str | Path, half: bool = True, notes: dict[str, Any] | None = None
) -> None:
    """Writes the weights and the configuration so that the file is either the old one or the whole new one.

    Args:
        path: ends in ``.weights.h5``.
        half: floats of 16 bits and no optimiser, for a final file; else all that training needs to go on.
        notes: kept as JSON in the attribute ``notes``: where the weights come from.

    Raises:
        ValueError: the name ends otherwise.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    network.save_weights(partial)
    with h5py.File(partial, "a") as file:
        file.attrs["config"] = json.dumps(config_to_dict(config))
        file.attrs["notes"] = json.dumps(notes or {})
    if half:
        halve(partial)
    os.replace(partial, path)


def halve(path: Path) -> None:
    """Rewrites a Keras weights file with its floats in 16 bits and without the optimiser.

    Weights beyond 65,504, which a variance may be, have no place in 16 bits and keep their 32.
    """
    smaller = path.with_name(f".half-{path.name}")
    with h5py.File(path, "r") as full, h5py.File(smaller, "w") as half:
        half.attrs.update(full.attrs)

        def copy(name: str, node: h5py.HLObject) -> None:
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(node, h5py.Dataset):
                values = node[()]
                if values.dtype == np.float32 and np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
                    values = values.astype(np.float16)
                half.create_dataset(name, data=values)
            else:
                half.require_group(name)
            half[name].attrs.update(node.attrs)

        full.visititems(copy)
    os.replace(smaller, path)


def read_config(path: str | Path) -> Config:
    """The configuration of a weights file; of a reference file, the published one with the sizes that it shows.

    Raises:
        CheckpointError: the file is absent, no HDF5, or no weights of a Mask R-CNN.
    """
    with _open(path) as file:
        if "config" in file.attrs:
            try:
                return config_from_dict(json.loads(file.attrs["config"]))
            except (ValueError, TypeError) as error:  # no JSON, no text, or no configuration
                raise CheckpointError(f"{path}: its configuration cannot be used ({error}); train it again") from error
        if "layer_names" in _legacy_root(file).attrs:
            return _legacy_config(path, _legacy_weights(path, file))
    raise CheckpointError(f"{path}: holds no Mask R-CNN of this program or of the reference; give models/*.weights.h5")


def load_weights(network: keras.Model, path: str | Path) -> None:
    """Fills a network from a file of either kind.

    Raises:
        CheckpointError: the file is absent or torn, or does not fit; the message names the first layer of a reference
            file, or the first key of the configuration, that does not.
    """
    with _open(path) as file:
        legacy = _legacy_weights(path, file) if "layer_names" in _legacy_root(file).attrs else None
    if legacy is not None:
        _load_legacy(network, path, legacy)
        return
    # Asked first, since Keras warns of every layer and tells no shapes.
    held, wanted = read_config(path).network, network.settings.network
    for key in _SHAPING:
        if getattr(held, key) != getattr(wanted, key):
            raise CheckpointError(
                f"{path}: its network.{key} is {getattr(held, key)}, the config's {getattr(wanted, key)}; "
                "give weights of this config"
            )
    try:
        network.load_weights(path)
    except Exception as error:  # Keras raises ValueError, KeyError, OSError and more, as the file is wrong here or there
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{path}: does not fit the network ({reason}); give weights of this config") from error


@contextlib.contextmanager
def _open(path: str | Path) -> Iterator[h5py.File]:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: there is no such file; check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:  # of h5py, on whatever it cannot follow or decode
        raise CheckpointError(f"{path}: not an HDF5 file, or torn ({error}); copy it again from its source") from error


def _legacy_root(file: h5py.File) -> h5py.Group:
    """A file saved as a whole model keeps its weights one group down."""
    return file["model_weights"] if "model_weights" in file else file


def _legacy_weights(path: str | Path, file: h5py.File) -> dict[str, dict[str, np.ndarray]]:
    """Every weight by layer and variable, ``{"conv1": {"kernel": ..., "bias": ...}}``; nested models are flattened."""
    root = _legacy_root(file)
    weights: dict[str, dict[str, np.ndarray]] = {}
    group = ""
    try:
        for group in root.attrs["layer_names"]:
            group = group.decode() if isinstance(group, bytes) else group
            for name in root[group].attrs["weight_names"]:
                name = name.decode() if isinstance(name, bytes) else name
                layer, variable = name.split("/")[-2:]
                weights.setdefault(layer, {})[variable.split(":")[0]] = root[group][name][()]
    except (KeyError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: torn at layer {group} ({error}); copy it again from its source") from error
    return weights


def _legacy_config(path: str | Path, weights: dict[str, dict[str, np.ndarray]]) -> Config:
    def shape(layer: str) -> tuple[int, ...]:
        if "kernel" not in weights.get(layer, {}):
            raise CheckpointError(f"{path}: lacks the layer {layer}; give a whole Mask R-CNN checkpoint")
        return weights[layer]["kernel"].shape

    stage_4 = sum(name.startswith("res4") and name.endswith("_branch2a") for name in weights)
    backbone = next((name for name, blocks in RESNET_BLOCKS.items() if blocks[2] == stage_4), None)
    if backbone is None:
        raise CheckpointError(f"{path}: its ResNet has {stage_4} blocks in stage 4; known are {RESNET_BLOCKS}")
    ratios = shape("rpn_class_raw")[-1] // 2
    published = Config()
    if ratios != len(published.network.anchor_ratios):
        raise CheckpointError(f"{path}: has {ratios} anchor ratios, not 3; their values are not in the file")
    sizes = {
        "backbone": backbone,
        "class_count": shape("mrcnn_class_logits")[-1],
        "backbone_width": shape("conv1")[-1],
        "pyramid_channels": shape("fpn_c5p5")[-1],
        "pyramid_output_channels": shape("fpn_p5")[-1],
        "rpn_channels": shape("rpn_conv_shared")[-1],
        "box_pool_size": shape("mrcnn_class_conv1")[0],
        "box_head_channels": shape("mrcnn_class_conv1")[-1],
        "mask_head_channels": shape("mrcnn_mask_conv1")[-1],
    }
    # The reference named its lungs by image side, and its masks are pasted as it did.
    return config_from_dict({"laterality": "image", "network": sizes, "detection": {"mask_corners": False}})


def _load_legacy(network: keras.Model, path: str | Path, weights: dict[str, dict[str, np.ndarray]]) -> None:
    for name, layer in network.named_layers().items():
        if name not in weights:
            raise CheckpointError(f"{path}: lacks the layer {name}; give a whole Mask R-CNN checkpoint")
        for variable in layer.weights:
            value = weights[name].get(variable.name)
            if value is None or value.shape != tuple(variable.shape):
                held = "nothing" if value is None else str(value.shape)
                raise CheckpointError(
                    f"{path}: {name}/{variable.name} needs {tuple(variable.shape)}, the file holds {held}; "
                    "give weights of this architecture"
                )
            variable.assign(value)
