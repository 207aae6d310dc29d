"""RoIAlign by one kernel against the one of all backends: answers and gradients."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mask_rcnn.network.layers import pyramid_roi_align

if importlib.util.find_spec("tensorflow") is None or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    pytest.skip("TensorFlow alone has the kernel", allow_module_level=True)

import tensorflow as tf  # noqa: E402

from mask_rcnn.network.pooling import fused_roi_align  # noqa: E402

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "components.npz"))


def draw(films: int, count: int, side: int, channels: int) -> tuple[Any, list[Any]]:
    """Boxes for all levels, some that reach the edges, one of a point and padding."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.6, (films, count, 2))
    boxes = np.concatenate([corners, corners + rng.choice([0.02, 0.1, 0.2, 0.39], (films, count, 2))], axis=2)
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = (0, 0, 1, 1), (0.5, 0.5, 0.5, 0.5), 0
    pyramid = [rng.standard_normal((films, side // stride, side // stride, channels)) for stride in (4, 8, 16, 32)]
    return tf.constant(boxes, "float32"), [tf.constant(level, "float32") for level in pyramid]


@pytest.mark.parametrize("canonical", [224, 24])
def test_equals_the_gather(canonical: int) -> None:
    boxes, pyramid = draw(2, 12, 64, 3)
    found: list[list[np.ndarray]] = []
    for align in (pyramid_roi_align, fused_roi_align):
        with tf.GradientTape() as tape:
            tape.watch(pyramid)
            pooled = align(boxes, pyramid, 5, 64, canonical)
            loss = tf.reduce_sum(pooled * tf.sin(tf.range(5, dtype="float32"))[:, None] ** 2 * pooled)
        slopes = tape.gradient(loss, pyramid)
        found.append([value.numpy() for value in (pooled, *map(tf.convert_to_tensor, slopes))])
    used = [bool(np.abs(slope).max() > 0.1) for slope in found[0][1:]]
    assert used == [True, *[canonical == 24] * 3]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_its_gradient_is_the_same_each_time() -> None:
    """That of TensorFlow's kernel is not with several threads: of 20 of these none equalled the first."""
    boxes, pyramid = draw(1, 32, 256, 64)
    boxes = tf.tile(boxes[:, :1], [1, 32, 1])  # all add to the same cells

    @tf.function
    def slope() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(pyramid[0])
            loss = tf.reduce_sum(tf.sin(fused_roi_align(boxes, pyramid, 56, 256, 2000)))
        return tape.gradient(loss, pyramid[0])

    first = slope().numpy()
    assert first.any() and all(np.array_equal(slope(), first) for _ in range(5))


def test_of_batches_of_unknown_size_and_in_half_precision() -> None:
    boxes, pyramid = draw(2, 6, 64, 2)
    expected = fused_roi_align(boxes, pyramid, 3, 64)

    @tf.function(input_signature=[[tf.TensorSpec([None, *one.shape[1:]]) for one in (boxes, *pyramid)]])
    def traced(given: list[Any]) -> Any:
        return fused_roi_align(given[0], given[1:], 3, 64)

    np.testing.assert_allclose(traced([boxes, *pyramid]), expected, atol=1e-6)
    halves = [tf.cast(level, "bfloat16") for level in pyramid]
    pooled = fused_roi_align(boxes, halves, 3, 64)
    assert pooled.dtype == "bfloat16"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(tf.cast(pooled, "float32")), expected, atol=0.05)


@pytest.mark.parametrize("side", [7, 14])
def test_equals_the_reference(side: int) -> None:
    levels = [GOLDEN[f"feature_p{k}"] for k in (2, 3, 4, 5)]
    pooled = fused_roi_align(tf.constant(GOLDEN["roi_boxes"]), [tf.constant(level) for level in levels], side, 256)
    np.testing.assert_allclose(pooled, GOLDEN[f"roi_align_{side}"], atol=1e-4)
