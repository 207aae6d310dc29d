"""Too little memory, as every library says it in its own way."""

from __future__ import annotations


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that there was too little memory."""
    return isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__
