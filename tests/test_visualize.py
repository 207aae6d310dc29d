"""Pictures: where the film and the result lie in them, and that what is drawn is what was found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mask_rcnn.bag.lung import Lung
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results.drawing import LUNG_COLOURS
from mask_rcnn.results.overlay import GAP, MAX_SIDE, MIN_SIDE, MIN_WIDTH, overlay
from mask_rcnn.results.pictures import label_png
from mask_rcnn.utils import mask_box


def film_with_lungs(height: int, width: int) -> tuple[np.ndarray, np.ndarray, dict[int, Lung]]:
    film = np.full((height, width), 128, np.uint8)
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : 3 * height // 4, 5 * width // 8 : 7 * width // 8] = LEFT_LUNG
    labels[height // 4 : 3 * height // 4, width // 8 : 3 * width // 8] = RIGHT_LUNG
    lungs = {k: Lung(labels == k, mask_box(labels == k), 0.99, 5, 0.97) for k in CATEGORIES}
    return film, labels, lungs


def panels(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The plain film and the drawn one, cut out of a picture."""
    scale = min(max(max(height, width), MIN_SIDE), MAX_SIDE) / max(height, width)
    height, width = round(height * scale), round(width * scale)
    left = (picture.shape[1] - 2 * width - GAP) // 2
    rows = slice(picture.shape[0] - GAP - height, picture.shape[0] - GAP)
    right = left + width + GAP
    return picture[rows, left : left + width], picture[rows, right : right + width]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (1000, 300), (700, 800), (2400, 3000), (64, 48), (40, 2000)])
def test_film_and_result_lie_side_by_side_at_any_size(height: int, width: int) -> None:
    film, labels, lungs = film_with_lungs(height, width)
    picture = overlay(film, labels, lungs)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert MIN_WIDTH <= picture.shape[1] <= 2 * MAX_SIDE + 3 * GAP and picture.shape[0] <= MAX_SIDE + 60
    plain, drawn = panels(picture, height, width)
    assert (plain == 128).all(), "nothing is drawn into the film itself"
    assert (drawn != 128).any()


def test_each_lung_has_its_colour_on_its_side() -> None:
    film, labels, lungs = film_with_lungs(600, 600)
    _, drawn = panels(overlay(film, labels, lungs), 600, 600)
    for category, columns in ((LEFT_LUNG, slice(300, 600)), (RIGHT_LUNG, slice(0, 300))):
        colour = np.array(LUNG_COLOURS[category])
        there = (drawn == colour).all(-1)
        assert there[:, columns].sum() > 500 and not np.delete(there, np.r_[columns], axis=1).any()
        y1, x1, y2, x2 = lungs[category].box
        middle = drawn[(y1 + y2) // 2, (x1 + x2) // 2].astype(int)
        assert np.abs(middle - (0.7 * 128 + 0.3 * colour)).max() <= 1, "tinted, and the film shows through"
    assert (drawn[550:, :100] == 128).all(), "outside lungs, boxes and names the film is as it was"


def test_the_score_is_written() -> None:
    film, labels, lungs = film_with_lungs(600, 600)
    other = {k: lung._replace(score=0.71) for k, lung in lungs.items()}
    first, second = (panels(overlay(film, labels, found), 600, 600)[1] for found in (lungs, other))
    changed = np.argwhere((first != second).any(-1))
    assert len(changed), "another score is another picture"
    assert changed[:, 0].max() < 600 // 4, "and differs in the name above the box only"


def test_a_film_without_lungs_says_so() -> None:
    film = np.full((500, 400), 60, np.uint8)
    _, drawn = panels(overlay(film, np.zeros_like(film), {}), 500, 400)
    written = np.argwhere((drawn != 60).any(-1))
    assert len(written) and written[:, 0].min() > 225 and written[:, 0].max() < 275


def test_the_legend_says_whose_left_it_is() -> None:
    film, labels, lungs = film_with_lungs(500, 500)
    patient, image = (overlay(film, labels, lungs, laterality) for laterality in ("patient", "image"))
    header = patient.shape[0] - 500 - GAP
    assert not np.array_equal(patient[:header], image[:header])
    assert np.array_equal(patient[header:], image[header:])


def test_every_lung_has_a_colour_and_no_two_the_same() -> None:
    assert set(LUNG_COLOURS) == set(CATEGORIES) and len(set(LUNG_COLOURS.values())) == len(CATEGORIES)
    # Told apart in grey as well, as in a printed report: luminance (ITU-R BT.601) apart by a quarter of the range.
    grey = [np.dot(colour, (0.299, 0.587, 0.114)) for colour in LUNG_COLOURS.values()]
    assert abs(grey[0] - grey[1]) > 64


@pytest.mark.parametrize("laterality", ["patient", "image"])
def test_a_label_mask_is_read_back_with_the_names_of_its_labels(laterality: str) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (40, 31), np.uint8)
    with Image.open(io.BytesIO(label_png(labels, laterality))) as image:
        assert image.mode == "L" and image.info == {"labels": "1 left_lung, 2 right_lung", "laterality": laterality}
        np.testing.assert_array_equal(np.asarray(image), labels)
