"""Charts: shapes as SVG that stretch to the page, and their ticks, which the templates write beside them in HTML.

Shapes stretch and words do not, so a chart is legible on a telephone. Colours are the page's own, by class of a bar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 1000, 160  # of a histogram's own coordinates; a strip is as wide
STRIP_HEIGHT = 20
PERCENTILES = (5, 25, 50, 75, 95)
X_INTERVALS, Y_INTERVALS = 5, 4  # the second at most


class Bar(NamedTuple):
    """A rectangle of a chart."""

    name: str  # the class that colours it
    x: float
    y: float
    width: float
    height: float


class Tick(NamedTuple):
    """A mark of an axis."""

    place: float  # percent of the axis, from the left or from below
    text: str


class Histogram(NamedTuple):
    """Bars and both axes."""

    bars: list[Bar]
    x: list[Tick]
    y: list[Tick]


def histogram(values: Mapping[str, Sequence[float]], low: float, high: float, bins: int) -> Histogram:
    """Bars from ``low`` to ``high``, the classes stacked; what lies beyond is counted in the outermost bars.

    Args:
        values: by class of the page, from the lowest bar of a stack to the highest.
        low, high, bins: of the axis.
    """
    counts = [np.histogram(np.clip(of_class, low, high), bins, (low, high))[0] for of_class in values.values()]
    steps = _count_steps(int(np.sum(counts, axis=0).max()) if counts else 0)
    top = steps[-1]
    base = np.zeros(bins)
    bars = []
    for name, of_class in zip(values, counts, strict=True):
        for k in np.flatnonzero(of_class):
            height = HEIGHT * of_class[k] / top
            y = HEIGHT - HEIGHT * base[k] / top - height
            bars.append(Bar(name, WIDTH * int(k) / bins + 1, float(y), WIDTH / bins - 2, float(height)))
        base += of_class
    everything = [value for of_class in values.values() for value in of_class]
    beyond = min(everything, default=low) < low, max(everything, default=high) > high
    x = []
    for number in range(X_INTERVALS + 1):
        mark = "≤ " * (beyond[0] and number == 0) + "≥ " * (beyond[1] and number == X_INTERVALS)
        x.append(Tick(100 * number / X_INTERVALS, f"{mark}{low + (high - low) * number / X_INTERVALS:.3g}"))
    return Histogram(bars, x, [Tick(100 * step / top, f"{step:,}") for step in steps])


def _count_steps(highest: int) -> list[int]:
    """Round numbers from 0 to ``highest`` or a little above, 1, 2 or 5 times a power of ten apart."""
    rough = max(1.0, highest / Y_INTERVALS)
    power = 10 ** int(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return list(range(0, max(highest, 1) + step, step))


def strip(values: Sequence[float], low: float, high: float) -> list[Bar]:
    """A row of a box plot: a line from the 5th to the 95th percentile, a box from the 25th to the 75th, the median."""
    places = WIDTH * (np.clip(np.percentile(values, PERCENTILES), low, high) - low) / (high - low)
    p5, p25, p50, p75, p95 = places.tolist()
    return [
        Bar("whisker", p5, 9, max(p95 - p5, 2), 2),
        Bar("box", p25, 3, max(p75 - p25, 2), 14),
        Bar("median", min(max(p50 - 2, 0), WIDTH - 4), 1, 4, 18),
    ]


def summary(values: Sequence[float]) -> str:
    """The median, and the 5th to 95th percentile."""
    p5, _, p50, _, p95 = np.percentile(values, PERCENTILES)
    return f"{p50:.2f} ({p5:.2f} to {p95:.2f})"
