"""Reading JPEG, PNG, TIFF and BMP of every kind, also those no folder should hold."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film_of, refused, stretched
from hostile import png_claiming
from PIL import Image

from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.images import MAX_BYTES, MAX_PIXELS, FilmError, to_8_bit
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.names import IMAGE_SUFFIXES
from mask_rcnn.films.radiograph import read_film

ROOT = Path(__file__).parents[1]


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


@pytest.mark.parametrize(
    ("suffix", "options", "error"),
    [("jfif", {"format": "JPEG", "quality": 95}, 2), ("jpe", {"format": "JPEG", "quality": 95}, 2),
     ("webp", {"lossless": True}, 0), ("webp", {"quality": 95}, 3), ("avif", {"quality": 95}, 3), ("gif", {}, 0),
     ("jp2", {}, 0), ("j2k", {}, 0), ("jpx", {}, 0), ("pgm", {"format": "PPM"}, 0), ("pnm", {"format": "PPM"}, 0)],
)  # fmt: skip
def test_less_common_names_and_kinds(tmp_path: Path, suffix: str, options: dict[str, Any], error: float) -> None:
    path = tmp_path / f"film.{suffix}"
    Image.fromarray(film_of()).save(path, **options)
    assert np.abs(read_film(path).astype(int) - film_of()).mean() <= error
    assert path.suffix in IMAGE_SUFFIXES and find_film_paths(tmp_path) == [path]
    for share in (0.1, 0.5, 0.8):
        (tmp_path / f"cut.{suffix}").write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        refused(tmp_path / f"cut.{suffix}")


@pytest.mark.parametrize("suffix", ["gif", "webp", "avif"])
def test_pictures_of_several_frames_are_refused(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.fromarray(film_of(seed=seed)) for seed in range(2))
    first.save(tmp_path / f"film.{suffix}", save_all=True, append_images=[second])
    assert "has 2 frames" in refused(tmp_path / f"film.{suffix}")


def test_deep_jpeg_2000_is_stretched(tmp_path: Path) -> None:
    Image.fromarray(film_of().astype(np.uint16) * 16).save(tmp_path / "film.jp2")
    assert np.abs(read_film(tmp_path / "film.jp2") - stretched(film_of())).max() <= 0.5


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
    Image.fromarray(film_of().astype(np.uint16)).save(tmp_path / "deep.png", exif=exif)
    np.testing.assert_array_equal(read_film(tmp_path / "deep.png"), to_8_bit(np.rot90(film_of().astype(np.uint16), turns)))


def tiff(levels: np.ndarray, photometric: int, sample_format: int | None = None, order: str = "<") -> bytes:
    """An uncompressed TIFF of one strip, as the standard (TIFF 6.0, section 2) lays it out."""
    height, width = levels.shape
    bits = 8 * levels.dtype.itemsize
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1), (278, height),
            (279, levels.nbytes)] + ([(339, sample_format)] if sample_format else [])
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    directory = head + struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return directory.ljust(200, b"\0") + levels.astype(levels.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize(
    ("dtype", "sample_format", "order"),
    [("uint8", None, "<"), ("uint8", 1, ">"), ("uint16", None, "<"), ("uint16", 1, ">"), ("int16", 2, "<"),
     ("int16", 2, ">"), ("uint32", None, "<"), ("uint32", 1, "<"), ("int32", 2, "<"), ("int32", 2, ">"),
     ("float32", 3, "<"), ("float32", 3, ">")],
)  # fmt: skip
def test_tiff_of_every_depth(tmp_path: Path, dtype: str, sample_format: int | None, order: str) -> None:
    film = film_of()
    levels = film.astype(dtype)
    if dtype != "uint8":  # over all that the type holds: a wrong sign would show
        span = np.iinfo(dtype) if dtype != "float32" else np.finfo(np.float16)
        levels = np.interp(film, (film.min(), film.max()), (span.min, span.max)).astype(dtype)
    path = tmp_path / "film.tif"
    path.write_bytes(tiff(levels, 1, sample_format, order))
    expected = film if dtype == "uint8" else stretched(film)
    assert np.abs(read_film(path) - expected.astype(float)).max() <= 0.51


@pytest.mark.parametrize(("dtype", "sample_format"), [("uint8", None), ("uint16", None), ("float32", 3)])
def test_tiff_in_which_white_is_zero(tmp_path: Path, dtype: str, sample_format: int | None) -> None:
    film = film_of()
    (tmp_path / "film.tif").write_bytes(tiff(film.astype(dtype), 0, sample_format))
    expected = 255 - (film if dtype == "uint8" else stretched(film))
    assert np.abs(read_film(tmp_path / "film.tif") - expected.astype(float)).max() <= 0.51


@pytest.mark.parametrize(("compression", "error"), [("tiff_lzw", 0), ("tiff_deflate", 0), ("packbits", 0), ("jpeg", 3)])
def test_compressed_tiff(tmp_path: Path, compression: str, error: float) -> None:
    Image.fromarray(film_of()).save(tmp_path / "film.tif", compression=compression)
    assert np.abs(read_film(tmp_path / "film.tif").astype(int) - film_of()).mean() <= error


def test_tiff_of_several_pages(tmp_path: Path) -> None:
    first, second = (Image.fromarray(film_of(seed=seed)) for seed in range(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    assert "has several pages" in refused(tmp_path / "pages.tif")
    thumbnail = second.resize((24, 30))
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "thumbnail.tif", save_all=True, append_images=[thumbnail])
    np.testing.assert_array_equal(read_film(tmp_path / "thumbnail.tif"), film_of())


def test_tiff_of_a_rare_kind(tmp_path: Path) -> None:
    (tmp_path / "film.tif").write_bytes(tiff(film_of().astype(np.float64), 1, 3))
    assert "TIFF of a rare kind" in refused(tmp_path / "film.tif")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colour_spaces(tmp_path: Path, mode: str) -> None:
    colours = Image.fromarray(np.stack([film_of()] * 3, -1)).convert(mode)
    colours.save(tmp_path / "film.tif")
    assert np.abs(read_film(tmp_path / "film.tif").astype(int) - film_of()).max() <= 1


def test_a_grey_level_can_be_transparent(tmp_path: Path) -> None:
    film = film_of()
    Image.fromarray(film).save(tmp_path / "film.png", transparency=int(film[0, 0]))
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), np.where(film == film[0, 0], 0, film))


def test_an_animated_png_or_a_camera_s_jpeg_gives_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.fromarray(film_of(seed=seed)) for seed in range(2))
    first.save(tmp_path / "film.png", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_film(tmp_path / "film.png"), film_of())
    first.save(tmp_path / "film.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(read_film(tmp_path / "film.jpg").astype(int) - film_of()).mean() < 2


# What no folder should hold


def encoded(suffix: str, film: np.ndarray, folder: Path) -> bytes:
    path = folder / f"whole.{suffix}"
    Image.fromarray(film).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.dcm"])
def test_empty_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert "empty" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["film.png", "film.jpeg", "film.tif", "film.dcm"])
def test_text_that_is_named_a_film(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("Dear colleague,\nplease find attached the film.\n" * 20)
    refused(tmp_path / name)


def test_absent_files_folders_and_pipes(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.png")
    (tmp_path / "folder.png").mkdir()
    assert "is no regular file" in refused(tmp_path / "folder.png")
    os.mkfifo(tmp_path / "pipe.png")  # opened, it would wait for somebody who writes
    assert "is no regular file" in refused(tmp_path / "pipe.png")
    with (tmp_path / "huge.dcm").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: it takes no room
    assert "has 1.0 GB" in refused(tmp_path / "huge.dcm")


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


def test_the_limit_is_ours_and_pillow_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program in this process may lower it, or take it away."""
    Image.fromarray(film_of()).save(tmp_path / "film.png")
    (tmp_path / "bomb.png").write_bytes(png_claiming(60000, 60000))
    for limit in (None, 100, 10**9):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        np.testing.assert_array_equal(read_film(tmp_path / "film.png"), film_of())
        assert "claims 60000 x 60000 pixels" in refused(tmp_path / "bomb.png")
        assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(60000, 60000), (2**31 - 1, 2**31 - 1), (MAX_PIXELS + 1, 1)])
