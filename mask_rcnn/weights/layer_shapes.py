"""Every layer of the network that has weights, with their shapes, from the configuration alone: without Keras.

``network/resnet.py`` builds the same layers; a test holds the two together.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

from mask_rcnn.config import RESNET_BLOCKS, NetworkConfig

Shapes = dict[str, dict[str, tuple[int, ...]]]  # by layer and variable, as Keras orders their axes


def layer_shapes(network: NetworkConfig) -> Shapes:
    """The layers by the names that they have in weights files, in the order of the network."""
    return dict(_layers(network))


def trunk_blocks(network: NetworkConfig) -> Iterator[tuple[int, str]]:
    """Stage and name of each block of the trunk: (2, "2a"), (2, "2b"), ..."""
    for stage, count in enumerate(RESNET_BLOCKS[network.backbone], start=2):
        for letter in string.ascii_lowercase[:count]:
            yield stage, f"{stage}{letter}"


def _layers(network: NetworkConfig) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    width, channels, out = network.backbone_width, network.pyramid_channels, network.pyramid_output_channels
    yield "conv1", _kernel(7, 7, 3, width)
    yield "bn_conv1", _normalisation(width)
    given = width
    for stage, name in trunk_blocks(network):
        filters = width * 2 ** (stage - 2)
        for branch, side, taken, made in (
            *([("1", 1, given, 4 * filters)] if name.endswith("a") else []),
            ("2a", 1, given, filters), ("2b", 3, filters, filters), ("2c", 1, filters, 4 * filters),
        ):  # fmt: skip
            yield f"res{name}_branch{branch}", _kernel(side, side, taken, made)
            yield f"bn{name}_branch{branch}", _normalisation(made)
        given = 4 * filters
    for level in (5, 4, 3, 2):
        yield f"fpn_c{level}p{level}", _kernel(1, 1, 4 * width * 2 ** (level - 2), channels)
    for level in (2, 3, 4, 5):
        yield f"fpn_p{level}", _kernel(3, 3, channels, out)

    ratios = len(network.anchor_ratios)
    yield "rpn_conv_shared", _kernel(3, 3, out, network.rpn_channels)
    yield "rpn_class_raw", _kernel(1, 1, network.rpn_channels, 2 * ratios)
    yield "rpn_bbox_pred", _kernel(1, 1, network.rpn_channels, 4 * ratios)

    boxes, classes = network.box_head_channels, network.class_count
    yield "mrcnn_class_conv1", _kernel(network.box_pool_size, network.box_pool_size, out, boxes)
    yield "mrcnn_class_bn1", _normalisation(boxes)
    yield "mrcnn_class_conv2", _kernel(1, 1, boxes, boxes)
    yield "mrcnn_class_bn2", _normalisation(boxes)
    yield "mrcnn_class_logits", _kernel(boxes, classes)
    yield "mrcnn_bbox_fc", _kernel(boxes, 4 * classes)

    masks, given = network.mask_head_channels, out
    for index in (1, 2, 3, 4):
        yield f"mrcnn_mask_conv{index}", _kernel(3, 3, given, masks)
        yield f"mrcnn_mask_bn{index}", _normalisation(masks)
        given = masks
    yield "mrcnn_mask_deconv", {"kernel": (2, 2, masks, masks), "bias": (masks,)}
    yield "mrcnn_mask", _kernel(1, 1, masks, classes)


def _kernel(*shape: int) -> dict[str, tuple[int, ...]]:
    return {"kernel": shape, "bias": (shape[-1],)}


def _normalisation(channels: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(("gamma", "beta", "moving_mean", "moving_variance"), (channels,))
