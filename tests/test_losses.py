"""The five losses against naive loops, against what the reference gives, and where there is nothing to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from contract import call, check_contract

from mask_rcnn.network import losses

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "components.npz"))


def golden(name: str, *inputs: np.ndarray) -> None:
    """Holds one loss to the reference's, in every way that the backend runs it."""
    value = check_contract(getattr(losses, name), *inputs, half=[len(inputs) - 1])  # the prediction
    assert value.shape == () and value.dtype == np.float32
    np.testing.assert_allclose(value, GOLDEN[name], rtol=1e-4)


class TestEqualTheReference:
    match = GOLDEN["loss_rpn_match"][..., 0]
    class_ids = GOLDEN["loss_class_ids"]

    def test_rpn_class_loss(self) -> None:
        golden("rpn_class_loss", self.match, GOLDEN["loss_rpn_logits"])

    def test_rpn_bbox_loss(self) -> None:
        golden("rpn_bbox_loss", GOLDEN["loss_rpn_bbox_targets"], self.match, GOLDEN["loss_rpn_bbox"])

    def test_mrcnn_class_loss(self) -> None:
        golden("mrcnn_class_loss", self.class_ids, GOLDEN["loss_class_logits"])

    def test_mrcnn_bbox_loss(self) -> None:
        golden("mrcnn_bbox_loss", GOLDEN["loss_bbox_targets"], self.class_ids, GOLDEN["loss_bbox"])

    def test_mrcnn_mask_loss(self) -> None:
        """Ours takes logits; the reference's took probabilities, which it kept 1e-7 from 0 and 1."""
        probabilities = GOLDEN["loss_masks"].astype(np.float64).clip(1e-7, 1 - 1e-7)
        logits = np.log(probabilities / (1 - probabilities)).astype(np.float32)
        golden("mrcnn_mask_loss", GOLDEN["loss_mask_targets"].astype(np.float32), self.class_ids, logits)


def softmax_loss(logits: np.ndarray, class_id: int) -> float:
    return math.log(sum(math.exp(value) for value in logits)) - float(logits[class_id])


