"""Which epoch of a training is the best so far, and how long a better one is waited for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Best(NamedTuple):
    """An epoch, from 1, by what it is compared with others."""

    epoch: int
    dice: float  # of validation
    loss: float  # likewise; of epochs of the same Dice, such as 0 in the beginning, the lower one is better


def best_of(best: Best | None, epoch: int, scores: Mapping[str, Any]) -> Best | None:
    """The better one of the best epoch so far and another; of equal ones the earlier.

    Args:
        best: None where there is none.
        scores: of the other epoch; without a validation Dice it is not compared.
    """
    if "val_dice" not in scores:
        return best
    other = Best(epoch, float(scores["val_dice"]), float(scores.get("val_loss", 0.0)))
    return other if best is None or (other.dice, -other.loss) > (best.dice, -best.loss) else best


def is_worn_out(best: Best | None, epoch: int, first: int, patience: int) -> bool:
    """Whether a stage has gone ``patience`` epochs without a new best one; never where that is 0.

    Args:
        epoch: the last one, from 1.
        first: number of epochs before the stage; waiting begins anew with it.
    """
    return patience > 0 and best is not None and epoch - max(best.epoch, first) >= patience
