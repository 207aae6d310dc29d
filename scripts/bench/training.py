"""A training step of ``configs/lungs_small.yaml`` by part, and how long it waits for its data."""

from __future__ import annotations

import resource
from pathlib import Path

from bench.clock import median_seconds, seconds

STEPS = 24  # of the epoch that is measured


def training_step(data: Path, weights: str) -> dict[str, float]:
    """Seconds a step, of all of it and of its parts; the share of an epoch that is not steps; GiB at most.

    Args:
        data: a folder with ``images/`` and ``masks/``.
        weights: to start from, so that as many proposals are positive as in a training that has begun.
    """
    from mask_rcnn.system.backend import import_keras

    keras = import_keras()

    from mask_rcnn.config import load_config
    from mask_rcnn.dataset.batches import TrainingBatches
    from mask_rcnn.dataset.sources import read_records
    from mask_rcnn.dataset.training_films import load_films
    from mask_rcnn.model import MaskRCNN

    config = load_config("lungs_small")
    model = MaskRCNN(config, config.training.precision)
    model.load_weights(weights)
    model.compile(1e-6)
    films = load_films(read_records(data, config.laterality), config.network.image_size)
    wanted = STEPS * config.training.batch_size
    batches = TrainingBatches((films * wanted)[:wanted], config, 0, augment=True)
    inputs, targets = batches[0]
    network = model.network
    took = {
        "data of a batch, one thread": median_seconds(lambda: batches[1]),
        "step": median_seconds(lambda: network.train_on_batch(inputs, targets)),
        "forward": median_seconds(lambda: network.test_on_batch(inputs, targets)),
    }
    took["backward and update"] = took["step"] - took["forward"]
    epoch = seconds(lambda: model.fit_stage(batches, None, 0, 1, verbose=0))
    steps = STEPS * took["step"]
    took["films a second"] = wanted / epoch
    took["share of waiting"] = max(0.0, 1 - steps / epoch)
    took["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    keras.backend.clear_session()
    return took
