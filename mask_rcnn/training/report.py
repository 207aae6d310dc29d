"""What a training shows of an epoch: a short line at its end, and on a terminal a bar within it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from mask_rcnn.lungs import SIDES
from mask_rcnn.system.console import detail, inform
from mask_rcnn.system.progress import progress
from mask_rcnn.training.validation import VALIDATION_DICE


def epoch_line(epoch: int, epochs: int, scores: Mapping[str, float], seconds: float, is_best: bool = False) -> str:
    """An epoch in a line: losses, validation Dice, seconds, the share of the steps' time in which they waited for their
    data, and the time left if all further epochs take as long.

    Args:
        epoch: from 1, of ``epochs``.
        scores: as Keras gives them, with those of ``validate``; what is not there is left out.
        seconds: that it took, validation included.
        is_best: whether it is the best epoch so far.
    """
    parts = [f"epoch {epoch}/{epochs}"]
    if "loss" in scores:
        parts.append(f"loss {scores['loss']:.3f}")
    if "val_loss" in scores:
        parts.append(f"validation {scores['val_loss']:.3f}")
    dices = [f"{SIDES[category]} {scores[key]:.3f}" for category, key in VALIDATION_DICE.items() if key in scores]
    if dices:
        parts.append(f"Dice {' '.join(dices)}{_by_source(scores)}")
    if is_best:
        parts.append("best so far")
    waited = f" ({scores['waited']:.0%} waiting)" if "waited" in scores else ""
    parts.append(f"{duration(seconds)}{waited}")
    if epoch < epochs:
        parts.append(f"{duration(seconds * (epochs - epoch))} left")
    return ", ".join(parts)


def _by_source(scores: Mapping[str, float]) -> str:
    """Of several sources the Dice of each, of the lungs in their order: `` (shenzhen 0.96 0.97, openist 0.95 0.96)``."""
    names = dict.fromkeys(key.partition("/")[2] for key in scores if key.startswith("val_dice") and "/" in key)
    listed = []
    for name in names:
        values = (scores.get(f"{key}/{name}") for key in VALIDATION_DICE.values())
        listed.append(" ".join([name, *("-" if value is None else f"{value:.2f}" for value in values)]))
    return f" ({', '.join(listed)})" if listed else ""


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def epoch_report(name: str, epochs: int, steps: int, best_epoch: Callable[[], int | None]) -> Any:
    """A callback of Keras that prints a line an epoch, and shows a bar meanwhile where standard error is a terminal.

    Args:
        name: of the training, for the lines.
        epochs: of the whole training.
        steps: of an epoch.
        best_epoch: gives the number of the best one so far, from 1.
    """
    import keras

    from mask_rcnn.network.losses import LOSS_NAMES

    class EpochReport(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            self.began = time.monotonic()
            self.bar = progress(name=f"epoch {epoch + 1}/{epochs}", total=steps, unit="steps", lines=False, leave=False)

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.bar.update()

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            scores = logs or {}
            self.bar.close()
            seconds, is_best = time.monotonic() - self.began, best_epoch() == epoch + 1
            inform(f"{name}: {epoch_line(epoch + 1, epochs, scores, seconds, is_best)}")
            listed = [f"{loss} {scores[loss]:.3f}" for loss in LOSS_NAMES if loss in scores]
            listed.append(f"{scores.get('films_per_second', 0):.1f} films/s")
            detail(f"{name}: {', '.join(listed)}")

        def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
            self.bar.close()

    return EpochReport()
