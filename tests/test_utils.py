"""Boxes, anchors and masks against loops that spell them out, and against what the reference gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import naive
import numpy as np
import pytest

from mask_rcnn.config import NetworkConfig
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import fit_labels_to_square, fit_to_square, mask_shares, shrink
from mask_rcnn.utils import (
    PYRAMID_STRIDES,
    box_refinement,
    compute_overlaps,
    denorm_boxes,
    mask_box,
    match_anchors,
    mold_film,
    norm_boxes,
    paste_mask,
    place_mask,
    pyramid_anchors,
    subtract_mean,
    window_to_film,
)

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "components.npz"))
BOX_STD = (0.1, 0.1, 0.2, 0.2)


def pixel_boxes(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Boxes int [count, 4] of whole pixels, none empty."""
    corners = np.sort(rng.integers(0, side, (count, 2, 2)), axis=1)
    corners[:, 1] += 1
    return corners.reshape(count, 4)


class TestOverlaps:
    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_counts_shared_pixels(self, dtype: type) -> None:
        rng = np.random.default_rng(0)
        a, b = pixel_boxes(rng, 25, 20), pixel_boxes(rng, 9, 20)
        expected = [[naive.painted_iou(one, other, 20) for other in b] for one in a]
        np.testing.assert_allclose(compute_overlaps(a.astype(dtype), b.astype(dtype)), expected, atol=1e-6)

    def test_equals_the_reference(self) -> None:
        overlaps = compute_overlaps(GOLDEN["boxes_a"], GOLDEN["boxes_b"])
        np.testing.assert_allclose(overlaps, GOLDEN["overlaps"], atol=1e-6)

    @pytest.mark.parametrize(
        ("other", "expected"),
        [
            ((2, 2, 6, 8), 1.0),
            ((6, 2, 9, 8), 0.0),  # touches
            ((2, 8, 6, 9), 0.0),
            ((0, 0, 0, 0), 0.0),  # padding
            ((3, 3, 3, 7), 0.0),  # empty, inside
            ((2, 2, 4, 8), 0.5),
        ],
    )
    def test_at_the_edges(self, other: tuple[int, ...], expected: float) -> None:
        assert compute_overlaps(np.array([[2, 2, 6, 8]]), np.array([other])) == expected

    def test_two_empty_boxes_do_not_overlap(self) -> None:
        assert compute_overlaps(np.zeros((1, 4)), np.zeros((2, 4))).tolist() == [[0.0, 0.0]]

    def test_no_boxes(self) -> None:
        assert compute_overlaps(np.zeros((3, 4)), np.zeros((0, 4))).shape == (3, 0)


class TestDeltas:
    def test_encode_as_the_loop_does(self) -> None:
        rng = np.random.default_rng(1)
        a, b = naive.random_boxes(rng, 30), naive.random_boxes(rng, 30)
        expected = [naive.encode(box, target) for box, target in zip(a.tolist(), b.tolist(), strict=True)]
        np.testing.assert_allclose(box_refinement(a, b), expected, rtol=1e-4, atol=1e-5)

    def test_lead_from_box_to_target(self) -> None:
        rng = np.random.default_rng(3)
        boxes, targets = pixel_boxes(rng, 50, 256), pixel_boxes(rng, 50, 256)
        np.testing.assert_allclose(naive.move_all(boxes, box_refinement(boxes, targets)), targets, atol=1e-3)
        deltas = rng.normal(0, 0.5, (50, 4))
        np.testing.assert_allclose(box_refinement(boxes, naive.move_all(boxes, deltas)), deltas, atol=1e-3)

    def test_equal_the_reference(self) -> None:
        boxes = GOLDEN["boxes_a"]
        np.testing.assert_allclose(
            box_refinement(boxes, boxes[::-1]), GOLDEN["box_refinement"], rtol=1e-4, atol=1e-5
        )