def huber(distance: float) -> float:
    return 0.5 * distance**2 if abs(distance) < 1 else abs(distance) - 0.5


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestOneByOne:
    def test_rpn_class_loss(self, rng: np.random.Generator) -> None:
        match, logits = (
            rng.integers(-1, 2, (2, 30)).astype(np.int32),
            rng.normal(size=(2, 30, 2)).astype(np.float32),
        )
        terms = [softmax_loss(logits[k], int(match[k] == 1)) for k in np.ndindex(2, 30) if match[k] != 0]
        assert check_contract(losses.rpn_class_loss, match, logits) == pytest.approx(mean(terms), rel=1e-5)

    def test_rpn_bbox_loss(self, rng: np.random.Generator) -> None:
        match, deltas = (
            rng.integers(-1, 2, (2, 30)).astype(np.int32),
            rng.normal(size=(2, 30, 4)).astype(np.float32),
        )
        match[1] = -1
        match[1, [5, 29]] = 1
        targets = rng.normal(size=(2, 16, 4)).astype(np.float32)
        assert (match[0] == 1).sum() <= 16
        terms = []
        for film in (0, 1):
            for row, anchor in enumerate(np.flatnonzero(match[film] == 1)):
                terms += [huber(targets[film, row, k] - deltas[film, anchor, k]) for k in range(4)]
        assert check_contract(losses.rpn_bbox_loss, targets, match, deltas) == pytest.approx(
            mean(terms), rel=1e-5
        )

    def test_mrcnn_class_loss_passes_over_padding(self, rng: np.random.Generator) -> None:
        """The reference's padding had class 0 and counted as background."""
        ids, logits = (
            rng.integers(-1, 3, (2, 20)).astype(np.int32),
            rng.normal(size=(2, 20, 3)).astype(np.float32),
        )
        terms = [softmax_loss(logits[k], ids[k]) for k in np.ndindex(2, 20) if ids[k] >= 0]
        assert len(terms) < 40
        assert check_contract(losses.mrcnn_class_loss, ids, logits) == pytest.approx(mean(terms), rel=1e-5)

    def test_mrcnn_bbox_loss_looks_at_the_own_class_alone(self, rng: np.random.Generator) -> None:
        ids, deltas = (
            rng.integers(-1, 3, (2, 20)).astype(np.int32),
            rng.normal(size=(2, 20, 3, 4)).astype(np.float32),
        )
        targets = rng.normal(size=(2, 20, 4)).astype(np.float32)
        terms = []
        for k in np.ndindex(2, 20):
            if ids[k] > 0:
                terms += [huber(targets[k][axis] - deltas[k][ids[k], axis]) for axis in range(4)]
        assert check_contract(losses.mrcnn_bbox_loss, targets, ids, deltas) == pytest.approx(
            mean(terms), rel=1e-5
        )

    def test_mrcnn_mask_loss_looks_at_the_own_class_alone(self, rng: np.random.Generator) -> None:
        ids, logits = (
            rng.integers(-1, 3, (2, 6)).astype(np.int32),
            rng.normal(size=(2, 6, 4, 4, 3)).astype(np.float32),
        )
        masks = rng.integers(0, 2, (2, 6, 4, 4)).astype(np.float32)
        terms = []
        for k in np.ndindex(2, 6, 4, 4):
            if ids[k[:2]] > 0:
                p = 1 / (1 + math.exp(-logits[k][ids[k[:2]]]))
                terms.append(-math.log(p) if masks[k] else -math.log(1 - p))
        assert check_contract(losses.mrcnn_mask_loss, masks, ids, logits) == pytest.approx(
            mean(terms), rel=1e-5
        )

    def test_smooth_l1_changes_over_at_a_distance_of_one(self) -> None:
        distances = np.array([0, 0.5, np.nextafter(np.float32(1), np.float32(0)), 1, 3, -2], np.float32)
        values = check_contract(losses.smooth_l1, distances, np.zeros(6, np.float32))
        np.testing.assert_allclose(values, [huber(float(distance)) for distance in distances], rtol=1e-6)


class TestParts:
    def test_the_mean_is_of_what_the_mask_shows(self, rng: np.random.Generator) -> None:
        values, mask = rng.normal(size=(2, 5, 3)).astype(np.float32), rng.integers(0, 2, (2, 5, 1)) > 0
        expected = values[np.broadcast_to(mask, values.shape)].mean()
        assert check_contract(losses.masked_mean, values, mask) == pytest.approx(expected, rel=1e-5)
        assert check_contract(losses.masked_mean, values, np.zeros_like(mask)) == 0.0

    def test_cross_entropies_row_by_row(self, rng: np.random.Generator) -> None:
        ids, logits = rng.integers(0, 3, (2, 5)).astype(np.int32), rng.normal(size=(2, 5, 3)).astype(np.float32)
        expected = [[softmax_loss(logits[film, row], ids[film, row]) for row in range(5)] for film in (0, 1)]
        np.testing.assert_allclose(check_contract(losses.cross_entropy, ids, logits, half=[1]), expected, rtol=1e-5)


NOTHING: dict[str, tuple[Callable[..., Any], list[np.ndarray], np.ndarray]] = {
    # loss, what comes before the prediction, the prediction
    "rpn_class_loss": (losses.rpn_class_loss, [np.zeros((2, 9), np.int32)], np.ones((2, 9, 2), np.float32)),
    "rpn_bbox_loss": (
        losses.rpn_bbox_loss,
        [np.ones((2, 4, 4), np.float32), np.full((2, 9), -1, np.int32)],
        np.ones((2, 9, 4), np.float32),
    ),
    "mrcnn_class_loss": (
        losses.mrcnn_class_loss,
        [np.full((2, 6), -1, np.int32)],
        np.ones((2, 6, 3), np.float32),
    ),
    "mrcnn_bbox_loss": (
        losses.mrcnn_bbox_loss,
        [np.ones((2, 6, 4), np.float32), np.array([[0] * 3 + [-1] * 3] * 2, np.int32)],
        np.full((2, 6, 3, 4), 5, np.float32),
    ),
    "mrcnn_mask_loss": (
        losses.mrcnn_mask_loss,
        [np.ones((2, 6, 4, 4), np.float32), np.array([[0] * 3 + [-1] * 3] * 2, np.int32)],
        np.full((2, 6, 4, 4, 3), 5, np.float32),
    ),
}


