"""Pyramid RoIAlign in one kernel, where TensorFlow has one.

Shapes (b films, n boxes, c channels, s the side of the square)
    boxes     float32 [b, n, 4], normalised
    pyramid   [P2, P3, P4, P5], each [b, s / 4 .. s / 32, ..., c]
    canvas    float32 [b, s / 4, 3 s / 8, c], P2 on the left, the others under one another on the right of it
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

    Of the masks of ``lungs_small.yaml`` forward and backward pass take a ninth of the time: a gather's gradient is scattered
    row by row. XLA does not compile it.
    """
    import tensorflow as tf

    sides = [int(level.shape[1]) for level in pyramid]
    whole, channels = sides[0], int(pyramid[0].shape[-1])
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
    films, count = tf.shape(boxes)[0], int(boxes.shape[1])
    pooled = tf.image.crop_and_resize(
        canvas, tf.reshape(tf.concat(corners, axis=-1), [-1, 4]), tf.repeat(tf.range(films), count), [side, side]
    )
    return tf.cast(tf.reshape(pooled, [-1, count, side, side, channels]), pyramid[0].dtype)
