"""A tiny network through all of its life: a lesson, frozen parts, detection, and back from its file.

Graphs take seconds to trace: one model is trained for the whole module, and nothing else is compiled.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import keras
import numpy as np
import pytest
from tiny import LOSS_WEIGHTS, SIDE, Lessons, draw_batch, draw_film, gradients, tiny_config, weights_of

from mask_rcnn.config import DetectionConfig
from mask_rcnn.model import LAYER_GROUPS, MaskRCNN, unmold
from mask_rcnn.network import losses
from mask_rcnn.utils import norm_boxes

STEPS, EPOCHS = 20, 4


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if (before[name] != after[name]).any()}


@pytest.fixture(scope="module")
def taught() -> SimpleNamespace:
    """A model after its lesson, what was logged, and one more batch that shows no lungs."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = MaskRCNN(tiny_config())
    for layer in model.network.named_layers().values():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8  # the lesson is too short for statistics over a hundred batches
    untaught = weights_of(model)
    lessons = Lessons([draw_batch(model.config, rng) for _ in range(STEPS)])
    history = model.train(lessons, None, 0.003, EPOCHS, verbose=0).history
    learnt = weights_of(model)
    penalty = float(keras.ops.convert_to_numpy(model.network.weight_penalty()))
    nothing = Lessons([draw_batch(model.config, rng, lungs=False)])
    without = model.fit_stage(nothing, None, EPOCHS, EPOCHS + 1, verbose=0).history
    after_nothing = weights_of(model)
    for name, weight in learnt.items():  # detection is asked of the lesson alone
        layer, variable = name.split("/")
        next(w for w in model.network.named_layers()[layer].weights if w.name == variable).assign(weight)
    return SimpleNamespace(
        model=model,
        history=history,
        untaught=untaught,
        learnt=learnt,
        penalty=penalty,
        without={name: values[0] for name, values in without.items()},
        after_nothing=after_nothing,
    )


class TestTraining:
    def test_a_lesson_lowers_every_loss(self, taught: SimpleNamespace) -> None:
        assert set(taught.history) == {"loss", *losses.LOSS_NAMES}
        for name, values in taught.history.items():
            assert len(values) == EPOCHS and np.isfinite(values).all()
            assert values[-1] < 0.8 * values[0], name

    def test_all_that_learns_has_moved(self, taught: SimpleNamespace) -> None:
        assert moved(taught.untaught, taught.learnt) == set(taught.learnt)

    def test_a_batch_without_lungs_teaches_background_alone(self, taught: SimpleNamespace) -> None:
        logged = taught.without
        assert logged["rpn_bbox_loss"] == logged["mrcnn_bbox_loss"] == logged["mrcnn_mask_loss"] == 0.0
        assert logged["rpn_class_loss"] > 0 and logged["mrcnn_class_loss"] > 0
        assert all(np.isfinite(weight).all() for weight in taught.after_nothing.values())

    def test_the_loss_is_the_weighted_sum_and_the_penalty(self, taught: SimpleNamespace) -> None:
        terms = [taught.without[name] for name in losses.LOSS_NAMES]
        assert taught.penalty > 0
        assert taught.without["loss"] == pytest.approx(np.dot(LOSS_WEIGHTS, terms) + taught.penalty, rel=1e-4)


@pytest.fixture(scope="module")
def frozen() -> MaskRCNN:
    """A model whose batch normalisation does not learn; never compiled to a graph."""
    model = MaskRCNN(tiny_config(network={"train_batch_norm": False}))
    for layer in model.network.named_layers().values():
        for weight in layer.weights:
            if weight.name == "beta":  # at 0, where they begin, a penalty on them would not show
                weight.assign(keras.ops.full(weight.shape, 0.1))
    return model


def belongs(layer: str, group: str) -> bool:
    """Whether a layer learns in a group, spelt out."""
    return group == "all" or layer.startswith(("mrcnn_", "rpn_", "fpn_"))


class TestLayerGroups:
    @pytest.mark.parametrize("group", LAYER_GROUPS)
    def test_freeze_what_they_say(self, frozen: MaskRCNN, group: str) -> None:
        frozen.compile(0.001, group)
        layers = frozen.network.named_layers()
        assert {name for name, layer in layers.items() if layer.trainable} == {
            n for n in layers if belongs(n, group)
        }
        learn = {
            id(weight) for name, layer in layers.items() if belongs(name, group) for weight in layer.weights
        }
        variables = frozen.network.trainable_variables
        assert variables and all(id(variable) in learn for variable in variables)
        assert not any(re.search("moving_", variable.path) for variable in variables)

    def test_groups_grow(self, frozen: MaskRCNN) -> None:
        names = frozen.network.named_layers()
        heads, everything = (sum(belongs(name, group) for name in names) for group in ("heads", "all"))
        assert 0 < heads < everything == len(names)

    def test_an_unknown_group_is_refused(self, frozen: MaskRCNN) -> None:
        with pytest.raises(ValueError, match="layers must be one of heads, all, not 'head'"):
            frozen.compile(0.001, "head")


