"""Which processor the network runs on, and why TensorFlow finds no GPU where there is one."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mask_rcnn.system.backend import BACKENDS, DeviceError, import_keras, library_versions
from mask_rcnn.system.command_line import DEVICE
from mask_rcnn.system.console import detail, inform, is_verbose

__all__ = ["DeviceError", "choose_device", "start_device"]

# What TensorFlow logs where it cannot use a GPU, the likeliest cause first; a message may stand in more than one of them.
_CAUSES = (
    r"Could not find cuda drivers on your machine",
    r"Cannot dlopen some GPU libraries[^.]*",
    r"Could not load dynamic library[^;]*",
    r"failed call to cuInit: .*",
    r"kernel version .* does not match DSO version .*",
    r".*CUDA_ERROR_\w+.*",
)


def start_device(
    name: str, backends: Sequence[str] = BACKENDS, connect: Callable[[], None] | None = None
) -> None:
    """``choose_device`` for a command: the choice is a line on standard output, the libraries' versions one with ``-v``.

    Raises:
        DeviceError: as ``choose_device``.
    """
    inform(choose_device(name, backends, connect))
    detail(", ".join(f"{library} {version}" for library, version in library_versions().items()))


def choose_device(
    name: str = "auto", backends: Sequence[str] = BACKENDS, connect: Callable[[], None] | None = None
) -> str:
    """Starts Keras, without TensorFlow's notes, on the CPU or on one GPU, whose memory TensorFlow takes as it needs it.

    To be called before the first tensor: TensorFlow keeps the devices that it started with.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu``, ``gpu`` (the first) or ``gpu:N``.
        backends: as ``import_keras`` takes them.
        connect: is called before the first tensor, when it is known on which device it will be: connects this process with
            others, by TensorFlow alone.

    Returns:
        What was chosen, as a line to print.

    Raises:
        DeviceError: Keras does not start, as ``import_keras`` tells; the name is none of these; there is no such GPU, or
            TensorFlow cannot use it, with its reason; or the choice comes too late. Backends other than TensorFlow choose by
            themselves, and any other choice than theirs is refused.
    """
    match = DEVICE.fullmatch(name)
    if not match:
        raise DeviceError(f"--device {name}: unknown; give auto, cpu, gpu or gpu:N")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # a bag of networks is no tracing in a loop, as it warns
    keras = import_keras(backends)  # here and not above: the import takes seconds, which --help should not
    backend = keras.backend.backend()
    if backend != "tensorflow":
        if connect:
            raise DeviceError(f"--workers: several processes train on TensorFlow alone; unset KERAS_BACKEND={backend}")
        place = _default_place(backend)
        if name not in ("auto", place):
            raise DeviceError(
                f"--device {name}: {backend} runs on the {place}, as it chose when it started; leave --device out, or set "
                "JAX_PLATFORMS, KERAS_TORCH_DEVICE or CUDA_VISIBLE_DEVICES"
            )
        return f"running {backend} on the {place.upper()}"
    return _choose_of_tensorflow(name, int(match[1] or 0), connect or (lambda: None))


def _choose_of_tensorflow(name: str, number: int, connect: Callable[[], None]) -> str:
    import tensorflow as tf

    try:
        gpus = tf.config.list_physical_devices("GPU")
        if name == "cpu" or (name == "auto" and not gpus):
            _show_gpus([], name)
            connect()
            if name == "auto" and is_verbose():
                detail(f"no GPU: {_why_no_gpu() or 'TensorFlow finds none'}")
            return "running on the CPU" if name == "cpu" else "no GPU found: running on the CPU"
        if number >= len(gpus):
            there = f"{len(gpus)} found, counted from 0" if gpus else _why_no_gpu() or "no GPU found"
            raise DeviceError(f"--device {name}: {there}; give auto or cpu")
        _show_gpus([gpus[number]], name)
        connect()
        kind = tf.config.experimental.get_device_details(gpus[number]).get("device_name", "of unknown kind")
        with tf.device("GPU:0"):
            tf.zeros(1)  # a driver that fails is to fail here, where it can be told
    except tf.errors.OpError as error:
        raise DeviceError(f"--device {name}: TensorFlow cannot use the GPU ({_first_line(error)}); give cpu") from error
    return f"running on GPU {number} ({kind})"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _why_no_gpu() -> str:
    """Why TensorFlow finds no GPU; empty where it does not give a reason.

    Another process of TensorFlow is started to find out, which takes seconds: this one keeps its notes to itself, and says
    them once only.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and not re.match(r"\s*(\d|GPU-|MIG-)", hidden):
        return f"CUDA_VISIBLE_DEVICES={hidden} hides every GPU"
    return _cause_in(_notes_of_tensorflow())


def _notes_of_tensorflow() -> str:
    """What TensorFlow writes to standard error while it looks for GPUs."""
    code = "import tensorflow; tensorflow.config.list_physical_devices('GPU')"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"}
    try:
        done = subprocess.run([sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr


def _cause_in(notes: str) -> str:
    """The likeliest cause that TensorFlow's notes name, without time and place in its source; empty where they name none."""
    for cause in _CAUSES:
        if found := re.search(cause, notes):
            return re.sub(r"^\w\d{4} [\d:.]+ +\d+ \S+\] ", "", found[0]).strip()
    return ""


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
