"""DICOM without preamble and header, in every encoding; and what is none."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from films import film_of, refused, ten_bit, write_dicom
from PIL import Image
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from test_dicom import compressed

from mask_rcnn.films.dicom import is_dicom, looks_like_dicom
from mask_rcnn.films.dicom_file import codestream_of
from mask_rcnn.films.radiograph import read_film

ENCODINGS = {"implicit": (True, True), "explicit": (False, True), "big endian": (False, False)}


def bare(whole: Path, encoding: str, meta: bool = False) -> bytes:
    """A file's elements without preamble; with or without its file meta information."""
    dataset = pydicom.dcmread(whole)
    stream = DicomBytesIO()
    if meta:
        write_file_meta_info(stream, dataset.file_meta)
    stream.is_implicit_VR, stream.is_little_endian = ENCODINGS[encoding]
    if encoding == "big endian" and dataset.BitsAllocated == 16:
        dataset.PixelData = dataset.pixel_array.astype(">u2").tobytes()
    write_dataset(stream, dataset)
    return stream.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ["film.dcm", "IM0001", "film.png", "1.2.840.113619"])
def test_films_without_a_header(tmp_path: Path, encoding: str, name: str) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", ten_bit(film_of()), "MONOCHROME2", 10)
    (tmp_path / name).write_bytes(bare(whole, encoding))
    np.testing.assert_array_equal(read_film(tmp_path / name), read_film(whole))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "first",
    [
        {"SpecificCharacterSet": "ISO_IR 192"},
        {"ImageType": ["DERIVED", "SECONDARY", "", "", "", "", "", "", "AVERAGE"]},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "InstanceCreationDate": "20240105", "InstanceCreationTime": "0915"},
        {"InstitutionName": "Krankenhaus Köln", "SpecificCharacterSet": "ISO_IR 100"},
        {"SpecificCharacterSet": ""},
    ],
)
def test_films_without_a_header_begin_in_many_ways(tmp_path: Path, encoding: str, first: dict[str, object]) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", ten_bit(film_of()), "MONOCHROME2", 10, **first)
    dataset = pydicom.dcmread(whole)
    if "InstitutionName" in first:
        del dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.save_as(whole)
    content = bare(whole, encoding)
    assert looks_like_dicom(content[:132])
    (tmp_path / "IM0001").write_bytes(content)
    np.testing.assert_array_equal(read_film(tmp_path / "IM0001"), read_film(whole))


def test_a_header_without_preamble(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8)
    (tmp_path / "IM0001").write_bytes(bare(whole, "explicit", meta=True))
    np.testing.assert_array_equal(read_film(tmp_path / "IM0001"), film_of())
    (tmp_path / "IM0002").write_bytes(b"\0" * 128 + b"DICM" + bare(whole, "implicit"))  # and a preamble without a header
    np.testing.assert_array_equal(read_film(tmp_path / "IM0002"), film_of())


@pytest.mark.parametrize("kind", ["rle", "jpeg", "j2k", "jpeg lossless", "jpeg-ls"])
def test_compressed_films_without_a_header(tmp_path: Path, kind: str) -> None:
    whole = compressed(tmp_path / "c.dcm", write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8), kind)
    (tmp_path / "IM0001").write_bytes(bare(whole, "explicit"))
    np.testing.assert_array_equal(read_film(tmp_path / "IM0001"), read_film(whole))


def test_a_film_without_a_header_that_is_torn_or_none(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8)
    content = bare(whole, "implicit")
    (tmp_path / "cut").write_bytes(content[:-500])
    assert "cannot be decoded as DICOM" in refused(tmp_path / "cut")
    (tmp_path / "short").write_bytes(content[:140])
    assert "is DICOM without an image" in refused(tmp_path / "short")
    (tmp_path / "nothing.dcm").write_bytes(bytes(5000))
    assert "is no DICOM" in refused(tmp_path / "nothing.dcm")
    Image.fromarray(film_of()).save(tmp_path / "picture.dcm", format="PNG")
    assert "is no DICOM" in refused(tmp_path / "picture.dcm")


def test_torn_heads_give_a_film_or_one_line(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "whole.dcm", film_of(), "MONOCHROME2", 8)
    content = np.frombuffer(bare(whole, "implicit"), np.uint8)
    path = tmp_path / "torn.dcm"
    rng = np.random.default_rng(0)
    for _ in range(60):
        torn = content.copy()
        torn[rng.integers(0, 300, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(torn.tobytes())
        try:
            assert read_film(path).ndim == 2
        except ValueError:
            refused(path)


def test_no_other_file_looks_like_dicom(tmp_path: Path) -> None:
    film = Image.fromarray(film_of())
    others = {}
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "PDF", "ICO", "TGA", "PCX"):
        stream = io.BytesIO()
        film.save(stream, kind)
        others[kind] = stream.getvalue()
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        archive.writestr("film.dcm", bytes(500))
    others |= {"zip": stream.getvalue(), "numpy": b"\x93NUMPY\1\0v\0{'descr': '|u1'}".ljust(200), "zeros": bytes(200),
               "text": b"Dear colleague, please find attached the film. " * 9, "json": b'{"images": []}' * 20,
               "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(200),
               "resource fork": b"\0\5\x16\7\0\2\0\0" + bytes(200),
               "DS_Store": b"\0\0\0\1Bud1" + bytes(200), "ones": b"\xff" * 200, "short": b"\x08\0\5\0\x0a\0\0\0ISO_IR 100",
               "counted": b"".join(bytes([8, 0, n, 0, 4, 0, 0, 0, 1, 2, 3, 4]) for n in range(5, 40))}  # fmt: skip
    rng = np.random.default_rng(0)
    others |= {str(n): rng.integers(0, 256, 132, np.uint8).tobytes() for n in range(2000)}
    others |= {f"8 {n}": b"\x08\0" + rng.integers(0, 256, 130, np.uint8).tobytes() for n in range(2000)}
    others |= {f"small {n}": b"\x08\0\5\0" + rng.integers(0, 9, 128, np.uint8).tobytes() for n in range(2000)}
    assert not [name for name, content in others.items() if looks_like_dicom(content[:132])]
    assert not is_dicom(Path("film.png"), others["PNG"][:132]) and is_dicom(Path("film.DCM"), others["PNG"][:132])


def test_what_a_codestream_says_of_itself() -> None:
    film = Image.fromarray(film_of())
    for options, marker in (({"format": "JPEG"}, 0xC0), ({"format": "JPEG", "progressive": True}, 0xC2),
                            ({"format": "JPEG2000"}, 0x51), ({"format": "JPEG2000", "no_jp2": True}, 0x51)):  # fmt: skip
        film.save(stream := io.BytesIO(), **options)
        assert codestream_of(stream.getvalue()) == (marker, 8)
    Image.fromarray(film_of().astype(np.uint16) * 257).save(stream := io.BytesIO(), format="JPEG2000")
    assert codestream_of(stream.getvalue()) == (0x51, 16)
    for nothing in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\1\0\0\0" * 20, b"\xff\xd8" + b"\xff" * 90):
        assert codestream_of(nothing) == (0, 0)
