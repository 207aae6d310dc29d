"""What lies between the convolutions: proposals, pyramid RoIAlign, detection targets, detections.

All of it has static shapes: counts are fixed, surplus places are padded with zeros, and no step gathers by a mask or loops
over a batch in Python, so that the whole network compiles.

Shapes (b films, n boxes, k kept, m instances, c channels)
    boxes     float32 [b, n, 4], (y1, x1, y2, x2), normalised as in ``utils.norm_boxes``; all zero is padding
    deltas    float32 [b, n, 4], as the network gives them: divided by ``box_std``
    pyramid   [P2, P3, P4, P5], each float32 [b, h, w, c]
    masks     [b, height, width, m], one instance a channel
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from mask_rcnn.config import Config
from mask_rcnn.system.workers import ALONE, Workers

Tensor = Any  # a tensor of whichever backend Keras runs on

# The least IoU of a proposal with the instance that is its target (Girshick, Fast R-CNN, ICCV 2015).
POSITIVE_ROI_IOU = 0.5

NEVER = -1e9  # below every score: a place that cannot be chosen

# Of log dh and log dw: a box grows to 62.5 times its height and width at most, so that no exponential overflows (Detectron's
# BBOX_XFORM_CLIP, torchvision's BoxCoder.bbox_xform_clip: 1000 pixels over the least stride).
LARGEST_LOG_SCALE = math.log(1000 / 16)


def pairwise_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union: [b, n, 4] with [b, m, 4] to [b, n, m]; 0 where both are empty."""
    a, b = ops.expand_dims(boxes_a, 2), ops.expand_dims(boxes_b, 1)
    height = ops.minimum(a[..., 2], b[..., 2]) - ops.maximum(a[..., 0], b[..., 0])
    width = ops.minimum(a[..., 3], b[..., 3]) - ops.maximum(a[..., 1], b[..., 1])
    shared = ops.maximum(height, 0.0) * ops.maximum(width, 0.0)
    union = box_area(a) + box_area(b) - shared
    return ops.where(union > 0, shared / ops.where(union > 0, union, 1.0), 0.0)


def box_area(boxes: Tensor) -> Tensor:
    """Areas [...] of boxes [..., 4]."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def apply_deltas(boxes: Tensor, deltas: Tensor, box_std: Sequence[float]) -> Tensor:
    """Moves boxes [..., 4] by the network's deltas [..., 4], whose scales are cut at ``LARGEST_LOG_SCALE``."""
    deltas = deltas * ops.convert_to_tensor(box_std, dtype=boxes.dtype)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + (0.5 + deltas[..., :2]) * size
    size = size * ops.exp(ops.minimum(deltas[..., 2:], LARGEST_LOG_SCALE))
    return ops.concatenate([centre - 0.5 * size, centre + 0.5 * size], axis=-1)


def encode_deltas(boxes: Tensor, gt_boxes: Tensor, box_std: Sequence[float]) -> Tensor:
    """The inverse of ``apply_deltas`` below ``LARGEST_LOG_SCALE``; a padded box gives zeros."""
    size, gt_size = boxes[..., 2:] - boxes[..., :2], gt_boxes[..., 2:] - gt_boxes[..., :2]
    real = ops.all(size > 0, axis=-1, keepdims=True) & ops.all(gt_size > 0, axis=-1, keepdims=True)
    size, gt_size = ops.where(real, size, 1.0), ops.where(real, gt_size, 1.0)
    shift = (gt_boxes[..., :2] + 0.5 * gt_size - boxes[..., :2] - 0.5 * size) / size
    deltas = ops.concatenate([shift, ops.log(gt_size / size)], axis=-1)
    return ops.where(real, deltas / ops.convert_to_tensor(box_std, dtype=boxes.dtype), 0.0)


def clip_boxes(boxes: Tensor, windows: Tensor) -> Tensor:
    """Boxes [b, n, 4] cut to each film's window [b, 4]."""
    windows = ops.expand_dims(windows, 1)
    corner, far_corner = ops.tile(windows[..., :2], (1, 1, 2)), ops.tile(windows[..., 2:], (1, 1, 2))
    return ops.maximum(ops.minimum(boxes, far_corner), corner)


def gather(values: Tensor, indices: Tensor) -> Tensor:
    """Rows by film: values [b, n, ...] at indices [b, k] to [b, k, ...]."""
    extra = len(values.shape) - 2
    if extra == 0:
        return ops.take_along_axis(values, indices, axis=1)
    shape = values.shape[2:]
    flat = ops.reshape(values, (-1, values.shape[1], math.prod(shape)))
    taken = ops.take_along_axis(flat, ops.expand_dims(indices, -1), axis=1)
    return ops.reshape(taken, (-1, indices.shape[1], *shape))


