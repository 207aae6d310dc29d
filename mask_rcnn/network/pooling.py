"""Pyramid RoIAlign in one kernel, where TensorFlow has one.

Shapes (b films, n boxes, c channels, s the side of the square)
    boxes     float32 [b, n, 4], normalised
    pyramid   [P2, P3, P4, P5], each [b, s / 4 .. s / 32, ..., c]
    canvas    float32 [b, s / 4, 3 s / 8, c], P2 on the left, the others under one another on the right of it
    corners   float32 [b, n, 4], boxes normalised to the canvas
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mask_rcnn.network.layers import pyramid_level

Tensor = Any


def fused_roi_align(
    boxes: Tensor, pyramid: Sequence[Tensor], side: int, image_size: int, canonical_side: int = 224
) -> Tensor:
    """What ``layers.pyramid_roi_align`` gives, to the rounding of coordinates, by ``tf.image.crop_and_resize``.

    Of the masks of ``lungs_small.yaml`` forward and backward pass take a quarter of the time: a gather's gradient is
    scattered row by row. XLA does not compile it.
    """
    import tensorflow as tf

    sides = [int(level.shape[1]) for level in pyramid]
    whole = sides[0]
    levels = [tf.cast(level, "float32") for level in pyramid]
    widened = [tf.pad(level, [[0, 0], [0, 0], [0, sides[1] - level.shape[2]], [0, 0]]) for level in levels[1:]]
    column = tf.concat(widened, axis=1)
    column = tf.pad(column, [[0, 0], [0, whole - sum(sides[1:])], [0, 0], [0, 0]])
    canvas = tf.concat([levels[0], column], axis=2)

    level = pyramid_level(boxes, image_size, canonical_side)
    places = [[0, 0], [0, whole], [sides[1], whole], [sides[1] + sides[2], whole]]
    origins = tf.gather(tf.constant(places, "float32"), level)
    limits = tf.gather(tf.constant([[size - 1] for size in sides], "float32"), level)
    last = tf.constant([whole - 1, whole + sides[1] - 1], "float32")  # the row and column that 1 is
    corners = [(origins + boxes[..., k : k + 2] * limits) / last for k in (0, 2)]
    pooled = _crop_and_resize(canvas, tf.concat(corners, axis=-1), side)
    return tf.cast(pooled, pyramid[0].dtype)


def _crop_and_resize(canvas: Tensor, corners: Tensor, side: int) -> Tensor:
    """Samples [b, n, side, side, c] of the canvas, with a gradient of its own.

    The gradient of TensorFlow's kernel adds to the canvas from several threads without a lock, so that some of it is lost
    and no training is repeated. Bilinear reading is a product with the weights of rows and columns; its gradient is too.
    """
    import tensorflow as tf

    films, count = tf.shape(corners)[0], int(corners.shape[1])
    height, width, channels = (int(size) for size in canvas.shape[1:])

    def gradient(slopes: Tensor) -> Tensor:
        rows = _reading_weights(corners[..., 0], corners[..., 2], side, height)
        columns = _reading_weights(corners[..., 1], corners[..., 3], side, width)
        across = tf.matmul(columns[:, :, None], slopes, transpose_a=True)  # [b, n, side, width, c]
        rows, across = tf.reshape(rows, [films, -1, height]), tf.reshape(across, [films, -1, width * channels])
        return tf.reshape(tf.matmul(rows, across, transpose_a=True), [films, height, width, channels])

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def sample(canvas: Tensor) -> tuple[Tensor, Any]:
        film = tf.repeat(tf.range(films), count)
        pooled = tf.image.crop_and_resize(canvas, tf.reshape(corners, [-1, 4]), film, [side, side])
        return tf.reshape(pooled, [-1, count, side, side, channels]), gradient

    return sample(canvas)


def _reading_weights(start: Tensor, end: Tensor, side: int, size: int) -> Tensor:
    """What each of ``size`` cells counts at each of ``side`` samples from start to end, [b, n] each: [b, n, side, size]."""
    import tensorflow as tf

    steps = tf.range(side, dtype="float32") / (side - 1)
    places = (start[..., None] + (end - start)[..., None] * steps) * (size - 1)
    return tf.maximum(0.0, 1.0 - tf.abs(places[..., None] - tf.range(size, dtype="float32")))
