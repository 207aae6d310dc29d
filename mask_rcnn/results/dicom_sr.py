"""DICOM Structured Reports: the measurements of a film's lungs, for archives and for whatever reads them from there.

PS3.16, TID 1500 (Measurement Report) with a group of TID 1410 (Planar ROI Measurements) a lung, by highdicom. The report refers
to the film, and each group to its lung's segment in the film's Segmentation (``dicom_seg``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mask_rcnn.films.orientation import turn_back
from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.results.dicom_seg import (
    LUNG,
    MANUFACTURER,
    NAME,
    SERIES_NUMBER,
    SIDE_CODES,
    check_usable,
    completed,
    content_of,
    header_at_fault,
    header_of,
    segmentation_of,
    uid_of,
)
from mask_rcnn.version import __version__

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from highdicom.sr import ComprehensiveSR, Measurement, PlanarROIMeasurementsAndQualitativeEvaluations
    from pydicom import Dataset

_PLAIN_CHEST_XRAY = ("399208008", "SCT", "Plain chest X-ray")
_PIXELS = ("{pixels}", "UCUM", "pixels")

# What is reported of a lung: by its name in SNOMED CT, the columns of measurements.csv in millimetres and in pixels.
_MEASURED = (
    ("Area", "area_mm2", "area_px"), ("Length", "height_mm", "height_px"), ("Width", "width_mm", "width_px"),
    ("Perimeter", "perimeter_mm", "perimeter_px"),
)  # fmt: skip


def report_dicom(
    film: Path, labels: np.ndarray, turned: str, row: Mapping[str, Any], laterality: str, identity: str
) -> bytes:
    """The measurements of a DICOM film's lungs as the content of a file with a Structured Report.

    Args:
        film: of the DICOM film, whose header is read again.
        labels, turned, laterality, identity: as for ``dicom_seg.segmentation_dicom``, to whose object the report refers.
        row: of the film, as ``tables.measurements`` gives it.

    Raises:
        SegmentationError: highdicom is not installed, lungs are named by image side, or the header lacks what the objects
            refer to.
    """
    check_usable(laterality)
    with header_at_fault():
        header = header_of(film)
        segmentation = segmentation_of(header, turn_back(labels, turned), identity)
        return content_of(report_of(completed(header), segmentation, row, identity))


def report_of(header: Dataset, segmentation: Segmentation, row: Mapping[str, Any], identity: str) -> ComprehensiveSR:
    """The report of a film.

    Args:
        header: of the film, as ``dicom_seg.completed`` gives it.
        segmentation: of the film.
        row: its measurements.
        identity: of the networks.
    """
    from highdicom.sr import (
        CodedConcept,
        ComprehensiveSR,
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid_of("device", identity), name=NAME, manufacturer_name=MANUFACTURER, model_name=NAME
    )
    reported = {key: value for key, value in row.items() if value is not None}
    return ComprehensiveSR(
        evidence=[header, segmentation],
        content=MeasurementReport(
            observation_context=ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device)),
            procedure_reported=CodedConcept(*_PLAIN_CHEST_XRAY),
            imaging_measurements=list(_groups(header, segmentation, reported)),
            title=codes.DCM.ImagingMeasurementReport,
        ),
        series_instance_uid=uid_of("reports", header.SeriesInstanceUID, identity),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=uid_of("report", segmentation.SOPInstanceUID, json.dumps(reported, sort_keys=True)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
    )


def _groups(
    header: Dataset, segmentation: Segmentation, row: Mapping[str, Any]
) -> Iterator[PlanarROIMeasurementsAndQualitativeEvaluations]:
    """Of each segment the measurements of its lung; a segment's frame has its number."""
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        FindingSite,
        PlanarROIMeasurementsAndQualitativeEvaluations,
        ReferencedSegmentationFrame,
        SourceImageForSegmentation,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    for segment in segmentation.SegmentSequence:
        category = next(key for key, name in CATEGORIES.items() if name == segment.TrackingID)
        number = int(segment.SegmentNumber)
        reference = ReferencedSegmentationFrame(
            segmentation.SOPClassUID, segmentation.SOPInstanceUID, number, number,
            SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID),
        )  # fmt: skip
        del reference[0].ReferencedSOPSequence[0].ReferencedFrameNumber  # not beside the segment's (PS3.3, table 10-3)
        yield PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(segment.TrackingUID, segment.TrackingID),
            referenced_segment=reference,
            finding_type=codes.SCT.Organ,
            finding_category=codes.SCT.AnatomicalStructure,
            finding_sites=[FindingSite(CodedConcept(*LUNG), laterality=CodedConcept(*SIDE_CODES[category]))],
            algorithm_id=AlgorithmIdentification(NAME, __version__),
            measurements=list(_measurements(SIDES[category], row)),
        )  # fmt: skip


def _measurements(side: str, row: Mapping[str, Any]) -> Iterator[Measurement]:
    """In millimetres where they are known, else in pixels."""
    from highdicom.sr import CodedConcept, Measurement
    from pydicom.sr.codedict import codes

    for name, in_mm, in_pixels in _MEASURED:
        unit = codes.UCUM.SquareMillimeter if in_mm.endswith("2") else codes.UCUM.Millimeter
        for column, unit in ((in_mm, unit), (in_pixels, CodedConcept(*_PIXELS))):
            if (value := row.get(f"{side}_{column}")) is not None:
                yield Measurement(getattr(codes.SCT, name), value, unit)
                break
