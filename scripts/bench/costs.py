"""Draws what many films cost, from the table in docs/many_films.md: processor time over films, both by powers of ten.

``scripts/make_docs.py`` writes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 460, 70, 310, 20, 50  # pixels; the names of the lines are on the right
COLOURS = ("#1b6ca8", "#d1495b", "#3a7d44", "#e08e0b", "#6a4c93", "#00798c", "#8d5524", "#555555", "#b5179e")
LEAST_GAP = 17  # pixels between the names of two lines

Costs = Mapping[str, Mapping[int, float]]  # seconds of a processor by what was done and by the number of films


def costs_of(document: str) -> Costs:
    """The cells of the table whose columns are numbers of films; what was not measured is left out.

    Raises:
        ValueError: the document has no such table.
    """
    head = re.search(r"^\| what \|(.+ films \|)$", document, re.MULTILINE)
    if not head:
        raise ValueError("no table with the columns | what | N films | ...")
    counts = [int(cell.strip().removesuffix(" films").replace(",", "")) for cell in head[1].strip(" |").split("|")]
    costs: dict[str, dict[int, float]] = {}
    for line in document[head.end() :].lstrip("\n").split("\n")[1:]:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip() for cell in line.strip(" |").split("|"))
        times = {count: re.match(r"([\d.]+) s", cell) for count, cell in zip(counts, cells, strict=True)}
        costs[name.replace("`", "")] = {count: float(time[1]) for count, time in times.items() if time}
    return costs


def draw_costs(document: str) -> str:
    """The figure as SVG: a line for each row, and dotted ones where cost grows as the films do."""
    costs = {name: line for name, line in costs_of(document).items() if len(line) > 1}
    counts = [count for line in costs.values() for count in line]
    times = [time for line in costs.values() for time in line.values()]
    columns = range(math.floor(math.log10(min(counts))), math.ceil(math.log10(max(counts))) + 1)
    rows = range(math.floor(math.log10(min(times))), math.ceil(math.log10(max(times))) + 1)

    def at(count: float, time: float) -> tuple[float, float]:
        across = (math.log10(count) - columns[0]) / (len(columns) - 1)
        up = (math.log10(time) - rows[0]) / (len(rows) - 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def line_to(points: list[tuple[float, float]], style: str) -> str:
        return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" fill="none" {style}/>'

    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    plot = f'x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
             "<title>What many films cost: seconds of a processor over films</title>",
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
             '<g font-family="sans-serif" font-size="12" fill="#222222">',
             f'<clipPath id="plot"><rect {plot}/></clipPath>']  # fmt: skip
    for power in columns:
        x, _ = at(10**power, 10.0 ** rows[0])
        parts += [line_to([(x, TOP), (x, bottom)], 'stroke="#dddddd"'),
                  f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10**power:,}</text>']
    for power in rows:
        _, y = at(10 ** columns[0], 10.0**power)
        parts += [line_to([(LEFT, y), (right, y)], 'stroke="#dddddd"'),
                  f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} s</text>']
        guide = [at(10**column, 10.0 ** (power + column - columns[0])) for column in columns]
        parts.append(line_to(guide, 'stroke="#bbbbbb" stroke-dasharray="1 4" clip-path="url(#plot)"'))
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">films</text>')
    ends = sorted((at(max(line), line[max(line)])[1], name) for name, line in costs.items())
    free = float(TOP)
    for colour, (y, name) in zip(COLOURS * len(ends), ends, strict=False):
        points = [at(count, time) for count, time in sorted(costs[name].items())]
        place = max(y, free)
        free = place + LEAST_GAP
        parts += [line_to(points, f'stroke="{colour}" stroke-width="2"'),
                  *(f'<circle cx="{x:.1f}" cy="{own:.1f}" r="3" fill="{colour}"/>' for x, own in points),
                  line_to([points[-1], (right + 12, place)], f'stroke="{colour}" stroke-dasharray="2 2"'),
                  f'<text x="{right + 16}" y="{place + 4:.1f}" fill="{colour}">{escape(name)}</text>']
    return "\n".join([*parts, "</g>", "</svg>\n"])