class TestBatchNormalisation:
    @pytest.mark.parametrize(("group", "expected"), [("all", r"bn|mrcnn_\w+_bn"), ("heads", r"mrcnn_\w+_bn")])
    def test_statistics_move_where_it_learns(self, group: str, expected: str) -> None:
        model = MaskRCNN(tiny_config())
        model.compile(0.001, group)
        before = weights_of(model)
        inputs, _ = draw_batch(model.config, np.random.default_rng(1))
        model.network(inputs, training=True)
        statistics = {name for name in before if "/moving_" in name and re.match(expected, name)}
        assert statistics
        assert moved(before, weights_of(model)) == statistics

    def test_every_trainable_variable_has_a_gradient_and_no_statistics_move(self, frozen: MaskRCNN) -> None:
        frozen.compile(0.001, "all")
        inputs, _ = draw_batch(frozen.config, np.random.default_rng(2))
        before = weights_of(frozen)
        variables = frozen.network.trainable_variables
        slopes = gradients(
            variables, lambda: sum(frozen.network.loss_terms(inputs, frozen.network(inputs, training=True)))
        )
        assert not moved(before, weights_of(frozen))
        assert [v.path for v, slope in zip(variables, slopes, strict=True) if not slope.any()] == []
        assert all(np.isfinite(slope).all() for slope in slopes)


class TestWeightPenalty:
    @pytest.mark.parametrize("group", ["all", "heads"])
    def test_mean_squares_of_kernels_and_biases(self, frozen: MaskRCNN, group: str) -> None:
        frozen.compile(0.001, group)
        expected = sum(
            np.mean(weight.astype(np.float64) ** 2)
            for name, weight in weights_of(frozen).items()
            if belongs(name, group) and name.split("/")[1] in ("kernel", "bias")
        )
        assert float(keras.ops.convert_to_numpy(frozen.network.weight_penalty())) == pytest.approx(1e-4 * expected, rel=1e-5)


FILMS = [
    (128, 128),
    (200, 150),
    (90, 240),
    (64, 64),
    (150, 200),
    (33, 140),
    (300, 260),
    (128, 100),
    (181, 181),
]


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [cv2.resize(draw_film(rng)[0], (width, height)) for height, width in FILMS]