class TestNormalisedBoxes:
    def test_equal_the_reference(self) -> None:
        normalised = norm_boxes(GOLDEN["pixel_boxes"], (256, 256))
        assert normalised.dtype == np.float32
        np.testing.assert_allclose(normalised, GOLDEN["norm_boxes"], atol=1e-7)
        np.testing.assert_array_equal(denorm_boxes(normalised, (180, 240)), GOLDEN["denorm_boxes"])

    @pytest.mark.parametrize("shape", [(256, 256), (33, 2746), (2382, 40)])
    def test_are_inverse_to_pixels(self, shape: tuple[int, int]) -> None:
        boxes = pixel_boxes(np.random.default_rng(4), 200, min(shape))
        boxes[:, 2:] += [shape[0] - min(shape), shape[1] - min(shape)]
        back = denorm_boxes(norm_boxes(boxes, shape), shape)
        assert back.dtype == np.int32
        np.testing.assert_array_equal(back, boxes)

    def test_the_whole_film_is_the_unit_square(self) -> None:
        assert norm_boxes(np.array([[0, 0, 180, 240]]), (180, 240)).tolist() == [[0, 0, 1, 1]]


class TestAnchors:
    def test_one_by_one(self) -> None:
        scales, ratios = (8, 16, 32, 64, 128), (0.5, 1.0, 2.0)
        expected = []
        for scale, stride in zip(scales, PYRAMID_STRIDES, strict=True):
            for y in range(0, 128, stride):
                for x in range(0, 128, stride):
                    for ratio in ratios:
                        height, width = scale / ratio**0.5, scale * ratio**0.5
                        expected.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
        anchors = pyramid_anchors(128, scales, ratios)
        assert anchors.dtype == np.float32
        np.testing.assert_allclose(anchors, expected, atol=1e-4)

    def test_equal_the_reference(self) -> None:
        anchors = pyramid_anchors(256, (16, 32, 64, 128, 256), (0.5, 1, 2))
        np.testing.assert_allclose(anchors, GOLDEN["anchors_pixels"], atol=1e-4)

    def test_a_level_without_a_scale_is_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            pyramid_anchors(256, (16, 32, 64, 128), (1.0,))


def match_one_by_one(anchors: np.ndarray, gt_boxes: np.ndarray) -> list[int]:
    match = []
    table = [[naive.iou(anchor, box) for box in gt_boxes.tolist()] for anchor in anchors.tolist()]
    best_of = [max(row[k] for row in table) for k in range(len(gt_boxes))]
    for row in table:
        is_best = any(value == best > 0 for value, best in zip(row, best_of, strict=True))
        high = max(row, default=0.0)
        match.append(1 if high >= 0.7 or is_best else -1 if high < 0.3 else 0)
    return match


