"""The list of films that nothing is taught on, and how it is made."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from script import ROOT, load_script

from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import COPY, HELD, PATIENT, HeldOut, ListedFilm, read_held_out

LIST = ROOT / "configs" / "held_out.csv"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("hold_out")


def test_films_are_told_by_set_and_file_wherever_the_sets_lie() -> None:
    held_out = HeldOut([ListedFilm("openist", "images/a.jpg", HELD), ListedFilm("kaggle", "x/train/NORMAL/b.jpeg", COPY),
                        ListedFilm("openist", "images/c.jpg", PATIENT)])
    paths = [Path("/data/openist/images/a.jpg"), Path("elsewhere/openist/images/c.jpg"), Path("/q/openist/images/d.jpg"),
             Path("/data/kaggle/x/train/NORMAL/b.jpeg"), Path("/data/other/images/a.jpg")]
    assert [held_out.why(path) for path in paths] == [HELD, PATIENT, "", COPY, ""]
    assert held_out.to_report(paths) == paths[:1] and held_out.to_learn(paths) == [paths[2], paths[4]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("set,file\na,b\n", "has no column 'why'"),
        ("set,file,why\n", "names no film"),
        ("set,file,why\na,b,because\n", "has the unknown reason 'because'"),
        (b"\xff\xfe\x00", "not readable as a table"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = tmp_path / "held_out.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DatasetError, match=f"held_out.csv: {reason}.*; make it with scripts/hold_out.py"):
        read_held_out(path)
    with pytest.raises(DatasetError, match="absent.csv: not readable"):
        read_held_out(tmp_path / "absent.csv")


def test_the_list_holds_out_enough_of_every_set() -> None:
    held = [film for film in read_held_out(LIST).films if film.why == HELD]
    for name, least in {"openist": 80, "shenzhen": 78, "wingspan": 30, "v7_bedside": 80, "v7_children": 250}.items():
        assert sum(film.set == name for film in held) >= least
    assert not any(film.set.startswith("jsrt") for film in held)  # nothing is taught on it at all


def test_the_list_is_that_of_the_films_beside_us(shared_data: Path, script: ModuleType) -> None:
    """Every listed film is there, and no patient stands on both sides."""
    held_out = read_held_out(LIST)
    films = [film for name in script.SETS for film in script.list_films(shared_data, name)]
    whys = [held_out.why(film.path) for film in films]
    assert sum(map(bool, whys)) == len(held_out.films)
    listed = {film.patient for film, why in zip(films, whys, strict=True) if why in (HELD, PATIENT)}
    assert not [film.path for film, why in zip(films, whys, strict=True) if not why and film.patient in listed]


def films_of(script: ModuleType) -> list:
    """20 films of 10 patients in one set, and an undrawn copy of each patient's first film in another one."""
    own = [script.Film("wingspan", Path(f"{k}.jpg"), f"{k}.jpg", f"wingspan:{k // 2}", "ab"[k // 10]) for k in range(20)]
    return own + [script.Film("kaggle", Path(f"c{k}.jpg"), f"c{k}.jpg", f"kaggle:{k}", "", False) for k in range(10)]


def test_patients_are_chosen_whole_by_class_and_their_copies_are_listed(script: ModuleType, monkeypatch) -> None:
    monkeypatch.setattr(script, "SETS", {"wingspan": 8, "kaggle": 0})
    films = films_of(script)
    groups = 2 * np.array([k // 2 for k in range(20)] + list(range(10)))  # named by their first film
    whys = script.choose(films, groups)
    held = [film for film, why in zip(films, whys, strict=True) if why == HELD]
    assert len(held) == 8 and all(film.set == "wingspan" for film in held)
    assert [sum(film.stratum == stratum for film in held) for stratum in "ab"] == [4, 4]
    patients = {film.patient for film in held}
    assert len(patients) == 4
    copies = {film.file for film, why in zip(films, whys, strict=True) if why == COPY}
    assert copies == {f"c{patient.split(':')[1]}.jpg" for patient in patients}
    assert script.choose(films, groups) == whys != script.choose(films, groups, seed=1)
