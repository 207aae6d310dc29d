"""The measurement of many films draws what the program takes for films, copies, and films of its cache."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from script import load_script

from mask_rcnn.config import load_config
from mask_rcnn.dataset.coco import annotation, new_dataset
from mask_rcnn.dataset.film_cache import cache_films
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films import candidates, duplicates
from mask_rcnn.films.duplicates import find_groups
from mask_rcnn.films.known_groups import read_known
from mask_rcnn.system.files import write_json

FILMS = 600


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("measure_many_films")


@pytest.fixture(scope="module")
def prints(script: ModuleType) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "PHANTOMS", 8)
        return list(script.draw_fingerprints(FILMS))


def test_drawn_films_are_alike_as_films_are(prints: list[str]) -> None:
    assert {len(text) for text in prints} == {1048} and len({text[: duplicates.DIGEST] for text in prints}) == FILMS
    pairs = candidates.candidates(duplicates._bits(prints), range(FILMS))
    assert 2e-5 < len(pairs) / (FILMS * (FILMS - 1) / 2) < 5e-3
    copies = FILMS - len(set(find_groups(prints)))
    assert 0 < copies <= FILMS // 50 + 2


def test_a_cache_that_is_filled_is_read_as_one(script: ModuleType, prints: list[str], tmp_path: Path) -> None:
    mask = np.zeros((40, 30), bool)
    mask[5:30, 4:12] = True
    dataset = new_dataset("patient", {"roots": ["films"]})
    for k in range(4):
        dataset["images"].append({"id": k, "root": 0, "file_name": f"{k}.png", "height": 40, "width": 30})
        dataset["annotations"].append(annotation(k, k, 2, mask))
    write_json(tmp_path / "dataset.json", dataset)
    script.fill_cache(tmp_path / "dataset.json", tmp_path / "cache", prints[:4])
    side = load_config("lungs_small").network.image_size
    films, found = cache_films(read_records(tmp_path / "dataset.json", "patient"), side, tmp_path / "cache")
    assert len(films) == 4 and found == prints[:4] and not films[3].film.any(), "there are no such files to read"
    script.know_all(prints, tmp_path / "copies.npz")
    assert len(read_known(tmp_path / "copies.npz").keys) == FILMS
    assert find_groups(prints, tmp_path / "copies.npz") == list(range(FILMS)), "nothing is compared"


def test_a_process_is_measured_to_its_end_or_to_a_line(script: ModuleType) -> None:
    # Linux counts a process's memory from that of the process which starts it: this one may hold TensorFlow.
    code = """import sys; from measure_many_films import measure
print(*measure([sys.executable, "-c", "x = bytes(50_000_000)"]))"""
    scripts = Path(__file__).parent.parent / "scripts"
    done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    seconds, of_processors, gigabytes = map(float, done.stdout.split())
    assert seconds > 0 and of_processors > 0 and 0.04 < gigabytes < 1
    code = "import time; print('begin', flush=True); print('ready now', flush=True); time.sleep(60)"
    assert script.measure([sys.executable, "-c", code], until="ready").seconds < 50
    for code, until in (("raise SystemExit('no disk')", ""), ("print('no disk')", "ready")):
        with pytest.raises(RuntimeError, match="(?s)ended with.*no disk"):
            script.measure([sys.executable, "-c", code], until=until)


def test_of_many_films_the_nearest_alone_are_compared_and_the_same_groups_found(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    texts = script.draw_fingerprints(1500)
    exact = find_groups(texts)
    monkeypatch.setattr(duplicates, "MAX_ALL_PAIRS", 0)
    near = find_groups(texts, tmp_path / "copies.npz")
    assert 1500 > len(set(exact)) and near == exact
    order = np.random.default_rng(1).permutation(1500)
    moved = find_groups([texts[k] for k in order])
    assert groups_of(moved, order) == groups_of(near, np.arange(1500)), "whatever the films' order"
    half = tmp_path / "half.npz"
    find_groups(texts[:750], half)
    assert find_groups(texts, half) == exact, "new films are compared with all"


def groups_of(firsts: list[int], films: np.ndarray) -> set[frozenset[int]]:
    members: dict[int, set[int]] = {}
    for first, film in zip(firsts, films.tolist(), strict=True):
        members.setdefault(first, set()).add(film)
    return {frozenset(group) for group in members.values()}