class TestMatchAnchors:
    # Every box in 20 x 10 pixels: the IoU with an anchor of 10 k % of its pixels is k / 10 exactly.
    LUNG = np.array([[0, 0, 20, 10]])

    def test_equals_the_reference(self) -> None:
        anchors = GOLDEN["anchors_pixels"]
        match, deltas = match_anchors(anchors, GOLDEN["rpn_gt_boxes"], 128, BOX_STD, None)
        assert match.dtype == np.int8 and deltas.dtype == np.float32
        np.testing.assert_array_equal(match, GOLDEN["rpn_match"])
        positive = int((match == 1).sum())
        np.testing.assert_allclose(deltas[:positive], GOLDEN["rpn_bbox_targets"], rtol=1e-4, atol=1e-5)
        assert deltas.shape == (128, 4) and not deltas[positive:].any()

    def test_as_the_loop_does(self) -> None:
        rng = np.random.default_rng(5)
        anchors, lungs = naive.random_boxes(rng, 300) * 100, naive.random_boxes(rng, 3) * 100
        match, _ = match_anchors(anchors, lungs, 128, BOX_STD, None)
        assert match.tolist() == match_one_by_one(anchors, lungs)
        assert set(match.tolist()) == {-1, 0, 1}

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_thresholds_belong_to_the_better_side(self, dtype: type) -> None:
        anchors = np.array(
            [[0, 0, 20, 10], [0, 0, 20, 7], [0, 0, 19, 7], [0, 0, 20, 3], [0, 0, 19, 3]], np.float32
        )
        match, _ = match_anchors(anchors, self.LUNG.astype(dtype), 8, BOX_STD, None)
        assert match.tolist() == [1, 1, 0, 0, -1]

    def test_every_instance_gets_its_best_anchors_however_bad(self) -> None:
        anchors = np.array([[0, 0, 20, 2], [0, 8, 20, 10], [0, 0, 20, 1]], np.float32)
        match, deltas = match_anchors(anchors, self.LUNG, 8, BOX_STD, None)
        assert match.tolist() == [1, 1, -1]  # the two best tie
        expected = [np.divide(naive.encode(anchor, self.LUNG[0]), BOX_STD) for anchor in anchors[:2].tolist()]
        np.testing.assert_allclose(deltas[:2], expected, rtol=1e-5)

    def test_an_instance_that_no_anchor_meets_makes_none_positive(self) -> None:
        """The reference takes the best of each instance even where the best is no overlap at all: all anchors tie."""
        match, deltas = match_anchors(
            np.array([[0, 0, 5, 5], [5, 5, 9, 9]], np.float32), self.LUNG + 50, 8, BOX_STD, None
        )
        assert match.tolist() == [-1, -1]
        assert not deltas.any()

    def test_without_instances_all_are_negative(self) -> None:
        anchors = pyramid_anchors(128, (8, 16, 32, 64, 128), (1.0,))
        match, deltas = match_anchors(anchors, np.zeros((0, 4)), 16, BOX_STD, None)
        assert (match == -1).all() and not deltas.any()
        drawn, _ = match_anchors(anchors, np.zeros((0, 4)), 16, BOX_STD, np.random.default_rng(0))
        assert (drawn == -1).sum() == 16 and (drawn == 1).sum() == 0

    def test_draws_at_most_half_positive_ones_and_fills_with_negative_ones(self) -> None:
        anchors = np.concatenate([np.tile([[0, 0, 20, 10]], (30, 1)), np.tile([[30, 30, 40, 40]], (100, 1))])
        everything, _ = match_anchors(anchors.astype(np.float32), self.LUNG, 16, BOX_STD, None)
        assert (everything == 1).sum() == 30
        drawn, deltas = match_anchors(
            anchors.astype(np.float32), self.LUNG, 16, BOX_STD, np.random.default_rng(0)
        )
        assert [(drawn == kind).sum() for kind in (1, -1, 0)] == [8, 8, 114]
        assert ((drawn == everything) | (drawn == 0)).all()
        assert deltas.shape == (16, 4)
        again, _ = match_anchors(anchors.astype(np.float32), self.LUNG, 16, BOX_STD, np.random.default_rng(0))
        other, _ = match_anchors(anchors.astype(np.float32), self.LUNG, 16, BOX_STD, np.random.default_rng(1))
        assert (again == drawn).all() and (other != drawn).any()

    def test_few_positive_ones_leave_their_places_to_negative_ones(self) -> None:
        anchors = np.concatenate([np.tile([[0, 0, 20, 10]], (3, 1)), np.tile([[30, 30, 40, 40]], (100, 1))])
        drawn, _ = match_anchors(anchors.astype(np.float32), self.LUNG, 16, BOX_STD, np.random.default_rng(0))
        assert [(drawn == kind).sum() for kind in (1, -1)] == [3, 13]

    def test_deltas_are_those_of_the_drawn_ones_in_their_order(self) -> None:
        rng = np.random.default_rng(6)
        anchors = (self.LUNG + rng.uniform(-0.5, 0.5, (40, 4))).astype(np.float32)
        drawn, deltas = match_anchors(anchors, self.LUNG, 16, BOX_STD, rng)
        chosen = anchors[drawn == 1]
        assert len(chosen) == 8
        moved = naive.move_all(chosen, deltas[:8] * np.array(BOX_STD))
        np.testing.assert_allclose(moved, np.tile(self.LUNG, (8, 1)), atol=1e-4)
        assert not deltas[8:].any()


