"""The network as ONNX graphs: in six parts, as this program runs it, and as a whole, for other programs.

Convolutions and dense layers stand in three parts, the trunk, the box head and the mask head, which can compute in 16 bits.
What lies between them, boxes, scores and where features are sampled, has parts of its own, which keep 32 bits and hold no
weights: they are the same for all networks of a configuration. Suppression, a loop of one step a proposal in Keras, is one
operator here. What is sorted by scores of which many are equal is sorted outside the parts, since OpenVINO takes equal
ones in any order; the whole leaves that to ONNX's operator, which promises the order of Keras.

Shapes (b films, s the side of the square, a anchors, n proposals a film, r RoIs of all films, k detections, c classes,
f channels, p the side of pooled features, m of masks)
    images      float32 [b, s, s, 3], as the Keras network takes them: equalised, the mean pixel subtracted
    windows     float32 [b, 4], where each film lies in its square, normalised
    features    float32 [b, cells, f], P2 to P5 row by row, one behind the other
    logits      float32 [b, a, 2], background first
    deltas      float32 [b, a, 4]
    order       int64 [b, before], the anchors of the highest scores, the best first
    proposals   float32 [b, n, 4], normalised; zeros behind the last
    boxes       float32 [r, 4], normalised
    films       int64 [r], the film in the batch of each box
    pooled      float32 [r, p, p, f]
    candidates  float32 [b, n, 6]: box, class id and score of each proposal
    kept        float32 [b, n], the score of a candidate that suppression leaves; -1 of all others
    detections  float32 [b, k, 6]: the best candidates that are left, by falling score; zeros behind the last
    mask_boxes  float32 [b, k, 4]
    masks       float32 [r, m, m, c], probabilities
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import onnx

from mask_rcnn.config import Config, NetworkConfig
from mask_rcnn.runtime.boxes import areas, level_sides, moved, one_behind_the_other, pool, rows_at, thinned, those_there
from mask_rcnn.runtime.graph import FLOAT, INT64, Graph, affine
from mask_rcnn.utils import PYRAMID_STRIDES, norm_boxes, pyramid_anchors
from mask_rcnn.weights.layer_shapes import trunk_blocks

Layers = Mapping[str, Mapping[str, np.ndarray]]  # by layer and variable, as ``checkpoint.read_weights`` gives them

EPSILON = 1e-3  # of Keras's batch normalisation
CANONICAL_SIDE = 224  # pixels: of a RoI that is classified from P4 (Lin et al., CVPR 2017)

_ALL_SIDES = (1, 1, 1, 1)

Part = TypeVar("Part")  # a model, or what runs it


class Weighted(NamedTuple, Generic[Part]):
    """The parts that hold a network's weights."""

    trunk: Part  # images -> features, logits, deltas
    boxes: Part  # pooled -> class_logits [r, c], box_deltas [r, 4 c]
    masks: Part  # pooled -> masks


class Weightless(NamedTuple, Generic[Part]):
    """The parts between them."""

    proposals: Part  # order, deltas, features -> proposals, pooled
    detections: Part  # proposals, class_logits, box_deltas, windows -> candidates, kept
    pooling: Part  # features, boxes, films -> pooled, for the masks


def build_weighted(layers: Layers, config: Config) -> Weighted[onnx.ModelProto]:
    """The parts of one network."""
    return Weighted(_trunk_model(layers, config), _boxes_model(layers, config), _masks_model(layers, config))


def build_weightless(config: Config) -> Weightless[onnx.ModelProto]:
    """The parts that all networks of a configuration share."""
    return Weightless(_proposals_model(config), _detections_model(config), _pooling_model(config))


