"""What lies between the convolutions of an exported network: boxes, suppression and pooling, as nodes of an ONNX graph.

Each function is the counterpart of one in ``network/layers.py``, and takes and gives names of values.

Shapes (b films, n boxes a film, r boxes of all films, k places, f channels)
    boxes     float32 [b, n, 4] or [r, 4], (y1, x1, y2, x2), normalised
    films     int64 [r], the film in the batch of each box
    features  float32 [b, cells, f], P2 to P5 row by row, one behind the other
"""

from __future__ import annotations

import math

import numpy as np

from mask_rcnn.config import NetworkConfig
from mask_rcnn.runtime.graph import FLOAT, INT64, Graph
from mask_rcnn.utils import PYRAMID_STRIDES

LARGEST_LOG_SCALE = math.log(1000 / 16)  # as ``network/layers.py`` has it


def thinned(graph: Graph, boxes: str, scores: str, count: int, threshold: float) -> str:
    """The scores [b, c, n] of the boxes [b, n, 4] that greedy suppression leaves in each class; -1 at all others."""
    chosen = graph.node(
        "NonMaxSuppression", boxes, scores, graph.ints(count), graph.constant([threshold]), graph.constant([0.0])
    )
    kept = graph.node("GatherND", scores, chosen)
    none = graph.node("Sub", graph.multiply(scores, graph.constant(0.0)), graph.constant(1.0))
    return graph.node("ScatterND", none, chosen, kept)


def those_there(graph: Graph, rows: str, scores: str, missing: int) -> str:
    """Rows [b, k, ...] of a score, zeros in place of those without one, and so many rows of zeros behind them."""
    there = graph.node("Cast", graph.node("Greater", scores, graph.constant(-0.5)), to=FLOAT)
    kept = graph.multiply(rows, graph.node("Unsqueeze", there, graph.ints(2)))
    return graph.node("Pad", kept, graph.ints(0, 0, 0, 0, missing, 0)) if missing else kept


def rows_at(graph: Graph, values: str, places: str) -> str:
    """Values [b, n, ...] at places [b, k]."""
    return graph.node("GatherND", values, graph.node("Unsqueeze", places, graph.ints(2)), batch_dims=1)


def moved(graph: Graph, boxes: str, deltas: str, box_std: tuple[float, ...]) -> str:
    """As ``layers.apply_deltas``."""
    top_left, bottom_right = graph.slice(boxes, 2, 0, 2), graph.slice(boxes, 2, 2, 4)
    size = graph.subtract(bottom_right, top_left)
    deltas = graph.multiply(deltas, graph.constant(box_std))
    shift = graph.add(graph.slice(deltas, 2, 0, 2), graph.constant(0.5))
    centre = graph.add(top_left, graph.multiply(shift, size))
    growth = graph.node("Min", graph.slice(deltas, 2, 2, 4), graph.constant(LARGEST_LOG_SCALE))
    half = graph.multiply(graph.multiply(size, graph.node("Exp", growth)), graph.constant(0.5))
    return graph.node("Concat", graph.subtract(centre, half), graph.add(centre, half), axis=2)


def areas(graph: Graph, boxes: str, axis: int) -> str:
    """Boxes [..., 4] to [...]; ``axis`` is the last one."""
    size = graph.subtract(graph.slice(boxes, axis, 2, 4), graph.slice(boxes, axis, 0, 2))
    return graph.node("ReduceProd", size, graph.ints(axis), keepdims=0)


def one_behind_the_other(graph: Graph, boxes: str) -> tuple[str, str]:
    """Boxes [b, n, 4] as boxes [b n, 4] and films [b n]."""
    ones = graph.node("Cast", graph.node("GreaterOrEqual", graph.slice(boxes, 2, 0, 1), graph.constant(-np.inf)), to=INT64)
    count = graph.node("CumSum", ones, graph.constant(0, np.int64))
    films = graph.subtract(count, graph.constant(1, np.int64))
    return graph.reshape(boxes, -1, 4), graph.reshape(films, -1)


def pool(
    graph: Graph, network: NetworkConfig, features: str, boxes: str, films: str, side: int, canonical_side: int
) -> str:
    """As ``layers.pyramid_roi_align``, of boxes within the square: [r, side, side, f].

    Four gathers take a third of the time of ONNX's RoiAlign in OpenVINO, and three quarters of it in ONNX Runtime.
    """
    sides = level_sides(network)
    starts = [sum(other**2 for other in sides[:index]) for index in range(len(sides))]
    area = graph.node("Max", areas(graph, boxes, 1), graph.constant(1e-12))
    size = graph.multiply(graph.node("Sqrt", area), graph.constant(network.image_size / canonical_side))
    level = graph.node("Round", graph.node("Div", graph.node("Log", size), graph.constant(math.log(2.0))))
    level = graph.node("Clip", level, graph.constant(-2.0), graph.constant(1.0))  # counted from P4
    level = graph.node("Cast", graph.add(level, graph.constant(2.0)), to=INT64)
    limit = graph.node("Gather", graph.constant([[side - 1] for side in sides]), level, axis=0)  # [r, 1]
    width = graph.node("Gather", graph.constant([[side] for side in sides], np.int64), level, axis=0)
    film = graph.multiply(films, graph.constant(sum(side**2 for side in sides), np.int64))
    offset = graph.add(film, graph.node("Gather", graph.constant(starts, np.int64), level, axis=0))

    def neighbours(axis: int) -> tuple[str, str, str]:
        """The cells before and after each sample, int64 [r, side], and how far it lies from the first to the second."""
        first, last = graph.slice(boxes, 1, axis, axis + 1), graph.slice(boxes, 1, axis + 2, axis + 3)
        steps = graph.constant(np.arange(side) / (side - 1))
        position = graph.multiply(graph.add(first, graph.multiply(graph.subtract(last, first), steps)), limit)
        position = graph.node("Min", graph.node("Max", position, graph.constant(0.0)), limit)
        before = graph.node("Floor", position)
        after = graph.node("Min", graph.add(before, graph.constant(1.0)), limit)
        return (graph.node("Cast", before, to=INT64), graph.node("Cast", after, to=INT64),
                graph.subtract(position, before))  # fmt: skip

    top, bottom, down = neighbours(0)
    left, right, across = neighbours(1)
    table = graph.reshape(features, -1, network.pyramid_output_channels)
    column = graph.node("Unsqueeze", offset, graph.ints(1))

    def read(row: str, columns: str) -> str:
        rows = graph.add(graph.multiply(row, width), column)
        cells = graph.add(graph.node("Unsqueeze", rows, graph.ints(2)), graph.node("Unsqueeze", columns, graph.ints(1)))
        return graph.node("Gather", table, cells, axis=0)

    def between(first: str, second: str, share: str) -> str:
        return graph.add(first, graph.multiply(graph.subtract(second, first), share))

    across, down = graph.node("Unsqueeze", across, graph.ints(1, 3)), graph.node("Unsqueeze", down, graph.ints(2, 3))
    upper = between(read(top, left), read(top, right), across)
    lower = between(read(bottom, left), read(bottom, right), across)
    return between(upper, lower, down)


def level_sides(network: NetworkConfig) -> list[int]:
    """Of P2 to P5."""
    return [network.image_size // stride for stride in PYRAMID_STRIDES[:4]]
