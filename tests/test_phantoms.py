"""The digital chest phantoms of scripts/: repeatable, the right way round, lit as Beer and Lambert say."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPTS = str(Path(__file__).resolve().parents[1] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

import make_phantoms  # noqa: E402
from phantom import attenuation, film  # noqa: E402

SIZE = (208, 190)
LEFT_LUNG, RIGHT_LUNG = 1, 2


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[np.ndarray, np.ndarray]]:
    return [make_phantoms.draw_phantom(np.random.default_rng([3, k]), SIZE) for k in range(12)]


def test_shapes_and_types(phantoms):
    for image, labels in phantoms:
        assert image.shape == labels.shape == SIZE
        assert image.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, LEFT_LUNG, RIGHT_LUNG}


def test_equal_generators_give_equal_films_and_others_do_not(phantoms):
    image, labels = make_phantoms.draw_phantom(np.random.default_rng([3, 4]), SIZE)
    np.testing.assert_array_equal(image, phantoms[4][0])
    np.testing.assert_array_equal(labels, phantoms[4][1])
    assert (image != phantoms[5][0]).mean() > 0.5
    assert (labels != phantoms[5][1]).any()


def test_the_patients_left_lung_lies_on_the_images_right(phantoms):
    for _, labels in phantoms:
        left, right = (np.nonzero(labels == value)[1] for value in (LEFT_LUNG, RIGHT_LUNG))
        assert left.mean() > right.mean()
        assert left.min() > right.max() - 0.05 * SIZE[1]


def test_the_heart_makes_the_left_lung_the_smaller_one_on_average(phantoms):
    areas = np.array(
        [[(labels == value).sum() for value in (LEFT_LUNG, RIGHT_LUNG)] for _, labels in phantoms]
    )
    assert areas[:, 0].mean() < areas[:, 1].mean()


def test_each_lung_is_one_piece_of_plausible_size_without_holes(phantoms):
    for _, labels in phantoms:
        for value in (LEFT_LUNG, RIGHT_LUNG):
            lung = (labels == value).astype(np.uint8)
            assert cv2.connectedComponents(lung, connectivity=4)[0] == 2
            assert 0.04 < lung.mean() < 0.25
            outer, _ = cv2.findContours(lung, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            np.testing.assert_array_equal(
                cv2.drawContours(np.zeros_like(lung), outer, -1, 1, cv2.FILLED), lung
            )


def test_lungs_are_darker_than_heart_and_spine_between_them(phantoms):
    for image, labels in phantoms:
        lungs = (labels > 0).astype(np.uint8)
        hull = cv2.convexHull(cv2.findNonZero(lungs))
        between = cv2.fillConvexPoly(np.zeros_like(lungs), hull, 1) - lungs
        assert image[lungs > 0].mean() + 20 < image[between > 0].mean()


def test_optical_depth_is_the_sum_of_path_times_coefficient():
    one, none = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    depth = attenuation.optical_depth(10 * one, 5 * one, 2 * one)
    expected = 10 * attenuation.MU_SOFT + 5 * attenuation.MU_LUNG + 2 * attenuation.MU_BONE
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    assert attenuation.optical_depth(none, none, none) == 0
    assert attenuation.MU_LUNG < attenuation.MU_SOFT < attenuation.MU_BONE


def test_a_thicker_absorber_is_brighter_and_scatter_only_takes_contrast_away():
    steps = np.repeat(np.arange(0, 20, 4, dtype=np.float32), 40)[None].repeat(
        96, 0
    )  # cm of water, a step wedge
    depth = attenuation.optical_depth(steps, np.zeros_like(steps), np.zeros_like(steps))
    seen = film.expose(np.random.default_rng(0), depth)
    levels = seen[:, 20::40].mean(0)
    true = depth[0, 20::40]
    assert (np.diff(levels) > 0.2).all()
    assert (levels <= true + 0.02).all()
    assert abs(levels[1] - true[1]) < 0.3
    labels = np.zeros(depth.shape, np.uint8)
    labels[:, 40:80] = LEFT_LUNG
    tones = film.develop(np.random.default_rng(0), seen, labels)[:, 20::40].astype(float).mean(0)
    assert (np.diff(tones[1:]) > 0).all()


def test_more_quanta_mean_less_noise_where_the_chest_is_thin():
    depth = np.zeros((96, 192), np.float32)
    depth[:, :96], depth[:, 96:] = 1.0, 4.0
    seen = film.expose(np.random.default_rng(1), depth)
    assert seen[20:-20, 20:76].std() < 0.6 * seen[20:-20, 116:172].std()


def test_the_command_writes_what_draw_phantom_draws(tmp_path, capsys):
    assert make_phantoms.main(["--out", str(tmp_path), "--count", "3", "--seed", "5", "--size", "160"]) == 0
    images, masks = (sorted((tmp_path / folder).iterdir()) for folder in ("images", "masks"))
    assert [path.name for path in images] == [f"phantom_{k:04d}.png" for k in (1, 2, 3)]
    assert [path.name for path in masks] == [path.name for path in images]
    for image_path, mask_path in zip(images, masks, strict=True):
        image, mask = (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (image_path, mask_path))
        assert image.ndim == mask.ndim == 2 and image.shape == mask.shape and max(image.shape) == 160
        assert set(np.unique(mask)) == {0, LEFT_LUNG, RIGHT_LUNG}
    assert "3 films" in capsys.readouterr().out


def test_a_film_depends_on_seed_and_number_alone(tmp_path):
    for name, count, seed in (("two", "2", "5"), ("one", "1", "5"), ("other", "1", "6")):
        make_phantoms.main(["--out", str(tmp_path / name), "--count", count, "--seed", seed, "--size", "128"])
    first = {
        name: (tmp_path / name / "images/phantom_0001.png").read_bytes() for name in ("two", "one", "other")
    }
    assert first["one"] == first["two"] != first["other"]


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--size", "8"], ["--seed", "-1"]])
def test_impossible_requests_get_one_line_and_write_nothing(tmp_path, capsys, wrong):
    assert make_phantoms.main(["--out", str(tmp_path / "out"), *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_gets_one_line(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file, not a folder")
    assert make_phantoms.main(["--out", str(tmp_path / "taken"), "--count", "1", "--size", "128"]) == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "taken" in error
