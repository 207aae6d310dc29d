"""The whole training step and the whole inference eagerly, as a plain graph and compiled by XLA: one result, traced once,
on films of any size, in batches of any size, with any number of lungs.

TensorFlow runs in all three ways, JAX eagerly and compiled; PyTorch runs eagerly, and its answers are held to no other.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from tiny import batch_of, build_sober, draw_film, draw_instances, drawing_all_config, traced_suppression, weights_of

from mask_rcnn import model as model_module
from mask_rcnn.dataset.batches import find_instances
from mask_rcnn.model import DETECTION_BATCH, MaskRCNN
from mask_rcnn.network import layers, losses

WAYS = {"tensorflow": ["eager", "graph", "XLA"], "jax": ["eager", "XLA"], "torch": ["eager"]}[keras.backend.backend()]
# On TensorFlow XLA compiles on a GPU alone, unless somebody wants it; compiling on a CPU takes a minute.
MARKED = [pytest.param(way, marks=pytest.mark.slow) if (way, keras.backend.backend()) == ("XLA", "tensorflow") else way
          for way in WAYS]
COMPILED = MARKED[1:]
NO_MORE_WAYS = pytest.mark.skipif(not COMPILED, reason="PyTorch runs eagerly: there is nothing compiled to compare with")
CONFIG = drawing_all_config()
RATE = 0.02
INSTANCES = {"none": [0, 0, 0], "one": [1, 1, 1], "five": [5, 5, 5], "mixed": [0, 1, 5]}
# Of these parts a film without lungs teaches nothing.
TAUGHT_BY_LUNGS = ("rpn_bbox_pred", "mrcnn_bbox_fc", "mrcnn_mask")


def lesson(counts: list[int], seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch of films with so many instances each."""
    rng = np.random.default_rng(seed)
    return batch_of(CONFIG, [draw_instances(rng, 64, count) for count in counts], rng)


class Counter:
    """A function of the network, and how often it was called: once a trace where it is compiled."""

    def __init__(self, name: str) -> None:
        self.name, self.calls = name, 0
        self.function: Callable[..., Any] = getattr(model_module, name)

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.function(*arguments)


def build(way: str) -> MaskRCNN:
    """Equal weights whichever way."""
    model = build_sober(CONFIG, jit_compile=way == "XLA")
    model.compile(RATE)
    model.network.run_eagerly = way == "eager"
    return model


@pytest.fixture(scope="module")
def counters() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        # A loop of which each step eagerly takes a hundredth of a second; test_layers holds it to its graph.
        patch.setattr(layers, "non_maximum_suppression", traced_suppression())
        found = {name: Counter(name) for name in ("detection_targets", "refine_detections")}
        for name, counter in found.items():
            patch.setattr(model_module, name, counter)
        yield found


