"""Whole lungs from drawings that hold the heart."""

from __future__ import annotations

import numpy as np
import pytest

from create_dataset.composite import completed, compose, in_one_piece
from mask_rcnn.dataset.conventions import LEARNT_SHARE
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

SIZE = 120, 100


def chest() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A left lung drawn with the heart in it, as a network finds it, and the heart."""
    drawn, heart = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    drawn[10:110, 50:90] = True
    heart[60:115, 30:70] = True
    found = drawn & ~heart
    found[:, :55] = False  # the hilum
    return drawn, found, heart


@pytest.mark.parametrize("category", [LEFT_LUNG, RIGHT_LUNG])
def test_the_outer_edge_is_the_drawings_and_the_inner_edge_the_networks(category: int) -> None:
    drawn, found, heart = chest()
    opaque = found.copy()
    opaque[75:110, 50:] = False  # nothing is found in the lower part, nor over a hand's breadth in the upper one
    opaque[30:36] = False
    parts = [mask if category == LEFT_LUNG else mask[:, ::-1] for mask in (drawn, opaque, heart)]
    lung = compose(*parts, category)
    lung = lung if category == LEFT_LUNG else lung[:, ::-1]
    assert not (lung & ~drawn).any() and not (lung & heart).any()
    assert lung[12:108, 75:90].all(), "the corners are rounded"
    assert (lung[10:55] == (drawn & (np.arange(SIZE[1]) >= 55))[10:55]).mean() > 0.98
    assert (lung[66:110] == (drawn & ~heart)[66:110]).mean() > 0.98


def test_a_heart_takes_nothing_of_the_lateral_band() -> None:
    drawn, found, heart = chest()
    heart[90:110, 30:95] = True
    lung = compose(drawn, found & ~heart, heart, LEFT_LUNG)
    band = round((1 - LEARNT_SHARE) * 40) + 50
    assert lung[12:108, band:90].all() and not lung[92:110, : band - 1].any() and lung[20:80, 75:90].all()


def test_a_lung_that_nobody_found_or_drew() -> None:
    drawn, found, heart = chest()
    nothing = np.zeros(SIZE, bool)
    assert (compose(drawn, nothing, nothing, LEFT_LUNG) == drawn).mean() > 0.999
    assert not compose(nothing, found, heart, LEFT_LUNG).any()


def test_scraps_and_spikes_are_no_lung() -> None:
    lung = np.zeros(SIZE, bool)
    lung[10:100, 50:90] = True
    ragged = lung.copy()
    ragged[104:115, 60:70] = ragged[50, 20:50] = True
    assert (in_one_piece(ragged) == lung).mean() > 0.999
    assert not in_one_piece(np.zeros(SIZE, bool)).any()


def test_shares_come_from_the_rows_around() -> None:
    shares = np.full(100, 0.8)
    shares[[20, 21, 22]] = np.nan
    shares[40:44] = 0.1  # a scrap
    np.testing.assert_allclose(completed(shares), 0.8)
    np.testing.assert_allclose(completed(np.full(10, np.nan)), 1)
    assert (completed(np.full(50, 0.05)) == LEARNT_SHARE).all()
