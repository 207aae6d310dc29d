"""The Dice to validate by, after every epoch.

Shapes
    film    uint8 [side, side], fitted to the square
    labels  uint8 [side, side], 0 background, else the category id
    lung    bool [side, side], as predicted
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.prediction import DETECTION_BATCH

if TYPE_CHECKING:
    from mask_rcnn.dataset.training_films import TrainingFilm
    from mask_rcnn.model import MaskRCNN

VALIDATION_DICE = {category: f"val_dice_{name}" for category, name in CATEGORIES.items()}  # names of the scores, by lung


class Validation(NamedTuple):
    """What a network has come to on the films to validate on."""

    scores: dict[str, float]
    lungs: dict[int, dict[int, np.ndarray]]  # by number of the film, for those asked for, and category


def validate(model: MaskRCNN, films: Sequence[TrainingFilm], wanted: Collection[int] = ()) -> Validation:
    """The Dice of each lung's best detection over films fitted to the square.

    A lung that is not found counts 0; a film that shows none of that lung does not count. A score is the mean over the
    sources of their films' mean, so that no large set outweighs a small one: each lung's own, ``val_dice`` of both, and of
    several sources ``val_dice_left_lung/SOURCE`` and so on.

    Args:
        wanted: numbers of films whose predicted lungs are to be given.
    """
    from mask_rcnn.evaluation.overlap import dice

    dices: dict[str, dict[int, list[float]]] = defaultdict(lambda: {category: [] for category in CATEGORIES})
    lungs: dict[int, dict[int, np.ndarray]] = {}
    batch = 1 if len(films) == 1 else DETECTION_BATCH  # and no more films in memory
    for start in range(0, len(films), batch):
        some = list(films[start : start + batch])
        for number, (film, found) in enumerate(
            zip(some, model.detect([film.film for film in some], batch=batch), strict=True), start
        ):
            predicted = {}
            for category in CATEGORIES:
                own = np.flatnonzero(found["class_ids"] == category)
                predicted[category] = found["masks"][..., own[0]] if len(own) else np.zeros(film.labels.shape, bool)
                truth = film.labels == category
                if truth.any():
                    dices[film.record.source][category].append(dice(predicted[category], truth))
            if number in wanted:
                lungs[number] = predicted
    return Validation(_scores(dices), lungs)


def _scores(dices: dict[str, dict[int, list[float]]]) -> dict[str, float]:
    """The means of the Dice by source and category."""
    scores = {}
    everything = [[value for values in of_source.values() for value in values] for of_source in dices.values()]
    if everything:
        scores["val_dice"] = _mean_of_means(everything)
    for category, key in VALIDATION_DICE.items():
        if of_lung := [of_source[category] for of_source in dices.values() if of_source[category]]:
            scores[key] = _mean_of_means(of_lung)
    if len(dices) > 1:
        names = source_names(list(dices))
        for source, of_source in sorted(dices.items()):
            scores |= {f"{VALIDATION_DICE[category]}/{names[source]}": float(np.mean(values))
                       for category, values in of_source.items() if values}
    return scores


def _mean_of_means(values: Sequence[Sequence[float]]) -> float:
    return float(np.mean([np.mean(some) for some in values]))


def source_names(sources: Sequence[str]) -> dict[str, str]:
    """Short names of sources: those of the folders or files, or the paths where two have the same."""
    from mask_rcnn.evaluation.predictors import unique_names

    return dict(zip(sources, unique_names([Path(source) for source in sources], ".json"), strict=True))
