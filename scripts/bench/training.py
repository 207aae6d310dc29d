"""Trainings as ``train.py`` runs them: a step by part, its wait for data, and the bare networks' share of it."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.clock import median_seconds
from bench.inference import random_layers

STEPS = 24  # of an epoch


def training_step(data: Path, config_name: str, weights: str | None, steps: int = STEPS) -> dict[str, Any]:
    """Seconds of the first step, of a later one and of its parts; the share of waiting for data; GiB at most.

    ``bare`` is a forward and backward pass of trunk and heads alone, at the sizes of the step: no proposals, targets,
    pooling, losses nor optimiser. ``first step`` is traced by TensorFlow. The others are those of a second epoch.

    Args:
        data: a folder with ``images/`` and ``masks/``.
        weights: to start from, so that as many proposals are positive as in a training that has begun; None takes random
            ones of the sizes that training gives them.
    """
    from mask_rcnn.config import load_config
    from mask_rcnn.system.backend import import_keras
    from mask_rcnn.system.precision import choose_precision, prepare_precision

    config = load_config(config_name)
    prepare_precision(config.training.precision)
    keras = import_keras()
    precision, line = choose_precision(config.training.precision)

    from mask_rcnn.dataset.batches import TrainingBatches
    from mask_rcnn.dataset.sources import read_records
    from mask_rcnn.dataset.training_films import load_films
    from mask_rcnn.model import MaskRCNN
    from mask_rcnn.weights.weights_file import assign

    model = MaskRCNN(config, precision)
    if weights:
        model.load_weights(weights)
    else:
        assign(model.network, {name: dict(of) for name, of in random_layers(config).items()})
    model.compile(1e-6)
    films = load_films(read_records(data, config.laterality), config.network.image_size)
    size = config.training.batch_size
    batches = TrainingBatches((films * steps * size)[: steps * size], config, 0, augment=True)

    begins: list[float] = []
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: begins.append(time.monotonic()),
        on_train_batch_end=lambda batch, logs: ends.append(time.monotonic()),
    )
    model.fit_stage(batches, None, 0, 2, [clock], verbose=0)
    epoch = ends[-1] - begins[steps]
    waited = sum(max(0.0, batches.ready[number] - begin) for number, begin in enumerate(begins[steps:]))
    inputs, targets = batches[0]
    took = {
        "first step": ends[0] - begins[0],
        "step": epoch / steps,
        "bare": median_seconds(bare_step(model.network, size), 3),
        "forward": median_seconds(lambda: model.network.test_on_batch(inputs, targets), 3),
        "data of a batch, one thread": median_seconds(lambda: batches[1], 3),
        "films a second": steps * size / epoch,
        "share of waiting": waited / epoch,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "batch": size,
        "precision": line.partition(";")[0],
    }
    keras.backend.clear_session()
    return took


def bare_step(network: Any, films: int) -> Any:
    """A function that computes the gradients of trunk and heads, all layers learning, from images and RoIs of noise."""
    import tensorflow as tf

    config, learns = network.settings, network.settings.network.train_batch_norm
    rng, side, channels = np.random.default_rng(0), config.network.image_size, config.network.pyramid_output_channels
    positives = max(1, int(config.targets.rois_per_image * config.targets.positive_fraction))

    def noise(*shape: int) -> Any:
        return tf.constant(rng.standard_normal(shape, np.float32))

    images = 50 * noise(films, side, side, 3)
    boxes, masks = (noise(films * count, pool, pool, channels) for count, pool in (
        (config.targets.rois_per_image, config.network.box_pool_size), (positives, config.network.mask_pool_size)))

    @tf.function(autograph=False)
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([boxes, masks])
            outputs = [*network.score_anchors(network.pyramid(images, training=learns)),
                       *network.box_head(boxes, training=learns), network.mask_head(masks, training=learns)]  # fmt: skip
            loss = sum(tf.reduce_mean(tf.square(tf.cast(output, "float32"))) for output in outputs)
        return tape.gradient(loss, [*(variable.value for variable in network.trainable_variables), boxes, masks])

    return lambda: [None if value is None else value.numpy() for value in gradients()]