class Runs(dict[str, SimpleNamespace]):
    """For each way, once a test wants it, a model, what it answered before it learnt, and two steps of training with the
    weights behind them."""

    def __init__(self, counters: dict[str, Counter]) -> None:
        rng = np.random.default_rng(1)
        self.counters = counters
        self.images = lesson([0, 2, 5, 1] * (DETECTION_BATCH // 4))[0]["images"]
        self.windows = np.array([[0, 0, 1, 1], [0, 0.1, 1, 0.9]] * (DETECTION_BATCH // 2), np.float32)
        self.films = [cv2.resize(draw_film(rng)[0], size) for size in ((64, 64), (90, 50), (33, 120))]

    def __missing__(self, way: str) -> SimpleNamespace:
        model = build(way)
        run = SimpleNamespace(model=model, before=weights_of(model), steps=[], traces=[], films=self.films)
        run.answers = model.network.predict_on_batch({"images": self.images, "windows": self.windows})
        for seed, counts in enumerate(([2, 1, 5], [5, 2, 0])):
            traced = self.counters["detection_targets"].calls
            logs = model.network.train_on_batch(*lesson(counts, seed), return_dict=True)
            run.steps.append({name: float(value) for name, value in logs.items()})
            run.traces.append(self.counters["detection_targets"].calls - traced)
            model.network.reset_metrics()
        run.after = weights_of(model)
        self[way] = run
        return run


@pytest.fixture(scope="module")
def runs(counters: dict[str, Counter]) -> Runs:
    return Runs(counters)


def assert_close(actual: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name)


@NO_MORE_WAYS
class TestOneResult:
    @pytest.mark.parametrize("way", COMPILED)
    def test_of_the_inference(self, runs: Runs, way: str) -> None:
        answers = runs["eager"].answers
        assert (answers["detections"][..., 4] > 0).any(axis=1).sum() > 1
        assert_close(runs[way].answers, answers, 1e-5)

    @pytest.mark.parametrize("way", COMPILED)
    def test_of_the_training_step(self, runs: Runs, way: str) -> None:
        eager, compiled = runs["eager"], runs[way]
        for actual, expected in zip(compiled.steps, eager.steps, strict=True):
            assert set(expected) == {"loss", *losses.LOSS_NAMES} and min(expected.values()) > 0
            assert_close(actual, expected, 1e-5)
        assert_close(compiled.before, eager.before, 0)
        for name, before in eager.before.items():
            moves = compiled.after[name] - before, eager.after[name] - before
            assert name.split("/")[1].startswith("moving_") or np.abs(moves[1]).max() > 1e-7, name
            assert np.abs(moves[0] - moves[1]).max() <= 0.01 * np.abs(moves[1]).max(), name


@NO_MORE_WAYS
class TestTracedOnce:
    @pytest.mark.parametrize("way", COMPILED)
    def test_training(self, runs: Runs, way: str) -> None:
        assert runs[way].traces == [1, 0]

    @pytest.mark.parametrize("way", COMPILED)
    def test_detection_whatever_the_films(
        self, runs: Runs, counters: dict[str, Counter], way: str
    ) -> None:
        model, films, counter = runs[way].model, runs[way].films, counters["refine_detections"]
        traces = []
        for group in (films[:2], films, films * 3, films[1:], films[:1], films[1:2], films[2:], films, films[:1]):
            before = counter.calls
            model.detect(group)
            traces.append(counter.calls - before)
        # Batches are filled up to one size, and that size was traced above; the first film that comes alone is another.
        assert traces == [0, 0, 0, 0, 1, 0, 0, 0, 0]


class TestBatchSizes:
    def test_detect(self, runs: Runs) -> None:
        run = runs["graph" if "graph" in WAYS else WAYS[-1]]
        model, films = run.model, (run.films * 3)[:DETECTION_BATCH]
        for name, layer in model.network.named_layers().items():  # what two steps have taught is not to find any
            for weight in layer.weights:
                weight.assign(run.before[f"{name}/{weight.name}"])
        alone = [model.detect([film])[0] for film in films]
        assert any(len(lungs["scores"]) for lungs in alone)
        for size in range(2, DETECTION_BATCH + 1):
            for together, expected in zip(model.detect(films[:size]), alone, strict=False):
                assert_close(together, expected, 1e-4)

    def test_train(self, runs: Runs) -> None:
        network = runs["eager"].model.network  # traced, each size would take seconds
        inputs, _ = lesson([5, 2, 1])
        whole = network.predict_on_batch(inputs)
        for size in (1, 2):
            some = {name: values[:size] for name, values in inputs.items()}
            answers = network.predict_on_batch(some)
            for name in ("anchor_logits", "anchor_deltas"):
                np.testing.assert_allclose(answers[name], whole[name][:size], rtol=1e-4, atol=1e-4)
            for film in range(size):
                for name in ("target_rois", "class_logits"):  # in the order of the draw
                    drawn, expected = (np.sort(values[name][film], axis=0) for values in (answers, whole))
                    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-4)
        for size in (1, 2, 3):
            some = {name: values[:size] for name, values in inputs.items()}
            logs = network.train_on_batch(some, np.zeros(size, np.float32), return_dict=True)
            assert np.isfinite(list(logs.values())).all()


class TestInstances:
    @pytest.mark.parametrize("way", MARKED)
    @pytest.mark.parametrize("counts", INSTANCES.values(), ids=INSTANCES)
    def test_nothing_breaks(self, runs: Runs, way: str, counts: list[int]) -> None:
        model = runs[way].model
        before = weights_of(model)
        model.network.reset_metrics()
        logs = model.network.train_on_batch(*lesson(counts, 2), return_dict=True)
        after = weights_of(model)
        assert all(np.isfinite(weight).all() for weight in after.values())
        learnt = {name for name in after if (after[name] != before[name]).any()}
        of_lungs = {name: float(logs[name]) for name in ("rpn_bbox_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss")}
        assert np.isfinite(list(logs.values())).all() and logs["rpn_class_loss"] > 0 and logs["mrcnn_class_loss"] > 0
        if not any(counts):
            assert set(of_lungs.values()) == {0.0}
            assert learnt and not {name for name in learnt if name.startswith(TAUGHT_BY_LUNGS)}
        else:
            assert min(of_lungs.values()) > 0
            assert all(f"{part}/kernel" in learnt for part in TAUGHT_BY_LUNGS)

    def test_detection_may_find_nothing(self, runs: Runs) -> None:
        """A network that is certain of the background everywhere."""
        model = runs["eager"].model
        bias = model.network.named_layers()["mrcnn_class_logits"].bias
        kept = keras.ops.convert_to_numpy(bias)
        bias.assign(kept + np.array([100, 0, 0], np.float32))
        (found,) = model.detect(runs["eager"].films[:1])
        bias.assign(kept)
        assert {name: values.shape for name, values in found.items()} == {
            "rois": (0, 4), "class_ids": (0,), "scores": (0,), "masks": (64, 64, 0), "windows": (0, 4),
        }

    @pytest.mark.parametrize(("lungs", "places"), [(0, 4), (1, 4), (2, 4), (2, 1)])
    def test_label_masks_give_what_there_is_room_for(self, lungs: int, places: int) -> None:
        labels = np.zeros((64, 64), np.uint8)
        for category in range(1, lungs + 1):
            labels[10:50, 20 * category : 20 * category + 10] = category
        class_ids, boxes, masks = find_instances(labels, places)
        there = min(lungs, places)
        assert class_ids.tolist() == [*range(1, there + 1), *[0] * (places - there)]
        assert masks.any(axis=(0, 1)).tolist() == (class_ids > 0).tolist() == boxes.any(axis=1).tolist()
