"""A U-Net that needs no TensorFlow, for tests of what stands around it: whatever is dark in a film is lung.

As a command, ``tests/stand_in.py ARGUMENTS`` is create_dataset.py with this U-Net, and slow.
"""

from __future__ import annotations

import sys
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np

from create_dataset import command, members, run


class DarkFields:
    """Stands in for a network of Keras: grey levels to probabilities, 0.5 at a third of the way from black to white."""

    pause = 0.0  # seconds a batch

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        time.sleep(self.pause)
        blurred = [cv2.GaussianBlur(film[..., 0], (0, 0), 3) for film in inputs]
        return np.clip(1.5 - 3 * np.stack(blurred), 0, 1)[..., None]


def write_weights(path: Path) -> Path:
    """A file that passes for the weights of an EfficientNetB0 U-Net until they are loaded."""
    with h5py.File(path, "w") as file:
        file["stem"] = np.zeros((3, 3, 3, 32), np.float32)
    return path


def draw_film(path: Path, height: int = 96, width: int = 80) -> Path:
    """Two dark fields in a bright chest, a little different for each name."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    film = rng.integers(150, 190, (height, width), np.uint8)
    for x in (0.3, 0.7):
        centre = (int(width * x + rng.integers(-2, 3)), height // 2)
        axes = (width // 7 + int(rng.integers(-1, 2)), height // 3 + int(rng.integers(-3, 4)))
        cv2.ellipse(film, centre, axes, 0, 0, 360, int(rng.integers(30, 90)), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, film)[1].tobytes())
    return path


def load_stand_in(_: Any) -> DarkFields:
    return DarkFields()


def start_nothing(*_: Any) -> None:
    """In the place of ``start_runtime``."""


STANDS_IN = ((members, "load_unet", load_stand_in), (run, "start_runtime", start_nothing))


if __name__ == "__main__":
    for module, name, replacement in STANDS_IN:
        setattr(module, name, replacement)
    DarkFields.pause = 0.05
    sys.exit(command.main())
