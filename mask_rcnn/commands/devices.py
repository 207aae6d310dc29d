"""Which processor the network runs on."""

from __future__ import annotations

import logging
import re
from typing import Any

from mask_rcnn.system.backend import DeviceError, import_keras

__all__ = ["DeviceError", "choose_device"]


def choose_device(name: str = "auto") -> str:
    """Starts Keras, without TensorFlow's notes, on the CPU or on one GPU, whose memory TensorFlow takes as it needs it.

    To be called before the first tensor: TensorFlow keeps the devices that it started with.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu``, ``gpu`` (the first) or ``gpu:N``.

    Returns:
        What was chosen, as a line to print.

    Raises:
        DeviceError: Keras does not start, as ``import_keras`` tells, the name is none of these, there is no such GPU, or
            the choice comes too late. Backends other than TensorFlow choose by themselves, and any other choice than
            theirs is refused.
    """
    match = re.fullmatch(r"auto|cpu|gpu(?::(\d+))?", name)
    if not match:
        raise DeviceError(f"--device {name}: unknown; give auto, cpu, gpu or gpu:N")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a bag of networks is no tracing in a loop, as it warns
    keras = import_keras()  # here and not above: the import takes seconds, which --help should not
    backend = keras.backend.backend()
    if backend != "tensorflow":
        place = _default_place(backend)
        if name not in ("auto", place):
            raise DeviceError(
                f"--device {name}: {backend} runs on the {place}, as it chose when it started; leave --device out, or set "
                "JAX_PLATFORMS, KERAS_TORCH_DEVICE or CUDA_VISIBLE_DEVICES"
            )
        return f"running {backend} on the {place.upper()}"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if name == "cpu" or (name == "auto" and not gpus):
        _show_gpus([], name)
        return "running on the CPU" if name == "cpu" else "no GPU found: running on the CPU"
    number = int(match[1] or 0)
    if number >= len(gpus):
        there = f"{len(gpus)} found, counted from 0" if gpus else "no GPU found"
        raise DeviceError(f"--device {name}: {there}; give auto or cpu")
    _show_gpus([gpus[number]], name)
    kind = tf.config.experimental.get_device_details(gpus[number]).get("device_name", "of unknown kind")
    return f"running on GPU {number} ({kind})"


def _default_place(backend: str) -> str:
    """``cpu``, ``gpu`` or another kind, where a first tensor lands."""
    import keras

    tensor = keras.ops.zeros(1)
    kind = next(iter(tensor.devices())).platform if backend == "jax" else str(tensor.device.type)
    return "gpu" if kind == "cuda" else kind


def _show_gpus(gpus: list[Any], name: str) -> None:
    import tensorflow as tf

    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if tf.config.get_visible_devices("GPU") != gpus:
            tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:
        raise DeviceError(
            f"--device {name}: TensorFlow is already running elsewhere; start the command anew"
        ) from error