def non_maximum_suppression(
    boxes: Tensor, scores: Tensor, count: int, threshold: float, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Greedy suppression: the best box stays, those of a greater IoU with it go, and so on.

    Args:
        boxes: [b, n, 4].
        scores: [b, n]; ``NEVER`` for one that must not be chosen.
        count: how many are chosen at most.
        threshold: IoU above which the lesser box goes.
        classes: int [b, n]; where given, boxes of different classes do not suppress each other.

    Returns:
        int32 [b, count], the indices by falling score, and bool [b, count], whether there was one.
    """
    places = ops.arange(count, dtype="int32")
    positions = ops.arange(boxes.shape[1], dtype="int32")

    def choose(step: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        alive, indices, found = state
        best = ops.cast(ops.argmax(alive, axis=1), "int32")[:, None]
        there = ops.take_along_axis(alive, best, axis=1) > NEVER / 2
        overlap = pairwise_iou(gather(boxes, best), boxes)[:, 0]
        gone = overlap > threshold
        if classes is not None:
            gone = gone & (classes == ops.take_along_axis(classes, best, axis=1))
        gone = gone | (positions[None] == best)
        here = places[None] == ops.cast(step, "int32")
        return (
            ops.where(gone, ops.cast(NEVER, alive.dtype), alive),
            ops.where(here, best, indices),
            ops.where(here, there, found),
        )

    # Built from the scores, so that the batch may be of any size.
    start = ops.repeat(ops.zeros_like(scores[:, :1]), count, axis=1)
    _, indices, found = ops.fori_loop(
        0, count, choose, (scores, ops.cast(start, "int32"), ops.cast(start, "bool"))
    )
    return indices, found


def propose(
    scores: Tensor, deltas: Tensor, anchors: Tensor, count: int, config: Config
) -> Tensor:
    """The anchors of the highest scores, moved by their deltas, cut to the square and thinned.

    Args:
        scores: foreground probabilities [b, anchors].
        deltas: [b, anchors, 4].
        anchors: normalised, [anchors, 4].
        count: of the proposals.

    Returns:
        Proposals [b, count, 4], the best first, zeros behind the last.
    """
    kept = min(config.proposals.before_nms, int(anchors.shape[0]))
    # Sorted, since many scores are exactly 1, and of equal ones PyTorch's top_k takes any.
    order = ops.cast(ops.argsort(-scores, axis=1)[:, :kept], "int32")
    scores = gather(scores, order)
    chosen = ops.take(anchors, order, axis=0)
    boxes = apply_deltas(chosen, gather(deltas, order), config.proposals.box_std)
    boxes = ops.clip(boxes, 0.0, 1.0)
    indices, found = non_maximum_suppression(boxes, scores, count, config.proposals.nms_threshold)
    return ops.where(found[..., None], gather(boxes, indices), 0.0)


def crop_and_resize(values: Tensor, offsets: Tensor, sizes: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Samples boxes out of feature maps that lie one behind the other in one table.

    ``side`` x ``side`` samples are spread evenly from corner to corner of a box and read bilinearly; outside the map they
    are 0. (He et al., Mask R-CNN, ICCV 2017, section 3, with one sample a cell as the reference has it.)

    Args:
        values: [cells, c], the maps row by row.
        offsets: int [...], the row in ``values`` where a box's map begins.
        sizes: int [..., 2], height and width of a box's map.
        boxes: [..., 4], normalised to that map.

    Returns:
        [..., side, side, c].
    """
    limits = ops.cast(sizes - 1, boxes.dtype)
    steps = ops.arange(side, dtype=boxes.dtype) / (side - 1)
    y = (boxes[..., 0:1] + (boxes[..., 2:3] - boxes[..., 0:1]) * steps) * limits[..., 0:1]
    x = (boxes[..., 1:2] + (boxes[..., 3:4] - boxes[..., 1:2]) * steps) * limits[..., 1:2]
    inside = ops.expand_dims((y >= 0) & (y <= limits[..., 0:1]), -1) & ops.expand_dims(
        (x >= 0) & (x <= limits[..., 1:2]), -2
    )
    top, bottom, down = _neighbours(y, limits[..., 0:1])
    left, right, across = _neighbours(x, limits[..., 1:2])
    offsets, widths = offsets[..., None, None], sizes[..., 1][..., None, None]

    def read(row: Tensor, column: Tensor) -> Tensor:
        cells = offsets + ops.expand_dims(row, -1) * widths + ops.expand_dims(column, -2)
        return ops.take(values, cells, axis=0)

    down = ops.cast(down[..., :, None, None], values.dtype)
    across = ops.cast(across[..., None, :, None], values.dtype)
    upper = read(top, left) * (1 - across) + read(top, right) * across
    lower = read(bottom, left) * (1 - across) + read(bottom, right) * across
    sampled = upper * (1 - down) + lower * down
    return ops.where(ops.expand_dims(inside, -1), sampled, ops.zeros_like(sampled))


def _neighbours(position: Tensor, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after each position, int32, and how far it lies from the first to the second."""
    position = ops.clip(position, 0.0, limit)
    before = ops.floor(position)
    after = ops.minimum(before + 1, limit)
    return ops.cast(before, "int32"), ops.cast(after, "int32"), position - before


def pyramid_level(boxes: Tensor, image_size: int, canonical_side: int = 224) -> Tensor:
    """The level that each box is pooled from, int32 [...], 0 for P2 to 3 for P5, as ``pyramid_roi_align`` explains."""
    size = ops.sqrt(ops.maximum(box_area(boxes), 1e-12)) * image_size
    level = ops.cast(ops.round(ops.log(size / canonical_side) / math.log(2.0)), "int32") + 4
    return ops.clip(level, 2, 5) - 2


def pyramid_roi_align(
    boxes: Tensor, pyramid: Sequence[Tensor], side: int, image_size: int, canonical_side: int = 224
) -> Tensor:
    """Pools each box from the level that fits its size: [b, n, 4] and [P2..P5] to [b, n, side, side, c].

    A box of ``canonical_side`` pixels belongs to P4, one half as large to P3 (Lin et al., CVPR 2017, equation 1). The paper
    takes the floor of the level; this rounds it, as the reference implementation does and its weights expect.
    """
    shapes = [(int(level.shape[1]), int(level.shape[2])) for level in pyramid]
    cells = [height * width for height, width in shapes]
    channels = int(pyramid[0].shape[-1])
    # All levels of all films in one table: one gather serves every box, whatever its level.
    table = ops.concatenate([ops.reshape(level, (-1, count, channels)) for level, count in zip(pyramid, cells)], axis=1)
    table = ops.reshape(table, (-1, channels))

    level = pyramid_level(boxes, image_size, canonical_side)
    starts = [sum(cells[:index]) for index in range(len(cells))]
    film = ops.cumsum(ops.ones_like(level), axis=0) - 1  # the film's number in the batch, at each of its boxes
    offsets = film * sum(cells) + ops.take(ops.convert_to_tensor(starts, dtype="int32"), level, axis=0)
    sizes = ops.take(ops.convert_to_tensor(shapes, dtype="int32"), level, axis=0)
    return crop_and_resize(table, offsets, sizes, boxes, side)


def widen_boxes(boxes: Tensor, margin: float) -> Tensor:
    """Boxes [b, n, 4], each widened by ``margin`` of its size on every side, but not beyond the square."""
    size = boxes[..., 2:] - boxes[..., :2]
    return ops.clip(ops.concatenate([boxes[..., :2] - margin * size, boxes[..., 2:] + margin * size], axis=-1), 0.0, 1.0)


def detection_targets(
    proposals: Tensor,
    gt_class_ids: Tensor,
    gt_boxes: Tensor,
    gt_masks: Tensor,
    config: Config,
    seed: keras.random.SeedGenerator,
    workers: Workers = ALONE,
) -> dict[str, Tensor]:
    """Samples the RoIs that the heads learn from, with the target of each.

    A proposal of IoU 0.5 or more with an instance is positive and has that instance as its target; any other is background.
    The first places are for the positives, ``positive_fraction`` of ``rois_per_image``, so that the mask head gets those
    alone; background fills the rest.

    Padded RoIs pass through the heads, and with ``network.train_batch_norm`` through their batch statistics; no loss counts
    them. They are 6 of 10 positive places with random weights and none with trained ones (``test_shipped_models.py``), and
    the moving statistics that inference uses forget the beginning of a training.

    Args:
        proposals: [b, n, 4].
        gt_class_ids: int32 [b, m], 0 is padding.
        gt_boxes: [b, m, 4].
        gt_masks: [b, height, width, m], 0 or 1.
        workers: that train together; each film's RoIs are those that one process would sample.

    Returns:
        ``rois`` [b, r, 4]; ``class_ids`` int32 [b, r], 0 background, -1 padding; ``deltas`` [b, r, 4];
        ``masks`` [b, positives, 28, 28], 0 or 1, of the first places. Nothing in them is differentiable.
    """
    targets, network = config.targets, config.network
    if targets.add_ground_truth:
        proposals = ops.concatenate([proposals, gt_boxes], axis=1)
    real = box_area(proposals) > 0
    overlaps = pairwise_iou(proposals, gt_boxes)
    overlaps = ops.where(ops.expand_dims(gt_class_ids > 0, 1), overlaps, 0.0)
    positive = real & (ops.max(overlaps, axis=2) >= POSITIVE_ROI_IOU)

    films, proposed = ops.shape(real)
    lots = keras.random.uniform((workers.count * films, proposed), seed=seed)
    lots = lots[workers.number * films : (workers.number + 1) * films]
    count = max(1, int(targets.rois_per_image * targets.positive_fraction))
    count = min(count, int(proposals.shape[1]))
    is_positive, chosen = _sample(positive, lots, count)
    is_negative, others = _sample(real & ~positive, lots, min(targets.rois_per_image - count, int(proposals.shape[1])))
    rois = gather(proposals, ops.concatenate([chosen, others], axis=1))
    there = ops.concatenate([is_positive, is_negative], axis=1)
    rois = ops.where(there[..., None], rois, 0.0)

    instance = ops.cast(ops.argmax(gather(overlaps, chosen), axis=2), "int32")
    class_ids = ops.where(is_positive, ops.take_along_axis(gt_class_ids, instance, axis=1), -1)
    deltas = encode_deltas(rois[:, :count], gather(gt_boxes, instance), config.proposals.box_std)
    deltas = ops.where(is_positive[..., None], deltas, 0.0)

    height, width, instances = (int(size) for size in gt_masks.shape[1:])
    table = ops.reshape(ops.cast(ops.transpose(gt_masks, (0, 3, 1, 2)), "float32"), (-1, 1))
    film = ops.cumsum(ops.ones_like(instance), axis=0) - 1
    offsets = (film * instances + instance) * (height * width)
    sizes = ops.ones_like(instance)[..., None] * ops.convert_to_tensor([height, width], dtype="int32")
    masks = crop_and_resize(table, offsets, sizes, rois[:, :count], network.mask_size)[..., 0]
    masks = ops.where(is_positive[..., None, None], ops.cast(masks > 0.5, "float32"), 0.0)

    background = ops.where(is_negative, 0, -1)
    sampled = {
        "rois": rois,
        "class_ids": ops.concatenate([class_ids, ops.cast(background, class_ids.dtype)], axis=1),
        "deltas": ops.pad(deltas, ((0, 0), (0, int(others.shape[1])), (0, 0))),
        "masks": masks,
    }
    return {name: ops.stop_gradient(value) for name, value in sampled.items()}


def _sample(candidates: Tensor, lots: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` candidates [b, n] of the highest lots: whether there was one, and its index, both [b, count]."""
    value, index = ops.top_k(ops.where(candidates, lots, -1.0), count)
    return value >= 0, ops.cast(index, "int32")


def refine_detections(
    rois: Tensor, probabilities: Tensor, deltas: Tensor, windows: Tensor, config: Config
) -> Tensor:
    """From classified RoIs to detections.

    Args:
        rois: [b, n, 4].
        probabilities: [b, n, classes], class 0 the background.
        deltas: [b, n, classes, 4].
        windows: [b, 4], where each film lies in its square, normalised.

    Returns:
        [b, max_instances, 6]: box, class id, score, by falling score; zeros behind the last.
    """
    detection = config.detection
    class_ids = ops.cast(ops.argmax(probabilities, axis=-1), "int32")
    scores = ops.max(probabilities, axis=-1)
    chosen = ops.one_hot(class_ids, int(probabilities.shape[-1]), dtype=deltas.dtype)
    deltas = ops.sum(deltas * chosen[..., None], axis=2)
    boxes = clip_boxes(apply_deltas(rois, deltas, config.proposals.box_std), windows)
    good = (class_ids > 0) & (scores >= detection.min_score) & (box_area(boxes) > 0)
    indices, found = non_maximum_suppression(
        boxes,
        ops.where(good, scores, ops.cast(NEVER, scores.dtype)),
        detection.max_instances,
        detection.nms_threshold,
        class_ids,
    )
    table = ops.concatenate([boxes, ops.cast(class_ids, boxes.dtype)[..., None], scores[..., None]], axis=-1)
    return ops.where(found[..., None], gather(table, indices), 0.0)