class TestMoldFilm:
    def test_equals_the_reference(self) -> None:
        molded, window, scale = mold_film(GOLDEN["raw_image"], NetworkConfig())
        assert molded.shape == (256, 256, 3) and molded.dtype == np.float32
        assert window == tuple(GOLDEN["resize_window"]) and scale == GOLDEN["resize_scale"]
        greys = molded + np.array(NetworkConfig().mean_pixel, np.float32)
        assert np.abs(greys - GOLDEN["resized_image"]).max() <= 1
        square, _, _ = fit_to_square(GOLDEN["raw_image"], 256)
        np.testing.assert_allclose(greys, square, atol=1e-4)

    def test_equalise_equals_the_reference(self) -> None:
        np.testing.assert_array_equal(equalise(GOLDEN["raw_image"]), GOLDEN["equalized_image"])

    def test_grey_and_colour_agree(self) -> None:
        film = np.random.default_rng(7).integers(0, 256, (90, 130), dtype=np.uint8)
        grey, *fit = mold_film(film, NetworkConfig(image_size=128))
        colour, *colour_fit = mold_film(np.repeat(film[..., None], 3, axis=2), NetworkConfig(image_size=128))
        np.testing.assert_array_equal(grey, colour)
        assert fit == colour_fit

    def test_the_border_is_black_less_the_mean(self) -> None:
        molded, window, _ = mold_film(np.full((100, 50), 200, np.uint8), NetworkConfig(image_size=64))
        assert window == (0, 16, 64, 48)
        np.testing.assert_allclose(
            molded[:, :16], np.broadcast_to([-123.7, -116.8, -103.9], (64, 16, 3)), rtol=1e-6
        )

    def test_subtract_mean_keeps_three_channels(self) -> None:
        square = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        network = NetworkConfig(mean_pixel=(1.0, 2.0, 3.0))
        np.testing.assert_allclose(subtract_mean(square, network), square - np.array([1.0, 2.0, 3.0]))
        np.testing.assert_allclose(subtract_mean(square[..., 0], network)[..., 2], square[..., 0] - 3.0)


def paste_one_by_one(mask: np.ndarray, box: tuple[int, ...], shape: tuple[int, int]) -> np.ndarray:
    y1, x1, y2, x2 = box
    full = np.zeros(shape, bool)
    for y in range(max(y1, 0), min(y2, shape[0])):
        for x in range(max(x1, 0), min(x2, shape[1])):
            row = (y - y1 + 0.5) * mask.shape[0] / (y2 - y1) - 0.5
            column = (x - x1 + 0.5) * mask.shape[1] / (x2 - x1) - 0.5
            full[y, x] = naive.sample(mask, row, column) >= 0.5
    return full


