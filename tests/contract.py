"""What every layer owes: the same answer eagerly, compiled, for a batch whose size is not known beforehand, in half
precision, and revived from what Keras saved of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np

# How far an answer may lie from that to the same inputs in 32 bits: some steps of rounding.
HALVES = {"float16": 4e-3, "bfloat16": 3e-2}


def call(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """What a function of tensors answers to arrays, as arrays in its own structure; halves are widened to 32 bits."""
    return _to_numpy(function(*map(keras.ops.convert_to_tensor, arrays)))


def check_contract(
    function: Callable[..., Any], *arrays: np.ndarray, tolerance: float = 1e-5, half: Collection[int] = ()
) -> Any:
    """Runs a function of tensors, each [batch, ...], in every way its backend has, and asserts equal answers.

    TensorFlow runs it eagerly, compiled by XLA, and as a graph of unknown batch size; JAX eagerly and under ``jit``;
    PyTorch plainly. Shapes and dtypes must be equal, integers too, floats within ``tolerance``.

    Args:
        half: the places of the arrays that are also given as float16 and as bfloat16, the others as they are.

    Returns:
        The eager answer, as NumPy arrays in the function's own structure.
    """
    tensors = [keras.ops.convert_to_tensor(array) for array in arrays]
    plain = _to_numpy(function(*tensors))
    for way, variant in _variants(function, tensors).items():
        _assert_equal(plain, _to_numpy(variant(*tensors)), tolerance, way)
    for dtype, loss in HALVES.items() if half else ():
        rounded = [keras.ops.cast(t, dtype) if place in half else t for place, t in enumerate(tensors)]
        widened = [keras.ops.cast(t, "float32") if place in half else t for place, t in enumerate(rounded)]
        _assert_equal(_to_numpy(function(*widened)), _to_numpy(function(*rounded)), loss, dtype)
    return plain


def check_revival(model: keras.Model, folder: Path, *arrays: np.ndarray) -> None:
    """Asserts that Keras saves a model's config and weights, and revives one of the same names and answers."""
    path = folder / f"{model.name}.keras"
    model.save(path)
    revived = keras.saving.load_model(path)
    assert [layer.name for layer in revived.layers] == [layer.name for layer in model.layers]
    assert [weight.path for weight in revived.weights] == [weight.path for weight in model.weights]
    _assert_equal(call(model, *arrays), call(revived, *arrays), 0, "revived")


def _assert_equal(expected: Any, actual: Any, tolerance: float, way: str) -> None:
    keras.tree.assert_same_structure(expected, actual)
    for one, other in zip(keras.tree.flatten(expected), keras.tree.flatten(actual), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype), way
        assert np.isfinite(other).all(), way
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance, err_msg=way)


def _to_numpy(answer: Any) -> Any:
    return keras.tree.map_structure(_widened, answer)


def _widened(tensor: Any) -> np.ndarray:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32") if dtype in HALVES else tensor)


def _variants(function: Callable[..., Any], tensors: list[Any]) -> dict[str, Callable[..., Any]]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        anyhow_many = [tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]
        return {
            "compiled by XLA": tf.function(function, jit_compile=True, autograph=False),
            "of unknown batch size": tf.function(function, input_signature=anyhow_many, autograph=False),
        }
    return {"under jit": under_jit(function)} if backend == "jax" else {}


def under_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors compiled by JAX; what it changes of Keras' variables is forgotten."""
    import jax

    def stateless(*traced: Any) -> Any:
        with keras.StatelessScope():
            return function(*traced)

    return jax.jit(stateless)
