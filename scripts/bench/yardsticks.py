"""What a machine can do, by which all else is measured, and how many operations networks take.

Operations are multiplications and additions of the convolutions and dense layers, two for each product that is summed;
what lies between them is left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.clock import median_seconds

SIDE = 2048  # of the matrices
FORWARD = (1, 256, 256, 3)  # of the ResNet-101


def matrix_rate() -> float:
    """Operations a second of a product of matrices in 32 bits, as TensorFlow computes it."""
    import tensorflow as tf

    factor = tf.random.normal((SIDE, SIDE))
    multiply = tf.function(lambda: tf.matmul(factor, factor))
    return 2 * SIDE**3 / median_seconds(lambda: multiply().numpy(), 9)


def resnet_forward() -> dict[str, float]:
    """Seconds and operations of the forward pass of ``keras.applications``' ResNet-101 on one image, as a graph."""
    import keras
    import tensorflow as tf

    network = keras.applications.ResNet101(weights=None, include_top=False, input_shape=FORWARD[1:])
    image = tf.constant(np.random.default_rng(0).random(FORWARD, np.float32))
    forward = tf.function(lambda: network(image, training=False))
    return {"seconds": median_seconds(lambda: forward().numpy(), 15), "operations": float(operations(network))}


def yardsticks() -> dict[str, float]:
    """Both, by name."""
    return {"matrix_rate": matrix_rate(), **{f"resnet_{key}": value for key, value in resnet_forward().items()}}


def network_operations(network: Any, masks: int | None = None) -> dict[str, int]:
    """Of one film by part of a Mask R-CNN.

    Args:
        network: a ``mask_rcnn.model.Network``.
        masks: that are computed; by default one a detection that there may be.
    """
    config = network.settings
    side = config.network.image_size
    cells = sum((side // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    return {
        "pyramid": operations(network.pyramid),
        "proposals": operations(network.proposal_head, cells),
        "boxes": config.proposals.inference_count * operations(network.box_head),
        "masks": (masks or config.detection.max_instances) * operations(network.mask_head),
    }


def operations(part: Any, cells: int | None = None) -> int:
    """Of a Keras model; of one that takes maps of any size, over so many cells."""
    total = 0
    for layer in part.layers:
        if not hasattr(layer, "kernel"):
            continue
        # A kernel is applied once for each cell of what it gives, a transposed one for each of what it takes.
        shape = layer.input.shape if "Transpose" in type(layer).__name__ else layer.output.shape
        places = 1
        for extent in shape[1:-1]:
            places *= extent or 1
        total += 2 * places * (cells or 1) * math.prod(layer.kernel.shape)
    return total


def bag_operations(weights: str) -> dict[str, int]:
    """``network_operations`` of a weights file, for two lungs a film."""
    from mask_rcnn.model import MaskRCNN

    return network_operations(MaskRCNN.load(weights).network, masks=2)
