"""DICOM files: known by their first bytes, with a header or without one, and opened.

Of a file's elements only ``ATTRIBUTES`` are read: no name or number of a patient enters the program.
DICOM objects alone, where a user wants them, are made of the whole header (``results.dicom_seg``).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from mask_rcnn.films.images import HEAD

if TYPE_CHECKING:
    from pydicom import FileDataset

PIXEL_DATA = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# DICOM PS3.3: image pixel (C.7.6.3), modality and VOI LUT (C.11.1 and 2), DX detector and positioning (C.8.11.4 and 5),
# and how the film lies (C.7.6.1.1.1, C.8.11.5 and 6): PatientOrientation holds directions, nothing about a person.
ATTRIBUTES = (
    *PIXEL_DATA, "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing", "EstimatedRadiographicMagnificationFactor",
    "PatientOrientation", "ViewPosition", "ViewCodeSequence", "Laterality", "ImageLaterality",
    "FieldOfViewHorizontalFlip",
)  # fmt: skip

_FILE_META, _IDENTIFYING = 0x0002, 0x0008
_FIRST_GROUPS = (_FILE_META, _IDENTIFYING)  # what a file without a preamble begins with
_UNDEFINED = 0xFFFFFFFF
_NUMBER_VRS = frozenset({b"AT", b"FD", b"FL", b"SL", b"SS", b"UL", b"US"})
_SHORT_VRS = _NUMBER_VRS | {b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UI"}
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
# Codes, dates and unique identifiers; names of makers and hospitals, which may be in any alphabet; items of a sequence.
_CODE, _NAME, _ITEMS = (re.compile(value) for value in (rb"[\x20-\x7e]*\0*", rb"[^\0-\x1a]*\0*", rb"\xfe\xff\0\xe0"))
_FIRST_NAME = 0x0070


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are DICOM's: the preamble (PS3.10, section 7.1), or none and the data itself.

    Without the preamble a file begins with an element of group 0002 (the file meta information, PS3.10, section 7.1) or
    0008 (its lowest group), and every element in the 132 bytes, two at least, must be as PS3.5, section 7.1, lays it out:
    tags rising, even lengths, values of text in text; in implicit or explicit VR, of little or (explicit) big endian.
    No other kind of file begins so.
    """
    if head[128:HEAD] == b"DICM":
        return True
    encodings = ((True, "<"), (False, "<"), (True, ">"))
    return len(head) >= HEAD and any(_has_elements(head, explicit, order) for explicit, order in encodings)


def _has_elements(head: bytes, explicit: bool, order: str) -> bool:
    """Whether a head is elements of explicit or implicit VR from its first byte on."""
    at, count, last = 0, 0, (0, -1)
    while at + 12 <= HEAD:
        tag = group, number = struct.unpack_from(order + "HH", head, at)
        if tag <= last or (count == 0 and (group not in _FIRST_GROUPS or number > 0xFF)):
            return False
        if group > _FILE_META and last[0] == _FILE_META:  # the data behind it may be encoded otherwise
            break
        layout = _layout(head, at, explicit, order)
        if layout is None:
            return False
        vr, body, length = layout
        count += 1
        if length == _UNDEFINED:  # a sequence
            break
        is_text = vr not in _LONG_VRS | _NUMBER_VRS if explicit else number > 1
        if length % 2 or (number == 0 and length != 4):
            return False
        if is_text and group in _FIRST_GROUPS:
            value = head[body : min(body + length, HEAD)]
            if not (_CODE if number < _FIRST_NAME else _NAME).fullmatch(value) and not _ITEMS.match(value):
                return False
        at, last = body + length, tag
    return count > 1


def _layout(head: bytes, at: int, explicit: bool, order: str) -> tuple[bytes, int, int] | None:
    """The VR of the element at a place, where its value begins and how long it is; None where no VR is (PS3.5, 7.1.2)."""
    if not explicit:
        return b"", at + 8, struct.unpack_from(order + "I", head, at + 4)[0]
    vr = head[at + 4 : at + 6]
    if vr in _SHORT_VRS:
        return vr, at + 8, struct.unpack_from(order + "H", head, at + 6)[0]
    if vr in _LONG_VRS and head[at + 6 : at + 8] == b"\0\0":
        return vr, at + 12, struct.unpack_from(order + "I", head, at + 8)[0]
    return None


def open_dataset(path: Path) -> FileDataset:
    """The ``ATTRIBUTES`` of a file, and its transfer syntax, which is guessed from the bytes where the file has no header.

    pydicom is made to read any file: one that is no DICOM gives a dataset without an image, or nearly any exception.
    """
    import pydicom  # imported here: most users have no DICOM, and the import costs a fifth of a second

    dataset = pydicom.dcmread(path, specific_tags=list(ATTRIBUTES), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(_guess_syntax(dataset))
    return dataset


def _guess_syntax(dataset: FileDataset) -> str:
    from pydicom import uid

    if "PixelData" in dataset and dataset["PixelData"].is_undefined_length:  # only compressed pixels are
        marker, _ = codestream_of(first_frame(dataset))
        return {
            0x51: uid.JPEG2000, 0xC0: uid.JPEGBaseline8Bit, 0xC1: uid.JPEGExtended12Bit, 0xC2: uid.JPEGBaseline8Bit,
            0xC3: uid.JPEGLosslessSV1, 0xF7: uid.JPEGLSLossless,
        }.get(marker, uid.RLELossless)  # fmt: skip
    implicit, little_endian = dataset.original_encoding
    if not little_endian:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def first_frame(dataset: FileDataset) -> bytes:
    """The compressed bytes of a film's only frame."""
    from pydicom.encaps import generate_frames

    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def codestream_of(frame: bytes) -> tuple[int, int]:
    """The marker that opens a compressed frame's header, and the bits a sample takes; (0, 0) where it has none, as RLE.

    The marker is 0x51 for JPEG 2000 (SIZ; ISO/IEC 15444-1, A.5.1), 0xC0 to 0xCF for JPEG (SOF; ISO/IEC 10918-1, B.2.2)
    and 0xF7 for JPEG-LS (SOF; ISO/IEC 14495-1, C.2.2).
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 1024)  # also inside the boxes of a JP2
    if start >= 0 and len(frame) > start + 42:
        return 0x51, (frame[start + 42] & 0x7F) + 1
    at = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while at + 5 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # tables and extensions
            return marker, frame[at + 4]
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    return 0, 0
