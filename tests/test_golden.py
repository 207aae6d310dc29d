"""The whole way of the commands with the networks that ship, against what they gave when ``make_golden.py`` last ran.

The films are drawn as films come: inverted, of 16 bits, small, not square, mirrored, DICOM. Processors round differently,
for which 0.001 of a lung's Dice with its golden mask is let pass; a wrong step costs more.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from script import ROOT, load_script

from create_dataset import command
from mask_rcnn.commands import inference as inference_command
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.films.radiograph import read_labels
from mask_rcnn.lungs import CATEGORIES

GOLDEN = ROOT / "tests" / "golden" / "phantoms"
FIGURES: dict[str, Any] = json.loads((GOLDEN / "figures.json").read_text())
NEEDS_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the U-Nets run on TensorFlow alone")

LEAST_DICE = 0.999
SCORE, MEASURE, EVALUATION = 1e-2, 2e-3, 5e-4  # how far a figure may lie from the golden one


pytestmark = pytest.mark.usefixtures("networks_once", "unet_once")


@pytest.fixture(scope="module")
def make_golden() -> ModuleType:
    return load_script("make_golden")


@pytest.fixture(scope="module")
def films(make_golden: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "films"
    make_golden.render_films(folder)
    return folder


@pytest.fixture(scope="module")
def bag(make_golden: ModuleType, films: Path, networks_once: None) -> dict[str, Any]:
    """By film, what ``inference.py`` gives."""
    out = films.parent / "bag"
    weights = ["--weights", *map(str, make_golden.WEIGHTS)]
    assert inference_command.main([*weights, "--src", str(films), "--out", str(out)]) == 0
    return make_golden.read_inference(out)


@pytest.fixture(scope="module")
def unet(make_golden: ModuleType, films: Path, unet_once: None) -> dict[str, Any]:
    """By film, what ``create_dataset.py`` gives."""
    out = films.parent / "unet"
    assert command.main(["--src", str(films), "--out", str(out), "--unet", str(make_golden.UNET)]) == 0
    return make_golden.read_found(out)


def check_masks(kind: str, found: dict[str, Any]) -> None:
    """Every film's lungs are the golden ones."""
    assert found.keys() == FIGURES[kind].keys()
    for name, (labels, _) in found.items():
        golden = read_labels(GOLDEN / kind / f"{Path(name).stem}.png")
        assert labels.shape == golden.shape, name
        for category, lung in CATEGORIES.items():
            assert dice(labels == category, golden == category) >= LEAST_DICE, f"{lung} of {name}"


def test_golden_masks_are_two_lungs_on_every_film() -> None:
    for kind in ("bag", "unet"):
        paths = sorted((GOLDEN / kind).glob("*.png"))
        assert {path.stem for path in paths} == {Path(name).stem for name in FIGURES[kind]} and len(paths) == 7
        assert all(set(np.unique(read_labels(path))) == {0, *CATEGORIES} for path in paths)


def test_the_bag_finds_the_golden_lungs(bag: dict[str, Any]) -> None:
    check_masks("bag", bag)


def test_the_bags_scores_and_votes(bag: dict[str, Any]) -> None:
    for name, (_, figures) in bag.items():
        assert figures == pytest.approx(FIGURES["bag"][name], abs=SCORE), name
        for side in ("left", "right"):
            assert figures[f"{side}_votes"] == FIGURES["bag"][name][f"{side}_votes"]
        assert figures["inverted"] == (name == "inverted.png")


@NEEDS_TENSORFLOW
def test_the_unet_finds_the_golden_lungs(unet: dict[str, Any]) -> None:
    check_masks("unet", unet)


@NEEDS_TENSORFLOW
def test_the_checks_of_a_dataset(unet: dict[str, Any]) -> None:
    for name, (_, figures) in unet.items():
        golden = FIGURES["unet"][name]
        assert figures.keys() == golden.keys()
        assert (figures["inverted"], figures["quality"]) == (name == "inverted.png", golden["quality"])
        assert figures["spacing_mm"] == ([0.8, 1.0] if name == "oblong.dcm" else None)
        for key, value in golden.items():
            if isinstance(value, float):
                assert figures[key] == pytest.approx(value, rel=MEASURE, abs=MEASURE / 2), f"{key} of {name}"
    assert {figures["quality"] for _, figures in unet.values()} == {"accepted", "review"}


@pytest.mark.parametrize("kind", ["bag", pytest.param("unet", marks=NEEDS_TENSORFLOW)])
def test_an_evaluation_gives_the_golden_dice(make_golden: ModuleType, tmp_path: Path, kind: str) -> None:
    data, out = make_golden.copy_evaluated(tmp_path / "drawn"), tmp_path / "out"
    networks = ["--weights", *map(str, make_golden.WEIGHTS)] if kind == "bag" else ["--unet", str(make_golden.UNET)]
    assert load_script("evaluate").main([*networks, "--data", str(data), "--out", str(out)]) == 0
    dices = make_golden.read_evaluation(out)
    golden = FIGURES["evaluation"].items()
    golden = {key: value for key, value in golden if key.startswith("efficientnet") == (kind == "unet")}
    assert dices == pytest.approx(golden, abs=EVALUATION)
