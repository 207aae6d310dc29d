"""Films with black bones are noticed, and no others."""

from __future__ import annotations

from pathlib import Path

import hostile
import numpy as np
import pytest

from create_dataset.sources import find_films
from mask_rcnn.films.polarity import is_inverted
from mask_rcnn.films.radiograph import read_film
from scripts import measure_polarity

PHANTOMS = sorted((Path(__file__).parents[1] / "data" / "phantoms" / "images").glob("*.png"))


def test_phantoms_as_they_are_and_inverted_also_spoilt() -> None:
    films = [read_film(path) for path in PHANTOMS]
    counts = measure_polarity.measure(films, seed=0)
    assert {name: upright for name, (upright, _) in counts.items()} == dict.fromkeys(measure_polarity.SPOILT, 0)
    for name in ("as it is", "black frame", "white frame", "cropped", "tilted"):
        assert counts[name][1] == len(films), name


@pytest.mark.parametrize("shape", [(33, 33), (40, 2000), (2000, 40), (300, 250)])
def test_what_is_no_chest_stays_as_it_is(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for film in (
        np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), rng.integers(0, 256, shape, np.uint8),
        np.clip(rng.normal(128, 4, shape), 0, 255).astype(np.uint8),
    ):  # fmt: skip
        assert is_inverted(film) is False


@pytest.mark.parametrize("curve", [0.3, 3.0])
def test_brightness_and_contrast_do_not_matter(curve: float) -> None:
    film = read_film(PHANTOMS[0])
    for polarity in (film, 255 - film):
        changed = (40 + 150 * (polarity / 255) ** curve).astype(np.uint8)
        assert is_inverted(changed) == is_inverted(polarity)


def test_of_the_hostile_films_one_is_inverted(tmp_path: Path) -> None:
    hostile.make_hostile_folder(tmp_path / "films")
    assert [name for name in hostile.FILMS if is_inverted(read_film(tmp_path / "films" / name))] == [hostile.INVERTED]


@pytest.mark.parametrize("folder", ["shenzhen/images", "jsrt/images", "kaggle", "dicom"])
def test_real_films(shared_data: Path, folder: str) -> None:
    films = [read_film(source.path) for source in find_films(shared_data / folder)[::8]]
    assert films and not any(map(is_inverted, films))
    assert all(is_inverted(255 - film) for film in films)
    assert not any(is_inverted(np.rot90(film, turns)) for film in films for turns in (1, 3))


def test_real_hostile_films(shared_data: Path) -> None:
    folder = shared_data / "hostile" / "images"
    assert [name for name in hostile.FILMS if is_inverted(read_film(folder / name))] == ["inverted.png"]


def test_the_measuring_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_polarity.main([str(PHANTOMS[0])]) == 0
    assert "as it is        0 taken for inverted,    1 of the inverted noticed (100.0 %)" in capsys.readouterr().out
    assert measure_polarity.main([str(tmp_path)]) == 1
    assert "holds no film" in capsys.readouterr().err
