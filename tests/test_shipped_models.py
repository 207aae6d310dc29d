"""The networks that ship, through ``inference.py``'s ``main``, on the phantoms, whose lungs are known exactly.

The figures are a little below what ``python scripts/evaluate.py --weights models/*.h5 --data data/phantoms`` printed when
the networks were committed: mean Dice 0.970 (left) and 0.973 (right), worst film 0.950 and 0.968.
"""

from __future__ import annotations

import csv
import subprocess
import sys
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


def test_no_film_of_a_scanner_gets_anothers_mask(results: Path, tmp_path: Path) -> None:
    """300 names alike in their first 40 characters, through the real command, whose threads write side by side."""
    films = sorted((PHANTOMS / "images").glob("*.png"))
    (tmp_path / "films").mkdir()
    names = {f"1.3.12.2.1107.5.3.56.20123.11.2024010508{k:06}.png": films[k % len(films)] for k in range(300)}
    for name, film in names.items():
        (tmp_path / "films" / name).hardlink_to(film)
    weights = ROOT / "models" / "lungs_small_1.weights.h5"
    command = [sys.executable, "inference.py", "--weights", str(weights), "--device", "cpu", "--out", str(tmp_path / "out")]
    subprocess.run([*command, "--src", str(tmp_path / "films")], cwd=ROOT, check=True, timeout=300)
    for folder in ("masks", "overlays"):
        alike: dict[Path, set[bytes]] = {}
        for name, film in names.items():
            alike.setdefault(film, set()).add((tmp_path / "out" / folder / name).read_bytes())
        assert [len(contents) for contents in alike.values()] == [1] * 16, f"{folder} of one film are one file"
        assert len(set.union(*alike.values())) == 16, f"{folder} of different films differ"
