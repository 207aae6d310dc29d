"""Hearts, as a U-Net finds them, made ready for the labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from script import copy_phantoms, load_script

from create_dataset.hearts import one_heart
from mask_rcnn.dataset.conventions import LEARNT_SHARE, lateral_band
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG

SIDE = 256


def test_a_heart_is_the_largest_part_filled_and_widened() -> None:
    probability = np.zeros((SIDE, SIDE), np.float32)
    probability[100:180, 90:150] = 0.9
    probability[130:140, 110:120] = 0.1  # a hole
    probability[20:25, 20:25] = 0.9
    heart = one_heart(probability, 5 / SIDE)
    rows, columns = np.nonzero(heart)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (95, 184, 85, 154)
    assert heart[100:180, 90:150].all() and not heart[95, 85]
    assert not one_heart(np.full((SIDE, SIDE), 0.4, np.float32), 0.02).any()


def test_labels_are_composed_of_drawing_lungs_and_heart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Networks that find the drawn lungs themselves, and a heart over the left lung's inner half."""
    script = load_script("compose_labels")
    data = copy_phantoms(tmp_path / "v7_children", 3)
    names = [path.stem for path in sorted((data / "images").glob("*"))]
    drawn = [cv2.imread(str(data / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in names]
    left = np.flatnonzero((drawn[1] == LEFT_LUNG).any(axis=0))
    middle = int((left[0] + left[-1]) // 2 * SIDE / drawn[1].shape[1])

    def found(networks: list[str], inputs: np.ndarray) -> np.ndarray:
        votes = np.zeros((1, *inputs.shape[:3]), np.float32)
        for place, labels in zip(votes[0], drawn[1:], strict=False):
            place[:] = cv2.resize((labels > 0).astype(np.float32), (SIDE, SIDE))
            if networks == ["heart"]:
                place[:] = np.arange(SIDE) < middle
                place[:, : SIDE // 2] = 0
        return votes

    monkeypatch.setattr(script, "load_unet", lambda path: path.name)
    monkeypatch.setattr(script, "probabilities", found)
    (tmp_path / "held_out.csv").write_text(f"set,file,why\nv7_children,images/{names[0]}.png,held\n")
    arguments = ["--unet", "lungs", "--heart-unet", "heart", "--data", str(data), "--out", str(tmp_path / "out"),
                 "--held-out", str(tmp_path / "held_out.csv")]
    assert script.main(arguments) == 0
    out = tmp_path / "out" / "v7_children"
    assert sorted(path.stem for path in (out / "masks").iterdir()) == names[1:]
    labels = cv2.imread(str(out / "masks" / f"{names[1]}.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == drawn[1].shape and ((labels == 0) | (labels == drawn[1])).all()
    assert (labels == RIGHT_LUNG).sum() > 0.97 * (drawn[1] == RIGHT_LUNG).sum()
    limit = round(middle * drawn[1].shape[1] / SIDE)
    taken = ~lateral_band(drawn[1] == LEFT_LUNG, LEFT_LUNG, 1.1 * LEARNT_SHARE)
    taken[:, : drawn[1].shape[1] // 2] = taken[:, limit - 2 :] = False
    assert taken.any() and not (labels == LEFT_LUNG)[taken].any()
    assert (labels == LEFT_LUNG)[:, limit + 2 :].sum() > 0.97 * (drawn[1] == LEFT_LUNG)[:, limit + 2 :].sum()
    assert (out / "images").is_dir() and (out / "convention.txt").read_text() == "heart left out\n"
    assert script.main(arguments) == 0 and "0 films" in capsys.readouterr().out
    arguments = ["--unet", "lungs", *arguments[4:7], str(tmp_path / "without"), *arguments[8:]]
    assert script.main(arguments) == 0  # no heart is cut away
    labels = cv2.imread(str(tmp_path / "without" / "v7_children" / "masks" / f"{names[1]}.png"), cv2.IMREAD_UNCHANGED)
    assert (labels == LEFT_LUNG).sum() > 0.97 * (drawn[1] == LEFT_LUNG).sum()


def test_the_cardiothoracic_ratio_is_of_the_widest_columns() -> None:
    script = load_script("measure_hearts")
    heart, lungs = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    heart[12:15, 14:26], heart[5:8, 18:20] = True, True
    lungs[2:18, 5:12], lungs[3:16, 28:35] = True, True
    assert script.cardiothoracic_ratio(heart, lungs) == pytest.approx(12 / 30)
    assert script.cardiothoracic_ratio(np.zeros_like(heart), lungs) == 0
    assert np.isnan(script.cardiothoracic_ratio(heart, np.zeros_like(lungs)))
