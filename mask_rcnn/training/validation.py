"""The Dice to validate by, after every epoch.

Shapes
    film    uint8 [side, side], fitted to the square
    labels  uint8 [side, side], 0 background, else the category id
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mask_rcnn.lungs import CATEGORIES

if TYPE_CHECKING:
    from mask_rcnn.dataset.training_films import TrainingFilm
    from mask_rcnn.model import MaskRCNN

VALIDATION_DICE = {category: f"val_dice_{name}" for category, name in CATEGORIES.items()}  # names of the scores, by lung


def validation_dice(model: MaskRCNN, films: Sequence[TrainingFilm]) -> dict[str, float]:
    """The mean Dice of each lung's best detection over films fitted to the square: ``val_dice`` and each lung's own.

    A lung that is not found counts 0; a film that shows none of that lung does not count.
    """
    from mask_rcnn.evaluation.overlap import dice

    scores: dict[int, list[float]] = {category: [] for category in CATEGORIES}
    for film, found in zip(films, model.detect([film.film for film in films]), strict=True):
        for category in CATEGORIES:
            truth = film.labels == category
            if truth.any():
                own = np.flatnonzero(found["class_ids"] == category)
                mask = found["masks"][..., own[0]] if len(own) else np.zeros_like(truth)
                scores[category].append(dice(mask, truth))
    result = {VALIDATION_DICE[key]: float(np.mean(values)) for key, values in scores.items() if values}
    everything = [score for values in scores.values() for score in values]
    return {"val_dice": float(np.mean(everything)), **result} if everything else {}
