"""The chest films of a folder tree, with collection, split, class label and patient by the names of folders and files.

The trees known here are laid out as Kaggle's chest film collections: ``COLLECTION/SPLIT/LABEL/FILM``
(chest-xray-pneumonia, covid19-image-dataset, covid-patients-chest-xray), ``COLLECTION/LABEL/images/FILM`` with masks
beside (covid19-radiography-dataset), ``COLLECTION/images_001/images/FILM`` (ChestX-ray14), a folder for each patient
(CheXpert, MIMIC-CXR, what hospitals export), or any part of those.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mask_rcnn.dataset.patients import patient_folders, patient_of, tell_patients
from mask_rcnn.films import finding
from mask_rcnn.films.folders import NAMELESS, is_class, is_holder, split_of
from mask_rcnn.films.names import film_stem
from mask_rcnn.system.progress import progress


class SourceError(ValueError):
    """A source that cannot be walked; the message names it, the reason and the remedy."""


@dataclass(frozen=True)
class Source:
    """One film file and what follows from its place in the tree; a text is empty where nothing does."""

    root: Path  # absolute
    file_name: str  # POSIX path relative to the root
    collection: str
    split: str  # train, val or test
    label: str  # the class folder, as it is spelt
    patient: str  # by its file name or a folder, unique within the collection alone

    @property
    def path(self) -> Path:
        return self.root / self.file_name


def find_films(
    root: str | Path, report: Callable[[str], None] = print, skip: Callable[[Path, str], None] | None = None
) -> list[Source]:
    """Every film under a folder, in the order of their paths; or the one film, where ``root`` is a file.

    What ``finding.find_films`` finds, without masks (folders and files whose name ends with "mask" or "masks", in any
    case). A file that several links reach is taken once, and so is a film that lies in a folder's subfolder of the same
    name once more, as in Kaggle's ``chest_xray/chest_xray``: the same path below it and the same size.

    Args:
        root: a folder or a film.
        report: gets a line for each folder of doubles, and one that counts what was passed over.
        skip: called with each folder and file that cannot be read, or whose name cannot be written in a dataset, and why; by
            default ``report`` gets a line of it.

    Raises:
        SourceError: there is no such file or folder.
    """
    root = Path(root)
    if not os.path.exists(root):
        raise SourceError(f"{root}: there is no such file or folder; check the path given to --src")
    found = finding.find_films(root, watch=partial(progress, name=f"looking in {root}", unit="folders"))
    if skip is None:
        def skip(path: Path, reason: str) -> None:
            report(f"skipped {str(path)!a}: {reason}")

    for path, reason in found.unreadable.items():
        skip(path, reason)
    whole, root = root, root.parent if root.is_file() else root
    home = Path(os.path.realpath(root))
    films: dict[str, Path] = {}
    for path in found.films:
        name = path.relative_to(root).as_posix()
        if any(map(is_mask, (home.name, *name.split("/")[:-1], film_stem(path.name)))):
            found.passed_over["masks"] += 1
        elif not is_text(str(path)):
            skip(path, "its name is no UTF-8; rename it")
        else:
            films[name] = path
    if found.passed_over:
        report(f"{whole}: passed over {found.summary()}; no films by their place or name")
    doubles: Counter[Path] = Counter()
    sources: dict[str, Source] = {}
    for name, path in progress(films.items(), name="sorting", total=len(films)):
        if folder := _doubled_in(home.name, name, films):
            doubles[root / folder] += 1
        else:
            sources.setdefault(os.path.realpath(path), describe(home, name))
    for folder, count in doubles.items():
        report(f"{folder}: {count} of its films lie in {folder.parent} too; each is taken once")
    described = list(sources.values())
    patients = tell_patients([source.file_name for source in described])
    return [replace(source, patient=patient) for source, patient in zip(described, patients, strict=True)]


def _doubled_in(root_name: str, name: str, films: Mapping[str, Path]) -> Path | None:
    """The folder, as ``chest_xray/chest_xray``, without which a film's path leads to the same film; None if none does."""
    parts = (root_name, *name.split("/"))
    for k in range(1, len(parts) - 1):
        twin = films.get("/".join((*parts[1:k], *parts[k + 1 :])))
        if parts[k] == parts[k - 1] and twin and _same_size(films[name], twin):
            return Path(*parts[1 : k + 1])
    return None


def _same_size(one: Path, other: Path) -> bool:
    try:
        return one.stat().st_size == other.stat().st_size
    except OSError:  # gone meanwhile, or a link to nowhere: reading it will fail with the reason
        return False


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
    """Reads collection, split, label and patient from a film's name and the folders above it.

    Those above the root count too: ``--src kaggle/chest_xray/train/NORMAL`` still gives all of them.
    """
    home = root
    inside: list[str] = []
    while home.name and (is_class(home.name) or split_of(home.name) or is_holder(home.name)):
        inside.insert(0, home.name)
        home = home.parent
    *folders, name = *inside, *file_name.split("/")
    folders = [folder for folder in folders if not (is_holder(folder) or folder.lower() in NAMELESS)]
    patients = patient_folders(folders)
    if patients:  # what lies below are studies and series
        folders = folders[: min(map(folders.index, patients))]
    known = [k for k, folder in enumerate(folders) if split_of(folder) or is_class(folder)]
    first = known[0] if known else 1  # the outermost folder is the collection, a class may lie in it
    collections, below = folders[:first], folders[first:]
    labels = [folder for folder in below if not split_of(folder)] or collections[1:]
    labels = [folder for folder in labels if is_class(folder)] or labels
    splits = [split for folder in below if (split := split_of(folder))]
    return Source(
        root=root,
        file_name=file_name,
        collection=[home.name, *(folder for folder in collections if folder not in labels)][-1],
        split=splits[-1] if splits else "",
        label=labels[-1] if labels else "",
        patient=patient_of(name) or next(iter(patients), ""),
    )
