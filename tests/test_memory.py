"""Too little memory is told from other errors: by real exceptions, by the messages of other backends, and down a chain."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tensorflow as tf

from mask_rcnn.system.memory import is_out_of_memory

# What the libraries raised, asked for more than there is: jax 0.10.2, torch 2.13.0 on the CPU, opencv 4.14.0.
MESSAGES = [
    "RESOURCE_EXHAUSTED: Out of memory allocating 17592186044416 bytes.",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "17592186044416 bytes. Error code 12 (Cannot allocate memory)",
    "OpenCV(4.14.0) /io/opencv/modules/core/src/alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 3600000000 "
    "bytes in function 'OutOfMemoryError'",
]


class JaxRuntimeError(RuntimeError):
    """As JAX's is."""


class OutOfMemoryError(RuntimeError):
    """As PyTorch's on a GPU is."""


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("kind", [RuntimeError, JaxRuntimeError, cv2.error, tf.errors.InternalError])
def test_by_their_messages(kind: type[Exception], message: str) -> None:
    error = kind(None, None, message) if kind is tf.errors.InternalError else kind(message)
    assert is_out_of_memory(error)


def test_by_their_classes() -> None:
    assert is_out_of_memory(OutOfMemoryError("no words"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))


def test_real_ones() -> None:
    too_many = 2**20
    for ask in (
        lambda: np.zeros((too_many, too_many, 4)),
        lambda: tf.zeros((too_many, too_many, 4)),
        lambda: tf.function(lambda x: tf.tensordot(x, x, 0))(tf.ones(too_many)),
        lambda: tf.function(lambda x: tf.tensordot(x, x, 0), jit_compile=True)(tf.ones(too_many)),
    ):
        with pytest.raises(Exception) as caught:
            ask()
        assert is_out_of_memory(caught.value)


def test_causes_and_contexts_are_looked_at() -> None:
    with pytest.raises(KeyError) as caught:
        try:
            try:
                raise MemoryError
            except MemoryError as error:
                raise ValueError("no film") from error
        except ValueError:
            raise KeyError("film")  # noqa: B904
    assert is_out_of_memory(caught.value)
    ring = ValueError("round")
    ring.__cause__ = ring
    assert not is_out_of_memory(ring)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The expanded size of the tensor (1024) must match the existing size (8)"),
        ValueError("Out of memory.png: is no image"),
        KeyError("RESOURCE_EXHAUSTED"),
        OSError(28, "No space left on device"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_others(error: BaseException) -> None:
    assert not is_out_of_memory(error)
