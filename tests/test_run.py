"""The engine of long runs: what it does where something goes wrong with one film, with the network, with the disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from films import film_of
from PIL import Image

from mask_rcnn.films.images import FilmError
from mask_rcnn.run import engine
from mask_rcnn.run.engine import read_once, work_through
from mask_rcnn.run.folder import RunError, set_aside, sole_run
from mask_rcnn.system.files import PARTIAL

ROOT = Path(__file__).resolve().parents[1]


class Item(NamedTuple):
    number: int

    @property
    def path(self) -> Path:
        return Path(f"film {self.number}")


def outcome(
    count: int = 10, batch: int = 3, read: object = None, predict: object = None, finish: object = None,
    done: Sequence[int] = (),
) -> tuple[dict[int, int], dict[int, str]]:
    """What comes out of films 0 to ``count``, doubled by the reader, negated by the network and squared at the end."""
    skipped: dict[int, str] = {}
    worked = work_through(
        [(k, Item(k)) for k in range(count) if k not in done],
        read or (lambda film: 2 * film.number),  # type: ignore[arg-type]
        predict or (lambda ready: [value and -value for value in ready]),  # type: ignore[arg-type]
        finish or (lambda film, ready, answer: ready * answer),  # type: ignore[arg-type]
        batch,
        lambda film, reason: skipped.update({film.number: reason}),
    )
    kept = [(film.number, entry) for film, entry in worked]
    assert [number for number, _ in kept] == sorted(number for number, _ in kept)
    return dict(kept), skipped


def failing(number: int, error: BaseException, stage: str) -> dict[int, str]:
    def fail(film: Item, *values: int) -> int:
        if film.number == number:
            raise error
        return values[0] * values[1] if values else 2 * film.number

    kept, skipped = outcome(**{stage: fail})
    assert kept == {k: -4 * k * k for k in range(10) if k != number} and list(skipped) == [number]
    return skipped


@pytest.mark.parametrize("stage", ["read", "finish"])
def test_an_error_of_whatever_kind_on_one_film_is_that_films(stage: str) -> None:
    for error, words in (
        (FilmError("film 4", "is torn", "copy it again"), "is torn; copy it again"),
        (MemoryError(), "more memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), "more memory"),
        (ZeroDivisionError("by nothing"), "ZeroDivisionError: by nothing"),
        (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)), "File name too long"),
    ):
        (reason,) = failing(4, error, stage).values()
        assert words in reason and "; " in reason and "\n" not in reason
    assert "check the path" in failing(4, FileNotFoundError(2, "No such file"), "read")[4]
    assert "check that it is still there" in failing(4, OSError(errno.EIO, "Input/output error"), "read")[4]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_full_disk_ends_the_run(number: int) -> None:
    with pytest.raises(OSError) as caught:
        failing(4, OSError(number, os.strerror(number)), "finish")
    assert caught.value.errno == number


def test_a_network_that_fails_on_a_film_fails_on_that_film_alone() -> None:
    def predict(ready: Sequence[int | None]) -> list[int | None]:
        if 8 in ready:
            raise ValueError("an eight\nas it is")
        return [value and -value for value in ready]

    kept, skipped = outcome(predict=predict)
    assert kept == {k: -4 * k * k for k in range(10) if k != 4}
    assert skipped == {4: "cannot be worked on (ValueError: an eight as it is); report this as a fault of the program"}


def test_a_film_has_its_place_in_the_batch_whatever_is_done_and_whatever_fails() -> None:
    """On a processor with vectors, a network's last digits differ by the place."""
    seen: list[list[int | None]] = []

    def predict(ready: Sequence[int | None]) -> list[int | None]:
        seen.append(list(ready))
        return [value and -value for value in ready]

    def read(film: Item) -> int:
        if film.number == 5:
            raise FilmError("film 5", "is torn", "copy it again")
        return 2 * film.number

    kept, skipped = outcome(predict=predict, read=read, done=(0, 1, 3, 6, 7, 8))
    assert seen == [[None, None, 4], [None, 8, None], [18, None, None]]
    assert kept == {k: -4 * k * k for k in (2, 4, 9)} and list(skipped) == [5]


def test_too_little_memory_for_the_network_ends_the_run_with_a_remedy() -> None:
    def predict(ready: Sequence[int]) -> list[int]:
        raise MemoryError

    with pytest.raises(RunError, match="smaller --batch"):
        outcome(predict=predict)


def test_ctrl_c_ends_the_threads() -> None:
    def predict(ready: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        outcome(predict=predict)


def test_a_film_that_changes_while_it_is_read_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "film.png"
    Image.fromarray(film_of()).save(path)
    assert read_once(path).digest == read_once(path).digest and read_once(path).version[0] == path.stat().st_size
    read = engine.read_radiograph

    def slow(path: Path) -> object:
        film = read(path)
        Image.fromarray(film_of(seed=1)).save(path)  # as a copy that is still going on
        return film

    monkeypatch.setattr(engine, "read_radiograph", slow)
    with pytest.raises(FilmError, match="changed while it was read"):
        read_once(path)


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "inner").mkdir()
    with pytest.raises(RunError, match="another run is writing to it; "), sole_run(out), sole_run(out):
        pass
    assert not out.exists(), "a run that wrote nothing leaves nothing"
    code = ("import sys, time; from pathlib import Path; from mask_rcnn.run.folder import sole_run\n"
            "with sole_run(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", code, str(out)], cwd=ROOT, stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == b"locked\n"
    (out / "masks").mkdir()
    (out / "masks" / f"{PARTIAL}1").touch()
    with pytest.raises(RunError), sole_run(out):
        pass
    assert (out / "masks" / f"{PARTIAL}1").exists(), "another run is writing it"
    other.kill()
    other.communicate()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with sole_run(out):
                break
        except RunError:
            time.sleep(0.05)
    assert list((out / "masks").iterdir()) == [], "what the killed run left half written is gone"


def test_what_is_set_aside_is_never_used_again(tmp_path: Path) -> None:
    def fill(text: str) -> None:
        for name in ("masks/a/b.png", "masks/c.png", "films.jsonl", "mine.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    folders = []
    for text in ("one", "two", "three"):
        fill(text)
        folders.append(set_aside(tmp_path, ["masks", "results.json", "films.jsonl"]))
    assert len(set(folders)) == 3
    for text, folder in zip(("one", "two", "three"), folders, strict=True):
        assert folder and folder.parent == tmp_path
        assert {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()} == {
            "masks/a/b.png": text, "masks/c.png": text, "films.jsonl": text,
        }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", *(folder.name for folder in folders if folder)}
    assert set_aside(tmp_path, ["masks", "films.jsonl"]) is None
