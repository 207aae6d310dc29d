"""A table over sets of films: how well the lungs are found on each of them, whole or by the lateral third.

Shapes
    values  float [films, 2], the Dice of the left and the right lung, NaN where it is undefined
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mask_rcnn.bag.risk import FAILED
from mask_rcnn.evaluation.summary import bootstrap_intervals
from mask_rcnn.lungs import SIDES

WHOLE = tuple(f"dice_{side}" for side in SIDES.values())  # what a set is judged by whose drawings leave the heart out


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table, its columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def summarise_set(name: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """What the films of one set come to.

    Args:
        name: of the set.
        rows: a film's measures each.
        columns: of them the two Dices that count, of the left and of the right lung.

    Returns:
        ``set``, ``measure`` in words, ``films``, ``left`` and ``right`` with ``mean`` and ``interval`` (None where no film
        has one), how many films ``failed`` (a lung below ``FAILED``), and the lungs ``missed``, the films ``swapped``.
    """
    values = np.array([[row[column] for column in columns] for row in rows], np.float64)
    intervals = bootstrap_intervals(values)
    lungs: dict[str, Any] = {}
    for k, side in enumerate(SIDES.values()):
        defined = values[~np.isnan(values[:, k]), k]
        lungs[side] = {"mean": float(defined.mean()) if len(defined) else None,
                       "interval": intervals[:, k].tolist() if len(defined) else None}
    measure = {"dice": "whole lungs", "third": "lateral third"}[columns[0].split("_")[0]]
    return {
        "set": name, "measure": measure, "films": len(rows), **lungs,
        "failed": int((values < FAILED).any(axis=1).sum()),
        "missed": int(sum(row["missed"] for row in rows)), "swapped": int(sum(row["swapped"] for row in rows)),
    }  # fmt: skip


def set_lines(sets: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line a set, and one over all of them."""

    def told(lung: Mapping[str, Any]) -> str:
        return "undefined" if lung["mean"] is None else "{:.4f} [{:.4f}, {:.4f}]".format(lung["mean"], *lung["interval"])

    lines = [["set", "measure", "films", "Dice left [95 % interval]", "right", f"a lung below {FAILED:.2f}", "missed",
              "swapped"]]
    for one in sets:
        failed = f"{one['failed']} ({100 * one['failed'] / one['films']:.1f} %)"
        lines.append([one["set"], one["measure"], str(one["films"]), told(one["left"]), told(one["right"]), failed,
                      str(one["missed"]), str(one["swapped"])])
    yield from aligned(lines)
    means = [one[side]["mean"] for side in SIDES.values() for one in sets if one[side]["mean"] is not None]
    least = f", least mean {min(means):.4f}, mean of means {np.mean(means):.4f}" if means else ""
    failed_films, films = (sum(one[key] for one in sets) for key in ("failed", "films"))
    yield f"{len(sets)} sets, {films} films: {failed_films} with a lung below {FAILED:.2f}{least}"
