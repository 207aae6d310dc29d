"""From votes to lungs: the reference's six cases, and what it crashed on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from create_dataset.lungs import (
    consensus,
    cut_bridge,
    drop_side_air,
    enlarge_lungs,
    fill_holes,
    find_lungs,
    find_small_lungs,
    majority,
    split_left_right,
    two_largest,
)
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.utils import mask_box

SIDE = 256
PARITY = Path(__file__).resolve().parent / "parity" / "pipeline.npz"
PHANTOM_MASKS = sorted((Path(__file__).resolve().parents[1] / "data" / "phantoms" / "masks").glob("*.png"))


def ellipse(x: int, y: int, width: int = 70, height: int = 150) -> np.ndarray:
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    return cv2.ellipse(canvas, (x, y), (width // 2, height // 2), 0, 0, 360, 1, -1).astype(bool)


IMAGE_LEFT, IMAGE_RIGHT = ellipse(75, 128), ellipse(180, 128)


def bridged(thickness: int) -> np.ndarray:
    mask = IMAGE_LEFT | IMAGE_RIGHT
    mask[140 : 140 + thickness, 75:180] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("case", range(6))
def test_every_step_equals_the_reference(case: int) -> None:
    with np.load(PARITY) as golden:
        votes = golden[f"votes_{case}"].astype(np.float32)
        names = ("majority", "filled", "two_largest", "image_left_mask", "image_right_mask")
        steps = {name: np.unpackbits(golden[f"{name}_{case}"], axis=0).astype(bool) for name in names}
        boxes = [golden[f"image_{side}_box_{case}"] for side in ("left", "right")]

    voted = majority(votes)
    filled = fill_holes(voted)
    kept = two_largest(filled)
    lungs = split_left_right(kept)
    by_image = split_left_right(kept, laterality="image")

    assert np.array_equal(voted, steps["majority"])
    assert np.array_equal(filled, steps["filled"])
    assert np.array_equal(kept, steps["two_largest"])
    assert np.array_equal(lungs[RIGHT_LUNG], steps["image_left_mask"])
    assert np.array_equal(lungs[LEFT_LUNG], steps["image_right_mask"])
    assert np.array_equal(by_image[LEFT_LUNG], steps["image_left_mask"])
    assert np.array_equal(by_image[RIGHT_LUNG], steps["image_right_mask"])
    # The reference's lower right corners lie inside the box, ours outside.
    ours = [np.subtract(mask_box(lungs[category]), (0, 0, 1, 1)) for category in (RIGHT_LUNG, LEFT_LUNG)]
    assert np.array_equal(ours, boxes)
    for found in (find_small_lungs(votes), find_lungs(votes, *votes.shape[1:])):
        assert all(np.array_equal(found[category], lungs[category]) for category in (RIGHT_LUNG, LEFT_LUNG))


def test_majority_needs_more_than_half_of_the_members_above_the_threshold() -> None:
    votes = np.array([[0.6, 0.6, 0.6, 0.5], [0.6, 0.6, 0.1, 0.5], [0.6, 0.1, 0.1, 0.5], [0.6, 0.1, 0.1, 0.9]])[:, None]
    assert majority(votes[:3]).tolist() == [[True, True, False, False]]
    assert majority(votes).tolist() == [[True, False, False, False]]  # two of four are no majority
    assert majority(votes[:1]).tolist() == [[True, True, True, False]]  # exactly 0.5 is not above it
    assert majority(votes[:1], threshold=0.4).tolist() == [[True, True, True, True]]


def test_fill_holes_fills_what_is_enclosed_and_no_bay() -> None:
    mask = ellipse(75, 128)
    mask[100:110, 70:80] = False
    mask[:128, 60:64] = False
    filled = fill_holes(mask)
    assert filled[105, 75]
    assert not filled[80, 62]


def test_two_largest_of_three_parts() -> None:
    assert np.array_equal(two_largest(IMAGE_LEFT | IMAGE_RIGHT | ellipse(128, 240, 20, 20)), IMAGE_LEFT | IMAGE_RIGHT)
    assert np.array_equal(two_largest(IMAGE_LEFT), IMAGE_LEFT)
    assert not two_largest(np.zeros((SIDE, SIDE), bool)).any()


def test_parts_that_meet_at_a_corner_are_two() -> None:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[50:128, 50:128] = True
    mask[128:200, 128:200] = True
    lungs = split_left_right(mask)
    assert lungs[RIGHT_LUNG].sum() == 78 * 78
    assert lungs[LEFT_LUNG].sum() == 72 * 72


def test_the_patients_right_lung_is_on_the_images_left() -> None:
    lungs = split_left_right(IMAGE_LEFT | IMAGE_RIGHT)
    assert np.array_equal(lungs[RIGHT_LUNG], IMAGE_LEFT)
    assert np.array_equal(lungs[LEFT_LUNG], IMAGE_RIGHT)


@pytest.mark.parametrize("mask", [np.zeros((SIDE, SIDE), bool), ellipse(100, 100, 16, 16)], ids=["nothing", "a speck"])
def test_no_lung(mask: np.ndarray) -> None:
    assert split_left_right(mask) == {}


def test_a_speck_beside_a_lung_is_no_second_lung() -> None:
    lungs = split_left_right(IMAGE_RIGHT | ellipse(60, 220, 16, 16))
    assert list(lungs) == [LEFT_LUNG]
    assert np.array_equal(lungs[LEFT_LUNG], IMAGE_RIGHT)


@pytest.mark.parametrize(("lung", "category"), [(IMAGE_LEFT, RIGHT_LUNG), (IMAGE_RIGHT, LEFT_LUNG)])
def test_a_single_lung_is_named_by_its_side_of_the_film(lung: np.ndarray, category: int) -> None:
    assert list(split_left_right(lung)) == [category]
    assert list(split_left_right(lung, laterality="image")) == [LEFT_LUNG + RIGHT_LUNG - category]


@pytest.mark.parametrize("category", [LEFT_LUNG, RIGHT_LUNG])
@pytest.mark.parametrize("path", PHANTOM_MASKS[:4], ids=lambda path: path.stem)
def test_a_single_lung_in_the_middle_of_the_film_is_named_by_its_shape(path: Path, category: int) -> None:
    drawn = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert drawn is not None
    y1, x1, y2, x2 = mask_box(drawn == category)
    for margins in ((90, 60), (60, 90)):  # a little to the left, a little to the right
        lung = np.pad((drawn == category)[y1:y2, x1:x2], ((20, 20), margins))
        assert list(split_left_right(lung)) == [category]


@pytest.mark.parametrize("thickness", [1, 8, 20])
def test_lungs_joined_by_a_bridge_are_cut(thickness: int) -> None:
    lungs = split_left_right(bridged(thickness))
    assert not (lungs[LEFT_LUNG] & lungs[RIGHT_LUNG]).any()
    assert iou(lungs[RIGHT_LUNG], IMAGE_LEFT) > 0.9
    assert iou(lungs[LEFT_LUNG], IMAGE_RIGHT) > 0.9


def test_joined_lungs_are_cut_though_a_third_part_lies_below() -> None:
    lungs = split_left_right(two_largest(bridged(8) | ellipse(190, 235, 30, 25)))
    assert iou(lungs[RIGHT_LUNG], IMAGE_LEFT) > 0.9
    assert iou(lungs[LEFT_LUNG], IMAGE_RIGHT) > 0.9


def test_a_waist_does_not_cut_one_lung() -> None:
    waisted = ellipse(75, 80, 60, 80) | ellipse(80, 170, 60, 110)
    assert cut_bridge(waisted) == []
    assert list(split_left_right(waisted)) == [RIGHT_LUNG]


def test_pieces_one_above_the_other_are_one_lung() -> None:
    pieces = ellipse(75, 70, 60, 70) | ellipse(75, 180, 60, 90)
    lungs = split_left_right(pieces)
    assert list(lungs) == [RIGHT_LUNG]
    assert np.array_equal(lungs[RIGHT_LUNG], pieces)


def test_gas_below_the_diaphragm_is_no_piece_of_the_lung_above() -> None:
    lungs = split_left_right(IMAGE_RIGHT | ellipse(180, 230, 40, 30))
    assert np.array_equal(lungs[LEFT_LUNG], IMAGE_RIGHT)


def test_a_film_that_is_all_lung_gives_one_instance_and_no_crash() -> None:
    assert len(split_left_right(np.ones((SIDE, SIDE), bool))) == 1


@pytest.mark.parametrize("path", PHANTOM_MASKS, ids=lambda path: path.stem)
def test_phantom_lungs_are_named_as_they_were_drawn(path: Path) -> None:
    drawn = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert drawn is not None
    labels = cv2.resize(drawn, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    lungs = split_left_right(two_largest(labels > 0))
    for category in (LEFT_LUNG, RIGHT_LUNG):
        assert iou(lungs[category], labels == category) > 0.97


def votes_of(*masks: np.ndarray) -> np.ndarray:
    return np.stack(masks).astype(np.float32)


def test_air_beside_an_arm_is_no_lung_though_larger_than_one() -> None:
    small, air = ellipse(180, 100, 40, 60), ellipse(247, 200, 18, 110)
    lungs = find_small_lungs(votes_of(IMAGE_LEFT | small | air))
    assert np.array_equal(lungs[RIGHT_LUNG], IMAGE_LEFT)
    assert np.array_equal(lungs[LEFT_LUNG], small)


def test_a_lung_at_the_edge_of_half_a_chest_is_kept() -> None:
    at_edge = ellipse(245, 128, 60, 150)
    assert np.array_equal(drop_side_air(at_edge), at_edge)
    lungs = find_small_lungs(votes_of(ellipse(110, 128) | at_edge))
    assert np.array_equal(lungs[LEFT_LUNG], at_edge)


def test_a_rib_does_not_cut_a_piece_off_a_lung_though_the_other_is_whole() -> None:
    broken = IMAGE_RIGHT.copy()
    broken[150:157] = False
    lungs = find_small_lungs(votes_of(IMAGE_LEFT | broken))
    assert np.array_equal(lungs[RIGHT_LUNG], IMAGE_LEFT)
    assert np.array_equal(lungs[LEFT_LUNG], broken)


def test_a_small_lung_is_found_beside_two_pieces_of_the_other() -> None:
    upper, lower, small = ellipse(75, 70, 60, 70), ellipse(75, 180, 60, 90), ellipse(180, 120, 45, 60)
    lungs = find_small_lungs(votes_of(upper | lower | small))
    assert np.array_equal(lungs[RIGHT_LUNG], upper | lower)
    assert np.array_equal(lungs[LEFT_LUNG], small)


@pytest.mark.parametrize("other", [ellipse(185, 230, 50, 30), ellipse(231, 140, 18, 90), ellipse(185, 25, 30, 40)],
                         ids=["gas under the diaphragm", "air beside an arm", "air beside the neck"])
def test_what_lies_about_a_lung_is_no_piece_of_it(other: np.ndarray) -> None:
    lungs = find_small_lungs(votes_of(IMAGE_LEFT | IMAGE_RIGHT | other))
    assert np.array_equal(lungs[RIGHT_LUNG], IMAGE_LEFT)
    assert np.array_equal(lungs[LEFT_LUNG], IMAGE_RIGHT)


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_the_consensus_exceeds_one_half_where_the_majority_does(members: int) -> None:
    votes = np.random.default_rng(members).choice([0.0, 0.3, 0.5, 0.6, 1.0], (members, 40, 50)).astype(np.float16)
    assert np.array_equal(consensus(votes) > 0.5, majority(votes))


def distance_inside(height: int, width: int) -> np.ndarray:
    """How deep each pixel of a film lies inside one of two oblique ellipses, in pixels of the square, to first order."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = (y + 0.5) / height * SIDE, (x + 0.5) / width * SIDE
    depths = []
    for centre_x, lean in ((75.3, -0.15), (182.1, 0.15)):
        u = (np.cos(lean) * (x - centre_x) + np.sin(lean) * (y - 127.6)) / 31.4
        v = (np.cos(lean) * (y - 127.6) - np.sin(lean) * (x - centre_x)) / 78.2
        radius = np.maximum(np.hypot(u, v), 1e-6)
        depths.append((1 - radius) * radius / np.maximum(np.hypot(u / 31.4, v / 78.2), 1e-6))
    return np.maximum(*depths)


