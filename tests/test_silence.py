"""Silence on standard error: of the libraries that read odd films, in every thread, and of descriptor 2."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_rcnn.films import images
from mask_rcnn.system.silence import silent_descriptor

ROOT = Path(__file__).resolve().parent.parent


def write_odd_film(path: Path) -> None:
    """A PNG that Pillow reads with a warning: its animation chunk claims no frames (APNG, acTL)."""
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(path)
    content = path.read_bytes()
    body = struct.pack(">II", 0, 0)
    chunk = struct.pack(">I", 8) + b"acTL" + body + struct.pack(">I", zlib.crc32(b"acTL" + body))
    path.write_bytes(content[:33] + chunk + content[33:])


def test_an_odd_film_warns_programs_that_read_it_and_commands_not(tmp_path: Path) -> None:
    write_odd_film(tmp_path / "odd.png")
    code = (
        "import sys\n"
        "from mask_rcnn.films.radiograph import read_film\n"
        "from mask_rcnn.system.console import forgiving_streams\n"
        "if sys.argv[2] == 'command': forgiving_streams()\n"
        "print(read_film(sys.argv[1]).shape)"
    )
    said = {}
    for kind in ("program", "command"):
        run = subprocess.run([sys.executable, "-c", code, tmp_path / "odd.png", kind], cwd=ROOT, capture_output=True,
                             text=True, check=True)  # fmt: skip
        assert run.stdout == "(64, 64)\n"
        said[kind] = run.stderr
    assert "Invalid APNG" in said["program"] and said["command"] == ""


def test_threads_that_read_films_leave_the_filters_of_warnings_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``catch_warnings`` of one thread puts back what another thread's has set: no reader may use it."""
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        write_odd_film(path)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the filters of warnings are changed while threads read")

    before = list(warnings.filters)
    monkeypatch.setattr(warnings, "catch_warnings", refuse)
    monkeypatch.setattr(warnings, "simplefilter", refuse)
    monkeypatch.setattr(warnings, "filterwarnings", refuse)
    with ThreadPoolExecutor(4) as pool:
        films = list(pool.map(images.read_image, paths * 8))
    monkeypatch.undo()
    assert {film.shape for film in films} == {(64, 64)} and warnings.filters == before


def test_descriptor_2_is_silent_within_the_block_alone(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with pytest.raises(RuntimeError), silent_descriptor():
        os.write(2, b"within ")
        raise RuntimeError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"


def test_reading_films_leaves_pillows_limits_to_other_programs(tmp_path: Path) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    write_odd_film(tmp_path / "odd.png")
    images.read_image(tmp_path / "odd.png")
    assert limit is not None and Image.MAX_IMAGE_PIXELS == limit
