"""Ill chests made from drawn films: what changes, where, and what must not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from script import PHANTOMS

from mask_rcnn.config import ILL_KINDS, AugmentationConfig
from mask_rcnn.dataset import illness
from mask_rcnn.dataset.augmentation import augment
from mask_rcnn.dataset.conventions import UNKNOWN
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.films.square import fit_labels_to_square, fit_to_square
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG

SIDE = 128
COVERS = (
    illness.patches, illness.lobe, illness.effusion, illness.white_lung, illness.ground_glass, illness.hidden_diaphragm,
)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray, tuple[int, int, int, int]]:
    """A phantom, equalised and fitted, its labels and its window."""
    path = sorted((PHANTOMS / "images").glob("*.png"))[0]
    square, window, _ = fit_to_square(equalise(read_film(path)), SIDE)
    return square, fit_labels_to_square(read_labels(PHANTOMS / "masks" / path.name), SIDE), window


def near(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A mask and what lies within so many pixels of it."""
    rows, columns = np.nonzero(mask)
    grid = np.zeros(mask.shape, bool)
    for row, column in zip(rows, columns, strict=True):
        grid[max(row - pixels, 0) : row + pixels + 1, max(column - pixels, 0) : column + pixels + 1] = True
    return grid


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_lungs_place(drawn: tuple, category: int) -> None:
    place = illness.place_of(drawn[1] == category, category)
    rows, columns = np.nonzero(drawn[1] == category)
    assert (place.top, place.bottom) == (rows.min(), rows.max() + 1)
    assert (place.left, place.right) == (columns.min(), columns.max() + 1)
    lateral, medial = (place.right - 1, place.left) if category == LEFT_LUNG else (place.left, place.right - 1)
    assert place.to_side[lateral] == 1 and place.to_side[medial] == 0