def test_edges_are_smooth_at_2400_pixels() -> None:
    # The U-Net's edges rise by 0.3 a pixel (median over JSRT), as this logistic does.
    votes = 1 / (1 + np.exp(-np.clip(distance_inside(SIDE, SIDE) / 0.8, -30, 30)))[None]
    lungs = find_lungs(votes, 2400, 2000)
    inside = lungs[LEFT_LUNG] | lungs[RIGHT_LUNG]
    edge = inside & ~cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    deviation = np.abs(distance_inside(2400, 2000)[edge])
    # A mask stretched without its probability deviates by 0.20, and by 0.53 where it has stairs.
    assert deviation.mean() < 0.1
    assert np.quantile(deviation, 0.99) < 0.25


@pytest.mark.parametrize(("height", "width"), [(700, 500), (40, 2000), (64, 64)])
def test_enlarged_lungs_keep_their_place_and_share_no_pixel(height: int, width: int) -> None:
    votes = votes_of(bridged(20))
    small = find_small_lungs(votes)
    lungs = enlarge_lungs(small, votes, height, width)
    assert all(lung.shape == (height, width) for lung in lungs.values())
    assert not (lungs[LEFT_LUNG] & lungs[RIGHT_LUNG]).any()
    scale = np.array([height, width, height, width]) / SIDE
    for category, lung in small.items():
        shift = np.subtract(mask_box(lungs[category]), mask_box(lung) * scale)
        assert np.abs(shift).max() <= np.ceil(scale.max())
        assert lungs[category].mean() == pytest.approx(lung.mean(), rel=0.05)


