"""The cache of training films: the same films as in memory, made once, whole after a kill, read anew where one changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from script import copy_phantoms

from mask_rcnn.dataset import film_cache, training_films
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.film_cache import CachedFilms, cache_films
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.training_films import TrainingFilm, load_films, prepare_film
from mask_rcnn.run.folder import sole_run

SIDE, COUNT = 64, 5
SIZE = 2 * SIDE**2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_phantoms(tmp_path / "films", COUNT)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the films that are read."""
    names: list[str] = []

    def note(record: Any, side: int) -> Any:
        names.append(record.path.name)
        return prepare_film(record, side)

    monkeypatch.setattr(training_films, "prepare_film", note)
    return names


def cached(folder: Path) -> CachedFilms:
    return cache_films(read_records(folder, "patient"), SIDE, folder.parent / "cache")[0]


def assert_same(films: CachedFilms, expected: list[TrainingFilm]) -> None:
    assert len(films) == len(expected) and [record.path for record in films.records] == [
        film.record.path for film in expected]
    for one, other in zip(films, expected, strict=True):
        assert one.window == other.window
        np.testing.assert_array_equal(one.film, other.film)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_films_of_a_cache_are_those_in_memory(folder: Path, prepared: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    records = read_records(folder, "patient")
    expected = load_films(records, SIDE)
    prepared.clear()
    films, fingerprints = cache_films(records, SIDE, folder.parent / "cache")
    assert len(prepared) == COUNT and len(set(fingerprints)) == COUNT
    assert_same(films, expected)
    assert not any(record.mask_path or record.segmentations for record in films.records), "no memory is kept for them"
    assert (folder.parent / "cache" / "films_64.bin").stat().st_size == COUNT * SIZE
    assert f"films_64.bin: {COUNT} films, {COUNT * SIZE / 1e6:.1f} MB" in capsys.readouterr().out
    assert films[0].film is not films[0].film, "read each time"
    assert_same(films[1:3], expected[1:3])
    again, same = cache_films(records[::-1], SIDE, folder.parent / "cache")
    assert len(prepared) == COUNT and same == fingerprints[::-1]
    assert_same(again, expected[::-1])
    cache_films(records, 2 * SIDE, folder.parent / "cache")
    assert len(prepared) == 2 * COUNT, "another side has files of its own"


def test_a_film_that_changed_is_read_anew(folder: Path, prepared: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    cached(folder)
    image, mask = (sorted((folder / kind).iterdir())[k] for k, kind in enumerate(("images", "masks")))
    Image.fromarray(255 - np.asarray(Image.open(image)) // 2).save(image)
    labels = np.array(Image.open(mask))
    labels[: len(labels) // 2] = 0
    Image.fromarray(labels).save(mask)
    prepared.clear()
    capsys.readouterr()
    films = cached(folder)
    assert sorted(prepared) == [image.name, mask.name]
    assert f"{COUNT + 2} films, 2 of them not of this training" in capsys.readouterr().out
    assert_same(films, load_films(read_records(folder, "patient"), SIDE))


def test_a_cache_that_was_stopped_is_gone_on_with(
    folder: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_cache, "FILMS_AT_ONCE", 2)
    cached(folder)
    data, index = (folder.parent / "cache" / f"films_64.{ending}" for ending in ("bin", "jsonl"))
    whole = data.read_bytes(), index.read_bytes()
    lines = whole[1].splitlines(keepends=True)
    for films, tail, torn in [(0, b"", b""), (2, b"x" * SIZE, b""), (3, b"", lines[4][:50]), (2, b"x" * 7, lines[3][:-1])]:
        data.write_bytes(whole[0][: films * SIZE] + tail)
        index.write_bytes(b"".join(lines[: 1 + films]) + torn)
        prepared.clear()
        cached(folder)
        assert len(prepared) == COUNT - films and (data.read_bytes(), index.read_bytes()) == whole
    data.write_bytes(whole[0][:SIZE])  # the index says more than there is
    cached(folder)
    assert (data.read_bytes(), index.read_bytes()) == whole
    for head in (b"torn", json.dumps({**json.loads(lines[0]), "format": 0}).encode() + b"\n"):
        index.write_bytes(b"".join([head, *lines[1:]]))
        prepared.clear()
        cached(folder)
        assert len(prepared) == COUNT and (data.read_bytes(), index.read_bytes()) == whole


def test_what_cannot_be_read_is_named_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *others = sorted((folder / "images").iterdir())
    first.write_bytes(b"no film")
    for _ in range(2):
        assert [record.path for record in cached(folder).records] == others
        assert capsys.readouterr().err.count(f"left out {first}: is no image") == 1
    for path in others:
        path.write_bytes(b"no film")
    with pytest.raises(DatasetError, match=f"none of the {COUNT} films can be read"):
        cached(folder)


def test_the_sides_of_cached_films_are_checked(folder: Path, prepared: list[str]) -> None:
    for mask in (folder / "masks").iterdir():
        Image.fromarray(np.array([0, 2, 1], np.uint8)[np.asarray(Image.open(mask))]).save(mask)
    for _ in range(2):
        with pytest.raises(DatasetError, match="labels exchanged"):
            cached(folder)
    assert len(prepared) == COUNT


def test_a_film_of_two_sources_is_held_once(folder: Path) -> None:
    records = read_records(folder, "patient")
    twice = [*records, *read_records(f"{folder}/../{folder.name}", "patient")]
    films, _ = cache_films([*twice, *records], SIDE, folder.parent / "cache")
    assert len(films) >= COUNT
    linked = folder.parent / "linked"
    shutil.copytree(folder, linked, copy_function=os.link)
    films, _ = cache_films([*records, *read_records(linked, "patient")], SIDE, folder.parent / "cache")
    assert len(films) == 2 * COUNT
    np.testing.assert_array_equal(films[0].film, films[COUNT].film)


def test_a_second_training_waits_for_the_films_of_the_first(folder: Path) -> None:
    (folder.parent / "cache").mkdir()
    with sole_run(folder.parent / "cache"):
        other = threading.Thread(target=cached, args=[folder])
        other.start()
        other.join(0.3)
        assert other.is_alive() and not (folder.parent / "cache" / "films_64.bin").exists()
    other.join(30)
    assert (folder.parent / "cache" / "films_64.bin").stat().st_size == COUNT * SIZE


def test_a_full_disk_names_the_cache_and_costs_nothing_that_was_there(
    folder: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        if len(prepared) == COUNT:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(film_cache, "FILMS_AT_ONCE", COUNT)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as caught:
            cached(folder)
    assert caught.value.filename == str(folder.parent / "cache" / "films_64.bin")
    assert_same(cached(folder), load_films(read_records(folder, "patient"), SIDE))
