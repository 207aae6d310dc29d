"""Batch normalisation in one kernel, where TensorFlow has one.

Shapes
    features    [..., c], float32, or bfloat16 and float16 in a network of that precision
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from mask_rcnn.system.workers import ALONE, Workers


@keras.saving.register_keras_serializable("mask_rcnn")
class BatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Keras's layer (Ioffe and Szegedy, ICML 2015), weights, names and results alike.

    Keras 3 takes moments and scales in a dozen steps, each of which goes through the features once. On a processor that
    was a third of a training step, and three quarters of it are saved by TensorFlow's own kernel.

    Of several processes that train together, as ``workers`` says, the moments are those of all their features.
    """

    workers: Workers = ALONE

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        learns = training and self.trainable
        if not learns or len(inputs.shape) != 4 or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        if self.workers.count > 1:
            return self._over_workers(inputs)
        import tensorflow as tf

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, self.gamma, self.beta, epsilon=self.epsilon, is_training=True
        )
        # The kernel gives the sample's variance, Keras keeps the batch's own.
        count = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], variance.dtype)
        variance = variance * (count - 1.0) / count
        self._move(mean, variance)
        return outputs

    def _over_workers(self, inputs: Any) -> Any:
        """By the moments of all processes, which have equally many features: one sum forward and one backward."""
        import tensorflow as tf

        features = tf.cast(inputs, "float32")
        own = tf.stack(tf.nn.moments(features, axes=[0, 1, 2]))
        # Every process's own, in its place: by means and variances the variance of all is exact, by sums of squares not.
        place = tf.one_hot(self.workers.number, self.workers.count)[:, None, None]
        means, variances = tf.unstack(self.workers.total(place * own), axis=1)
        mean = tf.reduce_mean(means, axis=0)
        variance = tf.reduce_mean(variances + tf.square(means - mean), axis=0)
        self._move(mean, variance)
        outputs = tf.nn.batch_normalization(features, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(outputs, inputs.dtype)

    def _move(self, mean: Any, variance: Any) -> None:
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1.0 - self.momentum))
