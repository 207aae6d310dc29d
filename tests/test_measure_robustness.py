"""The measuring of what changed films cost: the changes themselves, a table whose answer is known, and the command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from script import copy_phantoms, load_script

from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.model import MaskRCNN

SCRIPT = load_script("measure_robustness")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    data = copy_phantoms(tmp_path_factory.mktemp("phantoms") / "data", 1)
    film, labels, _ = read_annotated(read_records(data, "patient")[0])
    return film, labels


@pytest.mark.parametrize("kind", SCRIPT.CHANGES)
def test_a_change_keeps_both_lungs_on_the_film(kind: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
    film, labels = pair
    before = film.copy(), labels.copy()
    changed, moved = SCRIPT.CHANGES[kind](film, labels, np.random.default_rng(1))
    again, _ = SCRIPT.CHANGES[kind](film, labels, np.random.default_rng(1))
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(film, before[0])
    np.testing.assert_array_equal(labels, before[1])
    assert changed.dtype == moved.dtype == np.uint8 and changed.shape == moved.shape
    assert changed.shape != film.shape or (changed != film).any()
    for category in (1, 2):
        assert (moved == category).sum() == pytest.approx((labels == category).sum(), rel=0.02)


@pytest.mark.parametrize("kind", SCRIPT.CHANGES)
def test_films_without_lungs_are_changed_too(kind: str) -> None:
    film = np.arange(48 * 40, dtype=np.uint32).reshape(48, 40).astype(np.uint8)
    changed, moved = SCRIPT.CHANGES[kind](film, np.zeros_like(film), np.random.default_rng(1))
    assert changed.shape == moved.shape and not moved.any() and changed.size


def row(film: str, kind: str, left: float | None, right: float | None) -> dict[str, object]:
    return {"film": film, "kind": kind, "dice_left": left, "dice_right": right}


def test_a_table_whose_answer_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    # Films of one name from two folders are two films; one that shows a single lung counts nowhere.
    rows = [
        row("a", "as it is", 0.96, 0.97), row("a", "soft", 0.95, 0.97), row("a", "grain", 0.0, 0.97),
        row("a", "as it is", 0.98, 0.99), row("a", "soft", 0.95, 0.98), row("a", "grain", None, 0.97),
        row("b", "as it is", None, 0.99), row("b", "soft", 0.5, 0.5),
    ]  # fmt: skip
    tables = SCRIPT.summarise(rows)
    assert {kind: table["films"] for kind, table in tables.items()} == {"as it is": 2, "soft": 2, "grain": 1}
    soft = tables["soft"]
    assert soft["below"] == 0 and tables["grain"]["below"] == 1
    assert soft["left"]["dice"] == pytest.approx(0.95) and soft["left"]["change"] == pytest.approx(-0.02)
    assert soft["right"]["worst"] == 0.97 and soft["right"]["change"] == pytest.approx(-0.005)
    low, high = soft["left"]["interval"]
    assert low == pytest.approx(-0.03) and high == pytest.approx(-0.01)
    SCRIPT.print_table(tables)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("as it is") and "+" not in lines[1] and "-0.0200 [-0.0300, -0.0100]" in lines[2]
    assert lines[3].endswith("1 of 1")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCRIPT, "CHANGES", {kind: SCRIPT.CHANGES[kind] for kind in ("inverted", "tight")})
    data, weights = copy_phantoms(tmp_path / "data", 2), tmp_path / "tiny.weights.h5"
    model = MaskRCNN(tiny.drawing_all_config())
    model.network.named_layers()["mrcnn_class_logits"].bias.assign([-50.0, 0.0, 0.0])  # every proposal is a lung
    model.save(weights)
    command = ["--weights", str(weights), "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert SCRIPT.main(command) == 0
    assert "as it is" in capsys.readouterr().out
    with (tmp_path / "out" / "films.csv").open(newline="") as file:
        assert [found["kind"] for found in csv.DictReader(file)] == ["as it is", "inverted", "tight"] * 2
    report = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert list(report["kinds"]) == ["as it is", "inverted", "tight"] and report["kinds"]["tight"]["films"] == 2
    # The polarity is seen, so that an inverted film gives what the film itself gives.
    assert report["kinds"]["inverted"]["left"]["change"] == report["kinds"]["inverted"]["right"]["change"] == 0

    assert SCRIPT.main([*command[:3], str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        SCRIPT.main([*command, "--count", "0"])
