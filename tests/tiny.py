"""A network small enough to train in a test, and drawn films with known lungs to train it on."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from mask_rcnn.config import Config, config_from_dict
from mask_rcnn.model import MaskRCNN, Network
from mask_rcnn.network import layers
from mask_rcnn.utils import match_anchors, norm_boxes, pyramid_anchors, subtract_mean
from mask_rcnn.weights.checkpoint import read_config

SIDE = 128
BATCH = 4
LOSS_WEIGHTS = (1.0, 2.0, 1.0, 1.5, 0.5)

Example = tuple[np.ndarray, np.ndarray, Sequence[int]]  # film uint8 [s, s], masks bool [s, s, n], class ids


def tiny_config(**changes: dict[str, Any]) -> Config:
    """Sections of the configuration, with what is to differ from these."""
    sections: dict[str, dict[str, Any]] = {
        "network": {
            "image_size": SIDE,
            "backbone": "resnet14",
            "backbone_width": 8,
            "pyramid_channels": 16,
            "pyramid_output_channels": 16,
            "rpn_channels": 16,
            "box_head_channels": 32,
            "mask_head_channels": 16,
            "train_batch_norm": True,
            "anchor_scales": [8, 16, 32, 64, 128],
        },
        "proposals": {"before_nms": 200, "training_count": 30, "inference_count": 30},
        "targets": {"rois_per_image": 16, "positive_fraction": 0.5, "add_ground_truth": True},
        "detection": {"min_score": 0.3, "max_instances": 6},
        "training": {"batch_size": BATCH, "optimiser": "adam", "loss_weights": list(LOSS_WEIGHTS)},
    }
    return config_from_dict({name: values | changes.get(name, {}) for name, values in sections.items()})


def drawing_all_config(train_batch_norm: bool = False, optimiser: str = "sgd") -> Config:
    """Every proposal is drawn, so that no lot decides what is learnt; no momentum and no penalty.

    So few are proposed that hardly any two have equal scores, which each backend would order by its own rounding.
    """
    return tiny_config(
        network={"image_size": 64, "anchor_scales": [4, 8, 16, 32, 64], "train_batch_norm": train_batch_norm},
        proposals={"before_nms": 40, "training_count": 20, "inference_count": 20},
        targets={"rois_per_image": 2 * 25, "max_instances": 5},
        detection={"min_score": 0.0},
        training={
            "batch_size": 3, "optimiser": optimiser, "momentum": 0.0, "weight_decay": 0.0, "loss_weights": [1.0] * 5
        },
    )


def build_sober(config: Config, **arguments: Any) -> MaskRCNN:
    """An untrained model, the same each time, with numbers of the size that training gives them and RoIs that are lungs."""
    keras.utils.set_random_seed(0)
    model = MaskRCNN(config, **arguments)
    named = model.network.named_layers()
    named["bn_conv1"].moving_variance.assign(np.full(config.network.backbone_width, 1e4, np.float32))
    kernel = named["mrcnn_class_logits"].kernel
    kernel.assign(keras.ops.convert_to_numpy(kernel) * np.array([0, 3, 3], np.float32))
    return model


@contextlib.contextmanager
def eager_networks() -> Iterator[None]:
    """Within it networks train and predict without tracing, which takes as long as ten steps; ``test_compiled`` holds the
    two ways to one result. Only the suppression, a loop, is traced, once for all networks of a size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "run_eagerly", property(lambda _: True, lambda *_: None))
        patch.setattr(layers, "non_maximum_suppression", traced_suppression())
        yield


@functools.cache
def traced_suppression() -> Callable[..., Any]:
    """``layers.non_maximum_suppression``, traced on TensorFlow, which takes seconds for its loop otherwise."""
    if keras.backend.backend() != "tensorflow":
        return layers.non_maximum_suppression
    import tensorflow as tf

    return tf.function(layers.non_maximum_suppression, autograph=False)  # type: ignore[no-any-return]


def refilled(load: Callable[..., MaskRCNN]) -> Callable[..., MaskRCNN]:
    """``MaskRCNN.load`` that builds and traces the network of a config and settings once, and fills it anew each time."""
    built: dict[tuple[Config, tuple[str, ...]], MaskRCNN] = {}

    def load_again(path: str | Path, settings: Sequence[str] = ()) -> MaskRCNN:
        kind = read_config(path), tuple(settings)
        if kind not in built:
            built[kind] = load(path, settings=settings)
        built[kind].load_weights(path)
        return built[kind]

    return load_again


