"""Which files of a folder are films, and what becomes of the others: read, named, or counted."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mask_rcnn.films.finding import find_films
from mask_rcnn.films.names import film_stem

ROOT = Path(__file__).resolve().parents[1]


def lay_out(root: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_everything_is_a_film_or_counted(tmp_path: Path) -> None:
    films = ["a/film.JPG", "a/film.jpeg", "b.tiff", "c/d/e.dcm", "f.png", "g.bmp", "earlier-films/h.png", "masks.png"]
    lay_out(tmp_path, *films)
    lay_out(tmp_path, ".hidden.png", ".git/x.png", ".git/y/z", "__MACOSX/._film.png")
    lay_out(tmp_path, "a/masks/film.png", "a/Mask/film.png", "overlays/film.png", "notes.txt", "a/b.csv", "README")
    lay_out(tmp_path, "earlier-20261125-102615/masks/film.png", "earlier-20261125-102615-2/masks/film.png")
    lay_out(tmp_path, "c/d/IM0001", content=bytes(128) + b"DICM")
    os.mkfifo(tmp_path / "pipe")
    found = find_films(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.films] == sorted([*films, "c/d/IM0001"])
    assert found.passed_over == {
        "hidden": 4, "masks": 2, "overlays": 1, ".txt": 1, ".csv": 1, "without a suffix": 1, "earlier results": 2,
        "special files": 1,
    }  # fmt: skip
    assert found.unreadable == {}
    assert "4 hidden, 2 earlier results, 2 masks" in found.summary()


def test_links(tmp_path: Path) -> None:
    lay_out(tmp_path, "a/film.png")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "nothing").symlink_to("not there")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "elsewhere").symlink_to("a")
    found = find_films(tmp_path)
    # A link with a film's suffix is tried, and says why it cannot be read; a folder is entered once.
    assert [path.relative_to(tmp_path).as_posix() for path in found.films] == ["a/film.png", "a/loop.png"]
    assert {path.name for path in found.unreadable} == {"loop", "nothing"}
    assert all("link to nothing; remove it" in reason for reason in found.unreadable.values())


def drop_rights() -> None:
    """What root may read in spite of permissions, the command that follows may not (prctl(2), capabilities(7))."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    lay_out(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png", "NORMAL/IM1")
    (tmp_path / "PNEUMONIA").chmod(0)
    (tmp_path / "NORMAL" / "IM1").chmod(0)
    code = ("import sys; from pathlib import Path; from mask_rcnn.films.finding import find_films\n"
            "found = find_films(Path(sys.argv[1]))\n"
            "print(len(found.films), *(f'{path.name}: {reason}' for path, reason in found.unreadable.items()), sep='\\n')")
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, preexec_fn=drop_rights, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    finally:
        (tmp_path / "PNEUMONIA").chmod(0o755)
    films, *unreadable = done.stdout.splitlines()
    assert films == "1"
    assert sorted(unreadable) == [
        "IM1: cannot be read (Permission denied); check its permissions",
        "PNEUMONIA: cannot be read (Permission denied); check its permissions",
    ]


@pytest.mark.parametrize(("name", "stem"), [
    ("a.png", "a"), ("a.b.DCM", "a.b"), ("1.2.3.10", "1.2.3.10"), ("1.2.3.10.dcm", "1.2.3.10"), ("film", "film"),
    ("dr. no", "dr. no"), ("a.png.jpeg", "a.png"), ("x/y.z/film.jpg", "x/y.z/film"), ("x.png/film", "x.png/film"),
])  # fmt: skip
def test_a_suffix_is_only_what_is_a_films(name: str, stem: str) -> None:
    assert film_stem(name) == stem
