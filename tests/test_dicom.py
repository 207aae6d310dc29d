"""Reading DICOM films: transforms, colours, compression, spacing, and nothing of the patient."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from films import film_of, refused, stretched, ten_bit, write_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film, read_radiograph
from mask_rcnn.films.spacing import calibrated_spacing


def test_monochrome2_of_10_bits(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", ten_bit(film_of()), "MONOCHROME2", 10)
    assert np.abs(read_film(path) - stretched(film_of())).max() <= 0.5


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", ten_bit(film_of()), "MONOCHROME1", 10)
    assert np.abs(read_film(path) - (255 - stretched(film_of()))).max() <= 0.5


def test_8_bits_are_read_as_they_are(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8)
    np.testing.assert_array_equal(read_film(path), film_of())


def test_the_voi_window_is_applied(tmp_path: Path) -> None:
    pixels = ten_bit(film_of())
    centre, width = 500, 200
    path = write_dicom(
        tmp_path / "film.dcm", pixels, "MONOCHROME2", 10, WindowCenter=centre, WindowWidth=width
    )
    # DICOM PS3.3 C.11.2.1.2: the window's ends are half a level inside, what lies beyond them is cut off.
    windowed = np.clip((pixels - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    assert np.abs(read_film(path) - windowed * 255).max() <= 1
    assert (read_film(path)[pixels <= 400] == 0).all() and (read_film(path)[pixels >= 600] == 255).all()


def test_the_rescale_slope_is_applied_before_the_window(tmp_path: Path) -> None:
    pixels = ten_bit(film_of())
    attributes = {"RescaleSlope": 2, "RescaleIntercept": -100, "RescaleType": "US"}
    window = {"WindowCenter": 2 * 500 - 100, "WindowWidth": 400}
    path = write_dicom(tmp_path / "film.dcm", pixels, "MONOCHROME2", 10, **attributes, **window)
    windowed = np.clip((2.0 * pixels - 100 - (900 - 0.5)) / 399 + 0.5, 0, 1)
    assert np.abs(read_film(path) - windowed * 255).max() <= 1


def test_a_dicom_in_colour_becomes_grey(tmp_path: Path) -> None:
    film = film_of()
    path = write_dicom(tmp_path / "film.dcm", np.stack([film] * 3, -1), "RGB", 8)
    assert np.abs(read_film(path).astype(int) - film).max() <= 1


def test_a_dicom_is_known_by_its_preamble(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8).rename(tmp_path / "IM000001")
    np.testing.assert_array_equal(read_film(path), film_of())


def test_dicoms_that_are_no_single_film(tmp_path: Path) -> None:
    frames = np.stack([film_of(), film_of(seed=1)])
    assert "has 2 frames" in refused(write_dicom(tmp_path / "loop.dcm", frames, "MONOCHROME2", 8))
    whole = write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8)
    dataset = pydicom.dcmread(whole)
    del dataset.PixelData
    dataset.save_as(tmp_path / "report.dcm")
    assert "without an image" in refused(tmp_path / "report.dcm")
    (tmp_path / "cut.dcm").write_bytes(whole.read_bytes()[:-500])
    refused(tmp_path / "cut.dcm")
    dataset = pydicom.dcmread(whole)
    dataset.Rows = dataset.Columns = 60000
    dataset.save_as(tmp_path / "bomb.dcm")
    assert "claims 60000 x 60000 pixels" in refused(tmp_path / "bomb.dcm")
    (tmp_path / "letter.dcm").write_text("Dear colleague, please find attached the film. " * 9)
    assert "is no DICOM" in refused(tmp_path / "letter.dcm")


def test_a_single_frame_is_a_film(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8, NumberOfFrames=1)
    np.testing.assert_array_equal(read_film(path), film_of())


def look_up_table(levels: np.ndarray, first: int) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(levels), first, 16]
    item.LUTData = levels.astype(np.uint16).tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def test_look_up_tables_are_applied(tmp_path: Path) -> None:
    film = film_of()
    rising = (np.arange(256) ** 2).astype(np.uint16)
    for sequence in ("ModalityLUTSequence", "VOILUTSequence"):
        path = write_dicom(tmp_path / f"{sequence}.dcm", film.astype(np.uint16), "MONOCHROME2", 16,
                           **{sequence: [look_up_table(rising, 0)]})  # fmt: skip
        assert np.abs(read_film(path) - stretched(rising[film])).max() <= 0.5, sequence


def test_monochrome1_is_inverted_after_its_window(tmp_path: Path) -> None:
    pixels = ten_bit(film_of())
    path = write_dicom(tmp_path / "film.dcm", pixels, "MONOCHROME1", 10, WindowCenter=500, WindowWidth=200)
    windowed = np.clip((pixels - 499.5) / 199 + 0.5, 0, 1)
    assert np.abs(read_film(path) - (255 - windowed * 255)).max() <= 1


@pytest.mark.parametrize(
    "nonsense",
    [
        {"WindowCenter": 500, "WindowWidth": 0},
        {"WindowCenter": 500, "WindowWidth": -3},
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 60000, "WindowWidth": 10},
        {"WindowCenter": 500},
        {"RescaleSlope": 0, "RescaleIntercept": 5},
        {"VOILUTSequence": [Dataset()]},
    ],
)
def test_a_transform_of_nonsense_is_left_out(tmp_path: Path, nonsense: dict[str, Any]) -> None:
    path = write_dicom(tmp_path / "film.dcm", ten_bit(film_of()), "MONOCHROME2", 10, **nonsense)
    assert np.abs(read_film(path) - stretched(film_of())).max() <= 0.5


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    pixels = ten_bit(film_of())
    path = write_dicom(tmp_path / "film.dcm", pixels, "MONOCHROME2", 10, WindowCenter=[500, 100], WindowWidth=[200, 9])
    assert np.abs(read_film(path) - np.clip((pixels - 499.5) / 199 + 0.5, 0, 1) * 255).max() <= 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_where_the_detector_saw_nothing_it_is_black(tmp_path: Path, photometric: str) -> None:
    film = film_of()
    pixels = film.astype(np.int16)
    pixels[:, :9] = -2000
    path = write_dicom(tmp_path / "film.dcm", pixels, photometric, 16, PixelRepresentation=1, PixelPaddingValue=-2000)
    read = read_film(path)
    seen = stretched(film[:, 9:])
    assert not read[:, :9].any()
    assert np.abs(read[:, 9:] - (255 - seen if photometric == "MONOCHROME1" else seen)).max() <= 0.5


def test_ybr_and_palettes_become_grey(tmp_path: Path) -> None:
    film = film_of()
    neutral = np.full_like(film, 128)
    path = write_dicom(tmp_path / "ybr.dcm", np.stack([film, neutral, neutral], -1), "YBR_FULL", 8)
    assert np.abs(read_film(path).astype(int) - film).max() <= 1
    falling = (65535 - 257 * np.arange(256)).astype(np.uint16)
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", falling.tobytes()))
    }
    path = write_dicom(tmp_path / "palette.dcm", film, "PALETTE COLOR", 8, **palette)
    assert np.abs(read_film(path) - (255 - stretched(film))).max() <= 1


def compressed(path: Path, whole: Path, kind: str) -> Path:
    """A film compressed with all its cells hold: RLE, JPEG, JPEG 2000, or as only GDCM does, lossless JPEG and JPEG-LS."""
    if kind in ("jpeg lossless", "jpeg-ls"):
        gdcm = pytest.importorskip("gdcm")
        change, reader, writer = gdcm.ImageChangeTransferSyntax(), gdcm.ImageReader(), gdcm.ImageWriter()
        reader.SetFileName(str(whole))
        assert reader.Read()
        syntax = gdcm.TransferSyntax.JPEGLSLossless if kind == "jpeg-ls" else gdcm.TransferSyntax.JPEGLosslessProcess14_1
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
        return path
    dataset = pydicom.dcmread(whole)
    if kind == "rle":
        dataset.compress(RLELossless)
    else:
        syntax, options = {
            "jpeg": (JPEGBaseline8Bit, {"format": "JPEG", "quality": 95}),
            "j2k": (JPEG2000Lossless, {"format": "JPEG2000", "no_jp2": True}),
        }[kind]
        stream = io.BytesIO()
        dataset.pixel_array_options(correct_unused_bits=False)
        cells = dataset.pixel_array
        Image.fromarray(cells.view(cells.dtype.str.replace("i", "u"))).save(stream, **options)
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(("kind", "error"), [("rle", 0), ("jpeg", 2), ("j2k", 0), ("jpeg lossless", 0), ("jpeg-ls", 0)])
def test_compressed_films_whole_and_torn(tmp_path: Path, kind: str, error: float) -> None:
    film = film_of()
    whole = write_dicom(tmp_path / "whole.dcm", film, "MONOCHROME2", 8)
    path = compressed(tmp_path / f"{kind}.dcm", whole, kind)
    assert np.abs(read_film(path).astype(int) - film).mean() <= error
    content = np.frombuffer(path.read_bytes(), np.uint8)
    start = content.tobytes().rindex(b"\xfe\xff\x00\xe0")  # the item that holds the compressed pixels
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):  # some of these end GDCM's process
        torn = content.copy()
        places = rng.integers(start, len(torn) if rng.random() < 0.5 else min(start + 200, len(torn)), 3)
        torn[places] = rng.integers(0, 256, 3)
        path.write_bytes(torn.tobytes())
        try:
            outcomes.append(read_film(path).ndim == 2)
        except FilmError as failure:
            outcomes.append(str(failure).startswith(f"{path}: ") and "\n" not in str(failure))
    assert all(outcomes) and len(outcomes) == 60


def reframed(path: Path, cut: int, zeros: int) -> Path:
    """A compressed film whose frame lacks its last bytes, or has zeros instead."""
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1)).rstrip(b"\0")
    dataset.PixelData = encapsulate([frame[:-cut] + bytes(zeros)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(torn := path.with_name("torn.dcm"))
    return torn


@pytest.mark.parametrize("kind", ["jpeg", "j2k", "jpeg lossless", "jpeg-ls"])
def test_a_torn_frame_is_no_half_film(tmp_path: Path, kind: str) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", film_of(200, 160), "MONOCHROME2", 8)
    path = compressed(tmp_path / "film.dcm", whole, kind)
    for zeros in (0, 9000):
        assert "cannot be decoded as DICOM" in refused(reframed(path, 4000, zeros))


def test_a_jpeg_frame_without_its_end_is_read(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8)
    path = compressed(tmp_path / "film.dcm", whole, "jpeg")
    for cut, zeros in ((1, 0), (2, 0), (2, 60)):
        np.testing.assert_array_equal(read_film(reframed(path, cut, zeros)), read_film(path))


# Levels in cells that hold more


def in_cells(levels: np.ndarray, bits: int, high_bit: int) -> np.ndarray:
    """uint16: the levels' bits up to that bit of the cells, noise in all others."""
    place = ((1 << bits) - 1) << (high_bit + 1 - bits)
    noise = np.random.default_rng(0).integers(0, 1 << 16, levels.shape)
    return (levels.astype(int) << (high_bit + 1 - bits) & place | noise & ~place & 0xFFFF).astype(np.uint16)


