"""Reading films of every kind, also those no folder should hold; grey levels and squares against loops."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from mask_rcnn.radiograph import (
    FILM_SUFFIXES,
    MAX_PIXELS,
    FilmError,
    equalise,
    find_film_paths,
    fit_labels_to_square,
    fit_to_square,
    read_film,
    to_8_bit,
)

GOLDEN = Path(__file__).parent / "golden" / "components.npz"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def film_of(height: int = 60, width: int = 48, seed: int = 0) -> np.ndarray:
    """A slope with grain: every orientation of it differs."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(10, 150, height)[:, None] + np.linspace(0, 90, width)[None]
    return np.clip(slope + rng.normal(0, 3, (height, width)), 1, 254).astype(np.uint8)


# Images


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "PNG"])
def test_lossless_grey_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    film = film_of()
    path = tmp_path / f"film.{suffix}"
    Image.fromarray(film).save(path)
    read = read_film(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, film)


def test_jpeg_is_read_closely(tmp_path: Path) -> None:
    film = film_of()
    Image.fromarray(film).save(tmp_path / "film.jpg", quality=95)
    assert np.abs(read_film(tmp_path / "film.jpg").astype(int) - film).mean() < 2


def test_a_name_with_spaces_and_other_alphabets(tmp_path: Path) -> None:
    path = tmp_path / "폐 & poumon ü.png"
    Image.fromarray(film_of()).save(path)
    np.testing.assert_array_equal(read_film(str(path)), film_of())


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(film_of()).save(tmp_path / "film.jpg", format="PNG")
    np.testing.assert_array_equal(read_film(tmp_path / "film.jpg"), film_of())


def test_16_bit_grey_is_stretched_to_8(tmp_path: Path) -> None:
    deep = film_of().astype(np.uint16) * 16 + 1000
    Image.fromarray(deep).save(tmp_path / "deep.png")
    read = read_film(tmp_path / "deep.png")
    expected = (deep - deep.min()) / (deep.max() - deep.min()) * 255
    assert read.min() == 0 and read.max() == 255
    assert np.abs(read - expected).max() <= 0.5


def test_32_bit_float_is_stretched_to_8(tmp_path: Path) -> None:
    deep = film_of().astype(np.float32) / 255 - 0.3
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    expected = (deep - deep.min()) / (deep.max() - deep.min()) * 255
    assert np.abs(read_film(tmp_path / "deep.tif") - expected).max() <= 0.51


def test_colours_become_grey(tmp_path: Path) -> None:
    film = film_of()
    Image.fromarray(np.stack([film] * 3, -1)).save(tmp_path / "rgb.png")
    assert np.abs(read_film(tmp_path / "rgb.png").astype(int) - film).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_black(tmp_path: Path, mode: str) -> None:
    film = film_of()
    alpha = np.full(film.shape, 255, np.uint8)
    alpha[:, :10] = 0
    channels = [film] * (len(mode) - 1) + [alpha]
    Image.fromarray(np.stack(channels, -1), mode=None).save(tmp_path / "film.png")
    read = read_film(tmp_path / "film.png")
    assert not read[:, :10].any()
    assert np.abs(read[:, 10:].astype(int) - film[:, 10:]).max() <= 1


def test_a_palette_gives_its_colours_and_not_its_indices(tmp_path: Path) -> None:
    indices = (film_of() // 8).astype(np.uint8)
    image = Image.fromarray(indices, mode=None).convert("L")
    palette = image.convert("P")
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([level for index in range(256) for level in [255 - index] * 3])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_film(tmp_path / "palette.png"), 255 - indices)
    palette.save(tmp_path / "clear.png", transparency=int(indices[0, 0]))
    assert read_film(tmp_path / "clear.png")[0, 0] == 0


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(film_of() > 100).save(tmp_path / "film.png")
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), (film_of() > 100) * np.uint8(255))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_obeyed(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(film_of()).save(tmp_path / "film.png", exif=exif)
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), np.rot90(film_of(), turns))


