"""Fits the risk that a bag failed on a film (``mask_rcnn/bag/risk.py``), and measures how well it finds failures.

    python scripts/fit_risk.py --predictions runs/predictions --write

The predictions are those of ``collect_predictions.py``. The fit never sees the films held out. Every figure of the others is
of patients that the fit did not see: it sees four fifths of them, five times over. Among these is sought what leaves
``--good`` of the films without a failure alone: the threshold, ``bag.max_risk``. ``--write`` makes the table anew.

Shapes
    traits  float [films, 2, traits]
    dice    float [films, 2], NaN where a lung is neither annotated nor found
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from mask_rcnn.bag.risk import FAILED, TABLE, TRAITS, RiskTable, expanded, traits_of
from mask_rcnn.dataset.split import lot
from mask_rcnn.evaluation.roc import roc_area
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_json

FOLDS = 5
SOFTNESS = 0.04  # of Dice: a lung of 0.89 is hardly worse than one of 0.91
PENALTY = 5.0  # L2, of the weights
EACH = 800.0  # lungs that the films of a set count as, so that no large set outweighs


class Predictions(NamedTuple):
    """Of one file."""

    name: str
    traits: np.ndarray
    dice: np.ndarray
    held: np.ndarray  # bool [films]
    folds: np.ndarray  # int [films], of its patient
    missing: np.ndarray  # bool [films]: a lung was found by no member


def read(path: Path) -> Predictions:
    """The predictions of a file, with their traits."""
    with np.load(path) as file:
        films, masks, scores, groups = (file[key] for key in ("films", "masks", "scores", "groups"))
        traits = np.array([traits_of(*film) for film in zip(films, masks, scores, strict=True)])
        folds = np.array([lot(0, f"{path.stem}/{group}")[0] % FOLDS for group in groups])
        return Predictions(path.stem, traits, file["dice"], file["held"], folds, ~(scores > 0).any(axis=1).all(axis=1))


def fit(traits: np.ndarray, dice: np.ndarray, shares: np.ndarray) -> RiskTable:
    """The regression of lungs, traits [lungs, traits], dice and shares [lungs], by maximum likelihood with a penalty.

    ``shares`` are what each lung counts.
    """
    known = ~np.isnan(dice)
    traits, wrong, shares = traits[known], 1 / (1 + np.exp((dice[known] - FAILED) / SOFTNESS)), shares[known]
    mean, deviation = traits.mean(axis=0), np.maximum(traits.std(axis=0), 1e-3)  # of some all are alike
    inputs = expanded(traits, mean, deviation)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = inputs @ weights[1:] + weights[0]
        error = shares * (1 / (1 + np.exp(-logits)) - wrong)
        entropy = float((shares * (np.logaddexp(0, logits) - wrong * logits)).sum())
        slope = np.concatenate([[error.sum()], inputs.T @ error + PENALTY * weights[1:]])
        return entropy + PENALTY / 2 * float(weights[1:] @ weights[1:]), slope

    found = minimize(loss, np.zeros(inputs.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
    return RiskTable(mean, deviation, found.x[1:], float(found.x[0]))


def risk_of_films(table: RiskTable, some: Predictions) -> np.ndarray:
    """float [films]."""
    return np.where(some.missing, 1, table.of_lungs(some.traits).max(axis=1))


def describe(name: str, risk: np.ndarray, some: Predictions, chosen: np.ndarray, threshold: float) -> str:
    """A line on the chosen films of a set."""
    chosen = chosen & ~np.isnan(some.dice).all(axis=1)
    failed = np.nanmin(np.where(chosen[:, None], some.dice, 1), axis=1) < FAILED
    bad, good = chosen & failed, chosen & ~failed
    line = f"{some.name:16} {name:9} {chosen.sum():5} films, {bad.sum():4} failed"
    if bad.any() and good.any():
        # The area is of what is higher on good films: of the agreement as it is, of the risk turned around.
        agreement = some.traits[..., TRAITS.index("agreement")].min(axis=1)
        areas = roc_area(-risk[bad], -risk[good]), roc_area(agreement[bad], agreement[good])
        line += f"; area under the ROC {areas[0]:.3f}, of the agreement {areas[1]:.3f}"
    caught = f"{100 * np.mean(risk[bad] > threshold):.0f} %" if bad.any() else "-"
    others = f"{100 * np.mean(risk[good] > threshold):.0f} %" if good.any() else "-"
    return f"{line}; above {threshold:.3f} {caught} of the failures, {others} of the others"


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--predictions", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--good", type=float, default=0.9, help="share of the good films that is to be left alone")
    parser.add_argument("--write", action="store_true", help=f"writes {TABLE.name}")
    arguments = parser.parse_args(argv)
    sets = [read(path) for folder in arguments.predictions for path in sorted(folder.glob("*.npz"))]
    for whose, chosen in (("", [some.folds for some in sets]), (" not held out", [some.folds[~some.held] for some in sets])):
        folds = {fold for own in chosen for fold in own.tolist()}
        if len(folds) < FOLDS:
            print(f"fit_risk: predictions of too few patients{whose} ({len(folds)} of {FOLDS} folds have any); make more of "
                  "them with scripts/collect_predictions.py", file=sys.stderr)
            return 1

    def fitted(*folds: int) -> RiskTable:
        parts = [(some, ~some.held & np.isin(some.folds, folds)) for some in sets]
        parts = [(some, part) for some, part in parts if part.any()]
        return fit(np.concatenate([some.traits[part].reshape(-1, len(TRAITS)) for some, part in parts]),
                   np.concatenate([some.dice[part].ravel() for some, part in parts]),
                   np.concatenate([np.full(2 * part.sum(), EACH / (2 * part.sum())) for _, part in parts]))

    table = fitted(*range(FOLDS))
    unseen = [risk_of_films(table, some) for some in sets]
    for fold in range(FOLDS):
        without = fitted(*(other for other in range(FOLDS) if other != fold))
        for risk, some in zip(unseen, sets, strict=True):
            of_fold = ~some.held & (some.folds == fold)
            risk[of_fold] = risk_of_films(without, some)[of_fold]
    good = np.concatenate([risk[~some.held & (np.nanmin(some.dice, axis=1) >= FAILED)]
                           for risk, some in zip(unseen, sets, strict=True)])
    threshold = float(np.quantile(good, arguments.good))
    for risk, some in zip(unseen, sets, strict=True):
        for name, part in (("learnt from", ~some.held), ("held out", some.held)):
            if part.any():
                print(describe(name, risk, some, part, threshold))
    if arguments.write:
        write_json(TABLE, {
            "traits": TRAITS, "mean": table.mean.round(5).tolist(), "deviation": table.deviation.round(5).tolist(),
            "weights": table.weights.round(5).tolist(), "offset": round(table.offset, 5),
        })
        print(f"{TABLE}: written; bag.max_risk {threshold:.3f} leaves {100 * arguments.good:.0f} % of the good films alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