def build_whole(
    layers: Layers, config: Config, metadata: Mapping[str, str], description: str, half: bool = False
) -> onnx.ModelProto:
    """One graph from ``images`` and ``windows`` to ``detections``, ``mask_boxes`` and ``masks`` [b, k, m, m, c].

    Args:
        metadata, description: kept in the model.
        half: whether its weights have 16 bits; it computes in 32.
    """
    network, count, side = config.network, config.detection.max_instances, config.network.mask_size
    graph = Graph("mask_rcnn", half)
    images, windows = _images(graph, network), graph.input("windows", FLOAT, ["films", 4])
    features, logits, deltas = _trunk(graph, layers, network, images)
    proposals, pooled = _propose_and_pool(graph, config, features, _order(graph, config, logits), deltas)
    class_logits, box_deltas = _box_head(graph, layers, network, pooled)
    candidates, kept = _classify(graph, config, proposals, class_logits, box_deltas, windows)
    detections, mask_boxes = _detect(graph, config, candidates, kept)
    boxes, films = one_behind_the_other(graph, mask_boxes)
    masks = _mask_head(graph, layers, _pool_for_masks(graph, network, features, boxes, films))
    masks = graph.reshape(masks, -1, count, side, side, network.class_count)
    graph.output(detections, "detections", FLOAT, ["films", count, 6])
    graph.output(mask_boxes, "mask_boxes", FLOAT, ["films", count, 4])
    graph.output(masks, "masks", FLOAT, ["films", count, side, side, network.class_count])
    return graph.model(metadata, description)


def _trunk_model(layers: Layers, config: Config) -> onnx.ModelProto:
    graph, network = Graph("trunk"), config.network
    features, logits, deltas = _trunk(graph, layers, network, _images(graph, network))
    graph.output(features, "features", FLOAT, _features_shape(network))
    graph.output(logits, "logits", FLOAT, ["films", _anchor_count(network), 2])
    graph.output(deltas, "deltas", FLOAT, ["films", _anchor_count(network), 4])
    return graph.model()


def _proposals_model(config: Config) -> onnx.ModelProto:
    graph, network = Graph("proposals"), config.network
    features = graph.input("features", FLOAT, _features_shape(network))
    order = graph.input("order", INT64, ["films", ranked_count(config)])
    deltas = graph.input("deltas", FLOAT, ["films", _anchor_count(network), 4])
    proposals, pooled = _propose_and_pool(graph, config, features, order, deltas)
    graph.output(proposals, "proposals", FLOAT, ["films", config.proposals.inference_count, 4])
    graph.output(pooled, "pooled", FLOAT, _pooled_shape(network, network.box_pool_size))
    return graph.model()


def _boxes_model(layers: Layers, config: Config) -> onnx.ModelProto:
    graph, network = Graph("boxes"), config.network
    pooled = graph.input("pooled", FLOAT, _pooled_shape(network, network.box_pool_size))
    class_logits, box_deltas = _box_head(graph, layers, network, pooled)
    graph.output(class_logits, "class_logits", FLOAT, ["rois", network.class_count])
    graph.output(box_deltas, "box_deltas", FLOAT, ["rois", 4 * network.class_count])
    return graph.model()


def _detections_model(config: Config) -> onnx.ModelProto:
    graph, network, count = Graph("detections"), config.network, config.proposals.inference_count
    proposals = graph.input("proposals", FLOAT, ["films", count, 4])
    class_logits = graph.input("class_logits", FLOAT, ["rois", network.class_count])
    box_deltas = graph.input("box_deltas", FLOAT, ["rois", 4 * network.class_count])
    windows = graph.input("windows", FLOAT, ["films", 4])
    candidates, kept = _classify(graph, config, proposals, class_logits, box_deltas, windows)
    graph.output(candidates, "candidates", FLOAT, ["films", count, 6])
    graph.output(kept, "kept", FLOAT, ["films", count])
    return graph.model()


def _pooling_model(config: Config) -> onnx.ModelProto:
    graph, network = Graph("pooling"), config.network
    features = graph.input("features", FLOAT, _features_shape(network))
    boxes, films = graph.input("boxes", FLOAT, ["rois", 4]), graph.input("films", INT64, ["rois"])
    pooled = _pool_for_masks(graph, network, features, boxes, films)
    graph.output(pooled, "pooled", FLOAT, _pooled_shape(network, network.mask_pool_size))
    return graph.model()


