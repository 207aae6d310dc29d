"""What is done after every step and epoch of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mask_rcnn.training import run_folder
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.training.validation import validation_dice

if TYPE_CHECKING:
    from mask_rcnn.dataset.training_films import TrainingFilm
    from mask_rcnn.model import MaskRCNN


def callbacks_of(
    model: MaskRCNN, validation: Sequence[TrainingFilm], run: Path, begun: Mapping[str, str]
) -> list[Any]:
    """Keras's callbacks of a training; the order matters: what is measured first is logged and kept after.

    Args:
        validation: films whose Dice is measured after every epoch.
        run: the training's folder, for checkpoint, log and TensorBoard.
        begun: as ``run_folder.beginning`` gives it.
    """
    import keras

    def refuse_infinite(batch: int, logs: Mapping[str, float] | None = None) -> None:
        terms = dict(logs or {})
        if not all(np.isfinite(value) for value in terms.values()):
            listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
            raise TrainingError(f"a loss is not finite at step {batch + 1}: {listed}; lower training.learning_rate")

    def measure(epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(model.network.optimizer.learning_rate)  # of the epoch's last step
            if validation:
                logs.update(validation_dice(model, validation))

    def keep(epoch: int, logs: Mapping[str, float] | None = None) -> None:
        scores = {key: round(float(value), 5) for key, value in (logs or {}).items()}
        run_folder.keep_epoch(model, run, epoch + 1, scores, begun)

    return [
        keras.callbacks.LambdaCallback(on_train_batch_end=refuse_infinite),
        keras.callbacks.LambdaCallback(on_epoch_end=measure),
        keras.callbacks.TensorBoard(run, write_graph=False, profile_batch=0),
        keras.callbacks.LambdaCallback(on_epoch_end=keep),
    ]
