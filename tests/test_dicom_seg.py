"""DICOM segmentations: read back they lie on the film, and a validator of the standard finds no error."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import films
import numpy as np
import pytest
from pydicom import dcmread

from mask_rcnn.films.orientation import turn_back, turn_likewise
from mask_rcnn.films.radiograph import read_radiograph
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results import dicom_seg
from mask_rcnn.results.dicom_seg import SegmentationError, segmentation_dicom

pytest.importorskip("highdicom", reason="highdicom is not installed")

UIDS = {
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1", "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "PatientID": "7", "PatientName": "Phantom^One", "PatientBirthDate": "", "PatientSex": "O", "StudyDate": "20260101",
    "StudyTime": "120000", "StudyID": "1", "AccessionNumber": "", "ReferringPhysicianName": "",
}  # fmt: skip


def labels_of(shape: tuple[int, ...]) -> np.ndarray:
    """Two lungs of different sizes, on a film that lies upright."""
    labels = np.zeros(shape, np.uint8)
    labels[10:40, 30:42], labels[12:36, 5:15] = LEFT_LUNG, RIGHT_LUNG
    return labels


def write_segmentation(path: Path, *given: Any) -> None:
    path.write_bytes(segmentation_dicom(*given))


def write_film(path: Path, **attributes: object) -> Path:
    return films.write_dicom(path, films.ten_bit(films.film_of(64, 48)), "MONOCHROME2", 10, **UIDS | attributes)


@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["R", "H"], ["F", "L"], ["H", "R"], None])
def test_a_segmentation_lies_on_its_film(tmp_path: Path, orientation: list[str] | None) -> None:
    film = write_film(tmp_path / "film.dcm", **({"PatientOrientation": orientation} if orientation else {}))
    upright = read_radiograph(film)
    labels = labels_of(upright.pixels.shape)
    np.testing.assert_array_equal(turn_likewise(turn_back(labels, upright.turned), upright.turned), labels)
    write_segmentation(tmp_path / "seg.dcm", film, labels, upright.turned, "patient", "weights")
    source, written = dcmread(film), dcmread(tmp_path / "seg.dcm")
    left, right = written.pixel_array.astype(bool)
    stored = source.pixel_array
    assert left.shape == stored.shape
    expected = turn_back(labels, upright.turned)
    np.testing.assert_array_equal(left, expected == LEFT_LUNG)
    np.testing.assert_array_equal(right, expected == RIGHT_LUNG)
    # The pixels under a lung are the same ones as on the film that was predicted.
    assert sorted(stored[left]) == sorted(turn_back(turn_likewise(stored, upright.turned), upright.turned)[left])
    assert written.PatientID == "7" and written.StudyInstanceUID == source.StudyInstanceUID
    (reference,) = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_lungs_are_coded_with_their_side(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.dcm")
    labels = labels_of((64, 48))
    write_segmentation(tmp_path / "both.dcm", film, labels, "", "patient", "weights")
    codes = []
    for segment in dcmread(tmp_path / "both.dcm").SegmentSequence:
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
        codes.append((segment.SegmentLabel, kind.CodeValue, side.CodeValue, segment.SegmentAlgorithmType))
    assert codes == [("Left lung", "39607008", "7771000", "AUTOMATIC"), ("Right lung", "39607008", "24028007", "AUTOMATIC")]
    write_segmentation(tmp_path / "right.dcm", film, labels * (labels == RIGHT_LUNG), "", "patient", "weights")
    (alone,) = dcmread(tmp_path / "right.dcm").SegmentSequence
    assert alone.SegmentNumber == 1 and alone.SegmentLabel == "Right lung"


def test_the_same_lungs_have_the_same_uids(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.dcm")
    labels = labels_of((64, 48))
    uids = []
    left = labels * (labels == LEFT_LUNG)
    for name, lungs, identity in (("a", labels, "x"), ("b", labels, "x"), ("c", left, "x"), ("d", labels, "y")):
        write_segmentation(tmp_path / f"{name}.dcm", film, lungs, "", "patient", identity)
        written = dcmread(tmp_path / f"{name}.dcm")
        uids.append((written.SeriesInstanceUID, written.SOPInstanceUID))
    assert uids[0] == uids[1] and uids[2][0] == uids[0][0] and uids[2][1] != uids[0][1] and uids[3][0] != uids[0][0]


@pytest.mark.parametrize(
    ("attributes", "labels", "laterality", "reason"),
    [
        ({"StudyInstanceUID": ""}, labels_of((64, 48)), "patient", "its header lacks StudyInstanceUID; "),
        ({}, labels_of((48, 64)), "patient", "its header has 48 x 64 pixels, its masks 64 x 48; "),
        ({}, np.zeros((64, 48), np.uint8), "patient", "no lung was found"),
        ({}, labels_of((64, 48)), "image", "these networks name image sides; leave "),
    ],
)
def test_what_has_no_segmentation(
    tmp_path: Path, attributes: dict[str, object], labels: np.ndarray, laterality: str, reason: str
) -> None:
    film = write_film(tmp_path / "film.dcm", **attributes)
    with pytest.raises(SegmentationError) as caught:
        write_segmentation(tmp_path / "seg.dcm", film, labels, "", laterality, "weights")
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["film.dcm"]


def test_a_header_that_breaks_something_is_said_without_quoting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "film.dcm", PixelSpacing=0.5)  # one value, where two belong: no spacing
    content = segmentation_dicom(film, labels_of((64, 48)), "", "patient", "weights")
    assert b"Phantom^One" in content
    assert "PixelMeasuresSequence" not in str(dcmread(io.BytesIO(content)))

    def refuse(header: Any) -> None:
        raise KeyError(str(header.PatientName))

    monkeypatch.setattr(dicom_seg, "completed", refuse)
    with pytest.raises(SegmentationError) as caught:
        segmentation_dicom(film, labels_of((64, 48)), "", "patient", "weights")
    assert str(caught.value) == "its header cannot be taken over (KeyError); export the film again from the archive"
    film.write_bytes(b"torn")
    with pytest.raises(SegmentationError, match=r"its header (lacks SOPClassUID|cannot be taken over)"):
        segmentation_dicom(film, labels_of((64, 48)), "", "patient", "weights")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: apt install dicom3tools)")
@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
@pytest.mark.parametrize("lacking", [(), ("PatientID", "StudyDate", "StudyID", "AccessionNumber"), ("PatientOrientation",)])
def test_a_validator_finds_no_error(tmp_path: Path, lacking: tuple[str, ...]) -> None:
    film = write_film(tmp_path / "film.dcm", PatientAge="54", PixelSpacing=[0.0, 0.0], PatientOrientation=["L", "F"])
    header = dcmread(film)
    for name in lacking:
        if name in header:
            delattr(header, name)
    header.save_as(film)
    write_segmentation(tmp_path / "seg.dcm", film, labels_of((64, 48)), "", "patient", "weights")
    said = subprocess.run(["dciodvfy", str(tmp_path / "seg.dcm")], capture_output=True, text=True, check=False)
    assert "Segmentation" in said.stderr and "Error" not in said.stderr, said.stderr
