"""DICOM segmentations: the two lungs of a DICOM film as a Segmentation object that a hospital's archive takes.

PS3.3 A.51 (Segmentation IOD) by highdicom. The object belongs to the film's patient and study, refers to the film, and lies
on its pixels as they are stored. Codes are SNOMED CT's: lung (39607008), left (7771000), right (24028007).

Shapes
    labels  uint8 [height, width], 0 background, else the category id; on the film upright, as it was predicted
"""

from __future__ import annotations

import hashlib
import io
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mask_rcnn.films.orientation import turn_back
from mask_rcnn.films.spacing import PIXEL, plausible_spacing
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.version import __version__

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription
    from pydicom import Dataset

NAME = "Left and right lung on chest X-rays, Mask R-CNN"  # of the algorithm, 64 characters at most
MANUFACTURER = "open source"
SERIES_NUMBER = 8001  # a number that no modality gives

LUNG = ("39607008", "SCT", "Lung")
SIDE_CODES = {LEFT_LUNG: ("7771000", "SCT", "Left"), RIGHT_LUNG: ("24028007", "SCT", "Right")}

# What a Segmentation takes over from its film and needs, empty where it is not known (type 2 of PS3.3, C.7.1.1 and C.7.2.1).
_TAKEN_OVER = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip


class SegmentationError(ValueError):
    """A film of which no Segmentation can be made; the message gives the reason and the remedy."""


def segmentation_dicom(film: Path, labels: np.ndarray, turned: str, laterality: str, identity: str) -> bytes:
    """The lungs of a DICOM film as the content of a file with a Segmentation object.

    The same film, labels and identity give the same UIDs, so that an archive takes a second export for the first.

    Args:
        film: of the DICOM film, whose header is read again: nothing else keeps a patient's name.
        labels: on the film as it was turned upright.
        turned: how it was turned, in the words of ``orientation.upright``.
        laterality: ``patient``; lungs named by image side have no code.
        identity: of the networks, such as the digests of their weights.

    Raises:
        SegmentationError: highdicom is not installed, lungs are named by image side, or the header cannot be read or lacks
            what a Segmentation refers to.
    """
    check_usable(laterality)
    with header_at_fault():
        return content_of(segmentation_of(header_of(film), turn_back(labels, turned), identity))


def check_usable(laterality: str = "patient") -> None:
    """Raises a SegmentationError where no DICOM objects can be written, whatever the film."""
    if find_spec("highdicom") is None:
        raise SegmentationError('DICOM objects need highdicom, which is not installed; pip install highdicom, or '
                                'pip install ".[dicom]" in the repository')
    if laterality != "patient":
        raise SegmentationError("DICOM objects name the patient's lungs, and these networks name image sides; leave "
                                "dicom-seg and dicom-sr out of --save")


def content_of(dataset: Dataset) -> bytes:
    """A dataset as the content of a file."""
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def header_of(film: Path) -> Dataset:
    """The header of a DICOM film without its pixels; raises nearly every built-in exception on torn files."""
    from pydicom import dcmread

    return dcmread(film, stop_before_pixels=True, force=True)


@contextmanager
def header_at_fault() -> Iterator[None]:
    """Raises what goes wrong in the block as a SegmentationError: pydicom and highdicom raise nearly every built-in exception.

    Their messages are not handed on, since they may quote the header, and with it the patient's name.
    """
    try:
        yield
    except (SegmentationError, MemoryError):
        raise
    except Exception as error:
        reason = f"its header cannot be taken over ({type(error).__name__})"
        raise SegmentationError(f"{reason}; export the film again from the archive") from error


def segmentation_of(header: Dataset, labels: np.ndarray, identity: str) -> Segmentation:
    """The Segmentation object of a film.

    Args:
        header: of the film, without its pixels.
        labels: on the film as it is stored, [Rows, Columns] of the header; a lung that was not found has no segment.
        identity: of the networks.

    Raises:
        SegmentationError: no lung was found, or the header lacks a UID or the film's size.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues

    lacking = [name for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
               if not header.get(name)]  # fmt: skip
    if lacking:
        raise SegmentationError(f"its header lacks {', '.join(lacking)}; export the film again from the archive")
    if labels.shape != (header.Rows, header.Columns):
        raise SegmentationError(f"its header has {header.Columns} x {header.Rows} pixels, its masks "
                                f"{labels.shape[1]} x {labels.shape[0]}; predict the film again")
    found = [category for category in CATEGORIES if (labels == category).any()]
    if not found:
        raise SegmentationError("no lung was found, and a segmentation needs a segment; see measurements.csv")
    numbered = np.zeros(labels.shape, np.uint8)
    for number, category in enumerate(found, start=1):
        numbered[labels == category] = number
    segmentation = Segmentation(
        source_images=[completed(header)],
        pixel_array=numbered[None],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(number, category) for number, category in enumerate(found, start=1)],
        series_instance_uid=uid_of("series", header.SeriesInstanceUID, identity),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid_of("instance", header.SOPInstanceUID, identity, numbered.tobytes()),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number="none",
        series_description="Left and right lung, found by a program",
        content_label="LUNGS",
    )
    segmentation.PatientOrientation = header.get("PatientOrientation") or []
    if plausible_spacing(header, PIXEL) is None:
        for group in (segmentation.SharedFunctionalGroupsSequence, segmentation.PerFrameFunctionalGroupsSequence):
            for item in group:
                if "PixelMeasuresSequence" in item:
                    del item.PixelMeasuresSequence
    return segmentation


def _description(number: int, category: int) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    description = SegmentDescription(
        segment_number=number,
        segment_label=CATEGORIES[category].replace("_", " ").capitalize(),
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=CodedConcept(*LUNG),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=NAME, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        tracking_id=CATEGORIES[category],
        tracking_uid=uid_of("tracking", CATEGORIES[category]),
    )
    (kind,) = description.SegmentedPropertyTypeCodeSequence
    kind.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept(*SIDE_CODES[category])]
    return description


def completed(header: Dataset) -> Dataset:
    """The header with empty values for what a Segmentation takes over and the film does not have."""
    complete = deepcopy(header)
    for name in _TAKEN_OVER:
        if name not in complete:
            setattr(complete, name, None if name == "PatientName" else "")
    if not re.fullmatch(r"\d{3}[DWMY]", str(complete.get("PatientAge") or "")):  # optional, and often written as 54
        complete.pop("PatientAge", None)
    if plausible_spacing(header, PIXEL) is None:
        complete.pop(PIXEL, None)
    return complete


def uid_of(*parts: Any) -> Any:
    """A UID that follows from its parts (PS3.5, B.2: 2.25 and a UUID's number)."""
    from highdicom import UID

    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return UID(f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}")
