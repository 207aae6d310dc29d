"""The files that a run writes of each film, by the names that ``--save`` takes; each kind has a folder of its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mask_rcnn.bag.members import InferenceError
from mask_rcnn.films.radiograph import Radiograph
from mask_rcnn.inference.film import FilmResult
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.dicom_seg import SegmentationError, check_usable, segmentation_dicom
from mask_rcnn.results.dicom_sr import report_dicom
from mask_rcnn.results.names import DICOM_SEG, DICOM_SR, MASKS, OVERLAYS, PROBABILITIES
from mask_rcnn.results.overlay import overlay
from mask_rcnn.results.pictures import label_png, picture_png, probability_png
from mask_rcnn.results.tables import measurements


class Finished(NamedTuple):
    """A film with its result, of which its files are made."""

    path: Path
    film: Radiograph  # its bones white
    found: FilmResult
    laterality: str
    members: int
    identity: str  # of the networks and of how their results are read


Output = Callable[[Finished], tuple[bytes, ...]]  # the content of each of ``names.file_names``


def _mask(done: Finished) -> tuple[bytes, ...]:
    return (label_png(done.found.labels, done.laterality),)


def _overlay(done: Finished) -> tuple[bytes, ...]:
    return (picture_png(overlay(done.film.pixels, done.found.labels, done.found.lungs, done.laterality)),)


def _probabilities(done: Finished) -> tuple[bytes, ...]:
    nothing = np.zeros(done.film.pixels.shape, np.float32)
    means = done.found.probabilities
    return tuple(probability_png(means.get(category, nothing), category, done.laterality) for category in CATEGORIES)


def _segmentation(done: Finished) -> tuple[bytes, ...]:
    return (segmentation_dicom(done.path, done.found.labels, done.film.turned, done.laterality, done.identity),)


def _report(done: Finished) -> tuple[bytes, ...]:
    row = measurements({**done.found.record, "result": ""}, 0, "", done.laterality, done.members, [])
    return (report_dicom(done.path, done.found.labels, done.film.turned, row, done.laterality, done.identity),)


OUTPUTS: Mapping[str, Output] = {
    MASKS: _mask, OVERLAYS: _overlay, PROBABILITIES: _probabilities, DICOM_SEG: _segmentation, DICOM_SR: _report,
}  # fmt: skip
BY_DEFAULT = (MASKS, OVERLAYS)

# Made of the networks' predictions, which no record holds; what else a run did not save, a later one adds without them.
OF_PREDICTIONS = frozenset({PROBABILITIES})
OF_DICOM = frozenset({DICOM_SEG, DICOM_SR})  # that films of other kinds do not get


def check_outputs(save: Collection[str], laterality: str = "patient") -> None:
    """Raises an InferenceError where a run could not write these kinds of files of any film.

    Args:
        save: names of ``OUTPUTS``.
        laterality: of the networks.
    """
    if not OF_DICOM & set(save):
        return
    if DICOM_SEG not in save:
        raise InferenceError(f"{DICOM_SR} refers to the segmentation of a film; give --save {DICOM_SEG},{DICOM_SR}")
    try:
        check_usable(laterality)
    except SegmentationError as error:
        raise InferenceError(f"--save {DICOM_SEG}: {error}") from error
