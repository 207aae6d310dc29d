"""An ONNX model in ONNX Runtime or OpenVINO, behind one call for both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mask_rcnn.runtime.choice import OPENVINO, Runtime

Tensor = Any  # NumPy's array, or the runtime's own, which goes from one model to the next without a copy

# From inputs to outputs, both by their names in the model; ``as_array`` makes arrays of outputs. The next call may write
# over the outputs of the last one.
Session = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def open_session(model: bytes, runtime: Runtime) -> Session:
    """Makes an ONNX model ready to run on the processors that this process may use."""
    return _in_openvino(model, runtime.precision) if runtime.name == OPENVINO else _in_onnx_runtime(model)


def as_array(tensor: Tensor) -> np.ndarray:
    """A session's output as an array, which the next call does not change."""
    if isinstance(tensor, np.ndarray):
        return tensor
    return np.array(tensor.numpy() if hasattr(tensor, "numpy") else tensor.data)


def _in_onnx_runtime(model: bytes) -> Session:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = _processors()
    # Threads that spin while they wait take the processors from those that read and write films.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = dict(inputs) | {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in _arrays(inputs).items()}
        return dict(zip(names, session.run_with_ort_values(names, values), strict=True))

    return run


def _in_openvino(model: bytes, precision: str) -> Session:
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": _processors(),
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    request = compiled.create_infer_request()
    names = [output.any_name for output in compiled.outputs]

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = _arrays(inputs)  # in this variable they outlive the tensors that share their memory
        for name, value in inputs.items():
            request.set_tensor(name, ov.Tensor(arrays[name], shared_memory=True) if name in arrays else value)
        request.infer()
        return {name: request.get_tensor(name) for name in names}

    return run


def _arrays(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Those of the inputs that are NumPy's arrays, each in one piece of memory."""
    return {name: np.ascontiguousarray(value) for name, value in inputs.items() if isinstance(value, np.ndarray)}


def _processors() -> int:
    """Those that this process may use, but no more than ``OMP_NUM_THREADS``, as a worker of a cluster has it."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, max(1, int(wanted))) if wanted.isdecimal() else count
