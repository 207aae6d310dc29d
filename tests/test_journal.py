"""Journals: films are known again by what they are, wherever they and the journal lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from films import NamedFilm as Film

from mask_rcnn.run.journal import Journal
from mask_rcnn.system.files import digest_of, file_version
from mask_rcnn.system.formats import FormatError


def films_of(root: Path) -> list[Film]:
    return [Film(root, path.relative_to(root).as_posix()) for path in sorted(root.rglob("*.png"))]


def fill(root: Path, text: str, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text} {name}")
    return root


def go_on(out: Path, *roots: Path, settings: str = "same") -> tuple[list[str], dict[str, int], set[str]]:
    """A run over all films of some roots; which of them are worked on, each one's id, and which roots are gone."""
    out.mkdir(exist_ok=True)
    films = [film for root in roots for film in films_of(root)]
    with Journal(out / "films.jsonl", {"settings": settings}) as journal:
        gone = journal.find_roots(roots)
        journal.forget_changed(films)
        todo = [film for film in films if film not in journal]
        ids = journal.assign_ids(films)
        for film in todo:
            entry = {"id": ids[journal.key(film)], "version": file_version(film.path), "digest": digest_of(film.path)}
            journal.add(film, {**entry, "text": film.path.read_text()})
        assert all(journal.read(film)["text"] == film.path.read_text() for film in films), "every film has its own"
        return [str(film.path) for film in todo], {str(film.path): ids[journal.key(film)] for film in films}, gone


def by_name(ids: dict[str, int], root: Path) -> dict[str, int]:
    return {os.path.relpath(path, root): image_id for path, image_id in ids.items()}


@pytest.mark.parametrize("case", ["both", "films", "films renamed", "copied without times", "results", "other machine"])
def test_moved_films_are_not_worked_on_again_and_keep_their_ids(case: str, tmp_path: Path) -> None:
    films, out = fill(tmp_path / "one" / "films", "x", "a.png", "b/a.png", "b/c.png"), tmp_path / "one" / "out"
    done, ids, _ = go_on(out, films)
    assert len(done) == 3
    if case == "both":
        (tmp_path / "one").rename(tmp_path / "two")
        moved, moved_out = tmp_path / "two" / "films", tmp_path / "two" / "out"
    elif case == "results":
        moved, moved_out = films, shutil.move(out, tmp_path / "two")
    elif case == "other machine":  # a copy to elsewhere, with new times, results elsewhere too
        moved = Path(shutil.copytree(films, tmp_path / "x" / "set", copy_function=shutil.copyfile))
        moved_out = Path(shutil.copytree(out, tmp_path / "results"))
        shutil.rmtree(tmp_path / "one")
    else:
        copy = shutil.copyfile if case == "copied without times" else shutil.copy2
        moved, moved_out = tmp_path / "two" / ("other" if case == "films renamed" else "films"), out
        shutil.copytree(films, moved, copy_function=copy)
        shutil.rmtree(films)
    done, moved_ids, gone = go_on(Path(moved_out), moved)
    assert done == [] and gone == set()
    assert by_name(moved_ids, moved) == by_name(ids, films)
    assert go_on(Path(moved_out), moved)[0] == []


def test_ids_do_not_depend_on_where_the_films_lie(tmp_path: Path) -> None:
    roots = [fill(tmp_path / name / "films", "x", "a.png", "b/c.png") for name in ("one", "two")]
    first, second = (by_name(go_on(tmp_path / f"out {k}", root)[1], root) for k, root in enumerate(roots))
    assert first == second and len(set(first.values())) == 2


def test_another_folder_is_told_from_a_moved_one(tmp_path: Path) -> None:
    one = fill(tmp_path / "a" / "films", "x", "1.png", "2.png")
    other = fill(tmp_path / "b" / "films", "y", "1.png", "2.png", "3.png")
    go_on(tmp_path / "out", one)
    done, _, gone = go_on(tmp_path / "out", other)
    assert len(done) == 3 and gone == {"films"}
    assert go_on(tmp_path / "out", one, other)[0] == [], "both are known"


def test_folders_of_one_name_do_not_mix(tmp_path: Path) -> None:
    one, two = (fill(tmp_path / name / "images", name, "1.png", "2.png") for name in ("one", "two"))
    deep = fill(tmp_path / "two" / "images" / "images", "deep", "1.png")
    done, ids, _ = go_on(tmp_path / "out", one, two)
    assert len(done) == 5 == len(set(ids.values())) and str(deep / "1.png") in done
    (tmp_path / "out" / "films.jsonl").unlink()
    go_on(tmp_path / "out", one)
    assert len(go_on(tmp_path / "out", two, one)[0]) == 3, "the order of the folders does not matter"
    assert go_on(tmp_path / "out", one, two)[0] == []


def test_what_changed_is_worked_on_again_and_what_was_touched_is_not(tmp_path: Path) -> None:
    root, out = fill(tmp_path / "films", "x", "a.png", "b.png", "c.png"), tmp_path / "out"
    _, ids, _ = go_on(out, root)
    (root / "a.png").write_text("y a.png")  # as long as before
    os.utime(root / "b.png", (1, 1))
    size = (out / "films.jsonl").stat().st_size
    done, new_ids, _ = go_on(out, root)
    assert done == [str(root / "a.png")] and new_ids == ids
    assert (out / "films.jsonl").stat().st_size > size
    lines = [json.loads(line) for line in (out / "films.jsonl").read_bytes().splitlines()]
    assert [line["unchanged"] for line in lines if "unchanged" in line] == ["films//b.png"]


def test_other_settings_and_older_formats_are_another_run(tmp_path: Path) -> None:
    root, path = fill(tmp_path / "films", "x", "a.png"), tmp_path / "out" / "films.jsonl"
    go_on(tmp_path / "out", root)
    assert Journal(path, {"settings": "other"}).is_other and not Journal(path, {"settings": "same"}).is_other
    first, *rest = path.read_text().splitlines()
    assert json.loads(first) == {"format": 2, "program": json.loads(first)["program"], "settings": {"settings": "same"}}
    for old in ('{"settings": {"settings": "same"}}\n' + "\n".join(rest) + "\n",
                '{"weights": ["1"], "source": "/films"}\n{"file": "a.png", "result": "a.png", "version": [1, 2]}\n'):
        path.write_text(old)
        assert Journal(path, {"settings": "same"}).is_other
    path.write_text('{"settings": {"settings": "same"}}\n')
    assert not Journal(path, {"settings": "same"}).is_other, "no film in it: nothing to keep"


@pytest.mark.parametrize("number", [3, "2", 0, True, 2.0])
def test_a_newer_format_is_refused_by_name(number: object, tmp_path: Path) -> None:
    path = tmp_path / "films.jsonl"
    path.write_text(json.dumps({"format": number, "program": "9.0.0", "settings": {}}) + "\n")
    with pytest.raises(FormatError) as caught:
        Journal(path, {})
    assert str(caught.value).startswith(f"{path}: ") and "; " in str(caught.value) or ": " in str(caught.value)
    if number == 3:
        assert "format 3" in str(caught.value) and "update the program" in str(caught.value)
