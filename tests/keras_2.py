"""Writes weights in the layout of Keras 2, as the reference and ``keras.applications`` have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mask_rcnn.model import MaskRCNN


def write_groups(path: Path, groups: Mapping[str, Mapping[str, Any]], whole: bool = False) -> None:
    """Writes groups of variables, ``{"conv1": {"conv1/kernel:0": values}}``; a layer without weights has an empty one.

    Args:
        whole: as a whole model, weights one group down, names as text instead of bytes.
    """
    text: Callable[[list[str]], Any] = list if whole else lambda names: [name.encode() for name in names]
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.attrs["layer_names"] = text(list(groups))
        for group, weights in groups.items():
            node = root.create_group(group)
            node.attrs["weight_names"] = text(list(weights))
            for name, value in weights.items():
                node[name] = value


def write_legacy(
    path: Path,
    model: MaskRCNN,
    nested: bool = False,
    whole: bool = False,
    change: Callable[[str, np.ndarray], np.ndarray | None] = lambda name, value: value,
) -> None:
    """Writes a Mask R-CNN as the reference does.

    Args:
        nested: the RPN is a model in the model, one group of its own, and the other layers' variables have the names of a
            second network of the session.
        change: gives the value to write for ``layer/variable``; None leaves it out.
    """
    groups: dict[str, dict[str, np.ndarray]] = {"input_image": {}}
    for name, layer in model.network.named_layers().items():
        inner = nested and name.startswith("rpn_")
        values = {weight.name: change(f"{name}/{weight.name}", weight.numpy()) for weight in layer.weights}
        prefix = f"rpn_model/{name}" if inner else f"mask_rcnn/{name}_1" if nested else name
        weights = {f"{prefix}/{variable}:0": value for variable, value in values.items() if value is not None}
        if weights:
            groups.setdefault("rpn_model" if inner else name, {}).update(weights)
    write_groups(path, groups, whole)
