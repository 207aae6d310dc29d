"""Which drawn films are left out of training: those whose drawing takes in what lies on the medial side of a lung."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from script import ROOT, copy_phantoms, load_script

from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

UNET = ROOT / "models" / "unet" / "efficientnetb0.weights.h5"


@pytest.fixture(scope="module")
def script(unet_once: None) -> ModuleType:
    return load_script("select_drawn")


def lung(columns: slice, rows: slice = np.s_[2:18]) -> np.ndarray:
    mask = np.zeros((20, 40), bool)
    mask[rows, columns] = True
    return mask


def test_only_what_lies_towards_the_spine_counts(script: ModuleType) -> None:
    found = lung(np.s_[24:34])
    assert script.share_beyond(found, found, LEFT_LUNG) == 0
    assert script.share_beyond(lung(np.s_[20:34]), found, LEFT_LUNG) == pytest.approx(4 / 14)
    assert script.share_beyond(lung(np.s_[24:39]), found, LEFT_LUNG) == 0, "the lateral side does not count"
    assert script.share_beyond(lung(np.s_[28:30]), found, LEFT_LUNG) == 0, "a drawing may be smaller"
    assert script.share_beyond(lung(np.s_[24:34], np.s_[0:20]), found, LEFT_LUNG) == 0, "nor do rows without a lung"
    assert script.share_beyond(np.zeros((20, 40), bool), found, LEFT_LUNG) == 0


def test_the_right_lung_has_its_spine_on_the_other_side(script: ModuleType) -> None:
    found = lung(np.s_[6:16])
    assert script.share_beyond(lung(np.s_[6:20]), found, RIGHT_LUNG) == pytest.approx(4 / 14)
    assert script.share_beyond(lung(np.s_[2:16]), found, RIGHT_LUNG) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = copy_phantoms(tmp_path / "data", 2), tmp_path / "out"
    names = sorted(path.name for path in (data / "images").iterdir())
    labels = np.array(Image.open(data / "masks" / names[1]))
    rows, columns = np.nonzero(labels == LEFT_LUNG)
    heart = np.s_[(rows.min() + rows.max()) // 2 : rows.max(), labels.shape[1] // 2 : (columns.min() + columns.max()) // 2]
    labels[heart] = LEFT_LUNG
    Image.fromarray(labels).save(data / "masks" / names[1])
    (out / "images").mkdir(parents=True)
    (out / "images" / "earlier.png").touch()

    assert script.main(["--data", str(data), "--unet", str(UNET), "--out", str(out)]) == 0
    assert "1 films kept, 1 left out" in capsys.readouterr().out
    for folder in ("images", "masks"):
        assert [path.name for path in (out / folder).iterdir()] == names[:1]
    with (out / "left_out.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["film"] == names[1] and float(row["beyond_left"]) > script.MAX_BEYOND > float(row["beyond_right"])

    assert script.main(["--data", str(tmp_path / "none"), "--unet", str(UNET), "--out", str(out)]) == 1
    assert script.main(["--data", str(data), "--unet", str(tmp_path / "none.h5"), "--out", str(out)]) == 1
    assert capsys.readouterr().err.count("select_drawn: ") == 2
