"""Proposals, RoIAlign, detection targets and detections against naive loops, at their thresholds' edges, and against
what the reference gives; each runs eagerly, compiled, for a batch of unknown size, and features in half precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import naive
import numpy as np
import pytest
from contract import call, check_contract

from mask_rcnn.config import Config, DetectionConfig, NetworkConfig, ProposalConfig, TargetConfig
from mask_rcnn.network.layers import (
    LARGEST_LOG_SCALE,
    NEVER,
    apply_deltas,
    box_area,
    clip_boxes,
    crop_and_resize,
    detection_targets,
    encode_deltas,
    gather,
    non_maximum_suppression,
    pairwise_iou,
    propose,
    pyramid_roi_align,
    refine_detections,
    widen_boxes,
)
from mask_rcnn.utils import box_refinement, norm_boxes

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "components.npz"))
CONFIG = Config()
BOX_STD = CONFIG.proposals.box_std
WHOLE = np.array([0, 0, 1, 1], np.float32)


class TestBoxes:
    def test_overlaps_as_the_loop_counts_them(self) -> None:
        rng = np.random.default_rng(0)
        a, b = naive.random_boxes(rng, 2, 20), naive.random_boxes(rng, 2, 6)
        a[1, 3], b[0, 2], b[1, 2] = 0, 0, 0  # padding
        expected = [
            [[naive.iou(one, other) for other in b[k].tolist()] for one in a[k].tolist()] for k in (0, 1)
        ]
        overlaps = check_contract(pairwise_iou, a, b)
        np.testing.assert_allclose(overlaps, expected, atol=1e-5)
        assert overlaps[1, 3, 2] == 0  # both empty

    def test_overlaps_equal_the_reference(self) -> None:
        overlaps = call(pairwise_iou, GOLDEN["boxes_a"][None], GOLDEN["boxes_b"][None])
        np.testing.assert_allclose(overlaps[0], GOLDEN["overlaps"], atol=1e-5)

    def test_areas(self) -> None:
        boxes = np.array([[[0, 0, 1, 1], [0.5, 0.25, 1, 0.75]], [[0, 0, 0, 0], [0.5, 0, 0.5, 1]]], np.float32)
        assert check_contract(box_area, boxes).tolist() == [[1, 0.25], [0, 0]]

    def test_deltas_are_those_of_utils_over_box_std(self) -> None:
        rng = np.random.default_rng(1)
        boxes, targets = naive.random_boxes(rng, 2, 20), naive.random_boxes(rng, 2, 20)
        deltas = check_contract(lambda a, b: encode_deltas(a, b, BOX_STD), boxes, targets, tolerance=1e-4)
        back = check_contract(lambda a, d: apply_deltas(a, d, BOX_STD), boxes, deltas)
        for film in (0, 1):
            scaled = box_refinement(boxes[film], targets[film]) / np.array(BOX_STD)
            np.testing.assert_allclose(deltas[film], scaled, rtol=1e-3, atol=1e-4)
            moved = naive.move_all(boxes[film], deltas[film] * np.array(BOX_STD))
            np.testing.assert_allclose(back[film], moved, atol=1e-5)
        np.testing.assert_allclose(back, targets, atol=1e-4)

    def test_moving_equals_the_reference(self) -> None:
        moved = call(lambda a, d: apply_deltas(a, d, (1, 1, 1, 1)), GOLDEN["boxes_a"], GOLDEN["deltas"])
        np.testing.assert_allclose(moved, GOLDEN["apply_box_deltas"], atol=1e-6)

    def test_a_box_grows_to_a_limit_and_no_further(self) -> None:
        boxes = np.tile(np.array([0.4, 0.4, 0.6, 0.6], np.float32), (6, 1))
        scales = np.array([-9, 0, LARGEST_LOG_SCALE - 1e-3, LARGEST_LOG_SCALE, LARGEST_LOG_SCALE + 1e-3, 1e4])
        deltas = np.zeros((6, 4), np.float32)
        deltas[:, 2], deltas[:, 3] = scales / BOX_STD[2], scales[::-1] / BOX_STD[3]
        moved = check_contract(lambda a, d: apply_deltas(a, d, BOX_STD), boxes, deltas, tolerance=1e-4)
        sizes = 0.2 * np.exp(np.minimum(scales, np.log(62.5)))
        np.testing.assert_allclose(moved[:, 2] - moved[:, 0], sizes, rtol=1e-3)
        np.testing.assert_allclose(moved[:, 3] - moved[:, 1], sizes[::-1], rtol=1e-3)
        assert sizes[-1] == pytest.approx(12.5) and sizes[2] < sizes[3] == sizes[4]

    def test_padding_encodes_as_zeros(self) -> None:
        boxes = np.array(
            [[[0, 0, 0, 0], [0.1, 0.1, 0.5, 0.5], [0, 0, 0, 0], [0.2, 0.1, 0.2, 0.5]]], np.float32
        )
        targets = np.array(
            [[[0.1, 0.1, 0.5, 0.5], [0, 0, 0, 0], [0, 0, 0, 0], [0.1, 0.1, 0.5, 0.5]]], np.float32
        )
        assert not call(lambda b, t: encode_deltas(b, t, BOX_STD), boxes, targets).any()

    def test_clipping_equals_the_reference(self) -> None:
        boxes = GOLDEN["boxes_a"] * 1.4 - 0.2
        windows = np.array([[0.1, 0, 0.9, 1], [0, 0, 1, 1]], np.float32)
        clipped = check_contract(clip_boxes, np.stack([boxes, boxes]), windows)
        np.testing.assert_allclose(clipped[0], GOLDEN["clip_boxes"], atol=1e-6)
        np.testing.assert_allclose(clipped[1], np.clip(boxes, 0, 1), atol=1e-6)

    @pytest.mark.parametrize("shape", [(2, 5), (2, 5, 4), (2, 5, 3, 4)])
    def test_gather_takes_each_films_own_rows(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(2)
        values = rng.normal(size=shape).astype(np.float32)
        indices = rng.integers(0, 5, (2, 7)).astype(np.int32)
        gathered = check_contract(gather, values, indices, half=[0])
        np.testing.assert_array_equal(gathered, [values[film][indices[film]] for film in (0, 1)])


class TestNonMaximumSuppression:
    @pytest.mark.parametrize("threshold", [0.3, 0.7])
    def test_as_the_loop_does(self, threshold: float) -> None:
        rng = np.random.default_rng(3)
        boxes, scores = naive.random_boxes(rng, 2, 80), rng.uniform(0, 1, (2, 80)).astype(np.float32)
        scores[0, ::3] = NEVER
        classes = rng.integers(0, 3, (2, 80)).astype(np.int32)
        indices, found = check_contract(
            lambda b, s, c: non_maximum_suppression(b, s, 20, threshold, c), boxes, scores, classes
        )
        plain, plain_found = check_contract(
            lambda b, s: non_maximum_suppression(b, s, 20, threshold), boxes, scores
        )
        assert indices.dtype == np.int32 and found.dtype == bool and indices.shape == found.shape == (2, 20)
        for film in (0, 1):
            alive = np.flatnonzero(scores[film] > NEVER)
            arguments = boxes[film, alive].astype(float), scores[film, alive], 20, threshold
            by_class = alive[naive.suppress(*arguments, classes[film, alive])]
            assert indices[film, found[film]].tolist() == by_class.tolist()
            assert plain[film, plain_found[film]].tolist() == alive[naive.suppress(*arguments)].tolist()

    def test_an_overlap_of_exactly_the_threshold_stays(self) -> None:
        just_more = np.nextafter(np.float32(0.5), np.float32(1))
        boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.5]], [[0, 0, 1, 1], [0, 0, 1, just_more]]], np.float32)
        scores = np.array([[0.9, 0.8]] * 2, np.float32)
        _, found = check_contract(lambda b, s: non_maximum_suppression(b, s, 2, 0.5), boxes, scores)
        assert found.tolist() == [[True, True], [True, False]]

    def test_classes_leave_each_other_alone(self) -> None:
        boxes = np.tile(WHOLE, (1, 4, 1))
        scores, classes = np.array([[0.5, 0.9, 0.7, 0.6]], np.float32), np.array([[1, 2, 2, 1]], np.int32)
        indices, found = call(lambda b, s, c: non_maximum_suppression(b, s, 4, 0.3, c), boxes, scores, classes)
        assert indices[found].tolist() == [1, 3]

    def test_equal_scores_are_taken_in_their_order(self) -> None:
        boxes = np.array([[[0, 0, 0.1, 0.1], [0.5, 0.5, 1, 1], [0.2, 0.2, 0.3, 0.3]]], np.float32)
        scores = np.full((1, 3), 0.5, np.float32)
        indices, found = call(lambda b, s: non_maximum_suppression(b, s, 3, 0.5), boxes, scores)
        assert indices.tolist() == [[0, 1, 2]] and found.all()

    def test_nothing_to_choose(self) -> None:
        boxes, scores = naive.random_boxes(np.random.default_rng(0), 1, 3), np.full((1, 3), NEVER, np.float32)
        _, found = call(lambda b, s: non_maximum_suppression(b, s, 5, 0.5), boxes, scores)
        assert found.tolist() == [[False] * 5]

    def test_empty_boxes_do_not_suppress_each_other(self) -> None:
        boxes, scores = np.zeros((1, 3, 4), np.float32), np.ones((1, 3), np.float32)
        _, found = call(lambda b, s: non_maximum_suppression(b, s, 4, 0.5), boxes, scores)
        assert found.tolist() == [[True, True, True, False]]


class TestPropose:
    def test_equals_the_reference(self) -> None:
        anchors = norm_boxes(GOLDEN["anchors_pixels"], (256, 256))
        proposals = check_contract(
            lambda scores, deltas: propose(scores, deltas, keras.ops.convert_to_tensor(anchors), 250, CONFIG),
            GOLDEN["proposal_foreground"],
            GOLDEN["proposal_deltas"],
        )
        np.testing.assert_allclose(proposals, GOLDEN["proposals"], atol=1e-5)

    def test_as_the_loop_does(self) -> None:
        rng = np.random.default_rng(4)
        anchors = naive.random_boxes(rng, 60) * 1.4 - 0.2
        scores, deltas = (
            rng.uniform(0, 1, (2, 60)).astype(np.float32),
            rng.normal(0, 2, (2, 60, 4)).astype(np.float32),
        )
        config = Config(proposals=ProposalConfig(before_nms=40, nms_threshold=0.2))
        proposals = check_contract(
            lambda s, d: propose(s, d, keras.ops.convert_to_tensor(anchors), 30, config), scores, deltas
        )
        for film in (0, 1):
            best = np.argsort(-scores[film])[:40]
            boxes = [
                naive.cut(naive.move(anchors[k], deltas[film, k] * np.array(BOX_STD)), WHOLE) for k in best
            ]
            kept = naive.suppress(np.array(boxes), scores[film, best], 30, 0.2)
            expected = np.zeros((30, 4))
            expected[: len(kept)] = np.array(boxes)[kept]
            assert 10 < len(kept) < 30
            np.testing.assert_allclose(proposals[film], expected, atol=1e-5)

    def test_the_threshold_is_one_of_overlap_and_not_of_score(self) -> None:
        """The reference passed its IoU threshold of 0.7 as the least score."""
        anchors = np.array(
            [[0, 0, 1, 1], [0, 0, 1, 0.6], [0, 0, 1, 0.8]], np.float32
        )  # IoU 0.6 and 0.8 with the first
        scores, deltas = np.array([[0.03, 0.02, 0.01]], np.float32), np.zeros((1, 3, 4), np.float32)
        proposals = call(lambda s, d, a: propose(s, d, a, 3, CONFIG), scores, deltas, anchors)
        np.testing.assert_allclose(proposals[0], [anchors[0], anchors[1], np.zeros(4)], atol=1e-6)

    def test_of_equal_scores_the_first_anchors(self) -> None:
        """A trained network is quite sure of many; PyTorch's own top_k takes any of them."""
        corners = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1).reshape(1024, 2) / 32
        anchors = np.concatenate([corners, corners + 1 / 32], axis=1).astype(np.float32)
        scores, deltas = np.ones((2, 1024), np.float32), np.zeros((2, 1024, 4), np.float32)
        scores[:, ::2] = 0.5
        proposals = check_contract(lambda s, d: propose(s, d, anchors, 20, CONFIG), scores, deltas)
        np.testing.assert_allclose(proposals, [anchors[1:40:2]] * 2, atol=1e-6)

    def test_fewer_anchors_than_places(self) -> None:
        anchors = np.array([[0, 0, 0.5, 0.5]], np.float32)
        scores, deltas = np.ones((1, 1), np.float32), np.zeros((1, 1, 4), np.float32)
        proposals = call(lambda s, d, a: propose(s, d, a, 4, CONFIG), scores, deltas, anchors)
        np.testing.assert_allclose(proposals[0], [anchors[0], [0] * 4, [0] * 4, [0] * 4])


