"""The networks that ship, through ``inference.py``'s ``main``, on the phantoms, whose lungs are known exactly.

The figures are a little below what ``python scripts/evaluate.py --weights models/*.h5 --data data/phantoms`` printed when
the networks were committed: mean Dice 0.970 (left) and 0.973 (right), worst film 0.950 and 0.968.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_rcnn import inference_command
from mask_rcnn.coco import CATEGORIES
from mask_rcnn.metrics import dice, laterality_swapped

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = sorted(str(path) for path in (ROOT / "models").glob("*.h5"))
    assert len(weights) == 5
    out = tmp_path_factory.mktemp("shipped")
    assert inference_command.main(["--weights", *weights, "--src", str(PHANTOMS), "--out", str(out)]) == 0
    return out


def test_both_lungs_are_found_on_their_own_sides(results: Path) -> None:
    scores: dict[int, list[float]] = {category: [] for category in CATEGORIES}
    for truth_path in sorted((PHANTOMS / "masks").glob("*.png")):
        truth = np.asarray(Image.open(truth_path))
        found = np.asarray(Image.open(results / "masks" / "images" / truth_path.name))
        assert found.shape == truth.shape
        assert not laterality_swapped(found, truth)
        for category, values in scores.items():
            values.append(dice(found == category, truth == category))
    for values in scores.values():
        assert len(values) == 16
        assert np.mean(values) > 0.965
        assert min(values) > 0.94


def test_the_members_agree(results: Path) -> None:
    with (results / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        for side in ("left", "right"):
            assert int(row[f"{side}_votes"]) >= 4
            assert float(row[f"{side}_score"]) > 0.9
            assert float(row[f"{side}_agreement"]) > 0.95