def test_a_header_that_claims_too_much_is_refused_unread(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(*size))
    assert f"claims {size[0]} x {size[1]} pixels" in refused(tmp_path / "bomb.png")


def test_a_header_that_claims_too_much_costs_no_memory(tmp_path: Path) -> None:
    good = {f"good.{suffix}": encoded(suffix, film_of(), tmp_path) for suffix in ("png", "bmp")}
    good["good.tif"] = tiff(film_of(), 1)
    bomb = good["good.tif"]
    for tag, side in (256, 48), (257, 60):
        bomb = bomb.replace(struct.pack("<HHII", tag, 4, 1, side), struct.pack("<HHII", tag, 4, 1, 60000))
    bombs = {
        "bomb.png": png_claiming(60000, 60000),
        "bomb.bmp": good["good.bmp"][:18] + struct.pack("<ii", 60000, 60000) + good["good.bmp"][26:],
        "bomb.tif": bomb,
    }
    for name, content in (good | bombs).items():
        (tmp_path / name).write_bytes(content)
    code = """
import resource, sys
from mask_rcnn.films.images import FilmError
from mask_rcnn.films.radiograph import read_film
def peak(paths):
    for path in paths:
        try:
            read_film(path)
        except FilmError as error:
            print(error)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak(sys.argv[1:4])
print(peak(sys.argv[4:]) - before)
"""
    paths = [str(tmp_path / name) for name in (good | bombs)]
    run = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    *lines, kilobytes = run.stdout.splitlines()
    assert len(lines) == 3 and all("claims 60000 x 60000 pixels" in line for line in lines), lines
    assert int(kilobytes) < 5000  # the pixels would take 3.6 GB


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


def test_to_8_bit_of_odd_values() -> None:
    assert not to_8_bit(np.full((3, 3), 7.5)).any() and not to_8_bit(np.full((3, 3), 900, np.uint16)).any()
    film = film_of()
    assert to_8_bit(film) is film
    odd = np.array([[np.nan, -1.0], [np.inf, 3.0]], np.float32)
    np.testing.assert_array_equal(to_8_bit(odd), [[0, 0], [0, 255]])
    assert not to_8_bit(np.full((2, 2), np.nan)).any()
    wide = np.array([[0, 2**31], [2**32 - 1, 0]], np.uint32)
    np.testing.assert_array_equal(to_8_bit(wide), [[0, 128], [255, 0]])
    signed = np.array([[-32768, 0], [32767, -1]], np.int16)
    np.testing.assert_array_equal(to_8_bit(signed), [[0, 128], [255, 127]])
