"""Millimetres between a film's pixels, as a DICOM header gives them, and how they were calibrated.

Shapes
    spacing  (between rows, between columns) in millimetres
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

Spacing = tuple[float, float]

PIXEL, IMAGER = "PixelSpacing", "ImagerPixelSpacing"
_TYPES = ("GEOMETRY", "FIDUCIAL")  # PixelSpacingCalibrationType, PS3.3, 10.7.1.1

_PLAUSIBLE_SPACING = 0.01, 10.0  # millimetres: a film of a few centimetres, or of metres, is none
_PLAUSIBLE_MAGNIFICATION = 1.0, 3.0


class _Header(Protocol):
    def get(self, name: str, /) -> Any:
        """The value of an attribute, None where it is absent."""


class Calibration(NamedTuple):
    """Where a film's spacing comes from."""

    source: str  # the attribute, PixelSpacing or ImagerPixelSpacing, or the sidecar's key
    kind: str = ""  # PixelSpacingCalibrationType, GEOMETRY or FIDUCIAL; empty where it is not given
    magnification: float | None = None  # by which ImagerPixelSpacing was divided; None where it was not


def calibrated_spacing(header: _Header) -> tuple[Spacing | None, Calibration | None]:
    """Millimetres between neighbouring rows and neighbouring columns; None where there are none or nonsense.

    ``PixelSpacing``, else ``ImagerPixelSpacing``, which is on the detector, divided by
    ``EstimatedRadiographicMagnificationFactor`` where that is given (DICOM PS3.3, 10.7.1.3, C.8.11.4 and C.8.11.5).
    """
    at_patient = plausible_spacing(header, PIXEL)
    if at_patient:
        return at_patient, Calibration(PIXEL, _calibration_type(header))
    at_detector = plausible_spacing(header, IMAGER)
    if not at_detector:
        return None, None
    given = _numbers(header, "EstimatedRadiographicMagnificationFactor", 1, _PLAUSIBLE_MAGNIFICATION)
    magnification = given[0] if given else None
    at_patient = at_detector[0] / (magnification or 1.0), at_detector[1] / (magnification or 1.0)
    return at_patient, Calibration(IMAGER, magnification=magnification)


def plausible_spacing(header: _Header, name: str) -> Spacing | None:
    """The two lengths that an attribute holds; None where it holds anything else."""
    values = _numbers(header, name, 2, _PLAUSIBLE_SPACING)
    return (values[0], values[1]) if values else None


def _calibration_type(header: _Header) -> str:
    try:
        told = str(header.get("PixelSpacingCalibrationType") or "").strip().upper()
    except Exception:  # pydicom decodes a value on access, and trusts the file
        return ""
    return told if told in _TYPES else ""


def _numbers(header: _Header, name: str, count: int, plausible: tuple[float, float]) -> list[float] | None:
    try:
        values = [float(value) for value in np.atleast_1d(header.get(name))]
    except (TypeError, ValueError):
        return None
    low, high = plausible
    return values if len(values) == count and all(low <= value <= high for value in values) else None