def _masks_model(layers: Layers, config: Config) -> onnx.ModelProto:
    graph, network, side = Graph("masks"), config.network, config.network.mask_size
    masks = _mask_head(graph, layers, graph.input("pooled", FLOAT, _pooled_shape(network, network.mask_pool_size)))
    graph.output(masks, "masks", FLOAT, ["rois", side, side, network.class_count])
    return graph.model()


def ranked_count(config: Config) -> int:
    """How many anchors are thinned to proposals."""
    return min(config.proposals.before_nms, _anchor_count(config.network))


def _images(graph: Graph, network: NetworkConfig) -> str:
    return graph.input("images", FLOAT, ["films", network.image_size, network.image_size, 3])


def _features_shape(network: NetworkConfig) -> list[int | str]:
    return ["films", sum(side**2 for side in level_sides(network)), network.pyramid_output_channels]


def _pooled_shape(network: NetworkConfig, side: int) -> list[int | str]:
    return ["rois", side, side, network.pyramid_output_channels]


def _anchor_count(network: NetworkConfig) -> int:
    return len(network.anchor_ratios) * sum((network.image_size // stride) ** 2 for stride in PYRAMID_STRIDES)


def _trunk(graph: Graph, layers: Layers, network: NetworkConfig, images: str) -> tuple[str, str, str]:
    """Images to features, logits and deltas; the layers of ``network/resnet.py``."""

    def normalised(x: str, name: str, normalisation: str, stride: int = 1, padding: Sequence[int] = (0, 0, 0, 0)) -> str:
        return graph.convolution(x, layers[name], affine(layers[normalisation], EPSILON), stride, padding)

    def branch(x: str, name: str, stride: int = 1, padding: Sequence[int] = (0, 0, 0, 0)) -> str:
        return normalised(x, f"res{name}", f"bn{name}", stride, padding)

    x = graph.node("Transpose", images, perm=[0, 3, 1, 2])
    x = graph.relu(normalised(x, "conv1", "bn_conv1", 2, (3, 3, 3, 3)))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    stages: dict[int, str] = {}
    for stage, name in trunk_blocks(network):
        stride = 2 if name.endswith("a") and stage > 2 else 1
        shortcut = branch(x, f"{name}_branch1", stride) if name.endswith("a") else x
        x = graph.relu(branch(x, f"{name}_branch2a", stride))
        x = graph.relu(branch(x, f"{name}_branch2b", 1, _ALL_SIDES))
        x = graph.relu(graph.add(branch(x, f"{name}_branch2c"), shortcut))
        stages[stage] = x

    merged = {5: graph.convolution(stages[5], layers["fpn_c5p5"])}
    for level in (4, 3, 2):
        lateral = graph.convolution(stages[level], layers[f"fpn_c{level}p{level}"])
        merged[level] = graph.add(graph.doubled(merged[level + 1]), lateral)
    pyramid = [graph.convolution(merged[level], layers[f"fpn_p{level}"], None, 1, _ALL_SIDES) for level in (2, 3, 4, 5)]
    top = graph.node("MaxPool", pyramid[-1], kernel_shape=[1, 1], strides=[2, 2])
    channels = network.pyramid_output_channels
    cells = [graph.reshape(graph.node("Transpose", level, perm=[0, 2, 3, 1]), 0, -1, channels) for level in pyramid]
    return (graph.node("Concat", *cells, axis=1), *_proposal_head(graph, layers, network, [*pyramid, top]))


def _proposal_head(graph: Graph, layers: Layers, network: NetworkConfig, pyramid: list[str]) -> tuple[str, str]:
    ratios = len(network.anchor_ratios)
    both = {
        kind: np.concatenate([layers["rpn_class_raw"][kind], layers["rpn_bbox_pred"][kind]], axis=-1)
        for kind in ("kernel", "bias")
    }
    cells = []
    for level in pyramid:
        shared = graph.relu(graph.convolution(level, layers["rpn_conv_shared"], None, 1, _ALL_SIDES))
        scored = graph.node("Transpose", graph.convolution(shared, both), perm=[0, 2, 3, 1])
        cells.append(graph.reshape(scored, 0, -1, 6 * ratios))
    table = graph.node("Concat", *cells, axis=1)
    logits = graph.reshape(graph.slice(table, 2, 0, 2 * ratios), 0, -1, 2)
    deltas = graph.reshape(graph.slice(table, 2, 2 * ratios, 6 * ratios), 0, -1, 4)
    return logits, deltas


def _order(graph: Graph, config: Config, logits: str) -> str:
    scores = graph.node("Gather", graph.node("Softmax", logits, axis=-1), graph.constant(1, np.int64), axis=2)
    return graph.nodes("TopK", 2, scores, graph.ints(ranked_count(config)), axis=1)[1]


def _propose_and_pool(graph: Graph, config: Config, features: str, order: str, deltas: str) -> tuple[str, str]:
    network = config.network
    proposals = _propose(graph, config, order, deltas)
    boxes, films = one_behind_the_other(graph, proposals)
    return proposals, pool(graph, network, features, boxes, films, network.box_pool_size, CANONICAL_SIDE)


def _propose(graph: Graph, config: Config, order: str, deltas: str) -> str:
    """As ``layers.propose`` behind its sorting: the best anchors, moved, cut to the square, thinned."""
    network, count, ranked = config.network, config.proposals.inference_count, ranked_count(config)
    side, left = network.image_size, min(count, ranked)
    anchors = norm_boxes(pyramid_anchors(side, network.anchor_scales, network.anchor_ratios), (side, side))
    chosen = graph.node("Gather", graph.constant(anchors), order, axis=0)
    boxes = moved(graph, chosen, rows_at(graph, deltas, order), config.proposals.box_std)
    boxes = graph.node("Clip", boxes, graph.constant(0.0), graph.constant(1.0))
    # Their ranks in the place of scores, no two of which are equal.
    none = graph.node("Cast", graph.multiply(order, graph.constant(0, np.int64)), to=FLOAT)
    ranks = graph.node("Unsqueeze", graph.add(none, graph.constant(np.arange(ranked, 0, -1))), graph.ints(1))
    left_over = thinned(graph, boxes, ranks, left, config.proposals.nms_threshold)
    scores, places = graph.nodes("TopK", 2, graph.node("Squeeze", left_over, graph.ints(1)), graph.ints(left), axis=1)
    return those_there(graph, rows_at(graph, boxes, places), scores, count - left)


def _classify(
    graph: Graph, config: Config, proposals: str, class_logits: str, box_deltas: str, windows: str
) -> tuple[str, str]:
    """As ``layers.refine_detections`` before its sorting: candidates and kept."""
    detection, classes, count = config.detection, config.network.class_count, config.proposals.inference_count
    probabilities = graph.node("Softmax", graph.reshape(class_logits, -1, count, classes), axis=-1)
    class_ids = graph.node("Unsqueeze", graph.node("ArgMax", probabilities, axis=-1, keepdims=0), graph.ints(2))
    scores = graph.node("ReduceMax", probabilities, graph.ints(-1), keepdims=0)
    is_class = graph.node("Equal", class_ids, graph.constant(range(classes), np.int64))  # [b, n, c]
    chosen = graph.node("Unsqueeze", graph.node("Cast", is_class, to=FLOAT), graph.ints(3))
    deltas = graph.multiply(graph.reshape(box_deltas, -1, count, classes, 4), chosen)
    deltas = graph.node("ReduceSum", deltas, graph.ints(2), keepdims=0)
    boxes = moved(graph, proposals, deltas, config.proposals.box_std)
    window = graph.node("Unsqueeze", windows, graph.ints(1))
    corner, far_corner = graph.slice(window, 2, 0, 2), graph.slice(window, 2, 2, 4)
    far = graph.node("Concat", far_corner, far_corner, axis=2)
    near = graph.node("Concat", corner, corner, axis=2)
    boxes = graph.node("Max", graph.node("Min", boxes, far), near)

    no_score = graph.constant(-1.0)
    is_sure = graph.node("GreaterOrEqual", scores, graph.constant(detection.min_score))
    good = graph.node("And", is_sure, graph.node("Greater", areas(graph, boxes, 2), graph.constant(0.0)))
    good = graph.node("Unsqueeze", graph.node("Where", good, scores, no_score), graph.ints(2))
    by_class = graph.node("Transpose", graph.node("Where", is_class, good, no_score), perm=[0, 2, 1])
    left_over = thinned(
        graph, boxes, graph.slice(by_class, 1, 1, classes), min(detection.max_instances, count), detection.nms_threshold
    )
    kept = graph.node("ReduceMax", left_over, graph.ints(1), keepdims=0)
    parts = (boxes, graph.node("Cast", class_ids, to=FLOAT), graph.node("Unsqueeze", scores, graph.ints(2)))
    return graph.node("Concat", *parts, axis=2), kept


def _detect(graph: Graph, config: Config, candidates: str, kept: str) -> tuple[str, str]:
    """Detections and mask boxes, as ``network.best_detections`` and ``network.widened`` give them."""
    detection = config.detection
    found = min(detection.max_instances, config.proposals.inference_count)
    scores, places = graph.nodes("TopK", 2, kept, graph.ints(found), axis=1)
    detections = those_there(graph, rows_at(graph, candidates, places), scores, detection.max_instances - found)
    boxes = graph.slice(detections, 2, 0, 4)
    top_left, bottom_right = graph.slice(boxes, 2, 0, 2), graph.slice(boxes, 2, 2, 4)
    margin = graph.multiply(graph.subtract(bottom_right, top_left), graph.constant(detection.mask_margin))
    wide = graph.node("Concat", graph.subtract(top_left, margin), graph.add(bottom_right, margin), axis=2)
    return detections, graph.node("Clip", wide, graph.constant(0.0), graph.constant(1.0))


def _pool_for_masks(graph: Graph, network: NetworkConfig, features: str, boxes: str, films: str) -> str:
    return pool(graph, network, features, boxes, films, network.mask_pool_size, network.mask_canonical_side)


def _box_head(graph: Graph, layers: Layers, network: NetworkConfig, pooled: str) -> tuple[str, str]:
    """Class logits [r, c] and deltas [r, 4 c]."""
    first, second, channels = layers["mrcnn_class_conv1"], layers["mrcnn_class_conv2"], network.box_head_channels
    kernel = first["kernel"].reshape(-1, channels)
    x = graph.node("Flatten", pooled, axis=1)
    x = graph.relu(graph.dense(x, kernel, first["bias"], affine(layers["mrcnn_class_bn1"], EPSILON)))
    kernel = second["kernel"].reshape(channels, channels)
    x = graph.relu(graph.dense(x, kernel, second["bias"], affine(layers["mrcnn_class_bn2"], EPSILON)))
    logits, deltas = layers["mrcnn_class_logits"], layers["mrcnn_bbox_fc"]
    return graph.dense(x, logits["kernel"], logits["bias"]), graph.dense(x, deltas["kernel"], deltas["bias"])


def _mask_head(graph: Graph, layers: Layers, pooled: str) -> str:
    """Probabilities [r, m, m, c]."""
    x = graph.node("Transpose", pooled, perm=[0, 3, 1, 2])
    for index in (1, 2, 3, 4):
        after = affine(layers[f"mrcnn_mask_bn{index}"], EPSILON)
        x = graph.relu(graph.convolution(x, layers[f"mrcnn_mask_conv{index}"], after, 1, _ALL_SIDES))
    x = graph.relu(graph.doubling_convolution(x, layers["mrcnn_mask_deconv"]))
    x = graph.node("Sigmoid", graph.convolution(x, layers["mrcnn_mask"]))
    return graph.node("Transpose", x, perm=[0, 2, 3, 1])
