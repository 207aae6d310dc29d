"""``--save dicom-seg,dicom-sr`` through the command: on the film, valid, once, and nothing of the patient elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from films import ten_bit, write_dicom
from lines import problems
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from test_inference import PHANTOMS, compile_once, run, save_network, tables

from mask_rcnn.commands.inference import main
from mask_rcnn.films.orientation import turn_back
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, SIDES
from mask_rcnn.results import dicom_seg

sr = pytest.importorskip("highdicom.sr", reason="highdicom is not installed")

__all__ = ["compile_once"]  # a fixture that every test here uses

pytestmark = pytest.mark.usefixtures("all_eagerly")

PATIENT = {"PatientName": "Doe^Jane Q", "PatientID": "MRN-471108", "PatientBirthDate": "19500102", "PatientSex": "F",
           "AccessionNumber": "ACC-99-77", "ReferringPhysicianName": "Kildare^James", "InstitutionName": "St Elsewhere"}
ALL = "masks,overlays,probabilities,dicom-seg,dicom-sr"


def write_study(path: Path, pixels: np.ndarray, photometric: str, **attributes: object) -> Path:
    uids = {name: generate_uid(entropy_srcs=[path.name, name]) for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    study = {"StudyDate": "20260102", "StudyTime": "120000", "StudyID": "1"}
    return write_dicom(path, ten_bit(pixels), photometric, 10, **uids, **study, **PATIENT, **attributes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(save_network(tmp_path_factory.mktemp("models") / "member.weights.h5", seed=1))]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films on which that network finds both lungs: DICOM that lies upright, turned or mirrored with black bones, a large
    one, one without UIDs; and a PNG."""
    folder = tmp_path_factory.mktemp("films") / "films"
    folder.mkdir()
    film = read_film(PHANTOMS[0])
    write_study(folder / "upright.dcm", film, "MONOCHROME2", PatientOrientation=["L", "F"], PixelSpacing=[0.5, 0.4],
                PixelSpacingCalibrationType="GEOMETRY")
    write_study(folder / "turned.dcm", np.rot90(film), "MONOCHROME2", PatientOrientation=["F", "R"])
    write_study(folder / "mirrored.dcm", 255 - film[:, ::-1], "MONOCHROME1", PatientOrientation=["R", "F"])
    write_study(folder / "large.dcm", cv2.resize(film, (1700, 2000)), "MONOCHROME2", ImagerPixelSpacing=[0.2, 0.2],
                EstimatedRadiographicMagnificationFactor=1.25)
    write_dicom(folder / "nameless.dcm", ten_bit(film), "MONOCHROME2", 10, **PATIENT)
    shutil.copy(PHANTOMS[1], folder / "plain.png")
    return folder


@pytest.fixture(scope="module")
def out(weights: list[str], source: Path, all_eagerly: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "out"
    assert run(weights, source, folder, "--save", ALL) == 0
    return folder


DICOMS = ("large", "mirrored", "turned", "upright")


def test_segmentations_lie_on_their_films(source: Path, out: Path) -> None:
    assert sorted(path.name for path in (out / "dicom-seg").iterdir()) == [f"{name}.dcm" for name in DICOMS]
    turned = {Path(row["file"]).stem: row["turned"] for row in tables(out)[0]}
    assert turned["turned"] and turned["mirrored"] == "mirrored" and not turned["upright"]
    for name in DICOMS:
        film, written = dcmread(source / f"{name}.dcm"), dcmread(out / "dicom-seg" / f"{name}.dcm")
        labels = turn_back(np.asarray(Image.open(out / "masks" / f"{name}.png")), turned[name])
        masks = written.pixel_array.reshape(-1, film.Rows, film.Columns).astype(bool)
        assert len(written.SegmentSequence) == 2
        for mask, category in zip(masks, CATEGORIES, strict=True):
            assert mask.any()
            np.testing.assert_array_equal(mask, labels == category)
        assert (written.PatientID, written.StudyInstanceUID) == (PATIENT["PatientID"], film.StudyInstanceUID)
        (reference,) = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert reference.ReferencedSOPInstanceUID == film.SOPInstanceUID


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: apt install dicom3tools)")
@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-sr"])
def test_a_validator_finds_no_error(out: Path, kind: str) -> None:
    for name in DICOMS:
        said = subprocess.run(["dciodvfy", out / kind / f"{name}.dcm"], capture_output=True, text=True, check=False).stderr
        assert ("Segmentation" if kind == "dicom-seg" else "ComprehensiveSR") in said and "Error" not in said, said