def test_lungs_are_enlarged_without_what_the_clean_up_took_and_with_what_it_filled() -> None:
    speck, hole = ellipse(128, 20, 10, 10), ellipse(75, 128, 14, 14)
    votes = votes_of((IMAGE_LEFT & ~hole) | IMAGE_RIGHT | speck) * 0.6 + 0.2
    lungs = find_lungs(votes, 3 * SIDE, 3 * SIDE)
    both = lungs[LEFT_LUNG] | lungs[RIGHT_LUNG]
    assert not both[: 3 * 30].any()
    assert lungs[RIGHT_LUNG][3 * 110 : 3 * 146, 3 * 70 : 3 * 80].all()
    assert cv2.connectedComponents(both.astype(np.uint8))[0] == 1 + 2


def test_a_single_lung_is_enlarged_as_it_is() -> None:
    votes = votes_of(IMAGE_LEFT)
    assert np.array_equal(find_lungs(votes, SIDE, SIDE)[RIGHT_LUNG], IMAGE_LEFT)


def test_find_lungs_votes_cleans_splits_and_enlarges() -> None:
    holed = bridged(4)
    holed[100:105, 70:75] = False
    speck = ellipse(128, 20, 10, 10)
    votes = np.stack([holed | speck, holed, np.zeros_like(holed)]).astype(np.float32)
    lungs = find_lungs(votes, 512, 512)
    assert list(lungs) == [RIGHT_LUNG, LEFT_LUNG]
    assert lungs[RIGHT_LUNG][205, 145]
    assert not lungs[RIGHT_LUNG][40, 256]
    assert not lungs[LEFT_LUNG][40, 256]
    assert find_lungs(votes * 0.5, 512, 512) == {}


def test_find_lungs_of_a_film_of_a_few_pixels_drops_what_vanishes() -> None:
    assert find_lungs(np.stack([ellipse(128, 128, 22, 22)]).astype(np.float32), 2, 2) == {}