class TestPasteMask:
    def test_equals_the_reference(self) -> None:
        height, width = GOLDEN["raw_image"].shape[:2]
        expected = np.unpackbits(GOLDEN["full_mask"], axis=0, count=height).astype(bool)
        pasted = paste_mask(GOLDEN["small_mask"], GOLDEN["small_mask_box"].tolist(), (height, width)) >= 0.5
        assert expected.any()
        np.testing.assert_array_equal(pasted, expected)

    @pytest.mark.parametrize(
        "box",
        [(3, 4, 40, 31), (10, 10, 20, 60), (-7, -3, 25, 30), (20, 40, 70, 90), (5, 5, 6, 6), (0, 0, 50, 70)],
        ids=["inside", "wide", "over the upper left", "over the lower right", "one pixel", "all"],
    )
    def test_pixel_by_pixel(self, box: tuple[int, ...]) -> None:
        mask = np.random.default_rng(8).uniform(0, 1, (9, 9)).astype(np.float32)
        pasted = paste_mask(mask, box, (50, 70))
        assert pasted.dtype == np.float32 and pasted.shape == (50, 70)
        np.testing.assert_array_equal(pasted >= 0.5, paste_one_by_one(mask, box, (50, 70)))

    def test_at_its_own_size_it_is_not_interpolated(self) -> None:
        mask = np.array([[0.5, 0.25], [1, 0]], np.float32)
        assert paste_mask(mask, (0, 0, 2, 2), (2, 2)).tolist() == mask.tolist()

    @pytest.mark.parametrize(
        "box", [(5, 5, 5, 9), (5, 9, 9, 5), (60, 0, 80, 9), (-9, -9, 0, 0), (0, 70, 9, 80)]
    )
    def test_a_box_without_pixels_gives_nothing(self, box: tuple[int, ...]) -> None:
        assert not paste_mask(np.ones((28, 28), np.float32), box, (50, 70)).any()

    def test_cropping_inverts_pasting(self) -> None:
        y, x = np.mgrid[:28, :28] - 13.5
        mask = (y**2 + 2 * x**2 < 120).astype(np.float32)
        full = paste_mask(mask, (20, 30, 20 + 5 * 28, 30 + 3 * 28), (200, 150)) >= 0.5
        np.testing.assert_array_equal(full[22:160:5, 31:114:3], mask > 0.5)  # each cell's middle pixel
        assert full.sum() == pytest.approx(15 * mask.sum(), rel=0.05)


def cut_target(labels: np.ndarray, box: np.ndarray, cells: int) -> np.ndarray:
    """A lung in its normalised box as the mask head is taught it, before it is rounded: [cells, cells]."""
    rows, columns = (np.linspace(box[k], box[k + 2], cells) * (labels.shape[k] - 1) for k in (0, 1))
    return np.array([[naive.sample(labels.astype(float), row, column) for column in columns] for row in rows], np.float32)