@pytest.mark.parametrize("cover", COVERS, ids=lambda cover: cover.__name__)
@pytest.mark.parametrize("category", CATEGORIES)
def test_covers_lie_over_their_lung_and_close_below_it(drawn: tuple, cover: Callable, category: int) -> None:
    lung = drawn[1] == category
    other = drawn[1] == LEFT_LUNG + RIGHT_LUNG - category
    place, most = illness.place_of(lung, category), 0.0
    for seed in range(8):
        opaque = cover(place, np.random.default_rng(seed))
        assert opaque.dtype == np.float32 and opaque.shape == lung.shape and 0 <= opaque.min() and opaque.max() <= 1
        assert opaque[~near(lung, SIDE // 5)].max() < 0.02 and opaque[other].mean() < 0.02
        most = max(most, float(opaque[lung].max()))
    assert most > 0.5


def test_fluid_lies_below_air_and_rises_to_the_side(drawn: tuple) -> None:
    place = illness.place_of(drawn[1] == LEFT_LUNG, LEFT_LUNG)
    heights = []
    for seed in range(12):
        wet = illness.effusion(place, np.random.default_rng(seed)) > 0.5
        assert not wet[place.top : place.top + 3].any()
        lateral = wet[:, place.right - 6 : place.right - 2].any(axis=1).argmax()
        middle = wet[:, (place.left + place.right) // 2].argmax() or place.bottom
        heights.append(middle - lateral)
    assert np.mean(heights) > 2 and max(heights) > 6


def test_a_white_lung_is_as_white_as_tissue_and_its_outline_stays(drawn: tuple) -> None:
    film, labels, _ = drawn
    lung = labels == LEFT_LUNG
    rng = np.random.default_rng(0)
    cover = illness.white_lung(illness.place_of(lung, LEFT_LUNG), rng)
    grey = illness.veil(film.astype(np.float32), cover, 200.0, rng)
    assert film[lung].mean() < 120 < 170 < grey[lung].mean() < 230
    np.testing.assert_allclose(grey[~near(lung, SIDE // 5)], film[~near(lung, SIDE // 5)], atol=5)


def test_gas_lies_below_the_lung_and_is_dark() -> None:
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:90, 70:110], labels[20:90, 15:55] = LEFT_LUNG, RIGHT_LUNG
    place = illness.place_of(labels == LEFT_LUNG, LEFT_LUNG)
    grey, darker = np.where(labels > 0, np.float32(60), np.float32(180)), 0
    for seed in range(10):
        with_gas = illness.add_gas(grey, place, labels, np.random.default_rng(seed))
        changed = with_gas < grey - 20
        assert not (changed & (labels == LEFT_LUNG)).any() and (with_gas <= grey + 1e-3).all()
        darker += int(changed.sum()) > 20
    assert darker >= 7
    low = place._replace(bottom=SIDE)
    np.testing.assert_array_equal(illness.add_gas(grey, low, labels, np.random.default_rng(0)), grey)


def test_a_raised_diaphragm_takes_film_and_labels_along() -> None:
    """A film that shows nothing but its labels still does so afterwards."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[20:90, 70:110], labels[20:90, 15:55] = LEFT_LUNG, RIGHT_LUNG
    changes = []
    for seed in range(10):
        film, moved = illness.raise_diaphragm(labels * 100, labels, np.random.default_rng(seed))
        assert set(np.unique(moved)) == {0, LEFT_LUNG, RIGHT_LUNG}
        assert (np.abs(film.astype(int) - 100 * moved.astype(int)) > 60).mean() < 0.01
        np.testing.assert_array_equal(moved[:20], labels[:20])
        changes.append(int((moved > 0).sum()) / int((labels > 0).sum()))
    assert min(changes) < 0.95 and 0.8 < min(changes) and max(changes) < 1.1


def test_the_same_random_numbers_make_the_same_film_and_healthy_ones_stay(drawn: tuple) -> None:
    film, labels, window = drawn
    made = [illness.make_ill(film, labels, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert (made[0][0] != made[2][0]).any() and made[0][0].dtype == np.uint8
    before = film.copy()
    off, off_labels = augment(film, labels, window, AugmentationConfig(), np.random.default_rng(0))
    np.testing.assert_array_equal(off, before)
    np.testing.assert_array_equal(off_labels, labels)
    ill = [augment(film, labels, window, AugmentationConfig(ill=1.0), np.random.default_rng(seed))[0] for seed in range(6)]
    assert np.mean([(some != before).mean() > 0.05 for some in ill]) > 0.5


@pytest.mark.parametrize("kind", ILL_KINDS)
def test_each_kind_alone_changes_films_and_no_kind_none(kind: str, drawn: tuple) -> None:
    film, labels, window = drawn

    def some(*kinds: str) -> list[np.ndarray]:
        strengths = AugmentationConfig(ill=1.0, ill_kinds=kinds)
        return [augment(film, labels, window, strengths, np.random.default_rng(seed))[0] for seed in range(12)]

    nothing, alone, with_others = some(), some(kind), some(*ILL_KINDS)
    assert all((one == nothing[0]).all() for one in nothing)
    changed = [(one != nothing[0]).any() for one in alone]
    assert any(changed) and not all(changed)
    assert any((one != other).any() for one, other in zip(alone, with_others, strict=True))


def test_where_a_lungs_end_is_not_known_nothing_is_made_up(drawn: tuple) -> None:
    film, labels, _ = drawn
    unknown = np.where(labels == LEFT_LUNG, UNKNOWN, labels).astype(np.uint8)
    for some in (unknown, np.zeros_like(labels)):
        for seed in range(5):
            made, kept = illness.make_ill(film, some, np.random.default_rng(seed))
            np.testing.assert_array_equal(made, film)
            np.testing.assert_array_equal(kept, some)


def test_tubes_are_thin_and_bright(drawn: tuple) -> None:
    film, labels, _ = drawn
    places = {category: illness.place_of(labels == category, category) for category in CATEGORIES}
    grey = film.astype(np.float32)
    for seed in range(8):
        tubes = illness.add_tubes(grey, places, np.random.default_rng(seed)) - grey
        assert tubes.min() > -60 and 0 < (np.abs(tubes) > 10).mean() < 0.12
    one = illness.add_tubes(grey, {LEFT_LUNG: places[LEFT_LUNG]}, np.random.default_rng(0))
    assert one.shape == grey.shape and np.isfinite(one).all()


def test_air_beside_the_neck_leaves_the_lungs_alone(drawn: tuple) -> None:
    film, labels, _ = drawn
    grey = film.astype(np.float32)
    airs = [illness.add_neck_air(grey, labels, np.random.default_rng(seed)) for seed in range(8)]
    assert all(np.abs(air - grey)[labels > 0].max() < 2 for air in airs)
    assert any((np.abs(air - grey) > 20).any() for air in airs)
