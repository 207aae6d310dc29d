"""``scripts/measure_mirrored.py`` on phantoms, with one of the networks that ship."""

from __future__ import annotations

import re

import pytest
from script import PHANTOMS, ROOT, load_script


@pytest.mark.usefixtures("networks_once")
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(ROOT / "models" / "lungs_small_1.weights.h5")
    folder = str(PHANTOMS / "images")
    assert load_script("measure_mirrored").main(["--weights", weights, "--src", folder, folder, "--count", "4"]) == 0
    *of_folders, of_all = capsys.readouterr().out.splitlines()[-3:]
    assert all(line.startswith(f"{folder}: ") and line.endswith("4 of 4 for review (4 as mirrored) mirrored")
               for line in of_folders)
    counts = [int(number) for number in re.findall(r"\d+", of_all)]
    assert of_all.startswith("all: ") and counts[1] == 8 and counts[3:] == [8, 8, 8] and counts[2] == 0