def ellipse(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return ((y - 0.47 * height) / (0.35 * height)) ** 2 + ((x - 0.3 * width) / (0.17 * width)) ** 2 < 1


def placed_on_film(
    mask: np.ndarray, box: Sequence[float], window: Sequence[int], side: int, shape: tuple[int, int]
) -> np.ndarray:
    full = np.zeros(shape, np.float32)
    place_mask(mask, box, window, side, full)
    return full


class TestPlaceMask:
    @pytest.mark.parametrize("margin", [0.0, 0.1])
    @pytest.mark.parametrize("shape", [(224, 224), (180, 240), (600, 500)])
    def test_inverts_the_cutting_of_targets(self, shape: tuple[int, int], margin: float) -> None:
        lung = ellipse(*shape)
        labels = fit_labels_to_square(lung.astype(np.uint8), 256)
        _, window, _ = fit_to_square(np.zeros(shape, np.uint8), 256)
        box = norm_boxes(np.array([mask_box(labels > 0)], np.float32), (256, 256))[0]
        size = np.tile(box[2:] - box[:2], 2)
        box += margin * size * (-1, -1, 1, 1)
        target = cut_target(labels, box, 56)
        placed = placed_on_film(target, box, window, 256, shape) >= 0.5
        exact = 2 * (placed & lung).sum() / (placed.sum() + lung.sum())
        pasted = paste_mask(target, window_to_film(box[None], window, 256, shape)[0], shape) >= 0.5
        as_published = 2 * (pasted & lung).sum() / (pasted.sum() + lung.sum())
        assert exact > 0.985
        assert exact > as_published + 0.002, "the reference's fault: half a cell too small"
        for found, drawn in zip(np.nonzero(placed), np.nonzero(lung), strict=True):
            assert found.mean() == pytest.approx(drawn.mean(), abs=0.3), "moved"

    def test_pixel_by_pixel(self) -> None:
        rng = np.random.default_rng(3)
        mask = rng.uniform(0, 1, (5, 5)).astype(np.float32)
        window, side, shape = (0, 8, 64, 56), 64, (40, 30)
        box = np.array([0.2, 0.33, 0.61, 0.75])
        placed = placed_on_film(mask, box, window, side, shape)
        for y in range(shape[0]):
            for x in range(shape[1]):
                at = ((y + 0.5) * 64 / 40 - 0.5, (x + 0.5) * 48 / 30 + 8 - 0.5)
                start, end = box[:2] * 63, box[2:] * 63
                expected = 0.0
                if all(s - 0.5 <= a < e + 0.5 for s, a, e in zip(start, at, end, strict=True)):
                    expected = naive.sample(mask, *np.clip((at - start) / (end - start) * 4, 0, 4))
                assert placed[y, x] == pytest.approx(expected, abs=1e-5)

    def test_an_empty_box_gives_at_most_its_pixel(self) -> None:
        assert placed_on_film(np.ones((28, 28)), (0.5, 0.5, 0.5, 0.5), (0, 0, 64, 64), 64, (64, 64)).sum() <= 4


class TestWindowToFilm:
    @pytest.mark.parametrize("shape", [(180, 240), (240, 180), (64, 64), (2382, 2746)])
    def test_inverts_fitting_to_the_square(self, shape: tuple[int, int]) -> None:
        _, window, _ = fit_to_square(np.zeros(shape, np.uint8), 256)
        window_box = norm_boxes(np.array([window], np.float32), (256, 256))
        np.testing.assert_array_equal(window_to_film(window_box, window, 256, shape), [[0, 0, *shape]])

        rng = np.random.default_rng(9)
        film_boxes = norm_boxes(pixel_boxes(rng, 40, min(shape)), shape)
        corner, size = window_box[:, :2], window_box[:, 2:] - window_box[:, :2]
        square_boxes = film_boxes * np.tile(size, 2) + np.tile(corner, 2)
        back = window_to_film(square_boxes, window, 256, shape)
        assert back.dtype == np.int32
        np.testing.assert_array_equal(back, denorm_boxes(film_boxes, shape))


@pytest.mark.parametrize("shape", [(512, 512), (1999, 1501), (700, 40_000), (300, 300), (129, 3000)])
def test_a_shrunken_film_has_the_means_that_opencv_gives(shape: tuple[int, int]) -> None:
    film = cv2.GaussianBlur(np.random.default_rng(4).integers(0, 256, shape, np.uint8), (0, 0), 2)
    film = cv2.normalize(film, None, 0, 255, cv2.NORM_MINMAX)
    for size in ((128, 128), (60, 37)):
        expected = cv2.resize(film, size[::-1], interpolation=cv2.INTER_AREA)
        apart = shrink(film, *size).astype(int) - expected
        assert np.abs(apart).max() <= 1, "no more than where a mean is halfway between two levels"
        assert np.count_nonzero(apart) <= apart.size / 1000


@pytest.mark.parametrize("size", [(60, 44), (30, 22), (17, 44), (13, 9), (1, 1)])
def test_mask_shares_are_the_areas_that_a_mask_covers(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    noise = np.zeros((60, 44), bool)
    noise[13:55, 20:] = rng.random((42, 24)) > 0.4  # it touches one edge
    for mask in (noise, np.ones_like(noise), np.zeros_like(noise)):
        areas = np.repeat(np.repeat(mask, size[0], axis=0), size[1], axis=1)  # so fine that no pixel of either size is cut
        expected = areas.reshape(size[0], 60, size[1], 44).mean(axis=(1, 3))
        np.testing.assert_allclose(mask_shares(mask, *size), expected, atol=1e-6)