def one_map(values: np.ndarray, boxes: np.ndarray, side: int) -> np.ndarray:
    """``crop_and_resize`` of boxes [b, n, 4] from each film's own map [b, h, w, c]."""
    films, height, width, channels = values.shape
    offsets = np.broadcast_to(np.arange(films)[:, None] * height * width, boxes.shape[:2]).astype(np.int32)
    sizes = np.broadcast_to(np.array([height, width], np.int32), (*boxes.shape[:2], 2))
    table = values.reshape(-1, channels)
    return check_contract(
        lambda starts, extents, b: crop_and_resize(
            keras.ops.convert_to_tensor(table), starts, extents, b, side
        ),
        offsets,
        sizes,
        boxes,
    )


class TestCropAndResize:
    def test_sample_by_sample(self) -> None:
        rng = np.random.default_rng(5)
        values = rng.normal(size=(2, 9, 13, 3)).astype(np.float32)
        boxes = naive.random_boxes(rng, 2, 6) * 1.5 - 0.25  # some reach over the edge
        cropped = one_map(values, boxes, 5)
        expected = [[naive.crop(values[film], box, 5) for box in boxes[film]] for film in (0, 1)]
        np.testing.assert_allclose(cropped, expected, atol=1e-4)
        assert (cropped == 0).any() and (cropped != 0).any()

    def test_the_whole_map_at_its_own_size_is_itself(self) -> None:
        values = np.random.default_rng(6).normal(size=(2, 8, 8, 3)).astype(np.float32)
        np.testing.assert_allclose(one_map(values, np.tile(WHOLE, (2, 1, 1)), 8)[:, 0], values, atol=1e-5)

    def test_beyond_the_edge_is_zero_and_the_edge_is_not(self) -> None:
        values = np.ones((1, 5, 5, 1), np.float32)
        boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [-1, -1, 0, 0], [1.1, 0, 1.2, 1], [0.5, 0.5, 0.5, 0.5]]
        cropped = one_map(values, np.array([boxes], np.float32), 3)[0, ..., 0]
        upper_left, lower_right = [[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
        assert cropped.tolist() == [[[1] * 3] * 3, upper_left, lower_right, [[0] * 3] * 3, [[1] * 3] * 3]


class TestPyramidRoiAlign:
    @pytest.mark.parametrize("side", [7, 14])
    def test_equals_the_reference(self, side: int) -> None:
        pyramid = [GOLDEN[f"feature_p{level}"] for level in (2, 3, 4, 5)]
        pooled = check_contract(
            lambda boxes, *levels: pyramid_roi_align(boxes, levels, side, 256),
            GOLDEN["roi_boxes"],
            *pyramid,
            tolerance=1e-4,
            half=[1, 2, 3, 4],
        )
        np.testing.assert_allclose(pooled, GOLDEN[f"roi_align_{side}"], atol=1e-4)

    def test_each_box_from_the_level_of_its_size_and_from_its_own_film(self) -> None:
        # A level's border lies where log2(side / 224) is a half: 79.2, 158.4 and 316.8 pixels.
        sides = [0, 1, 79, 80, 112, 158, 159, 224, 316, 317, 448, 640, 1024]
        levels = [2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 5]
        boxes = np.array([[[0, 0, side / 1024, side / 1024] for side in sides]] * 2, np.float32)
        pyramid = [
            np.stack([np.full((extent, extent, 1), 100 * film + level, np.float32) for film in (0, 1)])
            for level, extent in zip((2, 3, 4, 5), (32, 16, 8, 4), strict=True)
        ]
        pooled = check_contract(lambda b, *maps: pyramid_roi_align(b, maps, 2, 1024), boxes, *pyramid)
        expected = np.array([levels, np.add(levels, 100)])
        np.testing.assert_allclose(
            pooled[..., 0], np.broadcast_to(expected[..., None, None], (2, 13, 2, 2)), rtol=1e-6
        )

    def test_a_greater_canonical_side_draws_from_finer_levels(self) -> None:
        boxes = np.array([[[0, 0, side / 1024, side / 1024] for side in (226, 227, 452, 453, 905, 906)]], np.float32)
        pyramid = [np.full((1, 8, 8, 1), level, np.float32) for level in (2, 3, 4, 5)]
        pooled = call(lambda b, *maps: pyramid_roi_align(b, maps, 2, 1024, canonical_side=640), boxes, *pyramid)
        np.testing.assert_allclose(pooled[0, :, 0, 0, 0], [2, 3, 3, 4, 4, 5], rtol=1e-6)

    def test_long_boxes_go_by_their_area(self) -> None:
        boxes = np.array([[[0, 0, 1, 1 / 16], [0, 0, 0.9, 0.09]]], np.float32)  # of 1024: 256 and 291 squared
        pyramid = [np.full((1, 8, 8, 1), level, np.float32) for level in (2, 3, 4, 5)]
        pooled = call(lambda b, *maps: pyramid_roi_align(b, maps, 2, 1024), boxes, *pyramid)
        np.testing.assert_allclose(pooled[0, :, 0, 0, 0], [4, 4], rtol=1e-6)


class TestWidenBoxes:
    def test_on_every_side_but_not_beyond_the_square(self) -> None:
        boxes = np.array([[[0.2, 0.4, 0.6, 0.5], [0.0, 0.05, 0.95, 1.0], [0, 0, 0, 0]]], np.float32)
        wide = check_contract(lambda b: widen_boxes(b, 0.1), boxes)
        expected = [[0.16, 0.39, 0.64, 0.51], [0, 0, 1, 1], [0, 0, 0, 0]]
        np.testing.assert_allclose(wide[0], expected, atol=1e-6)
        np.testing.assert_array_equal(call(lambda b: widen_boxes(b, 0.0), boxes), boxes)


def targets_config(rois: int, fraction: float, add_ground_truth: bool = False) -> Config:
    targets = TargetConfig(rois_per_image=rois, positive_fraction=fraction, add_ground_truth=add_ground_truth)
    return Config(targets=targets, network=NetworkConfig(mask_pool_size=7))  # masks of 14 x 14


def lungs(*boxes: list[float], slots: int = 5, side: int = 32) -> dict[str, np.ndarray]:
    """Ground truth of two films: instances that fill their boxes on the first, none on the second."""
    truth = {
        "gt_class_ids": np.zeros((2, slots), np.int32),
        "gt_boxes": np.zeros((2, slots, 4), np.float32),
        "gt_masks": np.zeros((2, side, side, slots), np.uint8),
    }
    for slot, box in enumerate(boxes):
        truth["gt_class_ids"][0, slot] = 1 + slot % 2
        truth["gt_boxes"][0, slot] = box
        y1, x1, y2, x2 = (round(value * side) for value in box)
        truth["gt_masks"][0, y1:y2, x1:x2, slot] = 1
    return truth


def draw(
    proposals: np.ndarray, truth: dict[str, np.ndarray], config: Config, seed: int = 0
) -> dict[str, np.ndarray]:
    generator = keras.random.SeedGenerator(seed)
    return call(lambda *tensors: detection_targets(*tensors, config, generator), proposals, *truth.values())


FIVE = [
    [0.0, 0.0, 0.4, 0.3],
    [0.0, 0.4, 0.3, 0.7],
    [0.5, 0.0, 1.0, 0.3],
    [0.5, 0.4, 0.9, 0.6],
    [0.6, 0.7, 1.0, 1.0],
]


class TestDetectionTargets:
    def test_positive_ones_equal_the_reference(self) -> None:
        config = Config(targets=TargetConfig(rois_per_image=480, positive_fraction=0.5))  # room for all 240
        masks = np.unpackbits(GOLDEN["target_gt_masks"], axis=0, count=256)
        truth = {"ids": GOLDEN["target_gt_class_ids"], "boxes": GOLDEN["target_gt_boxes"], "masks": masks}
        drawn = draw(
            GOLDEN["target_proposals"][None], {name: value[None] for name, value in truth.items()}, config
        )
        count = len(GOLDEN["target_positive_rois"])
        rois = drawn["rois"][0, :count]
        order = np.lexsort(rois.T)
        assert (drawn["class_ids"][0, :count] > 0).all() and (drawn["class_ids"][0, count:] <= 0).all()
        np.testing.assert_allclose(rois[order], GOLDEN["target_positive_rois"], atol=1e-6)
        np.testing.assert_array_equal(
            drawn["class_ids"][0, :count][order], GOLDEN["target_positive_class_ids"]
        )
        deltas = drawn["deltas"][0, :count][order]
        np.testing.assert_allclose(deltas, GOLDEN["target_positive_deltas"], rtol=1e-3, atol=1e-4)
        differing = drawn["masks"][0, :count][order] != GOLDEN["target_positive_masks"]
        assert differing.mean() < 1e-4  # a sample of exactly a half may fall either way

    @pytest.mark.parametrize("instances", [0, 1, 5])
    def test_as_the_loop_does(self, instances: int) -> None:
        rng = np.random.default_rng(7)
        truth = lungs(*FIVE[:instances])
        jittered = np.tile(FIVE, (6, 1)) + rng.normal(0, 0.03, (30, 4))
        proposals = np.stack([np.concatenate([jittered.clip(0, 1), naive.random_boxes(rng, 20)])] * 2).astype(
            np.float32
        )
        proposals[:, 40:] = 0  # padding
        config = targets_config(rois=24, fraction=0.5)
        drawn = draw(proposals, truth, config)
        assert {name: value.shape for name, value in drawn.items()} == {
            "rois": (2, 24, 4),
            "class_ids": (2, 24),
            "deltas": (2, 24, 4),
            "masks": (2, 12, 14, 14),
        }
        overlaps = [[naive.iou(roi, box) for box in FIVE[:instances]] for roi in proposals[0, :40].tolist()]
        positive = {k for k in range(40) if max(overlaps[k], default=0) >= 0.5}
        assert bool(positive) == bool(instances)
        where = {tuple(roi): k for k, roi in enumerate(proposals[0, :40].tolist())}
        for place in range(24):
            class_id = drawn["class_ids"][0, place]
            if class_id == -1:
                assert not drawn["rois"][0, place].any() and not drawn["deltas"][0, place].any()
                continue
            k = where[tuple(drawn["rois"][0, place].tolist())]
            assert (k in positive) == (class_id > 0) == (place < min(12, len(positive)))
            if class_id == 0:
                assert not drawn["deltas"][0, place].any()
                continue
            nearest = int(np.argmax(overlaps[k]))
            assert class_id == 1 + nearest % 2
            expected = np.divide(
                naive.encode(proposals[0, k].tolist(), truth["gt_boxes"][0, nearest].tolist()), BOX_STD
            )
            np.testing.assert_allclose(drawn["deltas"][0, place], expected, rtol=1e-3, atol=1e-4)
            sampled = naive.crop(
                truth["gt_masks"][0, ..., nearest].astype(float), proposals[0, k].tolist(), 14
            )
            differing = (sampled > 0.5) != drawn["masks"][0, place]
            assert not differing[np.abs(sampled - 0.5) > 1e-4].any()
        rows = drawn["rois"][0][drawn["class_ids"][0] >= 0]
        assert len(np.unique(rows, axis=0)) == len(rows)  # none is drawn twice
        assert (drawn["class_ids"][0] > 0).sum() == min(12, len(positive))
        assert (drawn["class_ids"][0] == 0).sum() == min(12, 40 - len(positive))

    def test_without_instances_all_is_background(self) -> None:
        proposals = naive.random_boxes(np.random.default_rng(8), 2, 30)
        drawn = draw(proposals, lungs(), targets_config(rois=12, fraction=0.5))
        assert drawn["class_ids"].tolist() == [[-1] * 6 + [0] * 6] * 2
        assert drawn["rois"][:, 6:].any(-1).all()
        assert not (drawn["rois"][:, :6].any() or drawn["deltas"].any() or drawn["masks"].any())

    def test_an_overlap_of_exactly_a_half_is_positive(self) -> None:
        just_less = np.nextafter(np.float32(0.5), np.float32(0))
        proposals = np.array([[[0, 0, 1, 0.5], [0, 0, 1, just_less]]] * 2, np.float32)
        drawn = draw(proposals, lungs([0, 0, 1, 1]), targets_config(rois=4, fraction=0.5))
        assert drawn["class_ids"][0].tolist() == [1, -1, 0, -1]
        assert drawn["rois"][0, 0].tolist() == [0, 0, 1, 0.5]
        assert drawn["masks"][0, 0].all() and not drawn["masks"][0, 1].any()

    def test_a_mask_sample_of_exactly_a_half_is_no_lung(self) -> None:
        truth = lungs([0, 0, 1, 1], side=33)
        truth["gt_masks"][0, :, 1::2, 0] = 0  # columns 0, 2, 4, ... are lung
        middle = 0.5 / 32  # halfway between columns 0 and 1, exactly
        proposals = np.array([[[0, middle, 1, 1], [0, 0, 1, 1 - middle]]] * 2, np.float32)
        config = Config(
            targets=TargetConfig(rois_per_image=4, positive_fraction=0.5), network=NetworkConfig(mask_pool_size=1)
        )
        drawn = draw(proposals, truth, config)
        by_side = {float(roi[1]): mask.tolist() for roi, mask in zip(drawn["rois"][0, :2], drawn["masks"][0], strict=True)}
        assert by_side == {middle: [[0, 1], [0, 1]], 0.0: [[1, 0], [1, 0]]}

    def test_ground_truth_joins_the_proposals(self) -> None:
        proposals = np.tile(np.array([0, 0, 0.05, 0.05], np.float32), (2, 3, 1))
        without = draw(proposals, lungs(*FIVE), targets_config(16, 0.5))
        assert not (without["class_ids"] > 0).any()
        drawn = draw(proposals, lungs(*FIVE), targets_config(16, 0.5, add_ground_truth=True))
        own = drawn["rois"][0, :5]
        np.testing.assert_allclose(
            own[np.lexsort(own.T)], np.array(FIVE, np.float32)[np.lexsort(np.transpose(FIVE))]
        )
        assert (drawn["class_ids"][0] > 0).sum() == 5 and (drawn["class_ids"][0] == 0).sum() == 3
        np.testing.assert_allclose(drawn["deltas"], 0, atol=1e-5)
        assert (drawn["class_ids"][1] > 0).sum() == 0 and (drawn["class_ids"][1] == 0).sum() == 3

    def test_padding_is_no_background(self) -> None:
        """The reference pads with zeros, which its class loss then counts as background RoIs."""
        proposals = np.zeros((2, 6, 4), np.float32)
        proposals[:, 0] = [0, 0, 0.4, 0.3]
        drawn = draw(proposals, lungs(*FIVE), targets_config(rois=6, fraction=0.5))
        assert drawn["class_ids"].tolist() == [[1] + [-1] * 5, [-1] * 3 + [0] + [-1] * 2]

    def test_each_draw_is_another_and_a_seed_repeats_them(self) -> None:
        proposals = naive.random_boxes(np.random.default_rng(9), 2, 60)
        generator, config = keras.random.SeedGenerator(3), targets_config(rois=16, fraction=0.5)
        first, second = (
            call(lambda *t: detection_targets(*t, config, generator)["rois"], proposals, *lungs().values())
            for _ in range(2)
        )
        assert (first != second).any()
        np.testing.assert_array_equal(first, draw(proposals, lungs(), config, seed=3)["rois"])
        assert (first[0, 8:] != draw(proposals[::-1], lungs(), config, seed=3)["rois"][0, 8:]).any()

    def test_compiles(self) -> None:
        """Other lots may be drawn when compiled: held are shapes, and what a draw cannot change."""
        proposals = np.concatenate(
            [np.array([FIVE] * 2), naive.random_boxes(np.random.default_rng(10), 2, 30)], axis=1
        )
        generator, config = keras.random.SeedGenerator(0), targets_config(rois=16, fraction=0.5)

        def counts(*tensors: object) -> dict[str, object]:
            drawn = detection_targets(*tensors, config, generator)
            ids = drawn["class_ids"]
            return {
                "positive": keras.ops.sum(keras.ops.cast(ids > 0, "int32"), axis=1),
                "background": keras.ops.sum(keras.ops.cast(ids == 0, "int32"), axis=1),
                "empty": {name: keras.ops.zeros_like(value) for name, value in drawn.items()},
            }

        truth = lungs(*FIVE)
        answer = check_contract(counts, proposals.astype(np.float32), *truth.values())
        assert answer["positive"][0] >= 5 and answer["positive"][1] == 0
        assert answer["background"].tolist() == [8, 8]


def certain(classes: list[int], scores: list[float]) -> np.ndarray:
    """Probabilities [1, n, 3] whose greatest is the given score at the given class."""
    table = np.zeros((1, len(classes), 3), np.float32)
    for row, (class_id, score) in enumerate(zip(classes, scores, strict=True)):
        table[0, row] = (1 - score) / 2
        table[0, row, class_id] = score
    return table


def refine(
    rois: np.ndarray, probabilities: np.ndarray, window: np.ndarray = WHOLE, config: Config = CONFIG
) -> np.ndarray:
    """The detections of one film whose RoIs [1, n, 4] need not be moved: [max_instances, 6]."""
    deltas = np.zeros((*probabilities.shape, 4), np.float32)
    return call(lambda *t: refine_detections(*t, config), rois, probabilities, deltas, window[None])[0]


class TestRefineDetections:
    def test_equals_the_reference(self) -> None:
        inputs = [GOLDEN[f"refine_{name}"][None] for name in ("rois", "probs", "deltas", "window")]
        detections = check_contract(lambda *tensors: refine_detections(*tensors, CONFIG), *inputs)
        np.testing.assert_allclose(detections[0], GOLDEN["refine_detections"], atol=1e-5)

    def test_as_the_loop_does(self) -> None:
        rng = np.random.default_rng(11)
        rois = naive.random_boxes(rng, 2, 60)
        logits = rng.normal(0, 2, (2, 60, 3))
        probabilities = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).astype(np.float32)
        deltas = rng.normal(0, 1, (2, 60, 3, 4)).astype(np.float32)
        windows = np.array([[0.1, 0, 0.9, 1], [0, 0.2, 1, 0.8]], np.float32)
        config = Config(detection=DetectionConfig(max_instances=20, min_score=0.5, nms_threshold=0.3))
        detections = check_contract(
            lambda *t: refine_detections(*t, config), rois, probabilities, deltas, windows
        )
        for film in (0, 1):
            rows = []
            for roi, p, d in zip(rois[film].tolist(), probabilities[film], deltas[film], strict=True):
                class_id = int(p.argmax())
                box = naive.cut(naive.move(roi, d[class_id] * np.array(BOX_STD)), windows[film].tolist())
                if class_id > 0 and p[class_id] >= 0.5 and box[2] > box[0] and box[3] > box[1]:
                    rows.append([*box, class_id, float(p[class_id])])
            table = np.array(rows)
            kept = naive.suppress(table[:, :4], table[:, 5], 20, 0.3, table[:, 4])
            expected = np.zeros((20, 6))
            expected[: len(kept)] = table[kept]
            assert 0 < len(kept) < len(table)
            np.testing.assert_allclose(detections[film], expected, atol=1e-4)

    def test_the_least_score_counts_and_background_never(self) -> None:
        least = np.float32(0.7)
        scores = [least, np.nextafter(least, np.float32(0)), 0.99]
        rois = np.array([[[0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]], np.float32)
        found = refine(rois, certain([1, 2, 0], scores))
        assert found[:, 4].tolist() == [1] + [0] * 19
        assert not found[1:].any()

    def test_the_two_lungs_may_overlap_and_one_lung_is_found_once(self) -> None:
        rois = np.tile(WHOLE, (1, 4, 1))
        probabilities = certain([1, 2, 1, 2], [0.8, 0.9, 0.95, 0.75])
        expected = [[*WHOLE, 1, 0.95], [*WHOLE, 2, 0.9], [0] * 6]
        np.testing.assert_allclose(refine(rois, probabilities)[:3], expected, atol=1e-6)

    def test_empty_boxes_are_no_detections(self) -> None:
        """In the reference such boxes held places among the detections until they were unmolded."""
        rois = np.array([[[0, 0, 0, 0], [0.1, 0, 0.9, 0.15], [0.1, 0.1, 0.9, 0.5]]], np.float32)
        window = np.array([0, 0.2, 1, 0.8], np.float32)
        found = refine(rois, certain([1, 1, 2], [0.9, 0.9, 0.8]), window)
        np.testing.assert_allclose(found[:2], [[0.1, 0.2, 0.9, 0.5, 2, 0.8], [0] * 6], atol=1e-6)

    def test_no_more_than_the_most(self) -> None:
        config = dataclasses.replace(CONFIG, detection=DetectionConfig(max_instances=2))
        rois = np.array([[[0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]]], np.float32)
        found = refine(rois, certain([1, 1, 1], [0.8, 0.7, 0.9]), config=config)
        np.testing.assert_allclose(found[:, 5], [0.9, 0.8], rtol=1e-6)
