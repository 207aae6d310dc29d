"""What is done after every step and epoch of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mask_rcnn.training.event_pictures import EventPictures
from mask_rcnn.training.examples import Examples
from mask_rcnn.training.run_folder import TrainingError
from mask_rcnn.training.validation import validate

if TYPE_CHECKING:
    from mask_rcnn.dataset.film_cache import CachedFilms
    from mask_rcnn.model import MaskRCNN


def refuse_infinite(batch: int, logs: Mapping[str, float] | None = None) -> None:
    """Ends a training whose losses are no numbers any more; raises TrainingError."""
    terms = dict(logs or {})
    if not all(np.isfinite(value) for value in terms.values()):
        listed = ", ".join(f"{key} {value:.4g}" for key, value in terms.items())
        raise TrainingError(f"a loss is not finite at step {batch + 1}: {listed}; lower training.learning_rate")


def callbacks_of(
    model: MaskRCNN, validation: CachedFilms, run: Path, keep: Callable[[int, dict[str, float]], None], films: int,
    ready: Mapping[int, float],
) -> list[Any]:  # fmt: skip
    """Keras's callbacks of a training; the order matters: what is measured first is logged and kept after.

    Args:
        validation: films whose Dice is measured after every epoch, and some of which are rendered for TensorBoard.
        run: the training's folder, for TensorBoard.
        keep: is called with the number of each epoch, from 1, and its scores.
        films: of a training step.
        ready: when each batch of the epoch was made, by ``time.monotonic``.
    """
    import keras

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """The seconds of an epoch, and the films a second of its steps behind the first, which may wait for a compiler.

        A step waits for its data from its beginning until its batch was made; not while the very first one is traced, beside
        which a batch takes its time.
        """

        def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
            self.is_traced = False

        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            self.began, self.ends, self.waited = time.monotonic(), [time.monotonic()], 0.0

        def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.step_began = time.monotonic()

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.ends = [*self.ends[:2], time.monotonic()]
            if batch or self.is_traced:
                self.waited += max(0.0, ready.get(batch, 0.0) - self.step_began)
            self.steps = batch + 1

        def measure(self) -> dict[str, float]:
            first, last = self.ends[-2:] if self.steps == 1 else self.ends[1:]
            rate = films * max(1, self.steps - 1) / max(last - first, 1e-9)
            waited = self.waited / max(last - (self.began if self.is_traced else self.ends[1]), 1e-9)
            self.is_traced = True
            return {"seconds": time.monotonic() - self.began, "films_per_second": rate, "waited": waited}

    clock, examples = Clock(), Examples(validation)
    pictures = EventPictures(run / "predictions")

    def measure(epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(model.network.optimizer.learning_rate)  # of the epoch's last step
            if validation:
                scores, lungs = validate(model, validation, examples.numbers)
                logs.update(scores)
                pictures.add("films_of_validation", examples.render(lungs), epoch)
            logs.update(clock.measure())

    def keep_epoch(epoch: int, logs: Mapping[str, float] | None = None) -> None:
        keep(epoch + 1, {key: round(float(value), 5) for key, value in (logs or {}).items()})

    return [
        clock,
        keras.callbacks.LambdaCallback(on_train_batch_end=refuse_infinite),
        keras.callbacks.LambdaCallback(on_epoch_end=measure),
        keras.callbacks.TensorBoard(run, write_graph=False, profile_batch=0),
        keras.callbacks.LambdaCallback(on_epoch_end=keep_epoch, on_train_end=lambda _: pictures.close()),
    ]
