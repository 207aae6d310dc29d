"""A person's decisions: read and written, matched with films, and obeyed by datasets and trainings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stand_in import draw_film, load_stand_in, write_weights

from create_dataset import members
from create_dataset.command import main
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.decisions import DECISIONS, Decision, read_decisions, write_decisions
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.matching import match_films
from mask_rcnn.dataset.sources import read_records

PHANTOMS = Path(__file__).parents[1] / "data" / "phantoms"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / DECISIONS
    decisions = [
        Decision(7, 'a "b", c.png', "accept", (), "2026-01-01T00:00:00+00:00"),
        Decision(2**48 - 1, "z.png", "reject", ("left_lung", "mirrored"), ""),
    ]
    write_decisions(path, reversed(decisions))
    assert read_decisions(path) == decisions
    assert decisions[1].reason == "rejected by a person (left lung wrong, mirrored)"
    assert read_decisions(tmp_path / "none.csv") == []


def test_a_spreadsheet_may_have_saved_it(tmp_path: Path) -> None:
    path = tmp_path / DECISIONS
    path.write_bytes(
        "\ufeffimage_id;file;decision;wrong;decided\r\n2,81475E+14;a\\b.png;reject;;\r\n"
        "3;c.png;;left_lung right_lung;\r\n4;d.png;;;\r\n3;c.png;reject;;later\r\n".encode()
    )
    assert read_decisions(path) == [
        Decision(None, "a/b.png", "reject"), Decision(3, "c.png", "reject", (), "later"),
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), [
    ("image_id,file,decision\n1,a,perhaps\n", "line 2: the decision 'perhaps'"),
    ("image_id,file,decision,wrong\n1,a,reject,ear\n", "unknown mark 'ear'"),
    ("image_id,file,decision,wrong\n1,a,accept,mirrored\n", "accepted and yet marked mirrored"),
    ("file,decision\na,reject\n", "no column image_id"),
    ('image_id,file,decision\n1,"a,reject', "not readable as a table"),
])  # fmt: skip
def test_what_nobody_can_mean_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / DECISIONS).write_text(text)
    with pytest.raises(DatasetError, match=reason):
        read_decisions(tmp_path / DECISIONS)


def test_films_are_known_by_id_then_by_path() -> None:
    films = [(1, "a/one.png"), (2, "b/one.png"), (3, "two.png")]
    by_id = Decision(2, "renamed.png", "reject")
    by_path, by_tail = Decision(99, "a/one.png", "accept"), Decision(None, "deep/two.png", "reject")
    elsewhere = Decision(98, "three.png", "reject")
    assert match_films([by_id, by_path, by_tail, elsewhere], films, DECISIONS) == {1: by_id, 0: by_path, 2: by_tail}
    late = Decision(2, "", "accept", (), "2026-02-01")
    assert match_films([late, Decision(2, "", "reject", (), "2026-01-01")], films, DECISIONS) == {1: late}
    with pytest.raises(DatasetError, match="one.png fits several films, a/one.png and b/one.png"):
        match_films([Decision(None, "one.png", "reject")], films, DECISIONS)


def test_a_dataset_and_its_training_obey_and_thresholds_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one.png", "two.png", "three.png"):
        draw_film(tmp_path / "src" / name, height=90 + len(name))
    weights = write_weights(tmp_path / "dark.weights.h5")
    monkeypatch.setattr(members, "load_unet", load_stand_in)
    out = tmp_path / "out"

    def statuses(*more: str) -> dict[str, str]:
        assert main(["--src", str(tmp_path / "src"), "--out", str(out), "--unet", str(weights), *more]) == 0
        return {image["file_name"]: image["quality"] for image in read_dataset(out / "dataset.json")["images"]}

    before = statuses("--set", "quality.min_likeness=0", "--set", "quality.reject_likeness=-1")
    ids = {image["file_name"]: image["id"] for image in read_dataset(out / "dataset.json")["images"]}
    write_decisions(tmp_path / "given.csv", [Decision(ids["one.png"], "one.png", "reject", ("left_lung",))])
    write_decisions(out / DECISIONS, [Decision(ids["two.png"], "two.png", "accept")])
    lenient = statuses("--decisions", str(tmp_path / "given.csv"), "--set", "quality.min_likeness=0",
                       "--set", "quality.reject_likeness=-1")
    strict = statuses("--decisions", str(tmp_path / "given.csv"), "--set", "quality.min_likeness=1", "--set",
                      "quality.reject_likeness=1")
    for after in (lenient, strict):
        assert after["one.png"] == "rejected" and after["two.png"] == "accepted"
    assert before["three.png"] != strict["three.png"] == "rejected", "the checks judge the others"
    images = {image["file_name"]: image for image in read_dataset(out / "dataset.json")["images"]}
    assert images["one.png"]["reasons"][0] == "rejected by a person (left lung wrong)"
    assert images["two.png"]["decision"] == "accept" and "decision" not in images["three.png"]
    assert (out / DECISIONS).is_file()

    assert [record.path.name for record in read_records(out / "dataset.json", "patient")] == ["two.png"]
    write_decisions(out / DECISIONS, [Decision(ids["two.png"], "", "reject"), Decision(ids["three.png"], "", "accept")])
    assert [record.path.name for record in read_records(out / "dataset.json", "patient")] == ["three.png"]


def test_a_dataset_refuses_decisions_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_film(tmp_path / "src" / "one.png")
    weights = write_weights(tmp_path / "dark.weights.h5")
    arguments = ["--src", str(tmp_path / "src"), "--out", str(tmp_path / "out"), "--unet", str(weights)]
    assert main([*arguments, "--decisions", str(tmp_path / "no.csv")]) == 1
    assert "no.csv: there is no such file" in capsys.readouterr().err


def test_a_folder_of_films_and_masks_obeys(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for k in (1, 2, 3):
            shutil.copy(PHANTOMS / kind / f"phantom_000{k}.png", tmp_path / kind)
    write_decisions(tmp_path / DECISIONS, [
        Decision(5, "images/phantom_0001.png", "reject"), Decision(6, "phantoms/images/phantom_0002.png", "accept"),
    ])  # fmt: skip
    names = [record.path.name for record in read_records(tmp_path, "patient")]
    assert names == ["phantom_0002.png", "phantom_0003.png"]
