"""How well a measure predicts failures.

Shapes
    failures, others  float [n], [m], a measure of films whose result is bad, and of the others
"""

from __future__ import annotations

import numpy as np


def roc_area(failures: np.ndarray, others: np.ndarray) -> float:
    """The area under the ROC curve of a measure that is to be low for failures; NaN where there are none, or no others.

    It is the probability that a failure has the lower value of the two, a tie counted half (Hanley and McNeil, Radiology
    143, 1982): 1 separates them, 0.5 is chance.

    Args:
        failures: float [n], the measure of the failures.
        others: float [m], of the others.
    """
    if not len(failures) or not len(others):
        return float("nan")
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, failures, side) for side in ("left", "right"))
    return float(1 - (below + up_to).mean() / (2 * len(ordered)))


def youden_threshold(failures: np.ndarray, others: np.ndarray) -> float:
    """The threshold of a measure that separates failures from others best; NaN where there are none of either.

    It has the greatest share of failures below it less the share of others (Youden's J, Cancer 3, 1950), lies in the
    middle between two values, and is the lowest of several that are as good.

    Args:
        failures: float [n], the measure of the failures, to be low.
        others: float [m], of the others.
    """
    if not len(failures) or not len(others):
        return float("nan")
    values = np.unique(np.concatenate([failures, others]))
    middles = np.concatenate([values[:1], (values[:-1] + values[1:]) / 2])
    shares = [np.searchsorted(np.sort(part), middles) / len(part) for part in (failures, others)]
    return float(middles[np.argmax(shares[0] - shares[1])])
