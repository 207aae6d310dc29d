"""What is a chest film in a folder tree, and what its folders say of it: collection, split, class label, patient.

The trees known here are laid out as Kaggle's chest film collections: ``COLLECTION/SPLIT/LABEL/FILM``
(chest-xray-pneumonia, covid19-image-dataset), ``COLLECTION/LABEL/images/FILM`` with masks beside
(covid19-radiography-database), or any part of those.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mask_rcnn.radiograph import find_film_paths

SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip

# Folders that only hold the films of the folder above them.
IMAGE_FOLDERS = frozenset({"images", "image", "imgs", "img", "films"})

# Class folders of the public collections, letters and digits only. They tell a class from a collection where a film
# has a single folder above it, which could be either.
CLASSES = frozenset({
    "normal", "healthy", "nofinding", "pneumonia", "viralpneumonia", "bacterialpneumonia", "virus", "bacteria", "covid",
    "covid19", "noncovid", "lungopacity", "tuberculosis", "turberculosis", "abnormal",
})  # fmt: skip

# Kermany et al. (chest-xray-pneumonia) number pneumonia patients and normal studies; ChestX-ray14, its patients.
PATIENT_PATTERNS = tuple(re.compile(p) for p in (r"(person\d+)_", r"((?:NORMAL\d*-)?IM-\d+)-\d+", r"(\d{8})_\d{3}$"))


class SourceError(ValueError):
    """A source that cannot be walked; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class Source:
    """One film file and what its place in the tree says of it; a text is empty where the tree does not say."""

    root: Path  # absolute
    file_name: str  # POSIX path relative to the root
    collection: str
    split: str  # train, val or test
    label: str  # the class folder, as it is spelt
    patient: str  # as its file name tells, unique within the collection alone

    @property
    def path(self) -> Path:
        return self.root / self.file_name


def find_films(root: str | Path, report: Callable[[str], None] = print) -> list[Source]:
    """Every film under a folder, in the order of their paths; or the one film, where ``root`` is a file.

    What ``find_film_paths`` gives, without masks (folders and files whose name ends with "mask" or "masks", in any
    case), and a file that several links reach once.

    Args:
        root: a folder or a film.
        report: gets one line for each file whose name cannot be written in a dataset.

    Raises:
        SourceError: there is no such file or folder.
    """
    root = Path(root)
    if not root.exists():
        raise SourceError(f"{root}: there is no such file or folder; check the path given to --src")
    paths = find_film_paths(root)
    root = root.parent if root.is_file() else root
    sources: dict[Path, Source] = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        if any(map(is_mask, (root.resolve().name, *name.split("/")[:-1], path.stem))):
            continue
        if not is_text(str(path)):
            report(f"skipped {str(path)!a}: its name is no UTF-8; rename it")
            continue
        sources.setdefault(path.resolve(), describe(root.resolve(), name))
    return list(sources.values())


def is_mask(name: str) -> bool:
    """Whether a folder holds masks, or a file of this stem is one: ``masks``, ``Lung Mask``, ``CHNCXR_0001_0_mask``."""
    return name.lower().endswith(("mask", "masks"))


def is_text(name: str) -> bool:
    """Whether a file name can be written as UTF-8; Linux allows any bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def describe(root: Path, file_name: str) -> Source:
    """Reads collection, split and label from the folders above a film, those above the root too where they tell."""
    home = root
    inside: list[str] = []  # `--src kaggle/chest_xray/train/NORMAL` still says collection, split and label
    while home.name and (_is_class(home.name) or home.name.lower() in SPLITS.keys() | IMAGE_FOLDERS):
        inside.insert(0, home.name)
        home = home.parent
    *folders, name = *inside, *file_name.split("/")
    folders = [folder for folder in folders if folder.lower() not in IMAGE_FOLDERS]
    first = next((k for k, folder in enumerate(folders) if folder.lower() in SPLITS or _is_class(folder)), None)
    if first is None:  # the outermost folder is the collection, a class may lie in it
        collections, labels = folders[:1], folders[1:]
    else:
        collections = folders[:first]
        labels = [folder for folder in folders[first:] if folder.lower() not in SPLITS] or collections[1:]
        labels = [folder for folder in labels if _is_class(folder)] or labels
    collections = [folder for folder in collections if folder not in labels] or [home.name]
    splits = [SPLITS[folder.lower()] for folder in folders if folder.lower() in SPLITS]
    return Source(
        root=root,
        file_name=file_name,
        collection=collections[-1],
        split=splits[-1] if splits else "",
        label=labels[-1] if labels else "",
        patient=patient_of(name),
    )


def patient_of(file_name: str) -> str:
    """The patient that a file name tells (``person12_virus_34.jpeg``: ``person12``), else the empty text."""
    stem = Path(file_name).stem
    matches = (pattern.match(stem) for pattern in PATIENT_PATTERNS)
    return next((match.group(1) for match in matches if match), "")


def _is_class(folder: str) -> bool:
    return re.sub(r"[^a-z0-9]", "", folder.lower()) in CLASSES