# What no folder should hold


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(suffix: str, film: np.ndarray, folder: Path) -> bytes:
    path = folder / f"whole.{suffix}"
    Image.fromarray(film).save(path)
    return path.read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(FilmError) as caught:
        read_film(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "; " in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.dcm"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "empty" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["film.png", "film.jpeg", "film.tif", "film.dcm"])
def test_text_that_is_named_a_film(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear colleague,\nplease find attached the film.\n" * 20)
    refused(tmp_path / name)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    assert "cannot be read" in refused(tmp_path / "folder.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_files_cut_short(tmp_path: Path, suffix: str) -> None:
    content = encoded(suffix, film_of(), tmp_path)
    path = tmp_path / f"cut.{suffix}"
    for share in (0.02, 0.1, 0.5, 0.8):
        path.write_bytes(content[: max(1, int(share * len(content)))])
        refused(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_torn_bytes_give_a_film_or_one_line(tmp_path: Path, suffix: str) -> None:
    content = np.frombuffer(encoded(suffix, film_of(), tmp_path), np.uint8)
    path = tmp_path / f"torn.{suffix}"
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(60):
        torn = content.copy()
        # Most tears fall into the header, where they do the most harm.
        places = rng.integers(0, len(torn) if rng.random() < 0.3 else 120, 4)
        torn[places] = rng.integers(0, 256, 4)
        path.write_bytes(torn.tobytes())
        try:
            film = read_film(path)
            outcomes.append(film.dtype == np.uint8 and film.ndim == 2)
        except FilmError as error:
            outcomes.append(str(path) in str(error) and "\n" not in str(error))
    assert all(outcomes) and len(outcomes) == 60


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1)])
def test_a_header_that_claims_too_much_is_refused_unread(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(*size))
    assert f"claims {size[0]} x {size[1]} pixels" in refused(tmp_path / "bomb.png")


def test_films_too_small(tmp_path: Path) -> None:
    Image.fromarray(film_of(32, 32)).save(tmp_path / "small.png")
    assert read_film(tmp_path / "small.png").shape == (32, 32)
    Image.fromarray(film_of(31, 200)).save(tmp_path / "smaller.png")
    assert "only 200 x 31 pixels" in refused(tmp_path / "smaller.png")


@pytest.mark.parametrize("level", [0, 255])
def test_films_of_one_level_are_read_and_equalised(tmp_path: Path, level: int) -> None:
    Image.fromarray(np.full((40, 40), level, np.uint8)).save(tmp_path / "flat.png")
    film = read_film(tmp_path / "flat.png")
    assert (film == level).all()
    assert not equalise(film).any()


# DICOM


def write_dicom(path: Path, pixels: np.ndarray, photometric: str, bits: int, **attributes: object) -> Path:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    frames = pixels.shape[0] if pixels.ndim == 3 and photometric.startswith("MONO") else 1
    rows, columns = pixels.shape[-2:] if frames > 1 else pixels.shape[:2]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if photometric == "RGB" else 1
    if photometric == "RGB":
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def ten_bit(film: np.ndarray) -> np.ndarray:
    return (film.astype(np.uint16) * 4).astype(np.uint16)


def stretched(film: np.ndarray) -> np.ndarray:
    low, high = int(film.min()), int(film.max())
    return (film.astype(float) - low) / (high - low) * 255


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


# Grey levels


def naive_equalise(film: np.ndarray) -> np.ndarray:
    levels = film.ravel().tolist()
    lowest = sum(level == min(levels) for level in levels)
    spread = len(levels) - lowest
    if spread == 0:
        return np.zeros_like(film)
    table = {
        level: (255 * (sum(other <= level for other in levels) - lowest)) // spread for level in set(levels)
    }
    return np.array([table[level] for level in levels], np.uint8).reshape(film.shape)


@pytest.mark.parametrize("seed", range(4))
def test_equalise_agrees_with_counting(seed: int) -> None:
    rng = np.random.default_rng(seed)
    film = rng.normal(120, 30, (12, 9)).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(equalise(film), naive_equalise(film))
    colours = rng.integers(0, 40, (7, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(equalise(colours), naive_equalise(colours))


def test_equalise_of_two_levels_and_of_one() -> None:
    film = np.array([[7, 7], [7, 200]], np.uint8)
    np.testing.assert_array_equal(equalise(film), [[0, 0], [0, 255]])
    assert not equalise(np.full((3, 3), 255, np.uint8)).any()


def test_equalising_twice_changes_next_to_nothing() -> None:
    film = equalise(film_of(200, 160))
    # Not nothing: levels that the first pass merges with the lowest are counted with it in the second.
    assert np.abs(equalise(film).astype(int) - film).max() <= 1


def test_equalising_undoes_any_rising_tone_curve() -> None:
    film = film_of() // 4
    curve = np.round(255 * (np.arange(64) / 63) ** 0.5).astype(np.uint8)
    assert (np.diff(curve.astype(int)) > 0).all(), "the curve must keep the film's levels apart"
    np.testing.assert_array_equal(equalise(curve[film]), equalise(film))


def test_to_8_bit_of_odd_values() -> None:
    deep = np.array([[np.nan, -2.0], [0.0, 2.0]])
    np.testing.assert_array_equal(to_8_bit(deep), [[128, 0], [128, 255]])
    assert not to_8_bit(np.full((3, 3), 900, np.uint16)).any()
    film = film_of()
    assert to_8_bit(film) is film


# The square


@pytest.mark.parametrize("shape", [(60, 48), (48, 60), (200, 330), (64, 64), (33, 500), (90, 90), (1000, 40)])
@pytest.mark.parametrize("side", [64, 256])
def test_the_film_lies_in_its_window(shape: tuple[int, int], side: int) -> None:
    film = np.maximum(film_of(*shape), 20)
    square, (y1, x1, y2, x2), scale = fit_to_square(film, side)
    assert square.shape == (side, side) and square.dtype == np.uint8
    assert max(y2 - y1, x2 - x1) == side and scale == side / max(shape)
    assert abs((y2 - y1) - shape[0] * scale) <= 1 and abs((x2 - x1) - shape[1] * scale) <= 1
    assert abs(y1 - (side - y2)) <= 1 and abs(x1 - (side - x2)) <= 1, "the film is not centred"
    inside = np.zeros(square.shape, bool)
    inside[y1:y2, x1:x2] = True
    assert (square[inside] > 0).all() and not square[~inside].any()
    assert abs(float(square[inside].mean()) - float(film.mean())) < 2


def naive_bilinear(film: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixel centres aligned, black beyond the film's edges, as the reference has it."""

    def level(y: int, x: int) -> float:
        return float(film[y, x]) if 0 <= y < film.shape[0] and 0 <= x < film.shape[1] else 0.0

    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * film.shape[0] / height - 0.5, (x + 0.5) * film.shape[1] / width - 0.5
            top, left = math.floor(v), math.floor(u)
            upper = level(top, left) * (1 - u + left) + level(top, left + 1) * (u - left)
            lower = level(top + 1, left) * (1 - u + left) + level(top + 1, left + 1) * (u - left)
            result[y, x] = upper * (1 - v + top) + lower * (v - top)
    return result


@pytest.mark.parametrize("shape", [(40, 33), (90, 100)])
def test_fitting_agrees_with_bilinear_samples(shape: tuple[int, int]) -> None:
    film = film_of(*shape)
    square, (y1, x1, y2, x2), _ = fit_to_square(film, 64)
    expected = naive_bilinear(film, y2 - y1, x2 - x1)
    assert np.abs(square[y1:y2, x1:x2] - np.floor(expected + 1e-4)).max() <= 1
    assert np.abs(square[y1:y2, x1:x2] - expected).mean() < 0.75


def test_fitting_a_film_far_larger_averages_its_grain() -> None:
    blocks = film_of(64, 64)
    rng = np.random.default_rng(0)
    large = np.kron(blocks.astype(float), np.ones((4, 4)))
    grain = rng.normal(0, 20, large.shape)
    square, _, _ = fit_to_square(np.clip(large + grain, 0, 255).astype(np.uint8), 64)
    averaged = np.clip(large + grain, 0, 255).astype(np.uint8).reshape(64, 4, 64, 4).mean((1, 3))
    assert np.abs(square - averaged).max() <= 0.51


def test_fitting_keeps_channels() -> None:
    film = np.stack([film_of(), film_of(seed=1), film_of(seed=2)], -1)
    square, _, _ = fit_to_square(film, 128)
    for channel in range(3):
        alone, _, _ = fit_to_square(np.ascontiguousarray(film[..., channel]), 128)
        np.testing.assert_array_equal(square[..., channel], alone)


@pytest.mark.parametrize("shape", [(60, 48), (300, 220), (64, 64), (40, 200)])
def test_labels_lie_where_their_film_lies(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.uint8)
    labels[: shape[0] // 2, : shape[1] // 3] = 2
    square = fit_labels_to_square(labels, 64)
    film, (y1, x1, y2, x2), _ = fit_to_square(labels * np.uint8(100), 64)
    assert set(np.unique(square)) <= {0, 1, 2}
    np.testing.assert_array_equal(square > 0, film > 0)
    assert (np.abs(square[y1:y2, x1:x2] * 100.0 - film[y1:y2, x1:x2]) > 50).mean() < 0.02


def golden() -> dict[str, np.ndarray]:
    if not GOLDEN.is_file():
        pytest.skip(f"{GOLDEN} is absent")
    with np.load(GOLDEN) as arrays:
        names = ("raw_image", "equalized_image", "resized_image", "resize_window", "resize_scale")
        return {name: arrays[name] for name in names}


def test_equalise_agrees_with_the_reference() -> None:
    arrays = golden()
    np.testing.assert_array_equal(equalise(arrays["raw_image"]), arrays["equalized_image"])


def test_fitting_agrees_with_the_reference() -> None:
    arrays = golden()
    square, window, scale = fit_to_square(arrays["raw_image"], 256)
    assert window == tuple(arrays["resize_window"]) and scale == pytest.approx(float(arrays["resize_scale"]))
    assert np.abs(square.astype(int) - arrays["resized_image"]).max() <= 1


# Folders


def test_films_are_found_in_order(tmp_path: Path) -> None:
    kept = ["a/1.png", "a/2.JPG", "b/IM0001", "b/x.dcm", "z.tiff"]
    passed = [".hidden.png", "__MACOSX/a.png", "a/masks/1.png", "a/.git/x.png", "notes.txt", "b/Thumbs.db"]
    for name in kept + passed:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if name == "b/IM0001" else b"x" * 200)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in find_film_paths(tmp_path)] == kept
    without_b = find_film_paths(tmp_path, skip=[tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in without_b] == ["a/1.png", "a/2.JPG", "z.tiff"]
    assert find_film_paths(tmp_path / "z.tiff") == [tmp_path / "z.tiff"]


# Real files


def real_files(folder: str) -> list[Path]:
    paths = sorted(path for path in (SHARED / folder).rglob("*") if path.suffix.lower() in FILM_SUFFIXES)
    if not paths:
        pytest.skip(f"{SHARED / folder} is absent")
    return paths


def test_real_dicoms_have_bright_bones() -> None:
    for path in real_files("dicom"):
        film = read_film(path)
        height, width = film.shape
        assert film.min() < 30 and film.max() > 225, path
        # The spine and the belly under it are brighter than the upper corners beside the neck.
        belly = film[-height // 5 :, width * 2 // 5 : width * 3 // 5]
        corners = film[: height // 12, [*range(width // 12), *range(width - width // 12, width)]]
        assert np.median(belly) > np.median(corners), path


def test_hostile_files_give_a_film_or_one_line() -> None:
    refusals = {}
    for path in real_files("hostile"):
        try:
            assert read_film(path).ndim == 2
        except FilmError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            refusals[path.name] = str(error)
    names = ("empty.jpeg", "truncated.jpeg", "text_named_png.png", "tiny_3x3.png", "decompression_bomb.png")
    assert set(names) <= set(refusals)
    assert not {"good.jpeg", "rgba.png", "sixteen_bit.png", "rotated_90.png"} & set(refusals)
