"""The five losses. Each is a mean over its anchors, RoIs or pixels, and exactly zero where there are none.

Of several processes that train together the mean of what each returns is the loss of all their films.

Shapes (b films, n RoIs, p of them that may be positive, c classes)
    anchor_match    int [b, anchors], 1 positive, -1 negative, 0 neutral
    class_ids       int [b, n], 0 background, -1 padding
"""

from __future__ import annotations

from typing import Any

from keras import ops

from mask_rcnn.system.workers import ALONE, Workers

Tensor = Any

LOSS_NAMES = ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")


def masked_mean(values: Tensor, mask: Tensor, workers: Workers = ALONE) -> Tensor:
    """The mean of the values where the mask, broadcast to their shape, is true; 0 where it is true nowhere.

    Of several processes the mean of what each returns is that mean over the values of all: each divides its sum by the
    mean of their counts, not by its own.

    A value that is not finite makes the mean NaN wherever it stands, outside the mask too, as 0 times it is NaN. So a
    training stops at the first proposal that is not finite, even one that no loss counts.
    """
    mask = ops.cast(ops.broadcast_to(mask, ops.shape(values)), values.dtype)
    count = workers.total(ops.sum(mask)) / workers.count
    return ops.sum(values * mask) / ops.maximum(count, 1.0 / workers.count)


def smooth_l1(target: Tensor, predicted: Tensor) -> Tensor:
    """0.5 d^2 below a distance of 1, d - 0.5 above (Girshick, Fast R-CNN, ICCV 2015, equation 3)."""
    distance = ops.abs(target - predicted)
    return ops.where(distance < 1, 0.5 * distance * distance, distance - 0.5)


def cross_entropy(class_ids: Tensor, logits: Tensor) -> Tensor:
    """-log softmax(logits)[class]: class ids int [...] and logits [..., c] to [...]."""
    logits = ops.cast(logits, "float32")
    chosen = ops.one_hot(class_ids, int(logits.shape[-1]), dtype=logits.dtype)
    return -ops.sum(ops.log_softmax(logits, axis=-1) * chosen, axis=-1)


def rpn_class_loss(anchor_match: Tensor, logits: Tensor, workers: Workers = ALONE) -> Tensor:
    """Cross-entropy of lung against background, over the anchors that are not neutral; logits [b, anchors, 2]."""
    return masked_mean(cross_entropy(ops.cast(anchor_match == 1, "int32"), logits), anchor_match != 0, workers)


def rpn_bbox_loss(anchor_deltas: Tensor, anchor_match: Tensor, deltas: Tensor, workers: Workers = ALONE) -> Tensor:
    """Smooth L1 over the positive anchors.

    Args:
        anchor_deltas: [b, rows, 4], the targets of the positive anchors in their order, zeros behind them.
        anchor_match: [b, anchors].
        deltas: [b, anchors, 4].
    """
    positive = anchor_match == 1
    row = ops.cumsum(ops.cast(positive, "int32"), axis=1) - 1
    row = ops.clip(row, 0, int(anchor_deltas.shape[1]) - 1)
    target = ops.take_along_axis(anchor_deltas, ops.expand_dims(row, -1), axis=1)
    return masked_mean(smooth_l1(target, ops.cast(deltas, "float32")), ops.expand_dims(positive, -1), workers)


def mrcnn_class_loss(class_ids: Tensor, logits: Tensor, workers: Workers = ALONE) -> Tensor:
    """Cross-entropy over the RoIs that are not padding; logits [b, n, c]."""
    return masked_mean(cross_entropy(ops.maximum(class_ids, 0), logits), class_ids >= 0, workers)


def mrcnn_bbox_loss(target_deltas: Tensor, class_ids: Tensor, deltas: Tensor, workers: Workers = ALONE) -> Tensor:
    """Smooth L1 over the positive RoIs, of their class alone; targets [b, n, 4], deltas [b, n, c, 4]."""
    chosen = ops.one_hot(ops.maximum(class_ids, 0), int(deltas.shape[2]), dtype="float32")
    own = ops.sum(ops.cast(deltas, "float32") * ops.expand_dims(chosen, -1), axis=2)
    return masked_mean(smooth_l1(target_deltas, own), ops.expand_dims(class_ids > 0, -1), workers)


def mrcnn_mask_loss(target_masks: Tensor, class_ids: Tensor, logits: Tensor, workers: Workers = ALONE) -> Tensor:
    """Binary cross-entropy over the pixels of the positive RoIs, of their class alone.

    Args:
        target_masks: [b, p, 28, 28], 0 or 1.
        class_ids: [b, p].
        logits: [b, p, 28, 28, c].
    """
    chosen = ops.one_hot(ops.maximum(class_ids, 0), int(logits.shape[-1]), dtype="float32")
    own = ops.sum(ops.cast(logits, "float32") * chosen[:, :, None, None], axis=-1)
    loss = ops.softplus(own) - own * target_masks  # the cross-entropy of the sigmoid, which cannot overflow
    return masked_mean(loss, (class_ids > 0)[..., None, None], workers)
