"""Starting Keras whatever the user's settings are: which backend it runs on, and which of its settings count here.

Keras reads ``KERAS_BACKEND`` and ``keras.json`` while it is imported, and an old project's settings stop that import. So
the commands import it here first, after both were looked at.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mask_rcnn.system.console import step
from mask_rcnn.system.silence import silent_descriptor

BACKENDS = ("tensorflow", "jax", "torch")
_SPELT = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


class DeviceError(ValueError):
    """A backend or a device that is not there; the message names it and what to give instead."""


def import_keras(backends: Sequence[str] = BACKENDS) -> ModuleType:
    """Keras, imported without TensorFlow's notes, with the formats that the networks here are made for.

    Of ``keras.json`` only the backend counts: another format of images or of floats is overridden, for the whole process,
    and a file that Keras would stumble over is named and left out.

    Args:
        backends: those that the caller's networks run on, in the order of preference.

    Raises:
        DeviceError: ``KERAS_BACKEND`` names a backend that is none of these or not installed, none is installed, Keras does
            not start, or it runs on another one already.
    """
    if "keras" not in sys.modules:
        backend = choose_backend(backends)
        os.environ["KERAS_BACKEND"] = backend
        # PyTorch's threads else spin while they wait for each other: on a machine with other work to do, ten times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:  # TensorFlow's library writes to descriptor 2 as it is loaded, whatever TF_CPP_MIN_LOG_LEVEL says
            with step(f"loading {_SPELT[backend]}"), silent_descriptor():
                importlib.import_module("keras")
        except Exception as error:  # broken installations fail in every way: shared libraries, versions, variables
            reason = (str(error).strip().splitlines() or [""])[0]
            raise DeviceError(
                f"Keras does not start on {backend} ({type(error).__name__}: {reason}); install it again with "
                "pip install -r requirements.txt"
            ) from error
    keras = sys.modules["keras"]
    if keras.backend.backend() not in backends:
        raise _refusal(keras.backend.backend(), backends)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    return keras


def library_versions() -> dict[str, str]:
    """The versions of Python, NumPy and OpenCV, and of Keras and its backend where Keras is imported, by name."""
    import cv2
    import numpy as np

    versions = {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__}
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        backend = keras.backend.backend()
        versions |= {"keras": keras.__version__, backend: sys.modules[backend].__version__}
    return versions


def choose_backend(backends: Sequence[str] = BACKENDS) -> str:
    """The backend that Keras is to run on, by ``KERAS_BACKEND``, else ``keras.json``, else the first that is installed.

    What the variable names is the user's wish, and is refused where it cannot be had; ``keras.json`` may be years old, and
    is overridden then, with a line on standard error.

    Raises:
        DeviceError: the variable's backend cannot be had, or none is installed.
    """
    settings = _read_settings()
    if wanted := os.environ.get("KERAS_BACKEND"):
        if wanted not in backends:
            raise _refusal(wanted, backends)
        if not _is_installed(wanted):
            raise DeviceError(f"KERAS_BACKEND={wanted}: {wanted} is not installed; unset it or install {wanted} "
                              "(pip install -r requirements-backends.txt)")
        return wanted
    installed = next(filter(_is_installed, backends), None)
    if installed is None:
        raise DeviceError(f"{_either(backends)} is not installed; pip install -r requirements.txt")
    wanted = settings.get("backend", backends[0])
    if wanted in backends and _is_installed(wanted):
        return str(wanted)
    if "backend" in settings:
        reason = "is not installed" if wanted in backends else "is none that these networks run on"
        print(f"{_settings_path()}: its backend {wanted!r} {reason}; running on {installed}", file=sys.stderr)
    return installed


def _refusal(backend: str, backends: Sequence[str]) -> DeviceError:
    return DeviceError(
        f"KERAS_BACKEND={backend}: these networks do not run on it; unset it or set it to {_either(backends)}"
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _settings_path() -> Path:
    """Where Keras looks for its settings."""
    home = os.path.expanduser("~")
    folder = os.environ.get("KERAS_HOME", os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras"))
    return Path(os.path.expanduser(os.path.join(folder, "keras.json")))


def _read_settings() -> dict[str, Any]:
    """What ``keras.json`` holds; one that Keras could not be imported with is named, and hidden from it."""
    path = _settings_path()
    if not os.path.exists(path):
        return {}
    try:
        settings = json.loads(path.read_text())
    except ValueError:  # no JSON, nor text perhaps: Keras passes over it too
        return {}
    except (OSError, RecursionError) as error:
        _hide_settings(path, getattr(error, "strerror", None) or "nested too deep")
        return {}
    if not isinstance(settings, dict):
        _hide_settings(path, "holds no settings")
        return {}
    known = {
        "floatx": ("float16", "float32", "float64"),
        "image_data_format": ("channels_last", "channels_first"),
    }
    wrong = [key for key, values in known.items() if key in settings and settings[key] not in values]
    if "epsilon" in settings and not isinstance(settings["epsilon"], float):
        wrong.append("epsilon")
    if wrong:
        _hide_settings(path, f"no such {wrong[0]} as {json.dumps(settings[wrong[0]])[:40]}")
    return settings


def _hide_settings(path: Path, reason: str) -> None:
    """Has Keras find no settings: its home is an empty folder until the process ends."""
    print(f"{path}: left out ({reason}); mend it or delete it", file=sys.stderr)
    os.environ["KERAS_HOME"] = folder = tempfile.mkdtemp(prefix="keras-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
