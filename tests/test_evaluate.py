"""The evaluation script: its measures on found lungs that are known to be right, shifted, swapped or missing."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PHANTOMS = ROOT / "data" / "phantoms"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("evaluate", ROOT / "scripts" / "evaluate.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for path in sorted((PHANTOMS / folder).glob("*.png"))[:3]:
            shutil.copy(path, tmp_path / folder)
    return tmp_path


def finder(data: Path, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sequence[np.ndarray]], dict]:
    """Finds the drawn lungs themselves, changed."""
    drawn = [np.asarray(Image.open(path)) for path in sorted((data / "masks").glob("*.png"))]
    return lambda films: {"network": [change(labels) for labels in drawn[: len(films)]]}


@pytest.mark.parametrize(
    ("change", "left", "both", "missed", "swapped"),
    [
        (lambda labels: labels, 1, 1, 0, 0),
        (lambda labels: (3 - labels) * (labels > 0), 0, 1, 0, 1),
        (lambda labels: labels * (labels == 2), 0, None, 1, 0),
        (np.zeros_like, 0, 0, 2, 0),
        (lambda labels: labels.repeat(2, axis=0).repeat(2, axis=1), 1, 1, 0, 0),  # a film twice as large as its mask
    ],
    ids=["right", "swapped", "no left lung", "nothing", "larger"],
)
def test_measures(
    script: ModuleType, data: Path, change: Callable, left: float, both: float | None, missed: int, swapped: int
) -> None:
    rows = list(script.evaluate(finder(data, change), script.find_pairs(data)))
    assert [row["film"] for row in rows] == [path.name for path in sorted((data / "images").glob("*"))]
    for row in rows:
        assert row["dice_left"] == left and row["missed"] == missed and row["swapped"] == swapped
        assert row["dice_both"] == both if both is not None else 0.5 < row["dice_both"] < 0.8
    summary = script.summarise(rows)
    assert summary["left"]["mean"] == summary["left"]["worst"] == left and summary["missed"] == 3 * missed


def test_summary_of_what_is_undefined(script: ModuleType) -> None:
    row = {"film": "a", "dice_left": float("nan"), "dice_right": 0.9, "dice_both": 0.8, "missed": 0, "swapped": 0}
    summary = script.summarise([row, {**row, "film": "b", "dice_right": 0.5}])
    assert summary["left"]["mean"] is None and summary["left"]["undefined"] == 2
    assert summary["right"] == {"mean": 0.7, "median": 0.7, "worst": 0.5, "worst_film": "b", "undefined": 0}
    script.print_table({"network": summary})


def test_the_command(script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mask_rcnn.config import config_from_dict
    from mask_rcnn.model import MaskRCNN

    small = {
        "image_size": 64, "backbone": "resnet26", "backbone_width": 4, "pyramid_channels": 8,
        "pyramid_output_channels": 8, "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8,
    }
    MaskRCNN(config_from_dict({"network": small})).save(tmp_path / "tiny.weights.h5")
    names = sorted(path.name for path in (data / "images").glob("*"))
    Image.fromarray(np.full((50, 50), 7, np.uint8)).save(data / "masks" / names[1])
    (data / "masks" / names[2]).unlink()
    arguments = ["--weights", str(tmp_path / "tiny.weights.h5"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert script.main([*arguments, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "is no label mask" in said.err and "1 films without a mask" in said.err and "tiny" in said.out
    with (tmp_path / "out" / "films.csv").open(newline="") as file:
        assert [row["film"] for row in csv.DictReader(file)] == names[:1]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["networks"]["tiny"]["films"] == 1
    assert script.main(["--weights", "none.h5", "--data", str(tmp_path / "absent")]) == 1
    assert "give a folder" in capsys.readouterr().err
