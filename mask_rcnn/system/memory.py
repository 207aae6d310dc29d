"""Telling an exception that means too little memory from all others, whichever library raised it."""

from __future__ import annotations

import errno

# TensorFlow's and PyTorch's; known by name, since none is worth importing its library for.
_CLASSES = ("ResourceExhaustedError", "OutOfMemoryError")

# What the others write in exceptions that may mean anything: JAX and XLA; TensorFlow's InternalError, on GPUs; PyTorch on
# the CPU; OpenCV; C++ itself.
_PHRASES = (
    "RESOURCE_EXHAUSTED",
    "Out of memory",
    "OOM when allocating",
    "failed to allocate memory",
    "CUDA out of memory",
    "can't allocate memory",
    "Insufficient memory",
    "Failed to allocate",
    "std::bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the exception, its cause or what it came up in the handling of, means that there was too little memory."""
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        if _means_it(step):
            return True
        seen.add(id(step))
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return False


def _means_it(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or any(kind.__name__ in _CLASSES for kind in type(error).__mro__):
        return True
    # Errors of values and keys quote files and keys, whose names may hold any text.
    return not isinstance(error, (ValueError, LookupError)) and any(phrase in str(error) for phrase in _PHRASES)
