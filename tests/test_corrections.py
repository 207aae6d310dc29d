"""Lungs that a person corrects in another tool: exported, read back, and obeyed by datasets and trainings."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_tools import GOLDEN, brush, cvat_export, submitted
from PIL import Image
from stand_in import STANDS_IN, draw_film, write_weights

from create_dataset.command import main as create_dataset
from mask_rcnn.commands.corrections import main
from mask_rcnn.config import QualityConfig, config_from_dict
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.corrections import (
    CORRECTIONS,
    Correction,
    decode_lungs,
    encode_labels,
    is_wanted,
    match_corrections,
    read_corrections,
    write_corrections,
)
from mask_rcnn.dataset.decisions import DECISIONS, Decision, write_decisions
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.label_studio import unpack
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.returned import read_mask, read_returned
from mask_rcnn.dataset.run_lengths import compress, decode_mask, encode_polygons
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films.images import FilmError
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.training.films import Films

PHANTOMS = Path(__file__).parents[1] / "data" / "phantoms"
NAMES = ("a/one.png", "a/two.png", "b/one.png", "b/three.png")
LOWEST = {"min_heart_side": -1000, "min_likeness": -1, "reject_likeness": -1, "max_side_contact": 1}
LENIENT = tuple(
    word for key in asdict(QualityConfig())
    for word in ("--set", f"quality.{key}={LOWEST.get(key, 1000 if key.startswith('max') else 0)}")
)
STRICT = ("--set", "quality.min_likeness=1", "--set", "quality.reject_likeness=1")


def make_dataset(folder: Path, *more: str) -> Path:
    """The dataset of the films in ``folder/src``, by the stand-in; its weights tell one ensemble from another."""
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        for module, name, replacement in STANDS_IN:
            patch.setattr(module, name, replacement)
        given = ["--src", str(folder / "src"), "--out", str(out), "--unet", str(folder / "dark.weights.h5"), *more]
        assert create_dataset(given) == 0
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for k, name in enumerate(NAMES):
        draw_film(folder / "src" / name, height=120 + 8 * k, width=100)
    write_weights(folder / "dark.weights.h5")
    make_dataset(folder, *LENIENT)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the films and their dataset."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def films_of(out: Path) -> dict[str, dict[str, Any]]:
    """The image records by file name, each with its label mask."""
    dataset = read_dataset(out / "dataset.json")
    films = {image["id"]: image | {"labels": np.zeros((image["height"], image["width"]), np.uint8)}
             for image in dataset["images"]}
    for record in dataset["annotations"]:
        films[record["image_id"]]["labels"][decode_mask(record["segmentation"])] = record["category_id"]
    return {film["file_name"]: film for film in films.values()}


def lower(labels: np.ndarray) -> np.ndarray:
    """A correction: the left lung reaches ten pixels lower than it did."""
    moved = labels.copy()
    for shift in range(1, 11):
        moved[np.roll(labels == LEFT_LUNG, shift, axis=0) & (moved == 0)] = LEFT_LUNG
    return moved


def polygons_of(labels: np.ndarray) -> dict[str, list[list[float]]]:
    return {name: encode_polygons(labels == category) for category, name in CATEGORIES.items() if (labels == category).any()}


def given_back(kind: str, pack: Path, folder: Path, changed: Mapping[str, np.ndarray]) -> Path:
    """What a tool exports of the folder that it was given, the label masks of some films changed; by their file names."""
    coco = json.loads((pack / "coco.json").read_text())
    labels_of = {image["file_name"]: np.array(Image.open(pack / "masks" / image["file_name"])) for image in coco["images"]}
    assert changed.keys() <= labels_of.keys()
    if kind == "CVAT":
        parts: dict[str, dict[str, Any]] = {name: {} for name in labels_of}
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        for record in coco["annotations"]:
            parts[names[record["image_id"]]][CATEGORIES[record["category_id"]]] = record["segmentation"]
        parts |= {name: polygons_of(labels) for name, labels in changed.items()}
        return cvat_export(folder / "export.zip", {name: (labels_of[name].shape, parts[name]) for name in labels_of})
    if kind == "Label Studio":
        tasks = []
        for task in json.loads((pack / "label_studio.json").read_text()):
            result = task["predictions"][0]["result"]
            labels = changed.get(f"{task['data']['image_id']}.png")
            if labels is not None:  # one lung painted anew, the other one left as it was
                kept = [region for region in result if region["value"]["polygonlabels"] != [CATEGORIES[LEFT_LUNG]]]
                result = [*kept, brush(labels == LEFT_LUNG, CATEGORIES[LEFT_LUNG])]
            tasks.append(submitted(task, result))
        (folder / "export.json").write_text(json.dumps(tasks))
        return folder / "export.json"
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for name, labels in (labels_of | dict(changed)).items():
            image = Image.open(pack / "masks" / name)
            image.putdata(labels.ravel().tolist())
            saved = image.convert("RGB") if kind == "PNG in colours" else image
            saved.save(folder / "mask.png")
            archive.write(folder / "mask.png", f"masks/{name}")
            archive.write(pack / "images" / name, f"images/{name}")
    return folder / "export.zip"


@pytest.mark.parametrize("kind", ["CVAT", "Label Studio", "PNG", "PNG in colours"])
def test_what_was_changed_in_a_tool_comes_back_and_the_rest_stays(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pack = folder / "out", folder / "pack"
    assert main(["export", str(out), str(pack), "--films", "all"]) == 0
    before = films_of(out)
    assert len(list((pack / "images").iterdir())) == len(before) == 4
    assert main(["import", str(out), str(given_back(kind, pack, folder, {}))]) == 0
    assert "films corrected: 0; as they were: 4; left out: 0" in capsys.readouterr().out
    assert not (out / CORRECTIONS).exists()

    one = before["b/one.png"]
    wanted = lower(one["labels"])
    assert main(["import", str(out), str(given_back(kind, pack, folder, {f"{one['id']}.png": wanted}))]) == 0
    assert "films corrected: 1; as they were: 3; left out: 0" in capsys.readouterr().out
    [correction] = read_corrections(out / CORRECTIONS, "patient")
    assert (correction.image_id, correction.file, correction.size) == (one["id"], "b/one.png", one["labels"].shape)
    assert correction.decided and correction.tool == {"CVAT": "COCO"}.get(kind, kind.split(" in")[0])
    labels = decode_lungs(correction.lungs, correction.size)
    assert (labels == RIGHT_LUNG).tobytes() == (one["labels"] == RIGHT_LUNG).tobytes(), "nobody changed the other lung"
    differing = np.count_nonzero(labels != wanted)
    assert differing == 0 if kind != "CVAT" else differing < 0.01 * np.count_nonzero(wanted)

    for name, film in films_of(make_dataset(folder, *STRICT)).items():
        assert ("corrected" in film) == (name == "b/one.png")
        assert film["quality"] == ("accepted" if name == "b/one.png" else "rejected"), "a person outweighs the checks"
        assert (film["labels"] == (labels if name == "b/one.png" else before[name]["labels"])).all()


def test_corrections_win_over_later_networks_and_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out"
    film = films_of(out)["a/two.png"]
    labels = lower(film["labels"])
    write_corrections(folder / CORRECTIONS, [
        Correction(film["id"], "a/two.png", labels.shape, encode_labels(labels), "PNG", "2026-01-01T00:00:00+00:00"),
    ], "patient")  # fmt: skip
    pictures = set((out / "report_files" / "thumbnails").rglob("*.jpg"))
    shutil.copy(folder / CORRECTIONS, out)
    (folder / "dark.weights.h5").write_bytes((folder / "dark.weights.h5").read_bytes() + b"\0")  # another network
    make_dataset(folder, *LENIENT, "--copy-images", "60")
    assert "1 corrected by a person" in capsys.readouterr().out
    assert (out / CORRECTIONS).is_file() and list(out.glob("earlier-*/dataset.json"))
    copied = {image["original_name"]: image for image in read_dataset(out / "dataset.json")["images"]}
    assert copied["a/two.png"]["corrected"] == "2026-01-01T00:00:00+00:00" and "corrected" not in copied["a/one.png"]
    with (out / "quality.csv").open(newline="") as table:
        assert {row["file"]: row["corrected"] for row in csv.DictReader(table)}["a/two.png"].startswith("2026-01-01")
    shown = (out / "report_files" / "details" / "0.js").read_text()
    assert shown.count('["corrected","2026-01-01T00:00:00+00:00"]') == 1
    now = set((out / "report_files" / "thumbnails").rglob("*.jpg"))
    assert len(now - pictures) == 1 and len(now) == 4, "its thumbnail shows other lungs"

    records = {record.path.name: record for record in read_records(out / "dataset.json", "patient")}
    own = records[f"{film['id']}.png"]
    assert own.corrected and sum(record.corrected for record in records.values()) == 1
    small = read_annotated(own)
    assert small.film.shape == small.labels.shape == (60, 47) and own.path.parent.name == "images"
    shares = [np.count_nonzero(mask == LEFT_LUNG) / mask.size for mask in (labels, small.labels)]
    assert shares[0] == pytest.approx(shares[1], rel=0.03), "a correction fits copies of another size"
    given = make_dataset(folder, *LENIENT, "--corrections", str(folder / CORRECTIONS))
    assert (films_of(given)["a/two.png"]["labels"] == labels).all()


def test_a_training_takes_them_without_another_run_and_weighs_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    film = films_of(out)["a/two.png"]
    labels = lower(film["labels"])
    correction = Correction(film["id"], "", labels.shape, encode_labels(labels), "PNG", "2026-01-01T00:00:00+00:00")
    source = str(out / "dataset.json")

    def shown(weight: int, members: str = "all") -> list[str]:
        data = {"sources": [source], "train_fraction": 0.99, "members": members, "corrected_weight": weight}
        films = Films(config_from_dict({"data": data, "network": {"image_size": 64}}), folder / "cache")
        return [film.record.path.name + "*" * film.record.corrected for film in films.of_member(1)]

    assert "*" not in "".join(shown(3)) and len(shown(3)) == 3
    write_corrections(out / CORRECTIONS, [correction], "patient")
    records = {record.path.name: record for record in read_records(source, "patient")}
    assert (read_annotated(records["two.png"]).labels == labels).all()
    before, after = shown(1), shown(3)
    assert sorted(after) == sorted([*before, "two.png*", "two.png*"]) and before.count("two.png*") == 1
    assert len(shown(3, "bootstrap")) == 5
    assert "1 of 3 films to train on are corrected by a person, each counts 3 times" in capsys.readouterr().out
    write_decisions(out / DECISIONS, [Decision(film["id"], "", "reject")])
    assert "two.png" not in {record.path.name for record in read_records(source, "patient")}


@pytest.mark.parametrize("weight", [0, -1, 1.5, "two"])
def test_a_weight_is_a_whole_number_from_1(weight: object) -> None:
    with pytest.raises(ValueError, match=r"data\.corrected_weight"):
        config_from_dict({"data": {"corrected_weight": weight}})


EARLY, LATE = "2026-01-01T00:00:00.000Z", "2026-02-01T00:00:00+00:00"
MADE = Correction(1, "a.png", (4, 4), {}, "", "2026-01-15T00:00:00+00:00")


@pytest.mark.parametrize(("checked", "decision", "correction", "wanted"), [
    (True, None, None, True),
    (False, None, None, False),
    (False, None, MADE, True),
    (False, Decision(1, "", "accept"), None, True),
    (True, Decision(1, "", "reject"), None, False),
    (True, Decision(1, "", "reject", ("left_lung",), EARLY), MADE, True),
    (True, Decision(1, "", "reject", ("left_lung",), ""), MADE, True),
    (True, Decision(1, "", "reject", ("left_lung",), LATE), MADE, False),
    (True, Decision(1, "", "reject", ("left_lung", "mirrored"), EARLY), MADE, False),
    (True, Decision(1, "", "reject", (), EARLY), MADE, False),
])  # fmt: skip
def test_a_correction_answers_marks_on_the_lungs_alone(
    checked: bool, decision: Decision | None, correction: Correction | None, wanted: bool
) -> None:
    assert is_wanted(checked, decision, correction) is wanted


def test_what_is_exported_is_for_review_or_marked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make_dataset(folder, "--set", "quality.min_likeness=1", "--set", "quality.reject_likeness=-1")
    pack = folder / "pack"
    ids = {name: film["id"] for name, film in films_of(out).items()}
    assert {film["quality"] for film in films_of(out).values()} == {"review"}
    write_decisions(out / DECISIONS, [
        Decision(ids["a/one.png"], "", "accept", (), EARLY), Decision(ids["a/two.png"], "", "reject", (), EARLY),
        Decision(ids["b/one.png"], "", "reject", ("right_lung",), EARLY),
    ])  # fmt: skip
    assert main(["export", str(out), str(pack)]) == 0
    names = {path.stem for path in (pack / "images").iterdir()}
    assert names == {str(ids["b/one.png"]), str(ids["b/three.png"])} == {path.stem for path in (pack / "masks").iterdir()}
    assert main(["export", str(out), str(pack)]) == 1
    assert "is not empty" in capsys.readouterr().err
    labels = {f"{ids[name]}.png": lower(films_of(out)[name]["labels"]) for name in ("b/one.png", "b/three.png")}
    assert main(["import", str(out), str(given_back("PNG", pack, folder, labels))]) == 0
    assert main(["export", str(out), str(folder / "again")]) == 1
    assert "no film is for review" in capsys.readouterr().err
    assert main(["export", str(out), str(folder / "again"), "--films", "all"]) == 0
    again = np.array(Image.open(folder / "again" / "masks" / f"{ids['b/one.png']}.png"))
    assert (again == labels[f"{ids['b/one.png']}.png"]).all(), "what was corrected is exported so"


def test_what_no_person_can_mean_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, films = folder / "out", films_of(folder / "out")
    masks = folder / "painted"
    masks.mkdir()

    def paint(name: str, labels: np.ndarray) -> None:
        Image.fromarray(labels).save(masks / f"{films[name]['id'] if name in films else name}.png")

    paint("a/one.png", np.zeros_like(films["a/one.png"]["labels"]))
    paint("a/two.png", np.minimum(films["a/two.png"]["labels"], 1))
    paint("b/one.png", films["b/one.png"]["labels"][1:])
    paint("123", films["b/three.png"]["labels"])
    paint("b/three.png", films["b/three.png"]["labels"] * 100)
    assert main(["import", str(out), str(masks)]) == 1
    printed = capsys.readouterr()
    assert "films corrected: 0; as they were: 0; left out: 5" in printed.out
    for reason in ("no lung is left on it", "one label for both lungs?", "has 100 x 135 pixels, the film 100 x 136",
                   "left out 123.png: is no film of these", "pixels of it are no label; paint with"):
        assert reason in printed.err, printed.err
    for path in masks.iterdir():
        path.unlink()
    for name in NAMES[:2]:
        labels = films[name]["labels"]
        paint(name, np.array([0, RIGHT_LUNG, LEFT_LUNG], np.uint8)[labels])
    assert main(["import", str(out), str(masks)]) == 1
    assert "labels exchanged? 2 of 2 films" in capsys.readouterr().err
    assert not (out / CORRECTIONS).exists()


@pytest.mark.parametrize(("content", "reason"), [
    (None, "there is no such file"),
    (b"{", "not readable as JSON"),
    (b"[1]", "not as JSON-MIN"),
    (b'[{"image": "a.png", "polygon": []}]', "not as JSON-MIN"),
    (b'[{"data": {"image": "a.png"}, "annotations": []}]', "nobody has annotated a film in it"),
    (b'{"images": []}', "no COCO dataset"),
    (b'{"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "left_lung"}, {"id": 2, "name": '
     b'"right_lung"}]}', "image 1 has no file_name"),
    (b"PK\x03\x04 torn", "not readable as JSON"),
])  # fmt: skip
def test_what_is_no_export_gets_one_line(
    content: bytes | None, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "export.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["import", str(folder / "out"), str(path)]) == 1
    assert reason in (printed := capsys.readouterr().err) and printed.count("\n") == 1


def test_a_folder_of_no_run_gets_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "pack")]) == 1
    assert "holds neither dataset.json nor run.json" in capsys.readouterr().err


# The files of the tools


def test_cvats_own_file() -> None:
    found, refused = read_returned(GOLDEN / "cvat.json")
    assert not refused and [(item.image_id, item.size) for item in found] == [(101, (96, 80)), (102, (96, 80))]
    brushed = np.zeros((96, 80), bool)
    brushed[20:70, 8:30] = True
    brushed[20:30, 8:14] = False
    assert (decode_mask(found[0].lungs[RIGHT_LUNG]) == brushed).all()
    left = decode_mask(found[0].lungs[LEFT_LUNG])
    assert left[80, 55] and left[40, 55] and not left[72, 55], "both parts of a group"


def test_label_studios_own_file() -> None:
    found, refused = read_returned(GOLDEN / "label_studio.json")
    assert not refused and [item.image_id for item in found] == [101, 102], "nobody annotated the third"
    brushed = np.zeros((96, 80), bool)
    brushed[20:70, 8:30] = True
    brushed[20:30, 8:14] = False
    assert (decode_mask(found[0].lungs[RIGHT_LUNG]) == brushed).all()
    polygon = compress([[46, 20, 70, 22, 72, 68, 44, 60]], (96, 80))
    assert (decode_mask(found[0].lungs[LEFT_LUNG]) == decode_mask(polygon)).all(), "the annotation changed last counts"
    assert found[1].file == "102.png" and found[1].lungs.keys() == {LEFT_LUNG}


@pytest.mark.parametrize("result", [None, [7], [{"value": 7}], [{"value": {"polygonlabels": [[]]}}],
                                    [{"value": {"polygonlabels": ["ear"]}}], []])  # fmt: skip
def test_a_spoilt_task_is_named(result: object, tmp_path: Path) -> None:
    task = json.loads((GOLDEN / "label_studio.json").read_text())[1]
    task["annotations"][0]["result"] = result
    (tmp_path / "export.json").write_text(json.dumps([task]))
    found, refused = read_returned(tmp_path / "export.json")
    assert not found and refused.keys() == {"102.png"}


def test_what_macos_adds_to_an_archive_does_not_count(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.write(GOLDEN / "cvat.json", "cvat.json")
        archive.writestr("__MACOSX/._cvat.json", b"\0")
    assert read_returned(tmp_path / "export.zip")[0] == read_returned(GOLDEN / "cvat.json")[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_brush_of_any_shape_is_unpacked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 60, 2))
    mask = rng.random((height, width)) < rng.random()
    packed = brush(mask, "left_lung", seed)["value"]["rle"]
    assert (unpack(packed, height, width) == mask).all()
    with pytest.raises(ValueError, match="cut off"):
        unpack(packed[: len(packed) // 2], height, width)
    with pytest.raises(ValueError, match="values of 8 bits"):
        unpack(packed, height + 1, width)


def test_a_paint_program_may_save_the_colours(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 0xE6, 0x9F, 0, 0, 0x72, 0xB2])
    for k, saved in enumerate((image, image.convert("RGB"), image.convert("RGBA"), Image.fromarray(labels))):
        saved.save(tmp_path / f"{k}.png")
        assert (read_mask(tmp_path / f"{k}.png") == labels).all()
    Image.fromarray(np.full((4, 4, 3), 7, np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(FilmError, match="16 pixels of it are no label"):
        read_mask(tmp_path / "grey.png")


@pytest.mark.parametrize("name", ["phantom_0001", "phantom_0002"])
def test_polygons_are_the_mask(name: str) -> None:
    labels = np.array(Image.open(PHANTOMS / "masks" / f"{name}.png"))
    for scale in (1, 4):
        mask = np.kron(labels == LEFT_LUNG, np.ones((scale, scale), bool))
        parts = encode_polygons(mask)
        back = decode_mask(compress(parts, mask.shape))
        dice = 2 * np.count_nonzero(back & mask) / (np.count_nonzero(back) + np.count_nonzero(mask))
        assert dice > 0.996 and sum(map(len, parts)) < 500
    assert encode_polygons(np.zeros((8, 8), bool)) == []


def test_the_file_names_lungs_by_either_side_and_fits_other_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:30, 35:55], labels[5:30, 5:25] = LEFT_LUNG, RIGHT_LUNG
    item = Correction(7, "a, ü.png", (40, 60), encode_labels(labels), "PNG", LATE)
    write_corrections(tmp_path / CORRECTIONS, [item], "patient")
    assert read_corrections(tmp_path / CORRECTIONS, "patient") == [item]
    [other] = read_corrections(tmp_path / CORRECTIONS, "image")
    assert other.lungs == {LEFT_LUNG: item.lungs[RIGHT_LUNG], RIGHT_LUNG: item.lungs[LEFT_LUNG]}
    assert read_corrections(tmp_path / "none.json", "patient") == []
    half = decode_lungs(item.lungs_at((20, 30)), (20, 30))
    assert (half[5:14, 18:27] == LEFT_LUNG).all() and not half[:2].any() and item.lungs_at((40, 60)) == item.lungs
    films = [(7, "a, ü.png")]
    assert match_corrections([item], films, [(80, 121)]) == {0: item} and not capsys.readouterr().err
    assert match_corrections([item], films, [(60, 40)]) == match_corrections([item], films, [(None, None)]) == {}
    assert "a, ü.png: corrected at 60 x 40 pixels, the film has 40 x 60; " in capsys.readouterr().err
    (tmp_path / CORRECTIONS).write_text((tmp_path / CORRECTIONS).read_text().replace("file_name", "name"))
    with pytest.raises(DatasetError, match="no file of corrections"):
        read_corrections(tmp_path / CORRECTIONS, "patient")
