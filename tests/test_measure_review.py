"""``scripts/measure_review.py`` on phantoms, with one of the networks that ship."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from script import ROOT, copy_phantoms, load_script

WEIGHTS = str(ROOT / "models" / "lungs_small_1.weights.h5")


@pytest.mark.usefixtures("networks_once")
def test_failures_and_films_for_review_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, spoilt = copy_phantoms(tmp_path / "whole", 2), copy_phantoms(tmp_path / "spoilt", 2)
    first, second = sorted((spoilt / "masks").glob("*.png"))
    labels = cv2.imread(str(first), cv2.IMREAD_UNCHANGED)
    labels[: len(labels) // 2] = 0  # drawn by half: what is found there is a failure, and nobody is told
    cv2.imwrite(str(first), labels)
    film = cv2.imread(str(spoilt / "images" / second.name), cv2.IMREAD_GRAYSCALE)
    film[:, film.shape[1] // 2 :] = 0  # no left lung is to be seen, which the checks say
    cv2.imwrite(str(spoilt / "images" / second.name), film)
    films = tmp_path / "films.csv"
    command = ["--weights", WEIGHTS, "--data", str(whole), str(spoilt), "--films", str(films), "--runtime", "keras"]
    assert load_script("measure_review").main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{whole}: for review 0 of 0 failures, 0 of 2 others" in lines
    assert f"{spoilt}: for review 1 of 2 failures, 0 of 0 others" in lines
    assert "all: for review 1 of 2 failures, 0 of 2 others" in lines
    with films.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["set"], row["file"]) for row in rows] == [
        (folder, f"{path.stem}.png") for folder in ("whole", "spoilt") for path in (first, second)
    ]
    assert [bool(row["reasons"]) for row in rows] == [False, False, False, True]
    assert np.all([[float(row["dice_left"]) > 0.9, float(row["dice_right"]) > 0.9] for row in rows[:2]])
    assert float(rows[2]["dice_right"]) < 0.9 and float(rows[3]["dice_left"]) == 0


def test_what_is_missing_is_named_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent.weights.h5")
    data = str(copy_phantoms(tmp_path / "data", 1))
    assert load_script("measure_review").main(["--weights", absent, "--data", data]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("measure_review: ") and "absent.weights.h5" in error and "\n" not in error
