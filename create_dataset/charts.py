"""Charts as inline SVG: shapes alone, which stretch to the page, their words beside them in HTML.

Colours are the page's own, by class: ``fill`` of ``.accepted`` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 1000, 160  # of a histogram's own coordinates; a strip is as wide
PERCENTILES = (5, 25, 50, 75, 95)


def histogram(values: Mapping[str, Sequence[float]], low: float, high: float, bins: int, label: str) -> str:
    """Bars from ``low`` to ``high``, the classes stacked; what lies beyond is counted in the outermost bars.

    Args:
        values: by class of the page, from the lowest bar of a stack to the highest.
        low, high, bins: of the axis.
        label: for a screen reader.
    """
    counts = [np.histogram(np.clip(of_class, low, high), bins, (low, high))[0] for of_class in values.values()]
    highest = max(1, int(np.sum(counts, axis=0).max())) if counts else 1
    base = np.zeros(bins)
    bars = []
    for name, of_class in zip(values, counts, strict=True):
        for k in np.flatnonzero(of_class):
            height = HEIGHT * of_class[k] / highest
            y = HEIGHT - HEIGHT * base[k] / highest - height
            bars.append(_bar(name, WIDTH * k / bins + 1, y, WIDTH / bins - 2, height))
        base += of_class
    return _svg(HEIGHT, f'role="img" aria-label="{escape(label)}"', bars)


def strip(values: Sequence[float], low: float, high: float) -> str:
    """A row of a box plot: a line from the 5th to the 95th percentile, a box from the 25th to the 75th, the median.

    A screen reader passes over it: ``summary`` gives the words for beside it.
    """
    places = WIDTH * (np.clip(np.percentile(values, PERCENTILES), low, high) - low) / (high - low)
    p5, p25, p50, p75, p95 = places.tolist()
    shapes = [
        _bar("whisker", p5, 9, max(p95 - p5, 2), 2),
        _bar("box", p25, 3, max(p75 - p25, 2), 14),
        _bar("median", min(max(p50 - 2, 0), WIDTH - 4), 1, 4, 18),
    ]
    return _svg(20, 'aria-hidden="true"', shapes)


def summary(values: Sequence[float]) -> str:
    """The median, and the 5th to 95th percentile."""
    p5, _, p50, _, p95 = np.percentile(values, PERCENTILES)
    return f"{p50:.2f} ({p5:.2f} to {p95:.2f})"


def _bar(name: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{name}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _svg(height: int, attributes: str, shapes: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" {attributes}>{"".join(shapes)}</svg>'
