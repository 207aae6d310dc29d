"""Which films an epoch shows, where some sources have more than their share of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def films_of_epoch(
    sources: Sequence[str], per_epoch: Mapping[str, int], epoch: int, seed: int
) -> np.ndarray:
    """The positions of the films that an epoch shows, in their order.

    Every film of a source is shown once before one is shown again, in as many epochs as that takes.

    Args:
        sources: of each film.
        per_epoch: how many films of a source an epoch shows; all of them once where it is not named.
    """
    chosen = []
    for source in dict.fromkeys(sources):
        places = np.array([k for k, other in enumerate(sources) if other == source])
        count = per_epoch.get(source, len(places))
        rounds, within = np.divmod(np.arange(epoch * count, (epoch + 1) * count), len(places))
        orders = {int(k): np.random.default_rng((seed, int(k))).permutation(len(places)) for k in np.unique(rounds)}
        chosen.append(places[[orders[int(k)][place] for k, place in zip(rounds, within, strict=True)]])
    return np.random.default_rng((seed, epoch, 0)).permutation(np.concatenate(chosen))