@pytest.fixture(scope="module")
def found(taught: SimpleNamespace, films: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    return taught.model.detect(films)


class TestDetect:
    def test_finds_each_lung_on_the_side_it_was_taught(self, taught: SimpleNamespace) -> None:
        film, labels = draw_film(np.random.default_rng(4))
        (found,) = taught.model.detect([film])
        for class_id in (1, 2):
            best = np.flatnonzero(found["class_ids"] == class_id)[0]
            truth, mask = labels == class_id, found["masks"][..., best]
            assert (truth & mask).sum() / (truth | mask).sum() > 0.5

    def test_shapes_and_types(self, films: list[np.ndarray], found: list[dict[str, np.ndarray]]) -> None:
        assert len(found) == len(films)
        assert sum(len(lungs["scores"]) for lungs in found) >= len(films)
        for film, lungs in zip(films, found, strict=True):
            count, (height, width) = len(lungs["scores"]), film.shape
            assert list(lungs) == ["rois", "class_ids", "scores", "masks", "windows"]
            assert {name: (value.shape, value.dtype.name) for name, value in lungs.items()} == {
                "rois": ((count, 4), "int32"),
                "class_ids": ((count,), "int32"),
                "scores": ((count,), "float32"),
                "masks": ((height, width, count), "bool"),
                "windows": ((count, 4), "int32"),
            }
            assert set(lungs["class_ids"].tolist()) <= {1, 2}
            assert (np.diff(lungs["scores"]) <= 0).all() and (lungs["scores"] >= 0.3).all()
            y1, x1, y2, x2 = lungs["rois"].T
            assert ((0 <= y1) & (y1 < y2) & (y2 <= height) & (0 <= x1) & (x1 < x2) & (x2 <= width)).all()
            for mask, box in zip(np.moveaxis(lungs["masks"], -1, 0), lungs["rois"], strict=True):
                outside = mask.copy()
                margin = 1 + max(height, width) // SIDE  # boxes are whole pixels, masks end half a pixel of the square later
                y1, x1 = np.maximum(box[:2] - margin, 0)
                outside[y1 : box[2] + margin, x1 : box[3] + margin] = False
                assert not outside.any()
            for mask, (y1, x1, y2, x2) in zip(np.moveaxis(lungs["masks"], -1, 0), lungs["windows"], strict=True):
                assert mask[y1:y2, x1:x2].sum() == mask.sum()

    def test_alone_and_together_agree(
        self, taught: SimpleNamespace, films: list[np.ndarray], found: list[dict[str, np.ndarray]]
    ) -> None:
        for film, together in zip(films, found, strict=True):
            (alone,) = taught.model.detect([film])
            np.testing.assert_array_equal(alone["class_ids"], together["class_ids"])
            np.testing.assert_allclose(alone["scores"], together["scores"], atol=1e-3)
            assert np.abs(alone["rois"] - together["rois"]).max(initial=0) <= 1
            assert (alone["masks"] != together["masks"]).mean() < 1e-2 if alone["masks"].size else True

    def test_grey_and_colour_agree(self, taught: SimpleNamespace, films: list[np.ndarray]) -> None:
        (grey,), (colour,) = (
            taught.model.detect(films[:1]),
            taught.model.detect([np.stack(films[:1] * 3, axis=-1)]),
        )
        for name, values in grey.items():
            np.testing.assert_array_equal(values, colour[name])

    def test_no_films(self, taught: SimpleNamespace) -> None:
        assert taught.model.detect([]) == []

    def test_the_file_brings_the_model_back(
        self,
        taught: SimpleNamespace,
        films: list[np.ndarray],
        found: list[dict[str, np.ndarray]],
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "tiny.weights.h5"
        taught.model.save(path)
        revived = MaskRCNN.load(path)
        assert revived.config == taught.model.config
        again = weights_of(revived)
        assert set(again) == set(taught.learnt)
        for name, weight in taught.learnt.items():
            np.testing.assert_array_equal(
                again[name], weight.astype(np.float16).astype(np.float32), err_msg=name
            )
        with h5py.File(path) as file:
            kinds = set()
            file.visititems(
                lambda name, node: kinds.add(node.dtype.name) if isinstance(node, h5py.Dataset) else None
            )
            assert "optimizer" not in file and "float16" in kinds and "float32" not in kinds


PASTED = DetectionConfig(exact_masks=False)


class TestUnmold:
    WINDOW = (0, 32, 128, 96)  # of a film twice as high as wide

    def test_each_detection_gets_the_mask_of_its_own_class(self) -> None:
        detections = np.zeros((3, 6), np.float32)
        detections[0] = [*norm_boxes(np.array([[0, 32, 64, 96]]), (SIDE, SIDE))[0], 2, 0.9]
        detections[1] = [*norm_boxes(np.array([[64, 64, 128, 96]]), (SIDE, SIDE))[0], 1, 0.8]
        masks = np.zeros((3, 28, 28, 3), np.float32)
        masks[0, ..., 2], masks[1, ..., 1] = 1, 1
        masks[1, :14, :, 1] = 0
        found = unmold(detections, detections[:, :4], masks, self.WINDOW, SIDE, (256, 128), PASTED)
        expected = [[0, 0, 128, 128], [128, 64, 256, 128]]
        assert np.abs(found["rois"] - expected).max() <= 1  # a pixel of the square is two of the film
        assert found["class_ids"].tolist() == [2, 1]
        np.testing.assert_allclose(found["scores"], [0.9, 0.8], rtol=1e-6)
        # Beyond a mask's edge is nothing, so that its corners are rounded.
        first, second = np.moveaxis(found["masks"], -1, 0)
        assert first[1:126, 1:127].all() and not first[130:].any()
        assert second[195:254, 67:126].all() and not second[:190].any() and not second[:, :62].any()

    def test_soft_masks_are_lung_from_a_half_on(self) -> None:
        detections = np.array([[0.1, 0.3, 0.8, 0.6, 1, 0.9]], np.float32)
        masks = np.random.default_rng(0).uniform(0, 1, (1, 28, 28, 3)).astype(np.float32)
        boxes = detections[:, :4]
        for settings in (PASTED, DetectionConfig()):
            arguments = detections, boxes, masks, self.WINDOW, SIDE, (256, 128), settings
            hard, soft = unmold(*arguments), unmold(*arguments, soft=True)
            assert hard["masks"].dtype == bool and soft["masks"].dtype == np.float32
            np.testing.assert_array_equal(hard["masks"], soft["masks"] >= 0.5)
            assert 0 < hard["masks"].mean() < 1

    def test_a_box_that_rounds_to_no_pixel_is_dropped(self) -> None:
        # 1.5 and 1.5 + 1 both round to 2, as NumPy rounds halves to the even number.
        between = 1.5 / 128
        detections = np.array(
            [[0.25, between, 0.75, between, 1, 0.9], [0.25, 0.5, 0.75, 0.75, 2, 0.8]], np.float32
        )
        masks = np.ones((2, 28, 28, 3), np.float32)
        found = unmold(detections, detections[:, :4], masks, (0, 0, 129, 129), 129, (129, 129), PASTED)
        assert found["class_ids"].tolist() == [2] and found["masks"].shape == (129, 129, 1)

    def test_nothing_found(self) -> None:
        masks = np.ones((2, 28, 28, 3), np.float32)
        found = unmold(np.zeros((2, 6)), np.zeros((2, 4)), masks, self.WINDOW, SIDE, (256, 128), DetectionConfig())
        assert {name: value.shape for name, value in found.items()} == {
            "rois": (0, 4),
            "class_ids": (0,),
            "scores": (0,),
            "masks": (256, 128, 0),
            "windows": (0, 4),
        }


def test_films_that_are_not_8_bit_are_not_looked_at(frozen: MaskRCNN) -> None:
    film = np.full((60, 48), 200, np.uint8)
    for wrong in (film / 255, film.astype(np.uint16) * 256):
        with pytest.raises(TypeError, match=f"films must be uint8 grey levels, not {wrong.dtype}"):
            frozen.detect([film, wrong])
