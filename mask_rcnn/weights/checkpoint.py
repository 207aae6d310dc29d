"""Weights on disk: our own files, which carry their configuration, and those of the reference implementation.

Ours are what Keras 3 writes as ``.weights.h5``, with the configuration as JSON in the attribute ``config``, the number of
the format and the program's version in ``format`` and ``program``, and, when final, floats of 16 bits. The reference's have
the layout of Keras 2; architecture and sizes follow from their shapes. Both are read by the names of their layers, so that
both fit, or do not, for the same reasons.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mask_rcnn.config import RESNET_BLOCKS, Config, NetworkConfig, config_from_dict, config_to_dict
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import replacing_path
from mask_rcnn.system.formats import stamp
from mask_rcnn.weights import imagenet
from mask_rcnn.weights.layer_shapes import layer_shapes
from mask_rcnn.weights.weights_file import (
    FORMAT,
    Arrays,
    CheckpointError,
    Layers,
    Shapes,
    WeightsFile,
    assign,
    one_line,
    open_weights,
    read_fitting,
    shapes_of,
)

if TYPE_CHECKING:
    import keras

__all__ = [
    "CLASS_HEADS", "ENDING", "CheckpointError", "config_in_file", "halve", "load_weights", "open_weights", "read_config",
    "read_notes", "read_weights", "resume", "save", "start_from",
]  # fmt: skip

ENDING = ".weights.h5"  # by which Keras knows what to write
_WORTH_PACKING = 2048  # bytes: packed data lie in chunks, whose index takes as much

# The layers whose shapes follow the number of classes; in each, the last axis holds one class after the other.
CLASS_HEADS = ("mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")

# The layer, and the axis of its kernel, that gives a size of ``config.network``.
_SIZED_BY = {
    "backbone_width": ("conv1", -1),
    "pyramid_channels": ("fpn_c5p5", -1),
    "pyramid_output_channels": ("fpn_p5", -1),
    "rpn_channels": ("rpn_conv_shared", -1),
    "box_pool_size": ("mrcnn_class_conv1", 0),
    "box_head_channels": ("mrcnn_class_conv1", -1),
    "mask_head_channels": ("mrcnn_mask_conv1", -1),
    "class_count": ("mrcnn_class_logits", -1),
}


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
    if not path.name.endswith(ENDING):
        raise ValueError(f"{path}: the name of a weights file must end in {ENDING}")
    with replacing_path(path, ENDING) as partial:
        network.save_weights(partial)
        with h5py.File(partial, "a") as file:
            file.attrs.update(stamp(FORMAT))
            file.attrs["config"] = json.dumps(config_in_file(config))
            file.attrs["notes"] = json.dumps(notes or {})
        if half:
            halve(partial)


def config_in_file(config: Config) -> dict[str, Any]:
    """What a weights file holds of a config: all but the thresholds of create_dataset.py, which no network depends on."""
    values = config_to_dict(config)
    del values["quality"]
    return values


def halve(path: Path) -> None:
    """Rewrites a Keras weights file with its floats in 16 bits, packed, and without the optimiser.

    Weights beyond 65,504, which a variance may be, have no place in 16 bits and keep their 32. The names of layers without
    weights are left out: Keras numbers them over all networks of a process, and equal weights shall be equal files.
    """
    with replacing_path(path, ENDING) as smaller, h5py.File(path, "r") as full, h5py.File(smaller, "w") as half:
        half.attrs.update(full.attrs)

        def copy(name: str, node: h5py.HLObject) -> None:
            if name.split("/")[0] == "optimizer":
                return
            if isinstance(node, h5py.Dataset):
                values = node[()]
                if values.dtype == np.float32 and np.abs(values).max(initial=0) <= np.finfo(np.float16).max:
                    values = values.astype(np.float16)
                write_packed(half, name, values)
            else:
                half.require_group(name)
            if isinstance(node, h5py.Dataset) or len(node):
                half[name].attrs.update(node.attrs)

        full.visititems(copy)


def write_packed(file: h5py.File, name: str, values: np.ndarray) -> None:
    """A dataset of a weights file, packed without loss where that is worth it; any HDF5 library reads it."""
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True} if values.nbytes >= _WORTH_PACKING else {}
    file.create_dataset(name, data=values, **packed)


def read_config(path: str | Path) -> Config:
    """The configuration of a weights file; of a reference file, the published one with the sizes that it shows.

    Raises:
        CheckpointError: the file is absent, no HDF5, no Mask R-CNN, or its weights do not fit its configuration.
    """
    with open_weights(path) as file:
        return _config(path, file)


def read_notes(path: str | Path) -> dict[str, Any]:
    """What ``save`` was given as ``notes``.

    Raises:
        CheckpointError: the file is absent, torn, or holds none.
    """
    with open_weights(path) as file:
        try:
            notes = json.loads(file.notes)
            if isinstance(notes, dict):
                return notes
        except (ValueError, TypeError, RecursionError):
            pass
    raise CheckpointError(f"{path}: holds no notes that can be read; write it again")


def load_weights(network: keras.Model, path: str | Path) -> None:
    """Fills a network from a file of either kind, by the names of the layers; a network that is refused keeps its weights.

    Raises:
        CheckpointError: the file is absent, torn or damaged, or does not fit; the message names the first layer that does
            not, in the order of the network, with both shapes.
    """
    assign(network, _read_all(path, network.settings.network, shapes_of(network.named_layers())))


def read_weights(path: str | Path, network: NetworkConfig) -> Arrays:
    """The weights of a network of these sizes by layer and variable, float32, as ``load_weights`` reads them.

    Raises:
        CheckpointError: as ``load_weights``.
    """
    return _read_all(path, network, layer_shapes(network))


def read_network(path: str | Path) -> tuple[Config, Arrays]:
    """What ``read_config`` gives of a file, and ``read_weights`` of that config, in half the time that both take.

    Raises:
        CheckpointError: as they do.
    """
    with open_weights(path) as file:
        config = _config(path, file)
        return config, _read_layers(path, file, config.network, layer_shapes(config.network))


def _read_all(path: str | Path, network: NetworkConfig, wanted: Shapes) -> Arrays:
    with open_weights(path) as file:
        return _read_layers(path, file, network, wanted)


def _read_layers(path: str | Path, file: WeightsFile, network: NetworkConfig, wanted: Shapes) -> Arrays:
    remedy = _remedy(path, file.layers, network)
    values = read_fitting(path, file.layers, wanted, remedy)
    _refuse_strays(path, file.layers, wanted, remedy)
    return values


def start_from(network: keras.Model, source: str | Path) -> list[str]:
    """Fills a network that is to be trained with as much of a file as it can use.

    Class heads for another number of classes are left out. Where the file and the network differ in laterality, left and
    right are exchanged in the heads, so that the network starts by naming the lungs as it is to learn.

    Args:
        source: one of our files or of the reference's; ``imagenet``, or a file that ``keras.applications`` has fetched for
            it, for the trunk alone.

    Returns:
        What was left out or exchanged, a sentence a line.

    Raises:
        CheckpointError: the file is absent, torn or damaged, or does not fit in any other way.
    """
    if str(source) == imagenet.NAME:
        imagenet.refuse_others(source, network.settings.network)
        return [imagenet.fill_trunk(network, source, imagenet.download(network.settings.network.backbone))]
    with open_weights(source) as file:
        if imagenet.is_classifier(file.layers):
            return [imagenet.fill_trunk(network, source, file.layers)]
        held, ours = _config(source, file), network.settings
        classes, wanted_classes = held.network.class_count, ours.network.class_count
        left_out = CLASS_HEADS if classes != wanted_classes else ()
        wanted = {name: layer for name, layer in network.named_layers().items() if name not in left_out}
        remedy = _remedy(source, file.layers, ours.network)
        values = read_fitting(source, file.layers, shapes_of(wanted), remedy)
        _refuse_strays(source, file.layers, network.named_layers(), remedy)
    lines = []
    if left_out:
        lines = [f"left out {', '.join(CLASS_HEADS)}: the file has {classes} classes, the config {wanted_classes}"]
    elif held.laterality != ours.laterality and classes == len(CATEGORIES) + 1:
        for head in CLASS_HEADS:
            values[head] = {name: _exchange_sides(value, classes) for name, value in values[head].items()}
        lines = [f"exchanged left and right in {', '.join(CLASS_HEADS)}: the file's laterality is {held.laterality}, "
                 f"the config's {ours.laterality}"]
    assign(network, values)
    return lines


def resume(network: keras.Model, path: str | Path) -> None:
    """Fills a compiled network and its optimiser from a file written with ``half=False``; Keras itself reads it.

    Raises:
        CheckpointError: the file is absent or torn, or is no such file of this network.
    """
    with open_weights(path):  # which refuses in one line what Keras would not
        pass
    try:
        network.load_weights(path)
    except Exception as error:  # Keras raises ValueError, KeyError, OSError and more, as the file is wrong here or there
        raise CheckpointError(f"{path}: cannot be gone on from ({one_line(error)}); delete it to begin anew") from error


def _exchange_sides(values: np.ndarray, classes: int) -> np.ndarray:
    """Left and right exchanged on the last axis, which is ``classes`` long or a multiple of it, class by class."""
    order = list(range(classes))
    order[LEFT_LUNG], order[RIGHT_LUNG] = RIGHT_LUNG, LEFT_LUNG
    return values.reshape(*values.shape[:-1], classes, -1)[..., order, :].reshape(values.shape)


def _remedy(path: str | Path, layers: Layers, network: NetworkConfig) -> str:
    """What to do about a file that does not fit."""
    try:
        sizes = _sizes(path, layers)
    except CheckpointError:
        return "give a whole Mask R-CNN checkpoint"
    changes = [f"network.{key}: {size}" for key, size in sizes.items() if size != getattr(network, key)]
    return f"give other weights, or set {', '.join(changes)} in the config" if changes else "give other weights"


def _refuse_strays(path: str | Path, layers: Layers, known: Collection[str], remedy: str) -> None:
    stray = next((name for name in layers if name not in known), None)
    if stray is not None:
        raise CheckpointError(f"{path}: its layer {stray!r} has no place in the network; {remedy}")


def _config(path: str | Path, file: WeightsFile) -> Config:
    sizes = _sizes(path, file.layers)
    if file.config is not None:
        try:
            values = json.loads(file.config)
            if file.format == 1 and isinstance(values, dict):
                values.pop("quality", None)
            config = config_from_dict(values)
        except (ValueError, TypeError, RecursionError) as error:  # no JSON, no text, or no configuration
            raise CheckpointError(
                f"{path}: its configuration cannot be used ({one_line(error)}); train it again"
            ) from error
        # Checked before a network is built, which would otherwise have any size that the file claims.
        for key, size in sizes.items():
            if getattr(config.network, key) != size:
                raise CheckpointError(
                    f"{path}: its network.{key} is {getattr(config.network, key)}, its weights' {size}; train it again"
                )
        return config
    if not file.is_legacy:
        raise CheckpointError(f"{path}: carries no configuration; write weights with MaskRCNN.save, which adds it")
    # The file holds the number of anchor ratios, not their values.
    ratios, published = _kernel_shape(path, file.layers, "rpn_class_raw")[-1] // 2, len(Config().network.anchor_ratios)
    if ratios != published:
        raise CheckpointError(f"{path}: has {ratios} anchor ratios, not {published}; their values are not in the file")
    # The reference named its lungs by image side, and its masks are pasted as it did.
    try:
        return config_from_dict({"laterality": "image", "network": sizes, "detection": {"exact_masks": False}})
    except ValueError as error:
        raise CheckpointError(f"{path}: no network has its sizes ({error}); give another checkpoint") from error


def _sizes(path: str | Path, layers: Layers) -> dict[str, Any]:
    """The sizes of ``config.network`` that the shapes give."""
    sizes = {key: _kernel_shape(path, layers, name)[axis] for key, (name, axis) in _SIZED_BY.items()}
    stage_4 = sum(name.startswith("res4") and name.endswith("_branch2a") for name in layers)
    backbone = next((name for name, blocks in RESNET_BLOCKS.items() if blocks[2] == stage_4), None)
    if backbone is None:
        raise CheckpointError(f"{path}: its ResNet has {stage_4} blocks in stage 4; known are {RESNET_BLOCKS}")
    return {"backbone": backbone, **sizes}


def _kernel_shape(path: str | Path, layers: Layers, name: str) -> tuple[int, ...]:
    kernel = layers.get(name, {}).get("kernel")
    if kernel is None or not kernel.shape:
        raise CheckpointError(f"{path}: lacks the layer {name}; give a whole Mask R-CNN checkpoint")
    return kernel.shape