@pytest.mark.parametrize("kind", ["not", "rle", "j2k", "jpeg lossless", "jpeg-ls"])
@pytest.mark.parametrize(("bits", "high_bit"), [(12, 11), (12, 15), (12, 13), (10, 9), (15, 15)])
@pytest.mark.parametrize("signed", [0, 1])
def test_unused_bits_are_nothing(tmp_path: Path, kind: str, bits: int, high_bit: int, signed: int) -> None:
    levels = film_of().astype(np.int32) << (bits - 8)
    levels -= signed << (bits - 1)
    cells = in_cells(levels, bits, high_bit)
    whole = write_dicom(tmp_path / "whole.dcm", cells, "MONOCHROME2", 16, PixelRepresentation=signed)
    path = whole if kind == "not" else compressed(tmp_path / "film.dcm", whole, kind)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = bits, high_bit
    dataset.save_as(path)
    assert np.abs(read_film(path) - stretched(levels)).max() <= 0.5


@pytest.mark.parametrize("kind", ["not", "rle", "j2k"])
def test_an_overlay_in_the_cells_is_not_seen(tmp_path: Path, kind: str) -> None:
    levels = film_of().astype(np.uint16) * 16
    drawn = np.zeros(levels.shape, np.uint16)
    drawn[10:20, 5:40] = 1 << 15
    overlay = {"OverlayRows": 60, "OverlayColumns": 48, "OverlayType": "G", "OverlayOrigin": [1, 1],
               "OverlayBitsAllocated": 16, "OverlayBitPosition": 15}  # fmt: skip
    path = write_dicom(tmp_path / "film.dcm", levels | drawn, "MONOCHROME2", 16)
    path = path if kind == "not" else compressed(tmp_path / "film.dcm", path, kind)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    for number, name in enumerate(overlay, 0x10):
        tag = {"OverlayType": 0x40, "OverlayOrigin": 0x50, "OverlayBitsAllocated": 0x100, "OverlayBitPosition": 0x102}
        vr = {"OverlayType": "CS", "OverlayOrigin": "SS"}.get(name, "US")
        dataset.add_new((0x6000, tag.get(name, number)), vr, overlay[name])
    dataset.save_as(path)
    assert np.abs(read_film(path) - stretched(levels)).max() <= 0.5


