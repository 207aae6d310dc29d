"""What the whole-lung U-Net learns from, and the training on it."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import cv2
import h5py
import keras
import numpy as np
import pytest
from script import copy_phantoms, load_script

from create_dataset.unet_films import UNetFilm, read_films
from mask_rcnn.dataset.conventions import UNKNOWN
from mask_rcnn.dataset.epochs import films_of_epoch
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.held_out import HeldOut, ListedFilm


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("train_unet")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [copy_phantoms(tmp_path / name, count) for name, count in (("openist", 4), ("v7_children", 4))]


def test_films_of_both_conventions_are_read_without_those_held_out(folders: list[Path], tmp_path: Path) -> None:
    names = [path.name for path in sorted((folders[0] / "images").glob("*"))]
    held_out = HeldOut([ListedFilm("openist", f"images/{names[1]}", "patient")])
    train, validation = read_films(folders, held_out, None, 0.75, 0)
    films = train + validation
    assert sorted(film.source for film in films) == ["openist"] * 3 + ["v7_children"] * 4
    assert {film.source for film in validation} == {"openist", "v7_children"}
    for film in films:
        assert film.square.shape == film.labels.shape == (256, 256) and set(np.unique(film.drawn)) == {0, 1, 2}
        assert film.holds_heart == (film.source == "v7_children") == bool((film.labels == UNKNOWN).any())
        assert (film.labels[film.drawn == 0] == 0).all()
    hearts = tmp_path / "hearts"
    (hearts / "v7_children").mkdir(parents=True)
    for path in (folders[1] / "images").glob("*"):
        cv2.imwrite(str(hearts / "v7_children" / f"{path.stem}.png"), np.full((256, 256), 255, np.uint8))
    with_hearts, _ = read_films(folders[1:], None, hearts, 0.75, 0)
    assert all((film.labels[film.drawn > 0] == UNKNOWN).all() for film in with_hearts)
    with pytest.raises(DatasetError, match="make it with scripts/find_hearts.py"):
        read_films(folders[1:], None, tmp_path, 0.75, 0)
    with pytest.raises(DatasetError, match="has no folder of v7_children; make it with scripts/find_hearts.py"):
        read_films(folders[1:], None, tmp_path / "nowhere", 0.75, 0)
    hearts_of_others, _ = read_films(folders, None, hearts.parent / "hearts", 0.75, 0)
    (hearts / "v7_children").rename(hearts / "openist")  # of a set that holds no heart: nothing is left out
    without, _ = read_films(folders, None, hearts, 0.75, 0)
    for film, other in zip(without, hearts_of_others, strict=True):
        assert (film.labels == UNKNOWN).any() == film.holds_heart
        assert not film.holds_heart or ((film.labels == UNKNOWN).sum() < (other.labels == UNKNOWN).sum())


def test_every_film_is_shown_before_one_is_shown_again() -> None:
    sources = ["a"] * 5 + ["b"] * 3
    epochs = [films_of_epoch(sources, {"a": 2}, epoch, 7) for epoch in range(5)]
    assert all(sorted(sources[k] for k in epoch) == ["a"] * 2 + ["b"] * 3 for epoch in epochs)
    shown = [k for epoch in epochs for k in epoch if sources[k] == "a"]
    assert sorted(shown) == sorted([*range(5)] * 2)
    np.testing.assert_array_equal(films_of_epoch(sources, {"a": 2}, 3, 7), epochs[3])
    assert len(films_of_epoch(sources, {"b": 7}, 0, 7)) == 12


def test_films_that_are_all_held_out_are_named(folders: list[Path]) -> None:
    every = HeldOut([ListedFilm("openist", f"images/{path.name}", "held") for path in (folders[0] / "images").glob("*")])
    with pytest.raises(DatasetError, match="openist: too few films could be read that are not held out: 0 to train on"):
        read_films(folders[:1], every, None, 0.75, 0)


def test_the_loss_passes_over_what_is_unknown(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    target = rng.choice(np.float32([0, 1, -1]), (2, 8, 8, 1))
    probability = rng.uniform(0.05, 0.95, target.shape).astype(np.float32)
    loss = float(script.cross_entropy_and_dice(target, probability))
    other = np.where(target < 0, 1 - probability, probability)
    assert float(script.cross_entropy_and_dice(target, other)) == pytest.approx(loss, rel=1e-5)
    known = target[..., 0] >= 0
    t, p = target[..., 0][known], probability[..., 0][known]
    entropy = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
    dice = (2 * (t * p).sum() + 1) / (t.sum() + p.sum() + 1)
    assert loss == pytest.approx(entropy + 1 - dice, rel=1e-5)
    assert np.isfinite(float(script.cross_entropy_and_dice(np.full_like(target, -1), probability)))


class Still(keras.Model):
    """A model of a single weight in place of the U-Net, which takes minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = self.add_weight(shape=(), name="bias")

    def call(self, inputs):
        return keras.ops.sigmoid(self.bias + 4 - 8 * inputs[..., :1])


def test_a_training_keeps_its_best_epoch_and_goes_on_where_it_was(
    script: ModuleType, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def still(_: str) -> keras.Model:
        model = Still()
        model.build((None, 256, 256, 3))
        return model

    monkeypatch.setattr(script, "build_unet", still)

    def train(run: str, epochs: int) -> list[list[str]]:
        assert script.main([
            "--data", *map(str, folders), "--holdout", "0.25", "--batch", "2", "--epochs", str(epochs),
            "--per-epoch", "openist=2", "--learning-rate", "0.1", "--run", str(tmp_path / run),
            "--out", str(tmp_path / f"{run}.weights.h5"),
        ]) == 0
        with (tmp_path / run / "log.csv").open(newline="") as file:
            return list(csv.reader(file))[1:]

    whole = train("whole", 3)
    assert [row[0] for row in whole] == ["1", "2", "3"] and "openist" in whole[0][3] and "v7_children" in whole[0][3]
    monkeypatch.setattr(script.keras.optimizers.schedules, "CosineDecay", lambda rate, _: rate)
    constant = train("constant", 3)
    train("stopped", 1)
    assert train("stopped", 3) == constant
    with h5py.File(tmp_path / "stopped.weights.h5") as file:
        assert "score" in file.attrs["notes"]
    scores = [0.5, 0.7, 0.6]
    monkeypatch.setattr(script, "describe", lambda _: (scores.pop(0), "told"))
    train("chosen", 3)
    assert (tmp_path / "chosen" / "best.weights.h5").read_bytes() != (tmp_path / "chosen" / "last.weights.h5").read_bytes()
    assert "0.7000" in capsys.readouterr().out.splitlines()[-1]


def test_films_to_choose_by_are_drawn_from_each_source(script: ModuleType) -> None:
    one = np.zeros((2, 2), np.uint8)
    films = [UNetFilm(source, np.full((2, 2), k, np.uint8), one, one) for source in "ab" for k in range(20)]
    chosen = script.limited(films, 6, 0)
    assert [film.source for film in chosen] == ["a"] * 6 + ["b"] * 6
    numbers = [int(film.square[0, 0]) for film in chosen[:6]]
    assert len(set(numbers)) == 6 and max(numbers) > 6
    assert numbers == [int(film.square[0, 0]) for film in script.limited(films, 6, 0)[:6]]
    assert len(script.limited(films, 100, 0)) == 40
