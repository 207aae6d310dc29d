"""Batch normalisation by one kernel against Keras's own: answers, gradients and moving averages."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from mask_rcnn.network.normalisation import BatchNormalization

FEATURES = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 7)).astype(np.float32)


def learn(layer: keras.layers.Layer, features: np.ndarray) -> dict[str, np.ndarray]:
    """What one step of SGD leaves of a network of a dense layer and ``layer``, and what it answers before and after."""
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(features.shape[-1], use_bias=False, name="dense")
    model = keras.Sequential([keras.Input(features.shape[1:]), dense, layer])
    gamma = np.linspace(0.5, 2, features.shape[-1]).astype(np.float32)
    layer.gamma.assign(gamma)
    layer.beta.assign(gamma - 1)
    found: dict[str, Any] = {"training": model(features, training=True), "inference": model(features, training=False)}
    model.compile(keras.optimizers.SGD(0.1), "mse")
    found["loss"] = model.train_on_batch(features, features**2)
    found |= {weight.path.split("/", 1)[1]: weight for weight in model.weights}
    return {name: keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")) for name, value in found.items()}


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("features", [FEATURES, FEATURES[:1, :1, :2], FEATURES[:, 0, 0]], ids=["map", "two cells", "vector"])
def test_equals_keras(features: np.ndarray, policy: str) -> None:
    expected = learn(keras.layers.BatchNormalization(momentum=0.9, dtype=policy, name="bn"), features)
    found = learn(BatchNormalization(momentum=0.9, dtype=policy, name="bn"), features)
    assert found.keys() == expected.keys() and len(found) == 8
    coarse = policy != "float32"
    for name, value in expected.items():
        scale = max(np.abs(value).max(), 1e-6)
        assert np.abs(found[name] - value).max() <= (0.02 if coarse else 1e-5) * scale, name
    assert np.abs(found["training"] - found["inference"]).max() > 0.1, "the moments of the batch, and the moving ones"


def test_frozen_it_keeps_its_moments() -> None:
    layer = BatchNormalization()
    layer.build(FEATURES.shape)
    layer.trainable = False
    np.testing.assert_allclose(layer(FEATURES, training=True), FEATURES / np.sqrt(1 + layer.epsilon), rtol=1e-5)
    assert not keras.ops.convert_to_numpy(layer.moving_mean).any()
