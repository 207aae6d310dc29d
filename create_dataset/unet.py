"""The U-Net ensemble that finds the whole lungs: ``segmentation_models`` U-Nets with EfficientNet encoders.

Shapes
    film           uint8 [height, width], grey, bones white
    square         uint8 [256, 256], the film stretched, not equalised
    inputs         float32 [batch, 256, 256, 3], the equalised film in [0, 1], three times the same channel
    probabilities  float32 [members, 256, 256] in [0, 1], that a pixel is lung
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import h5py
import numpy as np

from mask_rcnn.checks.chest import SIDE
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import stretch_to_square
from mask_rcnn.system.backend import import_keras
from mask_rcnn.system.silence import silent_descriptor

if TYPE_CHECKING:
    import keras

__all__ = [
    "BACKENDS", "SIDE", "Network", "WeightsError", "build_unet", "encoder_of", "load_unet", "prepare", "probabilities",
    "stretch_to_square",
]  # fmt: skip

# What the EfficientNets of segmentation_models expect, and with them the published U-Nets: (x - mean) / deviation, for x in
# [0, 1] (the statistics of ImageNet's images). Ours were trained on x itself.
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Filters of the stem convolution by encoder (Tan and Le, EfficientNet, ICML 2019: width coefficients 1.0 and 2.0).
STEM_FILTERS = {32: "efficientnetb0", 64: "efficientnetb7"}

BACKENDS = ("tensorflow",)  # segmentation_models computes the activations of its EfficientNets with TensorFlow itself


class Network(Protocol):
    """A member of the ensemble, whichever library runs it."""

    def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs to probabilities [batch, 256, 256, 1]."""


class WeightsError(ValueError):
    """A weights file that cannot be used; the message names the file, the reason and the remedy."""


def build_unet(encoder: str = "efficientnetb0") -> keras.Model:
    """A U-Net (Ronneberger et al., MICCAI 2015) of random weights: inputs to probabilities [batch, 256, 256, 1].

    Raises:
        DeviceError: Keras does not start on the backend that the user chose.
    """
    import_keras(BACKENDS)
    os.environ.setdefault("SM_FRAMEWORK", "tf.keras")  # its default fails to import beside Keras 3
    # It prints a line, and TensorFlow greets on descriptor 2, whatever its log level.
    with silent_descriptor(), contextlib.redirect_stdout(io.StringIO()):
        import segmentation_models

    return segmentation_models.Unet(
        encoder, input_shape=(SIDE, SIDE, 3), classes=1, activation="sigmoid", encoder_weights=None
    )


def prepare(film: np.ndarray) -> np.ndarray:
    """The U-Net's input for a film: float32 [256, 256, 3] in [0, 1]; stretched to the square, then equalised, as the
    published pipeline does it."""
    square = equalise(stretch_to_square(film))
    return np.repeat(square[..., None].astype(np.float32) / 255.0, 3, axis=-1)


def encoder_of(path: str | Path) -> str:
    """Tells the encoder from the stem convolution in a weights file, Keras 2 or Keras 3.

    Raises:
        WeightsError: the file is absent, no HDF5, or holds no encoder known here.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file; check the path given to --unet")
    filters: set[int] = set()

    def note_stem(_: str, node: h5py.HLObject) -> None:
        # No other kernel of these networks sees three channels: the image enters here.
        if isinstance(node, h5py.Dataset) and node.shape[:3] == (3, 3, 3) and len(node.shape) == 4:
            filters.add(node.shape[3])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note_stem)
    except OSError as error:
        raise WeightsError(f"{path}: not an HDF5 file ({error}); copy it again from its source") from error
    known = [STEM_FILTERS[count] for count in filters if count in STEM_FILTERS]
    if len(known) != 1:
        raise WeightsError(
            f"{path}: holds no EfficientNetB0 or EfficientNetB7 U-Net (stem filters {sorted(filters)}); "
            "give weights of such a U-Net"
        )
    return known[0]


def load_unet(path: str | Path) -> keras.Model:
    """Builds the U-Net that a weights file describes and fills it; legacy ``.hdf5`` and ``.weights.h5`` both load.

    Either takes what ``prepare`` gives: a legacy file, in Keras 2's layout, gets the normalisation that the published
    U-Nets were trained with put in front.

    Raises:
        WeightsError: the file is no such weights file, or is torn.
        DeviceError: Keras does not start on the backend that the user chose.
    """
    model = build_unet(encoder_of(path))
    try:
        model.load_weights(path)
    except Exception as error:  # Keras raises ValueError, KeyError, OSError and more, as the file is torn here or there
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path}: does not fit the U-Net ({reason}); copy it again from its source") from error
    with h5py.File(path, "r") as file:
        is_legacy = "layer_names" in file.attrs or "model_weights" in file
    if not is_legacy:
        return model
    keras = import_keras(BACKENDS)
    variance = [deviation**2 for deviation in IMAGENET_DEVIATION]
    return keras.Sequential([keras.layers.Normalization(mean=IMAGENET_MEAN, variance=variance), model])


def probabilities(members: Sequence[Network], inputs: np.ndarray) -> np.ndarray:
    """What every member predicts on a batch: [batch, 256, 256, 3] to float32 [members, batch, 256, 256]."""
    return np.stack([np.asarray(member.predict_on_batch(inputs))[..., 0] for member in members])