def numbers_of(report: Dataset) -> list[tuple[str, str, str, float]]:
    """Of each measurement in a report the side of its lung, its name, its unit and its value."""
    found = []

    def visit(item: Dataset, side: str) -> None:
        below = item.get("ContentSequence", [])
        for child in below:
            for modifier in child.get("ContentSequence", []):
                if modifier.ValueType == "CODE" and modifier.ConceptNameCodeSequence[0].CodeMeaning == "Laterality":
                    side = modifier.ConceptCodeSequence[0].CodeMeaning
        for child in below:
            if child.ValueType == "NUM":
                value = child.MeasuredValueSequence[0]
                found.append((side, child.ConceptNameCodeSequence[0].CodeMeaning,
                              value.MeasurementUnitsCodeSequence[0].CodeValue, float(value.NumericValue)))
            visit(child, side)

    visit(report, "")
    return found


def test_reports_hold_the_measurements(out: Path) -> None:
    for row in tables(out)[0]:
        path = out / "dicom-sr" / f"{Path(row['file']).stem}.dcm"
        assert path.is_file() == (path.stem in DICOMS)
        if path.is_file():
            report, segmentation = dcmread(path), dcmread(out / "dicom-seg" / path.name)
            unit = "mm" if row["spacing_y_mm"] else "px"
            columns = {"Area": f"area_{unit}{'2' * (unit == 'mm')}", "Length": f"height_{unit}", "Width": f"width_{unit}",
                       "Perimeter": f"perimeter_{unit}"}
            expected = {
                (side.capitalize(), name, column.split("_")[-1].replace("px", "{pixels}"), float(row[f"{side}_{column}"]))
                for side in SIDES.values() for name, column in columns.items()
            }  # fmt: skip
            assert set(numbers_of(report)) == expected and len(expected) == 8
            assert segmentation.SOPInstanceUID in str(report) and report.PatientID == PATIENT["PatientID"]
            groups = sr.srread(path).content.get_planar_roi_measurement_groups()
            assert [group.tracking_identifier for group in groups] == list(CATEGORIES.values())


def test_nothing_of_the_patient_is_anywhere_else(out: Path) -> None:
    secrets = [part.encode() for value in PATIENT.values() for part in value.split("^") if len(part) > 1]
    secrets += [generate_uid(entropy_srcs=["upright.dcm", "StudyInstanceUID"]).encode()]
    assert len(secrets) == 9
    read = 0
    for path in out.rglob("*"):
        if not path.is_file() or path.relative_to(out).parts[0].startswith("dicom-"):
            continue
        content = path.read_bytes()
        if path.suffix == ".png":
            with Image.open(path) as image:
                content += repr(image.info).encode()
        assert not [secret for secret in secrets if secret in content], path
        read += 1
    assert read == 6 * 4 + 4
    whole = (out / "dicom-seg" / "upright.dcm").read_bytes()
    assert all(secret in whole for secret in secrets if secret not in (b"St Elsewhere", b"20260102"))


def test_millimetres_and_where_they_come_from(out: Path) -> None:
    rows = {Path(row["file"]).stem: row for row in tables(out)[0]}
    told = {name: [row[key] for key in ("spacing_y_mm", "spacing_x_mm", "spacing_source", "calibration", "magnification")]
            for name, row in rows.items()}
    assert told["upright"] == ["0.5", "0.4", "PixelSpacing", "GEOMETRY", ""]
    assert told["large"] == ["0.16", "0.16", "ImagerPixelSpacing", "", "1.25"]
    assert told["turned"] == told["plain"] == [""] * 5
    for side in SIDES.values():
        row = {column.removeprefix(f"{side}_"): value for column, value in rows["upright"].items()}
        assert float(row["area_mm2"]) == pytest.approx(int(row["area_px"]) * 0.2, abs=0.01)
        assert float(row["height_mm"]) == pytest.approx(int(row["height_px"]) * 0.5)
        assert float(row["width_mm"]) == pytest.approx(int(row["width_px"]) * 0.4)
        assert float(row["apex_x_mm"]) == pytest.approx(float(row["apex_x"]) * 0.4, abs=0.01)
        assert 0.4 <= float(row["perimeter_mm"]) / float(row["perimeter_px"]) <= 0.5
        assert rows["plain"][f"{side}_area_mm2"] == "" and rows["plain"][f"{side}_apex_y_mm"] == ""


