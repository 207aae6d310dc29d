"""Reading whatever a folder holds, label masks, grey levels and squares against loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
from films import film_of, refused
from PIL import Image

from mask_rcnn.config import NetworkConfig
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.names import FILM_SUFFIXES
from mask_rcnn.films.polarity import is_inverted
from mask_rcnn.films.radiograph import read_film, read_labels, read_radiograph
from mask_rcnn.films.square import fit_labels_to_square, fit_to_square
from mask_rcnn.utils import mold_film

GOLDEN = Path(__file__).parent / "golden" / "components.npz"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


# What folders hold


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "images"
    hostile.make_hostile_folder(folder)
    return folder


def test_every_hostile_file_is_a_film_a_line_or_passed_over(hostile_folder: Path) -> None:
    there = {path.relative_to(hostile_folder).as_posix() for path in hostile_folder.rglob("*")} - {"__MACOSX", "masks"}
    assert there == {*hostile.FILMS, *hostile.SKIPPED, *hostile.NEVER_LOOKED_AT}
    found = [path.relative_to(hostile_folder).as_posix() for path in find_film_paths(hostile_folder)]
    assert found == sorted([*hostile.FILMS, *hostile.SKIPPED])
    for name in hostile.FILMS:
        film, spacing, *_ = read_radiograph(hostile_folder / name)
        assert film.dtype == np.uint8 and film.ndim == 2 and spacing is None, name
    for name, words in hostile.SKIPPED.items():
        assert words in refused(hostile_folder / name)


def test_one_film_in_many_files_is_one_film(hostile_folder: Path) -> None:
    film = read_film(hostile.PHANTOMS / "phantom_0001.png")
    read = {name: read_film(hostile_folder / name) for name in hostile.FILMS}
    np.testing.assert_array_equal(read["rgba.png"], film)
    np.testing.assert_array_equal(read["inverted.png"], 255 - film)
    np.testing.assert_array_equal(read["rotated_90.png"], np.rot90(film))
    # 16 bits are stretched to the whole of 0 to 255.
    np.testing.assert_array_equal(equalise(read["sixteen_bit.png"]), equalise(film))
    np.testing.assert_array_equal(read["good.jpeg"], read["exact_duplicate.jpeg"])
    assert np.abs(read["good.jpeg"].astype(int) - film).mean() < 3


# Label masks


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_labels_are_read_as_they_are(tmp_path: Path, dtype: type) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(dtype)
    Image.fromarray(labels).save(tmp_path / "mask.tif")
    read = read_labels(str(tmp_path / "mask.tif"))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)


def test_labels_of_a_palette_are_its_indices_and_of_one_bit_the_left_lung(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (20, 30)).astype(np.uint8)
    palette = Image.fromarray(labels)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "palette.png"), labels)
    Image.fromarray(labels > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png"), labels > 0)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((20, 30), 255, np.uint8), "it holds label 255"),
        (np.full((20, 30), -1, np.int32), "it holds label -1"),
        (np.ones((20, 30), np.float32), "is no label mask but F"),
        (np.zeros((20, 30, 3), np.uint8), "is no label mask but RGB"),
        (np.zeros((20, 30, 4), np.uint8), "is no label mask but RGBA"),
    ],
)
def test_what_is_no_label_mask(tmp_path: Path, pixels: np.ndarray, words: str) -> None:
    path = tmp_path / "mask.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(FilmError, match=f"mask.tif: .*{words}; save it in grey of 8 bits: 0 background, 1 left_lung"):
        read_labels(path)


def test_label_masks_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(hostile.png_claiming(60000, 60000))
    (tmp_path / "text.png").write_text("no mask")
    (tmp_path / "empty.png").touch()
    for name, words in {
        "bomb.png": "claims 60000 x 60000", "text.png": "is no image", "empty.png": "the file is empty",
        "absent.png": "there is no such file",
    }.items():  # fmt: skip
        with pytest.raises(FilmError, match=f"{name}: .*{words}.*; "):
            read_labels(tmp_path / name)


# Grey levels


@pytest.mark.parametrize("take", [equalise, is_inverted, lambda film: mold_film(film, NetworkConfig(image_size=64))])
def test_films_that_are_not_8_bit_are_refused(take: Callable[[np.ndarray], object]) -> None:
    film = film_of()
    for wrong in (film / 255.0, film.astype(np.float32), film.astype(np.uint16), film.astype(np.int8), film > 9):
        with pytest.raises(TypeError, match=f"must be uint8 grey levels, not {wrong.dtype}; see read_film or to_8_bit"):
            take(wrong)
    with pytest.raises(TypeError, match="must be uint8 grey levels, not list"):
        take(film.tolist())
    take(film)


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


@pytest.mark.parametrize("side", [224, 300, 500, 512, 1024, 2000])
def test_fitting_moves_no_outline(side: int) -> None:
    """Also where a film shrinks to a half or a quarter, where a pixel has no nearest neighbour."""
    moved, grown = [], []
    for number in range(20):
        y, x = np.random.default_rng(number).uniform(0.45, 0.55, 2) * side
        rows, columns = np.ogrid[:side, :side]
        lung = ((rows - y) / (0.35 * side)) ** 2 + ((columns - x) / (0.15 * side)) ** 2 <= 1
        fitted = np.nonzero(fit_labels_to_square(lung.astype(np.uint8), 256))
        scale = 256 / side
        moved.append([(f.mean() + 0.5) - (w.mean() + 0.5) * scale for f, w in zip(fitted, np.nonzero(lung), strict=True)])
        grown.append(len(fitted[0]) / (lung.sum() * scale**2))
    np.testing.assert_allclose(np.mean(moved, 0), 0, atol=0.02)  # pixels of the square
    assert np.mean(grown) == pytest.approx(1, abs=1e-3)


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
        film, spacing, *_ = read_radiograph(path)
        assert spacing is None or all(0.05 < side < 0.5 for side in spacing), path
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
    assert set(refusals) == {*names, "._good.jpeg"}
    made = {*hostile.FILMS, *hostile.SKIPPED, *hostile.NEVER_LOOKED_AT}
    folder = SHARED / "hostile" / "images"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} <= made, "make it too"
