"""Files that are replaced whole: temporary names that nobody shares, whatever the names, threads and processes."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mask_rcnn.system.files import PARTIAL, remove_partials, remove_partials_of, replacing, replacing_path, write_bytes

ROOT = Path(__file__).resolve().parents[1]
UID = "1.3.12.2.1107.5.3.56.20123.11.2024010508"  # 40 characters, as scanners begin the names of all their films


def test_many_threads_write_files_of_like_names(tmp_path: Path) -> None:
    names = [f"{UID}{number:06}.png" for number in range(300)]

    def write(name: str) -> None:
        with replacing(tmp_path / name) as file:
            for byte in name.encode():
                file.write(bytes([byte]))
                file.flush()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, names))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: name.encode() for name in names}


def test_threads_and_processes_write_the_same_file(tmp_path: Path) -> None:
    """The last one wins, whole; none fails for another's having renamed its temporary file."""
    command = ("import sys; from pathlib import Path; from mask_rcnn.system.files import write_bytes\n"
               "for k in range(200): write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 1000)")
    processes = [subprocess.Popen([sys.executable, "-c", command, str(tmp_path / "one"), letter], cwd=ROOT)
                 for letter in "abc"]  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda letter: [write_bytes(tmp_path / "one", letter * 1000) for _ in range(200)], [b"d", b"e"]))
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    content = (tmp_path / "one").read_bytes()
    assert len(content) == 1000 and len(set(content)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_name_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "ä" * 127 + "b"  # 255 bytes
    write_bytes(tmp_path / name, b"whole")
    assert (tmp_path / name).read_bytes() == b"whole"


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as file:
        file.write(b"new")
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt), replacing_path(tmp_path / "a", ".weights.h5") as path:
        assert path.name.endswith(".weights.h5")
        path.write_bytes(b"new")
        raise KeyboardInterrupt
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_what_a_kill_leaves_is_removed(tmp_path: Path) -> None:
    for name in (f"{PARTIAL}12", f"deep/er/{PARTIAL}34.weights.h5", "deep/film.png", ".hidden"):
        write_bytes(tmp_path / name, b"x")
    remove_partials(tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"film.png", ".hidden"}


def test_what_a_kill_leaves_of_one_file_is_removed_alone(tmp_path: Path) -> None:
    """As halving a weights file does, a temporary file may have one of its own."""
    code = ("import os, sys; from pathlib import Path; from mask_rcnn.system.files import replacing_path\n"
            "with replacing_path(Path(sys.argv[1])) as one, replacing_path(one, '.h5') as two:\n"
            "    one.touch(); two.touch(); os.kill(os.getpid(), 9)")
    for name in ("a[1].h5", "b.h5"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], cwd=ROOT)
    assert len(list(tmp_path.iterdir())) == 4
    remove_partials_of(tmp_path / "a[1].h5")
    assert len(left := list(tmp_path.iterdir())) == 2
    remove_partials_of(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == left
    remove_partials_of(tmp_path / "b.h5")
    assert list(tmp_path.iterdir()) == []
