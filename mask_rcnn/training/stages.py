"""The two stages of a training: first the heads, then all layers, each with its own learning rate.

From random weights there is nothing to freeze: all layers learn in both, and the normalisation its statistics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from mask_rcnn.config import Config, TrainingConfig


class Stage(NamedTuple):
    """Some epochs of a training, counted from 0 over both stages."""

    first: int
    end: int  # the first epoch after it
    layers: str  # that learn, as ``MaskRCNN.compile`` takes them
    rate: float  # the learning rate it begins with


def stages_of(training: TrainingConfig, from_random: bool) -> list[Stage]:
    """The stages; from random weights there is nothing to freeze, and all layers learn in the first one too."""
    heads, whole = training.heads_epochs, training.heads_epochs + training.all_epochs
    return [
        Stage(0, heads, "all" if from_random else "heads", training.learning_rate),
        Stage(heads, whole, "all", training.learning_rate * training.all_learning_rate_factor),
    ]


def from_random_weights(config: Config) -> Config:
    """The config of a training from random weights, whose normalisation learns its statistics.

    Frozen, they would be those of no film at all: 0 and 1 in every layer, through which a deep network learns nothing.
    """
    return replace(config, network=replace(config.network, train_batch_norm=True))


def schedule_of(training: TrainingConfig, stage: Stage, steps: int) -> Any:
    """A stage's learning rate: constant, or a cosine from its rate to 0 over the stage.

    Args:
        steps: of an epoch.
    """
    import keras

    if training.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(stage.rate, (stage.end - stage.first) * steps)
    return stage.rate
