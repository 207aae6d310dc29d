"""JPEG and PNG whose pixels are whole and whose files are not; and never half a film."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film_of, refused
from hostile import png_claiming
from PIL import Image, ImageFile, PngImagePlugin

from mask_rcnn.films.images import FilmError
from mask_rcnn.films.mending import has_all_pixels, mend
from mask_rcnn.films.radiograph import read_film, read_labels

FILM = film_of(120, 96)
COLOURS = np.stack([FILM, FILM // 2, 255 - FILM], -1)


def encoded(kind: str, film: np.ndarray = FILM, **options: Any) -> bytes:
    Image.fromarray(film).save(stream := io.BytesIO(), kind, **options)
    return stream.getvalue()


def read_from(folder: Path, content: bytes, name: str = "film.jpg") -> np.ndarray:
    (folder / name).write_bytes(content)
    return read_film(folder / name)


JPEGS = {
    "baseline": encoded("JPEG", quality=92),
    "progressive": encoded("JPEG", progressive=True),
    "restarts": encoded("JPEG", restart_marker_rows=1),
    "restarts in rows": encoded("JPEG", restart_marker_blocks=3),
    "colours": encoded("JPEG", COLOURS),
    "progressive colours": encoded("JPEG", COLOURS, progressive=True),
    "black below": encoded("JPEG", np.where(np.arange(120)[:, None] > 50, 0, FILM).astype(np.uint8)),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_is_read(tmp_path: Path, kind: str) -> None:
    whole = JPEGS[kind]
    expected = read_from(tmp_path, whole)
    for content in (whole[:-1], whole[:-2], whole[:-2] + bytes(5000), whole[:-1] + bytes(5000), whole[:-2] + b"abcd",
                    whole + b"abcd", whole + bytes(5000), whole + b"\xff", whole[:-2] + b"\xff\xff\xff"):  # fmt: skip
        np.testing.assert_array_equal(read_from(tmp_path, content), expected)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_torn_jpeg_is_no_half_film(tmp_path: Path, kind: str) -> None:
    """At every place: inside scans, between scans, at restart markers, in headers."""
    whole = JPEGS[kind]
    expected = read_from(tmp_path, whole)
    for length in [*range(len(whole) - 3, len(whole) - 26, -1), *range(len(whole) - 26, 2, -len(whole) // 40)]:
        for rest in (b"", bytes(len(whole) - length + 600)):
            (tmp_path / "torn.jpg").write_bytes(whole[:length] + rest)
            try:
                np.testing.assert_array_equal(read_film(tmp_path / "torn.jpg"), expected)  # nothing was missing
            except FilmError:
                refused(tmp_path / "torn.jpg")


def test_a_jpeg_of_which_a_scan_is_missing_is_refused(tmp_path: Path) -> None:
    for kind in ("progressive", "progressive colours"):
        scans = JPEGS[kind].split(b"\xff\xda")
        for count in range(1, len(scans)):
            (tmp_path / "torn.jpg").write_bytes(b"\xff\xda".join(scans[:count]))
            assert "cannot be decoded" in refused(tmp_path / "torn.jpg")


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


TORN_CHUNKS = {
    **{f"sum of {name}": chunk(name.encode(), body, 4711) for name, body in {
        "tEXt": b"Comment\0a film", "zTXt": b"Comment\0\0" + zlib.compress(b"a film"), "iTXt": b"Comment\0\0\0\0\0a film",
        "iCCP": b"sRGB\0\0" + zlib.compress(bytes(128)), "gAMA": struct.pack(">I", 45455), "sRGB": b"\0", "tIME": bytes(7),
        "pHYs": struct.pack(">IIB", 5000, 5000, 1), "cHRM": bytes(32), "prVt": b"private", "eXIf": b"MM\0*\0\0\0\x08\0\0",
    }.items()},
    "short pHYs": chunk(b"pHYs", b"\0\0"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "text that cannot be inflated": chunk(b"zTXt", b"Comment\0\0torn"),
    "text of another method": chunk(b"zTXt", b"Comment\0\7torn"),
    "a bomb of text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))),
    "text cut short": struct.pack(">I4s", 400, b"tEXt") + b"Comment\0a fi",
    "text longer than the file": struct.pack(">I4s", 2**31 - 1, b"tEXt") + b"Comment\0a film" + bytes(4),
    "longer than it says": struct.pack(">I4s", 3, b"tEXt") + b"Comment\0a film" + bytes(4),
    "nonsense": bytes(range(200, 230)),
}  # fmt: skip


@pytest.mark.parametrize("name", TORN_CHUNKS)
@pytest.mark.parametrize("film", [FILM, FILM.astype(np.uint16) * 200, COLOURS], ids=["grey", "deep", "colours"])
def test_a_png_with_a_torn_ancillary_chunk_is_read(tmp_path: Path, name: str, film: np.ndarray) -> None:
    whole = encoded("PNG", film)
    expected = read_from(tmp_path, whole, "film.png")
    before, behind = whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4
    np.testing.assert_array_equal(read_from(tmp_path, whole[:before] + TORN_CHUNKS[name] + whole[before:]), expected)
    np.testing.assert_array_equal(read_from(tmp_path, whole[:behind] + TORN_CHUNKS[name] + whole[behind:]), expected)


def test_what_says_how_a_png_is_seen_is_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encoded("PNG", exif=exif, transparency=int(FILM[0, 0]))
    expected = read_from(tmp_path, whole)
    assert expected.shape == FILM.T.shape and expected[0, -1] == 0
    at = whole.index(b"tRNS") - 4
    np.testing.assert_array_equal(read_from(tmp_path, whole[:at] + TORN_CHUNKS["sum of iCCP"] + whole[at:]), expected)
    palette = Image.fromarray(FILM // 8).convert("P")
    palette.putpalette([255 - index // 3 for index in range(768)])
    palette.save(stream := io.BytesIO(), "PNG")
    whole = stream.getvalue()
    at = whole.index(b"PLTE") - 4
    np.testing.assert_array_equal(
        read_from(tmp_path, whole[:at] + TORN_CHUNKS["text cut short"] + whole[at:]), read_from(tmp_path, whole)
    )


def test_a_png_without_its_end_is_read(tmp_path: Path) -> None:
    whole = encoded("PNG")
    for cut in range(1, 21):  # the end, the sum of the pixels' chunk, and their own
        np.testing.assert_array_equal(read_from(tmp_path, whole[:-cut]), FILM)
    np.testing.assert_array_equal(read_from(tmp_path, whole[:-12] + b"abcd"), FILM)
    wrong = whole.index(b"IEND") - 8
    np.testing.assert_array_equal(read_from(tmp_path, whole[:wrong] + bytes(4) + whole[wrong + 4 :]), FILM)


@pytest.mark.parametrize("film", [FILM, COLOURS, FILM > 90, FILM.astype(np.uint16) * 200], ids=["8", "24", "1", "16"])
def test_a_torn_png_is_no_half_film(tmp_path: Path, film: np.ndarray) -> None:
    whole = encoded("PNG", film)
    expected = read_from(tmp_path, whole)
    for length in range(len(whole) - 22, 20, -max(1, len(whole) // 60)):
        for rest in (b"", bytes(len(whole) - length), chunk(b"IEND", b"")):
            (tmp_path / "torn.png").write_bytes(whole[:length] + rest)
            try:
                np.testing.assert_array_equal(read_film(tmp_path / "torn.png"), expected)
            except FilmError:
                refused(tmp_path / "torn.png")


def interlaced(film: np.ndarray) -> bytes:
    """An interlaced PNG of 8-bit grey (PNG, section 8.2), which Pillow does not write."""
    rows = b""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    for y, x, down, across in passes:
        rows += b"".join(b"\0" + row.tobytes() for row in film[y::down, x::across] if row.size)
    header = struct.pack(">IIBBBBB", film.shape[1], film.shape[0], 8, 0, 0, 0, 1)
    body = chunk(b"IDAT", zlib.compress(rows), 4711)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(120, 96), (33, 41), (40, 32)])
def test_an_interlaced_png_with_a_wrong_sum(tmp_path: Path, shape: tuple[int, int]) -> None:
    film = film_of(*shape)
    np.testing.assert_array_equal(read_from(tmp_path, interlaced(film)), film)
    assert has_all_pixels(interlaced(film)) and not has_all_pixels(interlaced(film)[:-300] + bytes(300))


@pytest.mark.parametrize("level", [0, 9])
def test_a_film_of_one_level_with_a_wrong_sum(tmp_path: Path, level: int) -> None:
    """It inflates a thousandfold, over many steps."""
    film = np.full((2048, 2047), level, np.uint8)
    whole = encoded("PNG", film)
    wrong = whole.index(b"IEND") - 8
    np.testing.assert_array_equal(read_from(tmp_path, whole[:wrong] + bytes(4) + whole[wrong + 4 :]), film)


def test_torn_exif_is_no_torn_film(tmp_path: Path) -> None:
    for torn in (b"Exif\0\0torn", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\1"):
        content = encoded("JPEG", quality=92, exif=torn)
        np.testing.assert_array_equal(read_from(tmp_path, content), read_from(tmp_path, JPEGS["baseline"]))


def test_a_torn_header_that_claims_too_much_is_refused_unread(tmp_path: Path) -> None:
    bomb = png_claiming(60000, 60000)
    at = bomb.index(b"IDAT") - 4
    (tmp_path / "bomb.png").write_bytes(bomb[:at] + TORN_CHUNKS["sum of tEXt"] + bomb[at:])
    assert "claims 60000 x 60000 pixels" in refused(tmp_path / "bomb.png")


def test_label_masks_are_mended_too(tmp_path: Path) -> None:
    labels = (FILM % 3).astype(np.uint8)
    whole = encoded("PNG", labels)
    at = whole.index(b"IDAT") - 4
    (tmp_path / "mask.png").write_bytes(whole[:at] + TORN_CHUNKS["sum of tEXt"] + whole[at:])
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), labels)


def test_pillow_is_left_as_it_is(tmp_path: Path) -> None:
    """Its settings are one for all threads and all programs of a process."""
    read_from(tmp_path, JPEGS["baseline"][:-2])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False and Image.MAX_IMAGE_PIXELS == 1024**3 // 4 // 3
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1024**2


def test_other_files_are_not_mended() -> None:
    for content in (b"", b"GIF89a", encoded("BMP"), encoded("TIFF")):
        with pytest.raises(ValueError, match="nothing that can be mended"):
            mend(content, lambda content: content)
