"""Why there is no GPU: TensorFlow's own reason where it has one. The machine of the tests needs none."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from mask_rcnn.system import console, devices
from mask_rcnn.system.devices import DeviceError, choose_device

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow",
    reason="TensorFlow's devices alone are chosen here",
)

# As TensorFlow 2.21 writes them; the first two with a driver that is older than the libraries, or broken.
TORN_DRIVER = """\
I0000 00:00:1795615711.631378   13990 cpu_feature_guard.cc:227] This TensorFlow binary is optimized
E0000 00:00:1795615724.223859   13990 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to \
cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver / cuda driver combination
"""
NO_LIBRARIES = """\
W0000 00:00:1795615724.223859   13990 gpu_device.cc:2365] Cannot dlopen some GPU libraries. Please make sure the missing \
libraries mentioned above are installed properly if you would like to use GPU.
"""
NO_DRIVER = """\
I0000 00:00:1795615711.461340   13990 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.
E0000 00:00:1795615724.223859   13990 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: UNKNOWN ERROR (303)
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(("notes", "reason"), [
    (TORN_DRIVER, "failed call to cuInit: .*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: system has unsupported display driver"),
    (NO_LIBRARIES, "Cannot dlopen some GPU libraries"),
    (NO_DRIVER, "Could not find cuda drivers on your machine"),
    ("", "no GPU found"),
])  # fmt: skip
def test_the_reason_is_shown(monkeypatch: pytest.MonkeyPatch, notes: str, reason: str) -> None:
    monkeypatch.setattr(devices, "_notes_of_tensorflow", lambda: notes)
    for name in ("gpu", "gpu:1"):
        with pytest.raises(DeviceError, match=rf"^--device {name}: {reason}.*; give auto or cpu$"):
            choose_device(name)


def test_auto_gives_the_reason_once_with_v_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "_notes_of_tensorflow", lambda: NO_LIBRARIES)
    with console.console(console.VERBOSE):
        assert choose_device() == "no GPU found: running on the CPU"
    assert capsys.readouterr().err == "no GPU: Cannot dlopen some GPU libraries\n"
    monkeypatch.setattr(devices, "_notes_of_tensorflow", lambda: pytest.fail("it takes seconds to find out"))
    with console.console():
        assert choose_device() == "no GPU found: running on the CPU"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", ["", "-1"])
def test_gpus_that_are_hidden(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with pytest.raises(DeviceError, match=f"CUDA_VISIBLE_DEVICES={value} hides every GPU; give auto or cpu"):
        choose_device("gpu")


def test_a_gpu_that_fails_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    def fail(kind: str | None = None) -> list[object]:
        raise tf.errors.InternalError(None, None, "cudaGetDevice() failed. Status: driver version is insufficient\nmore")

    monkeypatch.setattr(tf.config, "list_physical_devices", fail)
    with pytest.raises(DeviceError, match=r"^--device auto: TensorFlow cannot use the GPU \(cudaGetDevice\(\) failed\. "
                                          r"Status: driver version is insufficient\); give cpu$"):
        choose_device()


def test_the_notes_are_those_of_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a stand-in for TensorFlow that writes as its library does, below Python."""
    (tmp_path / "tensorflow.py").write_text(
        "import os\n"
        "class config:\n"
        "    def list_physical_devices(kind):\n"
        "        os.write(2, f'level {os.environ[\"TF_CPP_MIN_LOG_LEVEL\"]}: failed call to cuInit: {kind}'.encode())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    assert devices._notes_of_tensorflow() == "level 0: failed call to cuInit: GPU"
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    assert devices._notes_of_tensorflow() == ""
