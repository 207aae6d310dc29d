"""A film to learn from: where it and its lungs are to be found, and reading both.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id; of another size than the film if annotated so
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.orientation import turn_likewise
from mask_rcnn.films.radiograph import Radiograph, read_labels, read_radiograph

Segmentation = tuple[int, tuple[int, int], str]  # category id, (height, width), COCO's compressed counts
MAX_OVERLAP = 0.5  # of the smaller lung: lungs that share more are one outline with two names


@dataclass(frozen=True)
class FilmRecord:
    """One film and where its lungs are to be found."""

    path: Path  # of its file; of a film in a published JSON, that file's and the film's number
    source: str  # the dataset JSON or folder that named it
    group: str  # films of one group never stand on both sides of the split
    segmentations: tuple[Segmentation, ...] = ()
    mask_path: Path | None = None  # a label mask, instead of segmentations
    copies: str = ""  # films that share this text are copies, or of one patient, by the dataset JSON
    inverted: bool = False  # whether the file shows bones black
    are_upright: bool = False  # whether the masks lie on the film as a DICOM header turns it, not as it is stored
    spacing: tuple[float, float] | None = None  # millimetres between the film's rows, and columns, by the dataset JSON
    laterality: str = "patient"  # whose left and right the labels mean, the patient's or the image's
    patient: str = ""  # as far as known, within the source
    patient_from: str = ""  # where the patient comes from: a table, the records, ...
    corrected: bool = False  # whether a person corrected what the program found
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)  # uint8 [height, width], instead of a file


class AnnotatedFilm(NamedTuple):
    """A film in memory, with its lungs."""

    film: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float] | None  # millimetres between the labels' rows, and columns; of the dataset JSON or DICOM


def read_annotated(record: FilmRecord) -> AnnotatedFilm:
    """The film and its label mask, each at its own size.

    Raises:
        FilmError: the film or its mask cannot be read, or the mask holds other labels than the lungs'.
        DatasetError: its run lengths are torn, or differ in size.
    """
    film, spacing, turned, *_ = read_radiograph(record.path) if record.pixels is None else Radiograph(record.pixels, None)
    film = 255 - film if record.inverted else film
    labels = decode_labels(record, film.shape) if record.mask_path is None else read_labels(record.mask_path)
    if turned and not record.are_upright:  # annotators see the film as it is stored
        labels = turn_likewise(labels, turned)
    spacing = record.spacing or spacing
    if spacing:
        spacing = (spacing[0] * film.shape[0] / labels.shape[0], spacing[1] * film.shape[1] / labels.shape[1])
    return AnnotatedFilm(film, labels, spacing)


def decode_labels(record: FilmRecord, shape: tuple[int, ...]) -> np.ndarray:
    """The union of each lung's annotations; where two lungs overlap a little, the later category has it.

    Args:
        record: with segmentations.
        shape: (height, width) of the film, for one that shows no lung.

    Raises:
        DatasetError: they differ in size, are torn, or lie over each other.
    """
    labels = np.zeros(record.segmentations[0][1] if record.segmentations else shape, np.uint8)
    lungs = {category: np.zeros(labels.shape, bool) for category, _, _ in record.segmentations}
    for category, size, counts in record.segmentations:
        if size != labels.shape:
            raise DatasetError(f"{record.path}: its masks differ in size; give all of them the film's")
        try:
            lungs[category] |= decode_mask({"size": list(size), "counts": counts})
        except ValueError as error:
            raise DatasetError(f"{record.path}: its run lengths are torn; export its masks again") from error
    for category, mask in sorted(lungs.items()):
        labels[mask] = category
    if len(lungs) == 2:
        one, other = lungs.values()
        smaller = min(np.count_nonzero(one), np.count_nonzero(other))
        if np.count_nonzero(one & other) > MAX_OVERLAP * smaller > 0:
            raise DatasetError(f"{record.path}: its two lungs lie over each other; correct their outlines")
    return labels
