"""Which file names are films, and a film's name without its suffix."""

from __future__ import annotations

from mask_rcnn.films.dicom import SUFFIXES as DICOM_SUFFIXES

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".avif", ".gif", ".pgm", ".ppm", ".pnm",
     ".jp2", ".j2k", ".jpx"}
)  # fmt: skip
FILM_SUFFIXES = IMAGE_SUFFIXES | DICOM_SUFFIXES


def film_stem(name: str) -> str:
    """A film's name or path without its suffix; of ``1.2.3.10`` nothing is taken, as ``.10`` is no film's suffix."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in FILM_SUFFIXES else name
