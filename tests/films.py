"""Small films and files for the tests of reading."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film


class NamedFilm(NamedTuple):
    """What a journal needs of a film."""

    root: Path
    file_name: str

    @property
    def path(self) -> Path:
        return self.root / self.file_name


def film_of(height: int = 60, width: int = 48, seed: int = 0) -> np.ndarray:
    """A slope with grain: every orientation of it differs."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(10, 150, height)[:, None] + np.linspace(0, 90, width)[None]
    return np.clip(slope + rng.normal(0, 3, (height, width)), 1, 254).astype(np.uint8)


def refused(path: Path) -> str:
    with pytest.raises(FilmError) as caught:
        read_film(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


def write_dicom(path: Path, pixels: np.ndarray, photometric: str, bits: int, **attributes: object) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    frames = pixels.shape[0] if pixels.ndim == 3 and photometric.startswith("MONO") else 1
    rows, columns = pixels.shape[-2:] if frames > 1 else pixels.shape[:2]
    dataset.Rows, dataset.Columns = rows, columns
    colours = 3 if photometric in ("RGB", "YBR_FULL") else 1
    dataset.SamplesPerPixel = colours
    if colours > 1:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def ten_bit(film: np.ndarray) -> np.ndarray:
    return (film.astype(np.uint16) * 4).astype(np.uint16)


def stretched(film: np.ndarray) -> np.ndarray:
    low, high = int(film.min()), int(film.max())
    return (film.astype(float) - low) / (high - low) * 255
