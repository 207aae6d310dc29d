"""In how many bits a training computes its convolutions: ``training.precision`` of a config, ``auto`` by the processor.

Weights, moments, boxes and losses have 32 bits in any case. Where the processor is faster in 16 bits:

- On a CPU with AMX, TensorFlow's oneDNN rounds what convolutions and matrix products multiply to bfloat16, and sums in 32
  bits; all between them keeps 32. It does so for a whole process and reads the variable that says so once, so that a
  training alone sets it, before TensorFlow is loaded: detection in other commands, and in programs that call the library,
  stays what it was.
- On a CPU that has bfloat16 in AVX-512 alone, oneDNN leaves that variable without effect (2.21, measured), and the networks
  have Keras's mixed policy: a training step of ``lungs_small.yaml`` took 0.55 of the processor time of 32 bits.
- On a GPU the networks have Keras's mixed policy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

AUTO, FULL = "auto", "float32"
VARIABLE = "TF_SET_ONEDNN_FPMATH_MODE"
CPUINFO = Path("/proc/cpuinfo")  # of Linux; of other systems nothing is known


def prepare_precision(precision: str) -> None:
    """Has TensorFlow compute in bfloat16 on a CPU with AMX where ``precision`` is ``auto``.

    Nothing where TensorFlow is loaded already, or the variable is set.
    """
    if precision == AUTO and "tensorflow" not in sys.modules and "amx_bf16" in processor_flags():
        os.environ.setdefault(VARIABLE, "BF16")


def processor_flags() -> set[str]:
    """The instructions that the processor has, as Linux names them."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def fixed_precision(precision: str) -> str:
    """``training.precision``, or float32 where the processor is to choose."""
    return FULL if precision == AUTO else precision


def choose_precision(precision: str) -> tuple[str, str]:
    """The precision that ``MaskRCNN`` is to be given, and a line about what computes in 16 bits; once the device is chosen.

    Args:
        precision: ``training.precision``.
    """
    switch = "--set training.precision=float32 switches it off"
    if precision != AUTO:
        return precision, f"convolutions in {precision}"
    capability, flags = _capability(), processor_flags()
    if capability >= 7:  # of NVIDIA's GPUs; those of 7 have no bfloat16
        chosen = "bfloat16" if capability >= 8 else "float16"
        return chosen, f"convolutions in {chosen}; {switch}"
    if _backend() != "tensorflow" or _has_gpu():
        return FULL, "convolutions in float32"
    if "amx_bf16" in flags:
        rounds = os.environ.get(VARIABLE) == "BF16"
        return FULL, f"convolutions in bfloat16 by {VARIABLE}=BF16; {switch}" if rounds else "convolutions in float32"
    if "avx512_bf16" in flags:
        return "bfloat16", f"convolutions in bfloat16; {switch}"
    return FULL, "convolutions in float32"


def _backend() -> str:
    import keras

    return str(keras.backend.backend())


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.get_visible_devices("GPU"))


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
