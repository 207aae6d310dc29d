"""The measuring of the agreement: rows of real looks at spoilt films, and tables of rows whose answer is known."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from script import copy_phantoms, load_script

from mask_rcnn.dataset.held_out import HeldOut, ListedFilm
from mask_rcnn.dataset.sources import read_records


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("measure_uncertainty")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return copy_phantoms(tmp_path / "data", 3)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two networks of a few thousand random weights that call every proposal a lung, one drawing more than the other."""
    import keras

    from mask_rcnn.config import config_from_dict
    from mask_rcnn.model import MaskRCNN

    sizes = {
        "image_size": 64, "backbone": "resnet14", "backbone_width": 4, "pyramid_channels": 8,
        "pyramid_output_channels": 8, "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8,
    }
    keras.utils.set_random_seed(0)
    model = MaskRCNN(config_from_dict({
        "network": sizes, "proposals": {"inference_count": 16}, "detection": {"min_score": 0.0},
        "bag": {"members": 2, "min_votes": 1, "min_agreement": 0.6},
    }))
    layers, paths = model.network.named_layers(), []
    layers["mrcnn_class_logits"].bias.assign([-50.0, 0.0, 0.0])
    for k in range(2):
        layers["mrcnn_mask"].bias.assign([0.1 * k] * 3)
        paths.append(str(tmp_path_factory.mktemp("models") / f"member_{k}.weights.h5"))
        model.save(paths[-1])
    return paths


def row(film: str, dice: float | None, agreement: float, score: float = 1.0, kind: str = "blur") -> dict[str, Any]:
    return {
        "film": film, "kind": kind, "dice_left": dice, "dice_right": dice, "dice": dice,
        "agreement": agreement, "score": score,
    }  # fmt: skip