class TestNothingToLearn:
    def test_all_five_are_here(self) -> None:
        assert tuple(NOTHING) == losses.LOSS_NAMES

    @pytest.mark.parametrize("name", losses.LOSS_NAMES)
    def test_is_exactly_zero(self, name: str) -> None:
        loss, truth, predicted = NOTHING[name]
        assert check_contract(loss, *truth, predicted) == 0.0


def slope(loss: Callable[..., Any], truth: list[np.ndarray], predicted: np.ndarray) -> np.ndarray:
    """The gradient of a loss at a prediction, by whichever means the backend has."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda value: loss(*truth, value))(predicted))
    tensor = keras.ops.convert_to_tensor(predicted)
    if backend == "torch":
        tensor.requires_grad_(True)
        loss(*(keras.ops.convert_to_tensor(value) for value in truth), tensor).backward()
        return tensor.grad.numpy()
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = loss(*truth, tensor)
    return tape.gradient(value, tensor).numpy()


class TestSlopes:
    @pytest.mark.parametrize("name", losses.LOSS_NAMES)
    def test_nothing_to_learn_moves_nothing(self, name: str) -> None:
        loss, truth, predicted = NOTHING[name]
        assert (slope(loss, truth, predicted) == 0).all()

    @pytest.mark.parametrize("size", [0.5, 1e4])
    def test_cross_entropies_are_finite_at_any_logit(self, size: float) -> None:
        ids = np.array([[0, 1, 2, -1]], np.int32)
        logits = np.array([[[size, -size, 0]] * 4], np.float32)
        masks = np.array([1, 0], np.float32).reshape(1, 1, 1, 2).repeat(4, axis=1)
        mask_logits = np.broadcast_to(np.array([size, -size, size], np.float32), (1, 4, 1, 2, 3)).copy()
        for loss, truth, predicted in (
            (losses.rpn_class_loss, [np.array([[1, -1, 0, 1]], np.int32)], logits[..., :2]),
            (losses.mrcnn_class_loss, [ids], logits),
            (losses.mrcnn_mask_loss, [masks, ids], mask_logits),
        ):
            value = call(loss, *truth, predicted)
            gradient = slope(loss, truth, predicted)
            assert np.isfinite(value) and value > 0
            assert np.isfinite(gradient).all() and gradient.any()

    def test_mask_loss_slopes_as_the_sigmoid_does(self) -> None:
        logits = np.array([-3, -0.5, 0, 0.5, 3], np.float32)
        predicted = np.zeros((1, 1, 1, 5, 2), np.float32)
        predicted[..., 1] = logits
        truth = [np.ones((1, 1, 1, 5), np.float32), np.array([[1]], np.int32)]
        gradient = slope(losses.mrcnn_mask_loss, truth, predicted)
        assert not gradient[..., 0].any()
        np.testing.assert_allclose(gradient[0, 0, 0, :, 1] * 5, 1 / (1 + np.exp(-logits)) - 1, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_proposal_that_is_not_finite_shows_in_a_loss_wherever_it_is(wrong: float) -> None:
    """``train.py`` stops at a loss that is not finite; a neutral anchor's proposal counts in none of the means."""
    match = np.zeros((1, 6), np.int32)
    match[0, :2] = 1, -1
    deltas, logits = np.zeros((1, 6, 4), np.float32), np.zeros((1, 6, 2), np.float32)
    targets = np.zeros((1, 3, 4), np.float32)
    assert np.isfinite(call(losses.rpn_bbox_loss, targets, match, deltas))
    deltas[0, 4, 3], logits[0, 4, 1] = wrong, wrong
    assert not np.isfinite(call(losses.rpn_bbox_loss, targets, match, deltas))
    assert not np.isfinite(call(losses.rpn_class_loss, match, logits))