def test_probabilities(weights: list[str], out: Path) -> None:
    """One network: where its probability is a half or more it finds the lung, but for the opening and the other lung."""
    for row in tables(out)[0]:
        labels = np.asarray(Image.open(out / "masks" / row["result"]))
        for category, name in CATEGORIES.items():
            with Image.open(out / "probabilities" / name / row["result"]) as image:
                assert image.mode == "I;16" and name in image.info["probability"]
                levels = np.asarray(image)
            assert levels.dtype == np.uint16 and levels.shape == labels.shape
            found = labels == category
            assert (levels[found] >= 32767).all()
            assert found.any() <= (levels.max() > 32767)


def test_a_rerun_writes_what_is_missing_and_nothing_twice(
    weights: list[str], source: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mask_rcnn.inference import work as inference_work

    again = shutil.copytree(out, tmp_path / "again")
    lost = [f"dicom-seg/{DICOMS[2]}.dcm", f"dicom-sr/{DICOMS[0]}.dcm"]
    uids = {name: dcmread(again / name).SOPInstanceUID for name in lost}
    for name in lost:
        (again / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in again.rglob("*.*") if path.suffix in (".png", ".dcm")}
    with monkeypatch.context() as patch:
        patch.setattr(inference_work, "predict", lambda *_: pytest.fail("predicted"))
        assert run(weights, source, again, "--save", ALL) == 0
    said = capsys.readouterr()
    assert "3 films lack some of" in said.out  # the nameless one each time
    assert problems(said.err) == [
        "1 of 6 films are no DICOM: there is no dicom-seg and no dicom-sr of them",
        *(f"no {kind} of {source / 'nameless.dcm'}: its header lacks StudyInstanceUID, SeriesInstanceUID; "
          "export the film again from the archive" for kind in ("dicom-seg", "dicom-sr")),
    ]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {name: dcmread(again / name).SOPInstanceUID for name in lost} == uids
    # Probabilities are in no record: the film is predicted again, to the same files.
    path = again / "probabilities" / CATEGORIES[LEFT_LUNG] / "plain.png"
    content, table = path.read_bytes(), (again / "measurements.csv").read_bytes()
    path.unlink()
    (again / "overlays" / "plain.png").unlink()
    assert run(weights, source, again, "--save", "masks,probabilities") == 0
    assert "5 of 6 films are done" in capsys.readouterr().out
    assert path.read_bytes() == content and (again / "measurements.csv").read_bytes() == table
    assert not list(again.glob("earlier-*")) and not (again / "overlays" / "plain.png").exists()


def test_a_film_that_has_no_lung_any_more(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films, out = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    film = shutil.copy(source / "upright.dcm", films / "film.dcm")
    assert run(weights, films, out, "--save", "dicom-seg", "--set", "detection.min_score=0.4") == 0
    assert (out / "dicom-seg" / "film.dcm").is_file()
    write_study(film, np.full((200, 180), 99, np.uint8), "MONOCHROME2")
    assert run(weights, films, out, "--save", "dicom-seg", "--set", "detection.min_score=0.4") == 0
    (row,) = tables(out)[0]
    assert (out / "dicom-seg" / "film.dcm").is_file() == (row["lungs_found"] != "0")
    capsys.readouterr()
    assert run(weights, films, out, "--save", "dicom-seg", "--set", "detection.min_score=0.4") == 0
    assert "lack" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        ("dicom-sr", "dicom-sr refers to the segmentation of a film; give --save dicom-seg,dicom-sr"),
        ("dicom-seg", "--save dicom-seg: DICOM objects need highdicom, which is not installed; pip install highdicom, or "
                      'pip install ".[dicom]" in the repository'),
    ],
)  # fmt: skip
def test_what_cannot_be_saved_is_said_at_the_start(
    source: Path, tmp_path: Path, save: str, reason: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    assert main(["--src", str(source), "--out", str(tmp_path / "out"), "--device", "cpu", "--save", save]) == 1
    assert problems(capsys.readouterr().err) == [f"inference: {reason}"] and not (tmp_path / "out").exists()


def test_networks_of_image_sides_have_no_code(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = save_network(tmp_path / "image.weights.h5", seed=3, laterality="image")
    assert run([str(network)], source, tmp_path / "out", "--save", "dicom-seg") == 1
    (line,) = problems(capsys.readouterr().err)
    assert "name image sides; leave dicom-seg and dicom-sr out of --save" in line and not (tmp_path / "out").exists()
