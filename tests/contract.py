"""What every layer owes: the same answer eagerly, compiled, and for a batch whose size is not known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np


def check_contract(function: Callable[..., Any], *arrays: np.ndarray, tolerance: float = 1e-5) -> Any:
    """Runs a function of tensors, each [batch, ...], in every way its backend has, and asserts equal answers.

    TensorFlow runs it eagerly, compiled by XLA, and as a graph of unknown batch size; JAX eagerly and under ``jit``;
    PyTorch plainly. Shapes and dtypes must be equal, integers too, floats within ``tolerance``.

    Returns:
        The eager answer, as NumPy arrays in the function's own structure.
    """
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    plain = _to_numpy(function(*tensors))
    for way, variant in _variants(function, tensors).items():
        other = _to_numpy(variant(*tensors))
        keras.tree.assert_same_structure(plain, other)
        for expected, actual in zip(keras.tree.flatten(plain), keras.tree.flatten(other), strict=True):
            assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype), way
            assert np.isfinite(actual).all(), way
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=way)
    return plain


def _to_numpy(answer: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, answer)


def _variants(function: Callable[..., Any], tensors: list[Any]) -> dict[str, Callable[..., Any]]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        anyhow_many = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]
        return {
            "compiled by XLA": tf.function(function, jit_compile=True, autograph=False),
            "of unknown batch size": tf.function(function, input_signature=anyhow_many, autograph=False),
        }
    if backend == "jax":
        import jax

        return {"under jit": jax.jit(function)}
    return {}