@pytest.mark.usefixtures("eagerly")
def test_the_command(
    script: ModuleType, weights: list[str], data: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mask_rcnn.model import MaskRCNN

    # A network that is given twice is built once: that is most of the time.
    monkeypatch.setattr(MaskRCNN, "load", staticmethod(functools.cache(MaskRCNN.load)))
    monkeypatch.setattr(script, "SAMPLES", 10)
    broken, *names = sorted(path.name for path in (data / "images").glob("*"))
    (data / "images" / broken).write_text("no picture")
    out, kinds = tmp_path / "out", ["lateral_like", "white_out"]
    command = ["--data", str(data), "--out", str(out), "--device", "cpu", "--kinds", *kinds]
    assert script.main(["--weights", *weights, *command]) == 0
    said = capsys.readouterr()
    assert f"{broken}: is no image" in said.err and "in use, 0.600" in said.out
    with (out / "films.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["film"], row["kind"]) for row in rows] == [
        (name, kind) for name in names for kind in ("as it is", *kinds)
    ]
    for found in rows:
        dices = [float(found[f"dice_{side}"]) for side in ("left", "right") if found[f"dice_{side}"]]
        assert found["dice"] == (str(min(dices)) if dices else ""), "nothing drawn and nothing found"
        assert 0 <= float(found["agreement"]) <= 1 >= float(found["score"]) >= 0
        assert found["lungs_found"] == "2" or float(found["agreement"]) == float(found["score"]) == 0
        if found["kind"] == "lateral_like":
            assert set(dices) <= {0.0}, "whatever is found there is wrong"
    report = json.loads((out / "uncertainty.json").read_text())
    assert report["members"] == 2
    defined = dict.fromkeys(found["kind"] for found in rows if found["dice"])
    assert {"as it is", "white_out"} <= set(defined) and list(report["kinds"]) == [*defined, "all", "showing both"]
    assert report["kinds"]["all"]["films"] + report["undefined"] == len(rows)

    assert script.main(["--weights", weights[0], *command]) == 1
    assert "nobody to agree with" in capsys.readouterr().err
    assert script.main(["--weights", *weights, "--data", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err


def test_films_are_chosen_from_all_over_the_folder(script: ModuleType, data: Path) -> None:
    records = script.read_records(data, "patient")
    names = sorted(path.stem for path in (data / "images").glob("*"))
    assert [record.path.stem for record in script.evenly(records, 99)] == names
    assert [record.path.stem for record in script.evenly(records, 2)] == names[:2]
    assert script.evenly(list(range(100)), 4) == [0, 25, 50, 75]


def test_tables_of_rows_whose_answer_is_known(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        # Of these two failures one is caught at 0.9; the score is higher for failures, so it tells the contrary.
        row("a", 0.5, 0.2, 0.9), row("b", 0.89, 0.93, 0.9), row("c", 0.97, 0.99, 0.8),
        row("d", 0.95, 0.8, 0.8), row("e", 0.93, 0.98, 0.8), row("f", None, 0.0, 0.0),
        row("a", 0.99, 1.0, kind="as it is"),
    ]  # fmt: skip
    suggested = script.suggest_threshold(rows)
    assert suggested == pytest.approx((0.93 + 0.98) / 2)  # both failures and one of four others lie below
    tables = script.report(rows, thresholds := {"in use": 0.9, "suggested": suggested})
    assert list(tables) == ["blur", "as it is", "all", "showing both"]
    blur = tables["blur"]
    assert (blur["films"], blur["failures"], blur["good"]) == (5, 2, 2)
    assert blur["roc_area"]["agreement"]["value"] == pytest.approx(5 / 6) and blur["roc_area"]["score"]["value"] == 0
    assert blur["thresholds"]["in use"] == {
        "agreement": 0.9, "reviewed": 0.4, "failures_caught": 0.5, "good_reviewed": 0.5
    }
    assert blur["thresholds"]["suggested"]["failures_caught"] == 1
    assert tables["all"]["thresholds"]["suggested"]["good_reviewed"] == pytest.approx(1 / 3)
    assert tables["as it is"]["roc_area"]["agreement"]["value"] is None
    assert tables["as it is"]["thresholds"]["in use"]["failures_caught"] is None
    script.print_report(tables, thresholds)
    assert "suggested, 0.955" in (said := capsys.readouterr().out) and "0.833" in said
    half = row("g", 0.96, 0.0) | {"dice_left": None}
    with_half = script.report([*rows, half], thresholds)
    assert with_half["all"]["roc_area"]["agreement"]["value"] < tables["all"]["roc_area"]["agreement"]["value"]
    assert with_half["showing both"] == tables["all"]
    assert np.isnan(script.suggest_threshold(rows[:2]))


def test_the_interval_takes_films_with_all_their_rows(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    films = [(f"film {k}", 0.8 if k % 2 else 0.97, rng.normal(0.8 if k % 2 else 0.9, 0.1)) for k in range(40)]
    once = [row(name, dice, agreement) for name, dice, agreement in films]
    area, repeated = (script.area_with_interval(rows, "agreement") for rows in (once, once * 4))
    assert area["low"] < area["value"] < area["high"]
    assert repeated["value"] == pytest.approx(area["value"])
    # Four times the same rows are no more evidence.
    assert repeated["high"] - repeated["low"] == pytest.approx(area["high"] - area["low"], rel=0.02)


def test_predictions_are_collected_for_the_fit_of_the_risk(
    weights: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(path.name for path in (data / "images").iterdir())
    held_out = tmp_path / "held.csv"
    held_out.write_text(f"set,file,why\ndata,images/{names[0]},held\ndata,images/{names[1]},copy\n")
    arguments = ["--weights", *weights, "--data", str(data), "--held-out", str(held_out), "--copies", "1"]
    assert load_script("collect_predictions").main([*arguments, "--out", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "data.npz") as found:
        assert found["names"].tolist() == [names[0], names[2], names[2]] and found["copies"].tolist() == [0, 0, 1]
        assert found["held"].tolist() == [True, False, False]
        assert found["films"].shape == (3, 128, 128) and found["masks"].shape == (3, 2, 2, 128, 128)
        assert (found["films"][1] != found["films"][2]).any(), "the copy is ill"
        assert found["dice"].shape == (3, 2) and ((found["dice"] >= 0) & (found["dice"] < 0.9)).all()
    assert "data.npz: 3 films, 3 of them with a lung below 0.90" in capsys.readouterr().out
    assert load_script("fit_risk").main(["--predictions", str(tmp_path / "out")]) == 1
    assert "too few patients (2 of 5 folds have any)" in capsys.readouterr().err


def test_films_are_kept_whatever_the_last_one_is(data: Path) -> None:
    script = load_script("collect_predictions")
    names = sorted(path.name for path in (data / "images").iterdir())
    held_out = HeldOut([ListedFilm("data", f"images/{names[2]}", "copy")])
    found = [facts["names"] for _, _, facts in script.drawn_films(read_records(data, "patient"), held_out, 0)]
    assert found == names[:2]


def test_a_set_can_be_had_with_other_masks(tmp_path: Path) -> None:
    source = copy_phantoms(tmp_path / "data", 2)
    (source / "masks").rename(source / "heart")
    path = sorted((source / "heart").iterdir())[0]
    cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) > 0).astype(np.uint8) * 255)
    script = load_script("with_masks")
    assert script.main(["--set", str(source), "--masks", "heart", "--out", str(tmp_path / "other" / "data")]) == 0
    paths = sorted((tmp_path / "other" / "data" / "masks").iterdir())
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
    assert [set(np.unique(mask).tolist()) for mask in masks] == [{0, 1}, {0, 1, 2}]
    assert [mask.ndim for mask in masks] == [2, 2]  # label masks of three channels are refused
    path.unlink()  # a film without such a mask is none of the set's
    assert script.main(["--set", str(source), "--masks", "heart", "--out", str(tmp_path / "fewer" / "data")]) == 0
    for name, count in (("other", 2), ("fewer", 1)):
        assert [film.path.exists() for film in read_records(tmp_path / name / "data", "patient")] == [True] * count
    assert script.main(["--set", str(source), "--masks", "none", "--out", str(tmp_path / "third")]) == 1
