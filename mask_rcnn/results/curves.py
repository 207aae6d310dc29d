"""Charts of numbers over epochs, with axes, as one picture.

Shapes
    picture  uint8 [height, width, 3], RGB
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 420, 280  # pixels of a chart
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 52, 40  # around its axes
SCALE = 2  # rendered so many times larger and scaled down, which smooths the lines
FONT_SIZE, LINE_WIDTH, DOT = 12, 2, 3
MAX_TICKS = 6
GROUND, INK, GRID, MARK = (255, 255, 255), (40, 40, 40), (225, 225, 225), (150, 150, 150)

Colour = tuple[int, int, int]


class Line(NamedTuple):
    """A line of a chart."""

    name: str
    colour: Colour
    values: Mapping[int, float]  # by epoch; epochs without one leave no gap


class Chart(NamedTuple):
    """A chart; the title names what is measured."""

    title: str
    lines: Sequence[Line]
    bounds: tuple[float, float] | None = None  # of the vertical axis; None fits it to the values


def render_charts(charts: Sequence[Chart], columns: int, marked: int | None = None, mark: str = "") -> np.ndarray:
    """The charts in rows of ``columns``, over the same epochs.

    Args:
        marked: an epoch that gets an upright line in each chart, which ``mark`` explains.
    """
    rows = math.ceil(len(charts) / columns)
    picture = Image.new("RGB", (columns * WIDTH * SCALE, rows * HEIGHT * SCALE), GROUND)
    epochs = sorted({epoch for chart in charts for line in chart.lines for epoch in line.values})
    for number, chart in enumerate(charts):
        row, column = divmod(number, columns)
        _render_chart(ImageDraw.Draw(picture), column * WIDTH, row * HEIGHT, chart, epochs, marked, mark)
    return np.asarray(picture.resize((columns * WIDTH, rows * HEIGHT), Image.Resampling.LANCZOS))


def ticks(low: float, high: float, most: int = MAX_TICKS) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that lie within the bounds: at most ``most``, at least one."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1, 2, 5, 10, 20)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [number * step for number in range(first, last + 1)]


def _bounds(chart: Chart) -> tuple[float, float]:
    """Of the vertical axis: from 0, as all that is drawn here is positive, to a little above the largest value."""
    if chart.bounds:
        return chart.bounds
    highest = max((value for line in chart.lines for value in line.values.values() if math.isfinite(value)), default=0.0)
    return 0.0, 1.05 * highest if highest > 0 else 1.0


def _render_chart(
    pen: ImageDraw.ImageDraw, left: int, top: int, chart: Chart, epochs: Sequence[int], marked: int | None, mark: str
) -> None:
    font = ImageFont.load_default(FONT_SIZE * SCALE)
    low, high = _bounds(chart)
    first, last = (epochs[0], epochs[-1]) if epochs else (1, 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return (left + x) * SCALE, (top + y) * SCALE

    def across(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def write(x: float, y: float, text: str, anchor: str, colour: Colour = INK) -> None:
        pen.text(at(x, y), text, colour, font, anchor=anchor)

    levels = ticks(low, high)
    digits = max(0, -math.floor(math.log10(levels[1] - levels[0]) + 1e-9)) if len(levels) > 1 else 2
    for level in levels:
        pen.line((*at(LEFT, down(level)), *at(WIDTH - RIGHT, down(level))), GRID, SCALE)
        write(LEFT - 6, down(level), f"{level:.{digits}f}" if digits <= 4 else f"{level:.0e}" if level else "0", "rm")
    for epoch in sorted({round(number) for number in ticks(first, last)}) if last > first else [first]:
        pen.line((*at(across(epoch), HEIGHT - BOTTOM), *at(across(epoch), HEIGHT - BOTTOM + 4)), INK, SCALE)
        write(across(epoch), HEIGHT - BOTTOM + 7, str(epoch), "ma")
    if marked is not None:
        pen.line((*at(across(marked), TOP), *at(across(marked), HEIGHT - BOTTOM)), MARK, SCALE)
    pen.line((*at(LEFT, TOP), *at(LEFT, HEIGHT - BOTTOM), *at(WIDTH - RIGHT, HEIGHT - BOTTOM)), INK, SCALE)
    write((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "epoch", "md")
    write(LEFT, 6, chart.title, "la")
    x: float = LEFT
    legend = [(line.name, line.colour) for line in chart.lines] + ([(mark, MARK)] if marked is not None else [])
    for name, colour in legend:
        pen.line((*at(x, 34), *at(x + 14, 34)), colour, LINE_WIDTH * SCALE)
        write(x + 18, 34, name, "lm")
        x += 18 + pen.textlength(name, font) / SCALE + 12
    for line in chart.lines:
        points = [at(across(epoch), down(value)) for epoch, value in sorted(line.values.items()) if math.isfinite(value)]
        if len(points) > 1:
            pen.line(points, line.colour, LINE_WIDTH * SCALE, joint="curve")
        else:
            for x, y in points:
                pen.ellipse((x - DOT * SCALE, y - DOT * SCALE, x + DOT * SCALE, y + DOT * SCALE), line.colour)