def draw_film(rng: np.random.Generator, lungs: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A bright square with two dark ellipses, the patient's left lung (1) on the image's right; film and labels."""
    y, x = np.mgrid[:SIDE, :SIDE]
    film, labels = rng.normal(190, 8, (SIDE, SIDE)), np.zeros((SIDE, SIDE), np.uint8)
    for class_id, middle in ((1, 92), (2, 36)) if lungs else ():
        centre = rng.uniform(-6, 6, 2) + (64, middle)
        inside = ((y - centre[0]) / rng.uniform(32, 42)) ** 2 + (
            (x - centre[1]) / rng.uniform(14, 20)
        ) ** 2 < 1
        film[inside] -= 130
        labels[inside] = class_id
    return film.clip(0, 255).astype(np.uint8), labels


def draw_instances(rng: np.random.Generator, side: int, count: int) -> Example:
    """A bright square with up to five dark ellipses that do not touch, of both classes in turn."""
    y, x = np.mgrid[:1:side * 1j, :1:side * 1j]
    film, masks = rng.normal(190, 8, (side, side)), np.zeros((side, side, count), bool)
    for index, (row, column) in enumerate([(0.25, 0.25), (0.75, 0.75), (0.25, 0.75), (0.75, 0.25), (0.5, 0.5)][:count]):
        masks[..., index] = ((y - row) / 0.2) ** 2 + ((x - column) / rng.uniform(0.1, 0.14)) ** 2 < 1
        film[masks[..., index]] -= 130
    return film.clip(0, 255).astype(np.uint8), masks, [1 + index % 2 for index in range(count)]


def batch_of(
    config: Config, examples: Sequence[Example], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs as ``model`` wants them, and the targets that only Keras wants."""
    network, slots = config.network, config.targets.max_instances
    side = network.image_size
    anchors = pyramid_anchors(side, network.anchor_scales, network.anchor_ratios)
    rows = []
    for film, masks, class_ids in examples:
        found = len(class_ids)
        boxes = np.zeros((slots, 4), np.float32)
        for slot in range(found):
            ys, xs = np.nonzero(masks[..., slot])
            boxes[slot] = ys.min(), xs.min(), ys.max() + 1, xs.max() + 1
        match, deltas = match_anchors(
            anchors, boxes[:found], config.targets.anchors_per_image, config.proposals.box_std, rng
        )
        boxes[:found] = norm_boxes(boxes[:found], (side, side))
        rows.append(
            {
                "images": subtract_mean(film, network),
                "anchor_match": match.astype(np.int32),
                "anchor_deltas": deltas.astype(np.float32),
                "class_ids": np.pad(np.array(class_ids, np.int32), (0, slots - found)),
                "boxes": boxes,
                "masks": np.pad(masks.astype(np.uint8), ((0, 0), (0, 0), (0, slots - found))),
            }
        )
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return inputs, np.zeros(len(rows), np.float32)


def draw_batch(
    config: Config, rng: np.random.Generator, lungs: bool = True
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch of drawn films that show both lungs, or none."""
    examples = []
    for _ in range(config.training.batch_size):
        film, labels = draw_film(rng, lungs)
        class_ids = [1, 2] if lungs else []
        examples.append((film, labels[..., None] == np.array(class_ids, np.int32), class_ids))
    return batch_of(config, examples, rng)


class Lessons(keras.utils.PyDataset):
    """Batches that are drawn beforehand."""

    def __init__(self, batches: list[tuple[dict[str, np.ndarray], np.ndarray]]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return self.batches[index]


def weights_of(model: MaskRCNN) -> dict[str, np.ndarray]:
    named = model.network.named_layers().items()
    return {
        f"{name}/{weight.name}": keras.ops.convert_to_numpy(weight) for name, layer in named for weight in layer.weights
    }


def gradients(values: Sequence[Any], loss: Callable[[], Any]) -> list[np.ndarray]:
    """The slopes of a loss in Keras variables, by whichever means the backend has; of one it does not touch, zeros."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def stateless(numbers: list[Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(values, numbers, strict=True))):
                return loss()

        return [np.asarray(slope) for slope in jax.jit(jax.grad(stateless))([variable.value for variable in values])]
    if backend == "torch":
        for variable in values:
            variable.value.grad = None
        loss().backward()
        slopes = [variable.value.grad for variable in values]
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = loss()
        slopes = tape.gradient(total, [variable.value for variable in values])
    return [np.zeros(v.shape) if s is None else np.array(s) for v, s in zip(values, slopes, strict=True)]
