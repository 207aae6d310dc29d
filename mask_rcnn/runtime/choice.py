"""Which library runs the networks: Keras, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from mask_rcnn.system.backend import DeviceError

AUTO, KERAS, ONNX, OPENVINO = "auto", "keras", "onnx", "openvino"
RUNTIMES = (KERAS, ONNX, OPENVINO)

# The package of each runtime besides Keras, which also is the module; either reads what onnx writes.
_MODULES = {ONNX: "onnxruntime", OPENVINO: "openvino"}
_SPELT = {ONNX: "ONNX Runtime", OPENVINO: "OpenVINO"}


class Runtime(NamedTuple):
    """A library that runs networks, and the precision of their convolutions and dense layers."""

    name: str  # of RUNTIMES
    precision: str = "float32"  # or "bfloat16"

    def __str__(self) -> str:
        """As a person reads it: "OpenVINO in bfloat16"."""
        return f"{_SPELT.get(self.name, 'Keras')} in {self.precision}"

    def in_full(self) -> Runtime:
        """The same library in 32 bits."""
        return self._replace(precision="float32")

    def check_here(self) -> None:
        """Raises a DeviceError where this machine does not run it, or not in its precision."""
        if self.name != KERAS and (here := choose_runtime(self.name)) != self:
            raise DeviceError(f"its processor runs {here}, not in {self.precision} as others do, which gives other digits; "
                              f"give --runtime {ONNX} or leave it out")

    def versions(self) -> dict[str, str]:
        """The version of the library, by its module; nothing of Keras, whose backend matters too."""
        module = _MODULES.get(self.name)
        return {module: str(importlib.import_module(module).__version__)} if module else {}


def choose_runtime(name: str = AUTO, device: str = "auto") -> Runtime:
    """The runtime of this name, or the fastest one that is installed, without starting it.

    On a processor with instructions for 16 bits that is OpenVINO, which uses them, on another one ONNX Runtime. Keras is
    chosen where neither is installed, where there may be a GPU or one is wanted, and where ``KERAS_BACKEND`` is set.

    Args:
        name: of ``RUNTIMES``, or "auto".
        device: as ``choose_device`` takes it.

    Raises:
        DeviceError: that runtime is not installed, or does not run on that device.
    """
    if name in _MODULES:
        if missing := _missing(name):
            raise DeviceError(f"--runtime {name}: {missing} is not installed; pip install {missing}")
        if device.startswith("gpu"):
            raise DeviceError(f"--device {device}: {_SPELT[name]} runs on the CPU here; give --runtime keras or "
                              "--device cpu")
        return Runtime(name, _precision(name))
    if name == KERAS or device.startswith("gpu") or os.environ.get("KERAS_BACKEND"):
        return Runtime(KERAS)
    if device == "auto" and _may_have_gpu():
        return Runtime(KERAS)
    installed = [Runtime(known, _precision(known)) for known in (ONNX, OPENVINO) if not _missing(known)]
    in_16_bits = [runtime for runtime in installed if runtime.precision != "float32"]
    return next(iter([*in_16_bits, *installed]), Runtime(KERAS))


def _missing(name: str) -> str:
    """The first package that a runtime needs and that is not installed; empty where all are."""
    return next((module for module in (_MODULES[name], "onnx") if importlib.util.find_spec(module) is None), "")


def _precision(name: str) -> str:
    if name != OPENVINO:
        return "float32"
    import openvino

    return "bfloat16" if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "float32"


def _may_have_gpu() -> bool:
    """Whether NVIDIA's driver is loaded, which tells without starting TensorFlow."""
    return Path("/proc/driver/nvidia/version").exists()
