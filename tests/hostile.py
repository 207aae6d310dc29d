"""What real folders hold beside good films, made from phantoms: for tests of reading and of the commands.

The kinds and most of the names are those of ``../shared/data/hostile``, which not every machine has.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from films import write_dicom
from PIL import Image

PHANTOMS = Path(__file__).parents[1] / "data" / "phantoms" / "images"

# Names relative to the folder, as they are found: sorted.
FILMS = (
    "all_black.png",
    "all_white.png",
    "exact_duplicate.jpeg",
    "good.jpeg",
    "half_lung_only.png",
    "inverted.png",
    "name with spaces & ünïcode 폐.png",
    "noise.png",
    "rgba.png",
    "rotated_90.png",
    "sixteen_bit.png",
    "very_wide_2000x40.png",
)

# What is listed and cannot be read, with words of the one line that says why.
SKIPPED = {
    "decompression_bomb.png": "claims 60000 x 60000 pixels",
    "empty.jpeg": "the file is empty",
    "gone.png": "there is no such file",
    "pages.tiff": "has several pages",
    "pipe.png": "is no regular file",
    "text_named_png.png": "is no image",
    "tiny_3x3.png": "only 3 x 3 pixels",
    "torn.dcm": "cannot be decoded as DICOM",
    "truncated.jpeg": "cannot be decoded",
}

NEVER_LOOKED_AT = (".DS_Store", "Thumbs.db", "__MACOSX/._good.jpeg", "folder.png", "masks/good.png", "notes.txt")

INVERTED = "inverted.png"  # good.jpeg with black bones
SAME_BYTES = frozenset({"exact_duplicate.jpeg", "good.jpeg"})
SAME_FILM = SAME_BYTES | {"inverted.png", "rgba.png", "sixteen_bit.png"}  # of one phantom, none of it cut or turned
NO_CHEST = frozenset({"all_black.png", "all_white.png", "noise.png", "very_wide_2000x40.png"})


def make_hostile_folder(folder: Path) -> None:
    """Makes the folder and all that is named above; ``folder.png`` is an empty folder."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    film, other = (np.asarray(Image.open(PHANTOMS / f"phantom_000{k}.png")) for k in (1, 2))
    height, width = film.shape

    Image.fromarray(film).save(folder / "good.jpeg", quality=92)
    good = (folder / "good.jpeg").read_bytes()
    whole_dicom = write_dicom(folder / "torn.dcm", film, "MONOCHROME2", 8).read_bytes()
    (folder / "exact_duplicate.jpeg").write_bytes(good)
    pixels = {
        "all_black.png": np.zeros((512, 512), np.uint8),
        "all_white.png": np.full((512, 512), 255, np.uint8),
        "half_lung_only.png": film[:, : width // 2],
        "inverted.png": 255 - film,
        "masks/good.png": np.zeros_like(film),
        "name with spaces & ünïcode 폐.png": other,
        "noise.png": rng.integers(0, 256, (400, 400), np.uint8),
        "rgba.png": np.dstack([film, film, film, np.full_like(film, 255)]),
        "rotated_90.png": np.rot90(film),
        "sixteen_bit.png": film.astype(np.uint16) * 257,
        "tiny_3x3.png": film[:3, :3],
        "very_wide_2000x40.png": np.resize(film[height // 2], (40, 2000)),
    }
    for name, image in pixels.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / name)
    Image.fromarray(film).save(folder / "pages.tiff", save_all=True, append_images=[Image.fromarray(other)])

    content = {
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(64),
        "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(60),
        "__MACOSX/._good.jpeg": b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(58),
        "decompression_bomb.png": png_claiming(60000, 60000),
        "empty.jpeg": b"",
        "notes.txt": b"Thirteen of these are no chest.\n",
        "text_named_png.png": b"Dear colleague, please find attached the film.\n" * 9,
        "torn.dcm": whole_dicom[: len(whole_dicom) // 2],
        "truncated.jpeg": good[: len(good) // 2],
    }
    for name, data in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of 8-bit grey whose header says that size, and whose pixels are zeros that end early."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
