"""The meaning of a folder's name: a split, a class, or no more than that it holds films."""

from __future__ import annotations

import re

_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test",
           "val": "val", "valid": "val", "validation": "val"}  # fmt: skip
_SPLIT = re.compile(rf"({'|'.join(_SPLITS)})(?:[-_ ]?(?:set|data|images))?", re.IGNORECASE)

# Folders that only hold the films of the folder above them, or a part of these.
_HOLDER = re.compile(r"(?:images?|imgs?|films?|png|jpe?g|dcm|dicoms?|part|batch)[-_ ]?\d*", re.IGNORECASE)

# Folders that every collection may have: one above them names it.
NAMELESS = frozenset({"data", "dataset", "datasets", "archive", "files"})

# Class folders of the public collections, letters and digits only. They distinguish a class from a collection where a film
# has a single folder above it, which could be either.
_CLASSES = frozenset({
    "normal", "healthy", "nofinding", "pneumonia", "viralpneumonia", "bacterialpneumonia", "virus", "bacteria", "covid",
    "covid19", "covidpositive", "noncovid", "lungopacity", "tuberculosis", "turberculosis", "abnormal",
})  # fmt: skip


def split_of(folder: str) -> str:
    """The split that a folder is named after, train, val or test, else the empty text."""
    match = _SPLIT.fullmatch(folder)
    return _SPLITS[match.group(1).lower()] if match else ""


def is_class(folder: str) -> bool:
    """Whether a folder is named as a class of a public collection is."""
    return re.sub(r"[^a-z0-9]", "", folder.lower()) in _CLASSES


def is_holder(folder: str) -> bool:
    """Whether a folder's name means no more than that films lie in it: ``images``, ``images_001``, ``DICOM``, ``part 2``."""
    return _HOLDER.fullmatch(folder) is not None
