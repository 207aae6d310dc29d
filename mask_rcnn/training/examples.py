"""A few of the films to validate on, the same in every epoch, rendered with their annotated and their predicted lungs.

Shapes
    film     uint8 [side, side], fitted to the square
    lung     bool [side, side]
    picture  uint8 [height, width, 3], RGB
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

import numpy as np

from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.predictions import Example, render_examples

if TYPE_CHECKING:
    from mask_rcnn.dataset.film_cache import CachedFilms

COUNT = 6


class Examples:
    """Up to ``COUNT`` films, from all sources in turn."""

    def __init__(self, films: CachedFilms) -> None:
        self.films = films
        by_source: dict[str, list[int]] = defaultdict(list)
        for number, record in enumerate(films.records):
            by_source[record.source].append(number)
        in_turn = chain.from_iterable(zip_longest(*by_source.values()))
        self.numbers = [number for number in in_turn if number is not None][:COUNT]

    def render(self, lungs: Mapping[int, Mapping[int, np.ndarray]]) -> np.ndarray:
        """The picture.

        Args:
            lungs: predicted, by number of the film and category.
        """
        shown = []
        for number in self.numbers:
            film = self.films[number]
            annotated = {category: film.labels == category for category in CATEGORIES}
            shown.append(Example(film.record.path.name, film.film, annotated, lungs[number]))
        return render_examples(shown)