def test_cells_with_a_wrong_highest_bit_are_read_as_they_are(tmp_path: Path) -> None:
    for high_bit in (15, 7, 40):  # the levels lie below bit 12
        path = write_dicom(tmp_path / "film.dcm", film_of().astype(np.uint16) * 16, "MONOCHROME2", 12, HighBit=high_bit)
        assert np.abs(read_film(path) - stretched(film_of())).max() <= 0.5
    dataset = pydicom.dcmread(path)
    del dataset.HighBit
    dataset.save_as(path)
    assert np.abs(read_film(path) - stretched(film_of())).max() <= 0.5


def test_what_an_encoder_left_of_its_own_precision_is_not_shifted(tmp_path: Path) -> None:
    """JPEG 2000 of 8 bits in a film that says 8 bits at the upper end of 16: the encoder was given the levels alone."""
    path = compressed(tmp_path / "film.dcm", write_dicom(tmp_path / "8.dcm", film_of(), "MONOCHROME2", 8), "j2k")
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 8, 15
    dataset.save_as(path)
    assert np.abs(read_film(path) - stretched(film_of())).max() <= 0.5


def test_lossy_levels_that_overshoot_stay_white(tmp_path: Path) -> None:
    levels = np.interp(film_of(), (10, 200), (0, 4095)).astype(np.uint16)
    levels[20:30, 20:30] = 4095 + 40  # as a wavelet leaves them beside an edge
    path = compressed(tmp_path / "film.dcm", write_dicom(tmp_path / "16.dcm", levels, "MONOCHROME2", 16), "j2k")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    assert (read_film(path)[20:30, 20:30] == 255).all()


