"""In how many bits a training computes its convolutions: ``training.precision`` of a config, ``auto`` by the processor.

Weights, normalisation between convolutions and losses have 32 bits in any case. On a CPU with instructions for bfloat16,
TensorFlow's oneDNN rounds what convolutions and matrix products multiply to it, and sums in 32 bits. It does so for a whole
process and reads the variable that says so once, so that a training alone sets it, before TensorFlow is loaded: detection in
other commands, and in programs that call the library, stays what it was. On a GPU the networks have Keras's mixed policy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

AUTO, FULL = "auto", "float32"
VARIABLE = "TF_SET_ONEDNN_FPMATH_MODE"
_FLAGS = {"avx512_bf16", "amx_bf16"}  # of processors whose bfloat16 is faster than their float32


def prepare_precision(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Has TensorFlow's convolutions on the CPU compute in bfloat16 where the processor has it and ``precision`` is ``auto``.

    Nothing where TensorFlow is loaded already, or the variable is set.
    """
    if precision == AUTO and "tensorflow" not in sys.modules and has_bfloat16(cpuinfo):
        os.environ.setdefault(VARIABLE, "BF16")


def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether Linux tells that the processor computes in bfloat16."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:  # another system
        return False
    return any(_FLAGS & set(line.partition(":")[2].split()) for line in lines if line.startswith("flags"))


def choose_precision(precision: str) -> tuple[str, str]:
    """The precision that ``MaskRCNN`` is to be given, and a line about what computes in 16 bits; once the device is chosen.

    Args:
        precision: ``training.precision``.
    """
    switch = "--set training.precision=float32 switches it off"
    on_gpu = FULL if precision != AUTO else _of_gpu()
    if on_gpu != FULL:
        return on_gpu, f"convolutions in {on_gpu}; {switch}"
    if precision != AUTO:
        return precision, f"convolutions in {precision}"
    if os.environ.get(VARIABLE) == "BF16" and _backend() == "tensorflow":
        return FULL, f"convolutions in bfloat16 by {VARIABLE}=BF16; {switch}"
    return FULL, "convolutions in float32"


def _backend() -> str:
    import keras

    return str(keras.backend.backend())


def _of_gpu() -> str:
    """bfloat16 on GPUs of NVIDIA's compute capability 8, float16 on those of 7, which lack it; else float32."""
    capability = _capability()
    return "bfloat16" if capability >= 8 else "float16" if capability >= 7 else FULL


def _capability() -> int:
    """The first number of the compute capability of the GPU that is used; 0 where none is."""
    backend = _backend()
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.get_visible_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        return int(details.get("compute_capability", (0,))[0])
    library = sys.modules[backend]
    if backend == "torch":
        return int(library.cuda.get_device_capability()[0]) if library.cuda.is_available() else 0
    return int(float(getattr(library.devices()[0], "compute_capability", 0)))
