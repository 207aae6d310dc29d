"""How far the members of a bag agree on a lung and on a film.

Shapes
    masks   bool [n, height, width], one lung as n members predict it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mask_rcnn.bag.lung import Lung
from mask_rcnn.lungs import CATEGORIES


def agreement(masks: Sequence[np.ndarray]) -> float:
    """The mean Dice over all pairs of masks, bool [height, width] each; NaN where there is no pair or all are empty."""
    bits = np.zeros((len(masks), -(-masks[0].size // 64) * 8), np.uint8)
    for own, mask in zip(bits, masks, strict=True):
        packed = np.packbits(mask)
        own[: len(packed)] = packed
    words = bits.view(np.uint64)  # 64 pixels at a time
    areas = np.bitwise_count(words).sum(axis=1).tolist()
    dices = [
        2 * int(np.bitwise_count(words[i] & words[j]).sum()) / (areas[i] + areas[j])
        for i in range(len(masks)) for j in range(i) if areas[i] + areas[j]
    ]  # fmt: skip
    return float(np.mean(dices)) if dices else float("nan")


def film_agreement(lungs: Mapping[int, Lung], member_count: int) -> float:
    """How far the members agree on a film: the mean Dice over all pairs of them, of the lung where it is lower.

    A member that did not find a lung has Dice 0 with all others, and a film without one of its lungs has 0.

    Args:
        lungs: as ``bag_film`` gives them.
        member_count: of all members, those included that found nothing.

    Returns:
        From 0 to 1; NaN of one member alone, which has nobody to agree with.
    """
    if member_count < 2:
        return float("nan")
    pairs = member_count * (member_count - 1)
    # A lung's own agreement is that of the pairs that both found it, which are none where one member did.
    return min(
        lungs[category].agreement * lungs[category].votes * (lungs[category].votes - 1) / pairs
        if category in lungs and lungs[category].votes > 1
        else 0.0
        for category in CATEGORIES
    )