# Spacing


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.14, 0.15]}, (0.14, 0.15)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.16, 0.08)),
        ({"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 0}, (0.2, 0.1)),
        ({"PixelSpacing": [0.14, 0.14], "ImagerPixelSpacing": [0.2, 0.2],
          "EstimatedRadiographicMagnificationFactor": 2}, (0.14, 0.14)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0.14]}, None),
        ({"PixelSpacing": [-0.14, -0.14]}, None),
        ({"PixelSpacing": [140, 140]}, None),
        ({"PixelSpacing": [float("nan"), 0.14]}, None),
        ({"PixelSpacing": [float("inf"), 0.14]}, None),
        ({"PixelSpacing": 0.14}, None),
        ({"PixelSpacing": [0.14, 0.14, 0.14]}, None),
        ({"PixelSpacing": None}, None),
    ],
)  # fmt: skip
def test_spacing(attributes: dict[str, Any], expected: tuple[float, float] | None) -> None:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    assert calibrated_spacing(dataset)[0] == (expected and pytest.approx(expected))


def test_spacing_comes_with_the_film_and_nonsense_in_the_file_is_borne(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8, PixelSpacing=["0.1430", "0.1440"])
    film, spacing, *_ = read_radiograph(path)
    assert film.shape == film_of().shape and spacing == (0.143, 0.144)
    path.write_bytes(path.read_bytes().replace(b"0.1430", b"torn!!"))
    assert read_radiograph(path).spacing is None


# Patients


def test_nothing_of_the_patient_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientBirthDate": "19500102", "OtherPatientIDs": "0815"}
    path = write_dicom(tmp_path / "film.dcm", film_of(), "MONOCHROME2", 8, **patient)
    read = []
    real = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *given, **options: read.append(real(*given, **options)) or read[-1])
    np.testing.assert_array_equal(read_film(path), film_of())
    assert len(read) == 1 and "Rows" in read[0] and not [name for name in read[0].dir() if "Patient" in name]
    path.write_bytes(path.read_bytes()[:-900])
    said = refused(path)
    assert "Doe" not in said and "4711" not in said
