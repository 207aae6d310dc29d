"""The inference command through ``main``: real networks of random weights, real films, real files."""

from __future__ import annotations

import copy
import csv
import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from films import ten_bit, write_dicom
from keras_2 import write_legacy
from lines import problems
from PIL import Image
from pycocotools.coco import COCO
from stand_in import STANDS_IN, write_weights

from create_dataset.command import main as create_dataset
from mask_rcnn.commands.corrections import main as corrections
from mask_rcnn.commands.inference import main
from mask_rcnn.config import BagConfig, QualityConfig, apply_settings, config_from_dict
from mask_rcnn.dataset.coco import to_xywh
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.finding import find_film_paths
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.inference import outputs
from mask_rcnn.inference.sources import find_films
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.results.names import result_names
from mask_rcnn.results.records import review_reasons
from mask_rcnn.results.tables import COLUMNS
from mask_rcnn.system.devices import DeviceError, choose_device
from mask_rcnn.utils import mask_box

ROOT = Path(__file__).parents[1]
PHANTOMS = sorted((ROOT / "data" / "phantoms" / "images").glob("*.png"))


def save_network(path: Path, seed: int, laterality: str = "patient", classes: int = 3) -> Path:
    """A network of a few thousand random weights that calls every proposal a lung, so that something is found."""
    import keras

    from mask_rcnn.model import MaskRCNN

    keras.utils.set_random_seed(seed)
    small = {
        "image_size": 64, "class_count": classes, "backbone": "resnet26", "backbone_width": 4, "pyramid_channels": 8,
        "pyramid_output_channels": 8, "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8,
    }
    model = MaskRCNN(config_from_dict({
        "seed": seed, "laterality": laterality, "network": small, "proposals": {"inference_count": 16},
        "detection": {"min_score": 0.0, "max_instances": 4}, "bag": {"members": 1, "min_votes": 1, "opening": 1},
    }))
    _, bias = model.network.named_layers()["mrcnn_class_logits"].weights
    bias.assign([-50.0, *[0.0] * (classes - 1)])
    model.save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(save_network(folder / f"member_{k}.weights.h5", seed=k)) for k in range(2)]


@pytest.fixture(scope="module", autouse=True)
def compile_once() -> Iterator[None]:
    """A network that several tests load is built and compiled for the first of them: that is most of their time.

    How a bag is read changes no graph: with settings of that section the network is the same one, its config another.
    """
    from mask_rcnn.model import MaskRCNN

    load = functools.cache(MaskRCNN.load)

    def load_again(path: str, settings: tuple[str, ...] = ()) -> MaskRCNN:
        of_bag = [setting for setting in settings if setting.startswith("bag.")]
        model = copy.copy(load(path, settings=tuple(setting for setting in settings if setting not in of_bag)))
        model.config = apply_settings(model.config, of_bag, ("bag",))
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskRCNN, "load", staticmethod(load_again))
        yield


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three films in two folders, all readable."""
    folder = tmp_path / "films"
    for k, name in enumerate(("a/one.png", "a/two words ü.png", "b/three.png")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PHANTOMS[k], folder / name)
    return folder


def run(weights: Sequence[str], source: Path, out: Path, *more: str) -> int:
    return main(["--weights", *weights, "--src", str(source), "--out", str(out), "--device", "cpu", *more])


def tables(out: Path) -> tuple[list[dict[str, str]], list[dict[str, Any]], dict[str, Any]]:
    with (out / "measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((out / "results.json").read_text()), json.loads((out / "run.json").read_text())


def test_every_film_gets_mask_picture_and_measurements(weights: list[str], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(weights, source, out) == 0
    rows, found, provenance = tables(out)
    assert [row["file"] for row in rows] == ["a/one.png", "a/two words ü.png", "b/three.png"]
    assert list(rows[0]) == list(COLUMNS)
    assert len(found) > 0, "these networks call everything a lung: a test without lungs would test little"
    for row in rows:
        film = read_film(source / row["file"])
        with Image.open(out / "masks" / row["result"]) as image:
            labels, notes = np.asarray(image), image.info
        assert labels.dtype == np.uint8 and labels.shape == film.shape == (int(row["height"]), int(row["width"]))
        assert notes["laterality"] == row["laterality"] == "patient" and "1 left_lung" in notes["labels"]
        with Image.open(out / "overlays" / row["result"]) as picture:
            assert picture.mode == "RGB" and picture.width > 1.4 * picture.height * film.shape[1] / film.shape[0]
        assert set(np.unique(labels)) <= {0, *CATEGORIES}
        for category, side in ((1, "left"), (2, "right")):
            mask, box = labels == category, mask_box(labels == category)
            assert row[f"{side}_found"] == str(int(mask.any()))
            entries = [e for e in found if e["image_id"] == int(row["image_id"]) and e["category_id"] == category]
            assert len(entries) == int(mask.any())
            if not mask.any():
                assert row[f"{side}_score"] == row[f"{side}_area_px"] == row["left_right_area_ratio"] == ""
                continue
            assert int(row[f"{side}_area_px"]) == mask.sum()
            assert tuple(int(row[f"{side}_{edge}"]) for edge in ("y1", "x1", "y2", "x2")) == box
            y, x = np.argwhere(mask).mean(0)
            assert float(row[f"{side}_centroid_y"]) == pytest.approx(y, abs=0.006)
            assert float(row[f"{side}_centroid_x"]) == pytest.approx(x, abs=0.006)
            assert float(row[f"{side}_area_fraction"]) == pytest.approx(mask.mean(), abs=1e-6)
            assert 1 <= int(row[f"{side}_votes"]) <= 2 and 0 <= float(row[f"{side}_score"]) <= 1
            assert (row[f"{side}_agreement"] == "") == (row[f"{side}_votes"] == "1")
            assert np.array_equal(decode_mask(entries[0]["segmentation"]), mask)
            assert entries[0]["bbox"] == to_xywh(box)
        assert 0 <= float(row["agreement"]) <= min(float(row[f"{side}_agreement"] or 0) for side in ("left", "right")) + 1e-6
        assert 0 <= float(row["risk"]) <= 1
        assert row["review"] == str(int(bool(row["reasons"])))
        differs = float(row["agreement"]) < provenance["bag"]["min_agreement"]
        assert ("opinions on the lungs differ" in row["reasons"]) == (differs and "likeness" not in row["reasons"])
    assert provenance["finished"] and provenance["skipped"] == [] and provenance["laterality"] == "patient"
    seeds = {Path(entry["file"]).name: entry["config"]["seed"] for entry in provenance["weights"]}
    assert seeds == {Path(path).name: k for k, path in enumerate(weights)}
    digests = [entry["sha256"] for entry in provenance["weights"]]
    assert digests == sorted(digests) and len(digests[0]) == 64, "the order in which they are given does not matter"
    assert provenance["format"] == 2 and provenance["program"]
    assert {"python", "keras", "numpy"} <= set(provenance["versions"])
    assert not list(out.rglob(".*")), "no partial file is left behind"


def test_the_last_line_says_how_many_films_are_for_review(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, given in (("two", weights), ("alone", weights[:1])):
        assert run(given, source, tmp_path / name) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("3 of 3 films are for review: ")
        rows, found, provenance = tables(tmp_path / name)
        for row, image in zip(rows, provenance["images"], strict=True):
            # Random networks agree on nothing; one has nobody to agree with, and its lungs are judged all the same.
            assert row["review"] == "1" and row["reasons"] and (row["agreement"] == row["risk"] == "") == (name == "alone")
            assert image["review"] and "; ".join(image["reasons"]) == row["reasons"]
            entries = [entry for entry in found if entry["image_id"] == image["id"]]
            assert all(entry["review"] == 1 and entry["reasons"] == image["reasons"] for entry in entries)


def test_review_is_what_a_check_speaks_against() -> None:
    measures = {"lungs": 2, "area": 0.3, "ratio": 0.8, "side_contact": 0, "shape_distance": 1, "likeness": 0.9,
                "heart_side": 1, "sharpness": 0.1, "aspect": 1.2}  # fmt: skip

    def reasons(agreement: float | None, doubts: list[str], risk: float | None = 0.1, **changes: float) -> list[str]:
        record = {"agreement": agreement, "risk": risk, "doubts": doubts, "measures": measures | changes}
        bag = BagConfig(min_agreement=0.95, max_risk=0.2)
        return [reason.split(" (")[0] for reason in review_reasons(record, QualityConfig(), bag)]

    assert [len(reasons(value, [])) for value in (0.0, 0.949999, 0.95, 1.0, None)] == [1, 1, 0, 0, 0]
    assert [len(reasons(1.0, [], risk)) for risk in (0.0, 0.2, 0.200001, 1.0, None)] == [0, 0, 1, 1, 0]
    assert reasons(0.5, [], 0.9) == ["opinions on the lungs differ", "a lung is probably wrong"]
    assert reasons(1.0, ["a lateral film by its ViewPosition (LL)"]) == ["a lateral film by its ViewPosition"]
    assert reasons(1.0, [], heart_side=-2.0) == ["perhaps mirrored: the heart points to the wrong side"]
    assert reasons(0.5, ["doubt"], lungs=1) == ["doubt", "one lung found", "opinions on the lungs differ"]
    assert reasons(1.0, [], likeness=0.1) == ["not an upright frontal chest film"]


def test_an_inverted_film_is_turned_round_and_said_to_be(weights: list[str], source: Path, tmp_path: Path) -> None:
    upright, inverted = source / "b" / "three.png", source / "b" / "three inverted.png"
    Image.fromarray(255 - read_film(upright)).save(inverted)
    out = tmp_path / "out"
    assert run(weights[:1], source / "b", out) == 0
    rows, _, _ = tables(out)
    assert [(row["file"], row["inverted"]) for row in rows] == [(inverted.name, "1"), (upright.name, "0")]
    for folder in ("masks", "overlays"):
        first, second = (np.asarray(Image.open(out / folder / row["result"])) for row in rows)
        assert first.any() and np.array_equal(first, second), folder


def test_results_load_as_coco_results(weights: list[str], source: Path, tmp_path: Path) -> None:
    assert run(weights[:1], source, tmp_path / "out") == 0
    _, found, provenance = tables(tmp_path / "out")
    truth = COCO()
    truth.dataset = {"images": provenance["images"], "categories": provenance["categories"], "annotations": []}
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "out" / "results.json"))
    assert len(loaded.anns) == len(found) > 0
    assert [image["file_name"] for image in truth.loadImgs([row["id"] for row in provenance["images"]])][-1] == "b/three.png"


def test_a_single_film_and_a_batch(weights: list[str], source: Path, tmp_path: Path) -> None:
    film = source / "b" / "three.png"
    assert run(weights[:1], film, tmp_path / "single") == 0
    assert (tmp_path / "single" / "masks" / "three.png").is_file()
    assert (tmp_path / "single" / "overlays" / "three.png").is_file()
    # A network sees each film for itself: what lies beside it in a batch changes nothing.
    assert run(weights[:1], source, tmp_path / "batch", "--batch", "3") == 0
    single, batch = (
        np.asarray(Image.open(tmp_path / name)) for name in ("single/masks/three.png", "batch/masks/b/three.png")
    )
    assert (single != batch).mean() < 0.001


def test_no_film_of_a_scanner_gets_anothers_mask(weights: list[str], tmp_path: Path) -> None:
    """48 names alike in their first 40 characters, through the command, whose threads write side by side."""
    (tmp_path / "films").mkdir()
    films = []
    for number, path in enumerate(PHANTOMS[:12]):
        films.append(tmp_path / f"{number}.png")
        Image.fromarray(read_film(path)).resize((96 + number, 128)).save(films[-1])
    names = {f"1.3.12.2.1107.5.3.56.20123.11.2024010508{k:06}.png": films[k % len(films)] for k in range(48)}
    for name, film in names.items():
        (tmp_path / "films" / name).hardlink_to(film)
    assert run(weights, tmp_path / "films", tmp_path / "out") == 0
    masks: dict[Path, np.ndarray] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for name, film in names.items():
        with Image.open(tmp_path / "out" / "masks" / name) as image:
            mask = np.asarray(image)
        # Every film has another width, and every mask its film's.
        assert mask.shape == read_film(film).shape and (mask != masks.setdefault(film, mask)).mean() < 0.01
        with Image.open(tmp_path / "out" / "overlays" / name) as image:
            assert image.size == sizes.setdefault(film, image.size)


def test_bad_files_are_named_and_the_rest_goes_on(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "a" / "empty.jpeg").touch()
    (source / "a" / "text.png").write_text("no picture")
    (source / "b" / "torn.png").write_bytes(PHANTOMS[0].read_bytes()[:20_000])
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(source / "b" / "tiny.png")
    (source / "notes.txt").write_text("no film by its name: passed over")
    shutil.copy(PHANTOMS[3], source / "caf\udce9.png")  # a name in Latin-1, as old archives have them
    assert run(weights[:1], source, tmp_path / "out") == 0
    errors = problems(capsys.readouterr().err)
    assert errors.pop(0) == f"{source}: passed over 1 .txt; no films by their place or name"
    assert len(errors) == 4 and all(line.startswith("skipped ") and "; " in line for line in errors)
    rows, _, provenance = tables(tmp_path / "out")
    assert [row["file"] for row in rows] == ["a/one.png", "a/two words ü.png", "b/three.png", "caf\\udce9.png"]
    assert len({row["image_id"] for row in rows}) == 4
    skipped = {entry["file"]: entry["reason"] for entry in provenance["skipped"]}
    assert list(skipped) == ["a/empty.jpeg", "a/text.png", "b/tiny.png", "b/torn.png"]
    assert "empty" in skipped["a/empty.jpeg"] and "3 x 3" in skipped["b/tiny.png"]


def test_a_stopped_run_goes_on(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(weights[:1], source, out) == 0
    dated = ("run.json", "report.html")
    whole = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name not in dated}
    # Killed while it wrote the third film's line: the tables of the end are not there, the last line is torn.
    journal = out / "films.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:50])
    (out / "results.json").unlink()
    rows = (out / "measurements.csv").read_bytes().splitlines(keepends=True)
    (out / "measurements.csv").write_bytes(b"".join(rows[:2]) + rows[2][:10])
    before = {name: (out / "masks" / name).stat().st_mtime_ns for name in ("a/one.png", "b/three.png")}
    capsys.readouterr()
    assert run(weights[:1], source, out) == 0
    assert "going on" in (said := capsys.readouterr().out) and "2 of 3 films" in said
    after = {name: (out / "masks" / name).stat().st_mtime_ns for name in before}
    assert before["a/one.png"] == after["a/one.png"] and before["b/three.png"] != after["b/three.png"]
    assert {path: path.read_bytes() for path in whole} == whole


def test_what_changed_is_done_again(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(weights[:1], source, out) == 0
    shutil.copy(PHANTOMS[5], source / "a" / "one.png")
    ids = {row["file"]: row["image_id"] for row in tables(out)[0]}
    (out / "overlays" / "a" / "two words ü.png").unlink()
    shutil.copy(PHANTOMS[6], source / "a" / "another.png")
    capsys.readouterr()
    assert run(weights[:1], source, out) == 0
    assert "1 of 4 films" in capsys.readouterr().out
    rows, _, _ = tables(out)
    assert [row["file"] for row in rows] == ["a/another.png", "a/one.png", "a/two words ü.png", "b/three.png"]
    assert {row["file"]: row["image_id"] for row in rows}.items() >= ids.items(), "ids stay"
    assert (int(rows[1]["height"]), int(rows[1]["width"])) == read_film(PHANTOMS[5]).shape
    # Other weights: nothing of the earlier run counts, and nothing of it is lost.
    whole = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert run(weights[1:], source, out) == 0
    assert "begun anew" in capsys.readouterr().out
    (earlier,) = out.glob("earlier-*")
    assert {path.relative_to(earlier): path.read_bytes() for path in earlier.rglob("*") if path.is_file()} == whole
    assert tables(out)[2]["weights"][0]["config"]["seed"] == 1


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_given_again_has_nothing_to_do(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also with the weights in another order, with other thresholds, and with films and results moved elsewhere."""
    out = tmp_path / "out"
    assert run(weights, source, out) == 0
    whole = files_below(out)
    capsys.readouterr()

    def again(given: Sequence[str], *more: str) -> dict[str, bytes]:
        assert run(given, source, out, *more) == 0
        assert "3 of 3 films are done" in capsys.readouterr().out
        assert tables(out)[2]["finished"] is True and not list(out.glob("earlier-*"))
        return files_below(out)

    def same(found: dict[str, bytes], *names: str) -> bool:
        return {name: found[name] for name in found if name not in names} == {
            name: whole[name] for name in whole if name not in names
        }

    dated, of_films = ("run.json", "report.html"), ("report_files/index.js", "report_files/details/0.js")
    assert same(again(weights), *dated) and same(again(weights[::-1]), *dated)
    judged = again(weights, "--set", "bag.min_agreement=0", "--set", "quality.reject_likeness=-1", "--set",
                   "quality.min_likeness=-1")  # fmt: skip
    assert same(judged, *dated, *of_films, "measurements.csv", "results.json")
    assert all("opinions" not in row["reasons"] and "likeness" not in row["reasons"] for row in tables(out)[0])
    source = Path(shutil.move(source, tmp_path / "elsewhere" / "set"))
    out = Path(shutil.move(out, tmp_path / "moved"))
    moved = again(weights)
    assert same(moved, *dated, *of_films, "films.jsonl"), "ids and files are the same"


def test_another_source_or_other_settings_leave_the_results_alone(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    assert run(weights[:1], source, out) == 0
    whole = files_below(out)
    (other / "a").mkdir(parents=True)
    shutil.copy(PHANTOMS[9], other / "a" / "one.png")  # of the same name as a film of the first
    kept = []
    for given, more in ((other, ()), (other, ("--set", "detection.min_score=0.5"))):
        before = files_below(out)
        assert run(weights[:1], given, out, *more) == 0
        assert "begun anew" in capsys.readouterr().out
        kept.append(max(out.glob("earlier-*"), key=lambda path: (len(path.name), path.name)))
        assert files_below(kept[-1]) == {name: before[name] for name in before if not name.startswith("earlier-")}
        assert [row["file"] for row in tables(out)[0]] == ["a/one.png"]
        assert {name for name in files_below(out) if name.startswith(("masks", "overlays"))} == {
            "masks/a/one.png", "overlays/a/one.png"
        }
    assert len(set(kept)) == 2 and files_below(kept[0]) == whole, "two mistakes in a row lose nothing"
    assert run(weights[:1], other, out, "--set", "training.batch_size=3") == 1
    assert "training.batch_size cannot be changed here" in capsys.readouterr().err


def test_no_table_lists_it_and_no_folder_holds_it(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A film that is gone, and one that cannot be read any more, leave no mask among those of the others."""
    out = tmp_path / "out"
    assert run(weights[:1], source, out) == 0
    (source / "a" / "one.png").unlink()
    (source / "b" / "three.png").write_bytes(b"torn")
    whole = files_below(out)
    assert run(weights[:1], source, out) == 0
    assert "gone or cannot be read any more" in capsys.readouterr().out
    assert {name for name in files_below(out) if name.startswith("masks")} == {"masks/a/two words ü.png"}
    assert [row["file"] for row in tables(out)[0]] == ["a/two words ü.png"]
    (kept,) = out.glob("earlier-*")
    gone = ("masks/a/one.png", "masks/b/three.png", "overlays/a/one.png", "overlays/b/three.png")
    assert files_below(kept) == {name: whole[name] for name in gone}


def test_the_page_shows_what_the_tables_say(weights: list[str], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Image.open(source / "a" / "one.png").save(source / "deep.tiff")
    assert run(weights, source, out) == 0
    rows = {row["image_id"]: row for row in tables(out)[0]}
    details = (out / "report_files" / "details" / "0.js").read_text(encoding="ascii")
    films = json.loads(details.partition(",")[2].rstrip().removesuffix(");"))
    assert {str(film["id"]) for film in films} == rows.keys()
    for film in films:
        row = rows[str(film["id"])]
        assert "; ".join(film["reasons"]) == row["reasons"] and film["height"] == int(row["height"])
        shown = {name: values for name, *values in film["lungFacts"]}
        assert [str(value) for value in shown["score"]] == [row["left_score"], row["right_score"]]
        assert len(film["members"]) == 2, "each member's own outlines"
        for side, category in (("left", "1"), ("right", "2")):
            assert sum(category in member for member in film["members"]) == int(row[f"{side}_votes"] or 0)
        assert (out / unquote(film["film"])).is_file()
        assert film["film"].startswith("report_files/films/") == (row["file"] == "deep.tiff")
    assert len(list((out / "report_files" / "thumbnails").rglob("*.jpg"))) == 4
    (source / "deep.tiff").unlink()
    assert run(weights, source, out) == 0
    assert len(list((out / "report_files").rglob("*.jpg"))) == 3, "who removes a film wants it gone from the page"


def test_decisions_stay_and_are_shown(weights: list[str], source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(weights[:1], source, out) == 0
    image_id = tables(out)[0][0]["image_id"]
    (out / "decisions.csv").write_text(f"image_id,file,decision,wrong,decided\n{image_id},,reject,mirrored,2026-01-01\n")
    assert run(weights[:1], source, out, "--set", "bag.min_agreement=0.5") == 0
    assert run(weights[1:], source, out) == 0, "other networks"
    index = (out / "report_files" / "index.js").read_text(encoding="ascii")
    assert f'"decisions":[[{image_id},"reject",["mirrored"],"2026-01-01"]]' in index
    (out / "decisions.csv").write_text("nonsense\n")
    assert run(weights[1:], source, out) == 1


def test_what_a_person_corrected_goes_into_a_dataset_of_the_same_films(
    weights: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, pack, dataset = tmp_path / "out", tmp_path / "pack", tmp_path / "dataset"
    assert run(weights, source, out, "--save", "masks") == 0
    assert corrections(["export", str(out), str(pack), "--films", "all"]) == 0
    [image_id] = [image["id"] for image in tables(out)[2]["images"] if image["file_name"] == "a/one.png"]
    mask = Image.open(pack / "masks" / f"{image_id}.png")
    assert (np.asarray(mask) == np.asarray(Image.open(out / "masks" / "a" / "one.png"))).all()
    labels = np.asarray(Image.open(PHANTOMS[0].parents[1] / "masks" / PHANTOMS[0].name))
    Image.fromarray(labels).save(pack / "masks" / f"{image_id}.png")
    capsys.readouterr()
    assert corrections(["import", str(out), str(pack / "masks")]) == 0
    assert "films corrected: 1; as they were: 2" in capsys.readouterr().out
    assert run(weights, source, out, "--save", "masks") == 0 and (out / "corrections.json").is_file()
    for module, name, replacement in STANDS_IN:
        monkeypatch.setattr(module, name, replacement)
    given = ["--unet", str(write_weights(tmp_path / "dark.weights.h5")), "--corrections", str(out / "corrections.json")]
    assert create_dataset(["--src", str(source), "--out", str(dataset), *given]) == 0
    made = json.loads((dataset / "dataset.json").read_text())
    assert [image["file_name"] for image in made["images"] if "corrected" in image] == ["a/one.png"]
    for record in made["annotations"]:
        if record["image_id"] == image_id:
            assert (decode_mask(record["segmentation"]) == (labels == record["category_id"])).all()


def test_what_is_saved(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run did not save, another adds from the records: no film is predicted twice, and the files are the same."""
    from mask_rcnn.inference import work as inference_work

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(weights[:1], source, whole) == 0
    assert run(weights[:1], source, out, "--save", "masks") == 0
    assert f"{out}: masks/, results.json, " in capsys.readouterr().out
    assert tables(out)[2]["save"] == ["masks"] and not (out / "overlays").exists()
    masks = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    with monkeypatch.context() as patch:
        patch.setattr(inference_work, "predict", lambda *_: pytest.fail("predicted"))
        assert run(weights[:1], source, out, "--save", "overlays,masks,page") == 0
    assert "3 films lack some of masks, overlays, which are made from their records" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in masks} == masks, "nothing is written twice"
    names = [name for name in files_below(whole) if name not in ("run.json", "report.html")]
    found, expected = files_below(out), files_below(whole)
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}
    # A film that changed: its overlay, which is not saved any more, does not stay among those of the others.
    shutil.copy(PHANTOMS[5], source / "a" / "one.png")
    assert run(weights[:1], source, out, "--save", "masks") == 0
    assert not (out / "overlays" / "a" / "one.png").exists() and (out / "overlays" / "b" / "three.png").exists()
    (kept,) = out.glob("earlier-*")
    assert (kept / "report.html").is_file() and not (out / "report.html").exists(), "nor does the page that shows it"
    rest = {name: content for name, content in files_below(kept).items() if not name.startswith("report")}
    assert rest == {"overlays/a/one.png": expected["overlays/a/one.png"]}


def test_several_sources(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Films of equal paths in two folders have results of their own; one that is given twice is taken once."""
    other, out = tmp_path / "other" / "films", tmp_path / "out"
    (other / "a").mkdir(parents=True)
    shutil.copy(PHANTOMS[9], other / "a" / "one.png")
    (other / "torn.png").write_bytes(b"torn")
    given = ["--weights", str(Path(weights[0]).parent), "--out", str(out), "--device", "cpu", "--set", "bag.min_agreement=0"]
    sources = ["--src", str(source), str(other), "--src", str(source / "a" / "*.png")]
    assert main([*given, *sources]) == 0
    rows, found, provenance = tables(out)
    names = [row["file"] for row in rows]
    assert len(set(names)) == len({row["result"] for row in rows}) == len({row["image_id"] for row in rows}) == 4
    assert names[0] == "films/a/one.png" and names[-1] == "other/films/a/one.png"
    for row in rows:
        film = other / "a" / "one.png" if row["file"].startswith("other/") else source / row["file"].split("/", 1)[1]
        with Image.open(out / "masks" / row["result"]) as mask:
            assert np.asarray(mask).shape == read_film(film).shape
    assert [entry["file"] for entry in provenance["skipped"]] == ["other/films/torn.png"]
    assert rows[0]["members"] == "2" and {entry["image_id"] for entry in found} <= {int(row["image_id"]) for row in rows}
    capsys.readouterr()
    assert main([*given, *sources, "-q"]) == 0
    out_lines, err = capsys.readouterr()
    assert len(out_lines.splitlines()) == 3 and len(err.splitlines()) == 1 and "torn.png" in err
    assert tables(out)[0] == rows
    (tmp_path / "empty").mkdir()
    assert main([*given, "--src", str(tmp_path / "empty"), str(tmp_path / "empty")]) == 1
    assert "none of the sources holds a film" in capsys.readouterr().err
    assert main([*given, "--src", f"{tmp_path}/absent*"]) == 1
    assert "matches no file; check the pattern given to --src" in capsys.readouterr().err


def test_ctrl_c_leaves_whole_tables(
    weights: list[str],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, draw, drawn = tmp_path / "out", outputs.overlay, []

    def draw_two(*arguments: Any) -> np.ndarray:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(outputs, "overlay", draw_two)
    assert run(weights[:1], source, out) == 130
    assert "the same command goes on" in capsys.readouterr().err
    rows, found, provenance = tables(out)
    assert [row["file"] for row in rows] == ["a/one.png", "a/two words ü.png"]
    assert {entry["image_id"] for entry in found} <= {int(row["image_id"]) for row in rows} and not provenance["finished"]
    monkeypatch.undo()
    assert run(weights[:1], source, out) == 0
    assert "2 of 3 films are done" in capsys.readouterr().out
    assert len(tables(out)[0]) == 3 and tables(out)[2]["finished"]


def test_bad_weights_are_left_out(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn, copy = tmp_path / "torn.weights.h5", tmp_path / "copy.weights.h5"
    torn.write_bytes(Path(weights[0]).read_bytes()[:3000])
    shutil.copy(weights[0], copy)
    pattern = str(Path(weights[0]).parent / "member_*.weights.h5")  # as a shell without globs hands it over
    assert run([*weights, str(tmp_path / "absent.weights.h5")], source, tmp_path / "out") == 1
    (error,) = problems(capsys.readouterr().err)
    assert "absent.weights.h5: there is no such file or folder; " in error and not (tmp_path / "out").exists()
    given = [pattern, str(torn), str(copy)]
    assert run(given, source / "a" / "one.png", tmp_path / "out") == 0
    errors = problems(capsys.readouterr().err)
    assert len(errors) == 2 and all(line.startswith("left out ") for line in errors)
    assert "torn.weights.h5" in errors[0] and "same weights" in errors[1]
    rows, _, provenance = tables(tmp_path / "out")
    assert rows[0]["members"] == "2" and len(provenance["weights"]) == 2


@pytest.mark.usefixtures("eagerly")
def test_members_of_two_lateralities_are_refused(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_image = save_network(tmp_path / "image.weights.h5", seed=3, laterality="image")
    assert run([*weights[:1], str(by_image)], source, tmp_path / "out") == 1
    (line,) = problems(capsys.readouterr().err)
    assert "laterality " in line and "one kind only" in line
    assert not (tmp_path / "out").exists()
    # Alone they are as good as any, and every file says by which names the lungs go.
    assert run([str(by_image)], source / "a" / "one.png", tmp_path / "out") == 0
    rows, _, provenance = tables(tmp_path / "out")
    assert rows[0]["laterality"] == provenance["laterality"] == "image"
    with Image.open(tmp_path / "out" / "masks" / "one.png") as image:
        assert image.info["laterality"] == "image"
    four = save_network(tmp_path / "four.weights.h5", seed=4, classes=4)
    assert run([str(four)], source, tmp_path / "out") == 1
    assert "4 classes" in capsys.readouterr().err


def test_a_checkpoint_of_the_reference(source: Path, tmp_path: Path) -> None:
    """Given as ``old/*.h5``; its architecture is told from the file, its lungs are named by image side."""
    from mask_rcnn.model import MaskRCNN

    sizes = {"backbone": "resnet50", "backbone_width": 4, "pyramid_channels": 8, "pyramid_output_channels": 8,
             "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8}
    model = MaskRCNN(config_from_dict({"network": sizes}))
    layers = model.network.named_layers()
    layers["mrcnn_class_logits"].set_weights([np.zeros((16, 3)), np.array([-50, 5, 0])])
    layers["mrcnn_mask"].set_weights([np.zeros((1, 1, 8, 3)), np.full(3, 5)])  # a lung that fills its box
    (tmp_path / "old").mkdir()
    write_legacy(tmp_path / "old" / "mask_rcnn_lung_0040.h5", model, nested=True)
    assert run([str(tmp_path / "old" / "*.h5")], source / "a" / "one.png", tmp_path / "out") == 0
    rows, found, provenance = tables(tmp_path / "out")
    assert rows[0]["laterality"] == provenance["laterality"] == "image"
    held = provenance["weights"][0]["config"]["network"]
    assert {key: held[key] for key in sizes} == sizes and held["image_size"] == 256
    assert [entry["category_id"] for entry in found] == [1]
    assert found[0]["score"] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-3)


def test_where_nothing_can_be_done(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "film.png").write_text("no picture")
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    failures = {
        "no such file or folder": (weights, tmp_path / "absent", out),
        "no film in it": (weights, tmp_path / "empty", out),
        "no weights that can be used": ([str(tmp_path / "file")], source, out),
        "is no image": (weights[:1], tmp_path / "bad", out),
        "cannot be written": (weights[:1], source, tmp_path / "file" / "out"),
    }
    for reason, arguments in failures.items():
        assert run(*arguments) == 1
        errors = capsys.readouterr().err
        assert reason in errors and "Traceback" not in errors


def test_device_names(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":  # which choose by themselves; here there is no GPU to choose
        with pytest.raises(DeviceError, match="runs on the cpu" if "CPU" in choose_device() else "runs on the"):
            choose_device("gpu:99")
        return
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")  # a reason why there is no GPU; else another TensorFlow looks for one
    assert choose_device("cpu") == "running on the CPU"
    with pytest.raises(DeviceError, match="unknown"):
        choose_device("gpu:")
    with pytest.raises(DeviceError, match="gpu:99"):
        choose_device("gpu:99")
    if not gpus:
        assert choose_device("auto") == "no GPU found: running on the CPU"


def test_find_film_paths(tmp_path: Path) -> None:
    kept = ["a/film.JPG", "b.tiff", "c/d/e.dcm", "c/d/IM0001", "masks.png"]
    left_out = [".hidden.png", ".git/x.png", "__MACOSX/x.png", "a/masks/film.png", "a/Overlays/film.png",
                "out/film.png", "a/notes.txt", "a/IM0002", "mask/film.png"]
    for name in kept + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c" / "d" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    found = find_film_paths(tmp_path, skip=[tmp_path / "out"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == sorted(kept)
    assert len(find_films([tmp_path], out=tmp_path / "out").films) == len(kept), "earlier results are no films"
    assert len(find_films([tmp_path], out=tmp_path).films) == len(kept) + 1, "results beside the films do not hide them"
    assert find_film_paths(tmp_path / "b.tiff") == [tmp_path / "b.tiff"]
    assert find_film_paths(tmp_path / "a" / "masks") == [tmp_path / "a" / "masks" / "film.png"], "asked for by name"


def test_films_that_would_share_a_result_do_not() -> None:
    films = ["a/b.jpeg", "a/b.png", "a/B.dcm", "c.d/e.f.png", "x.jpg", "x.png/y.png", "IM0001", "b.png.png", "b.tif"]
    names = result_names(films)
    assert names[:5] == ["a/b.png", "a/b.png.png", "a/B.dcm.png", "c.d/e.f.png", "x.jpg.png"]
    assert names[5:] == ["x.png/y.png", "IM0001.png", "b.png.png", "b.png"]
    assert len({name.casefold() for name in names}) == len(films)


def test_help_does_not_wait_for_tensorflow() -> None:
    command = "import mask_rcnn.commands.inference, sys; sys.exit(bool({'tensorflow', 'keras'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", command], cwd=ROOT, timeout=60, check=True)
    shown = subprocess.run(
        [sys.executable, "inference.py", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "--weights" in shown.stdout and shown.stderr == ""


def test_a_spacing_beside_the_film_counts_whenever_it_comes(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mask_rcnn.inference import work as inference_work

    out = tmp_path / "out"
    assert run(weights[:1], source, out, "--save", "masks") == 0
    before = tables(out)[0]
    assert {row["spacing_y_mm"] for row in before} == {""}
    (source / "a" / "one.json").write_text('{"spacing_mm": [0.5, 0.25]}')
    (source / "b" / "three.json").write_text('{"spacing_mm": "0.5"}')
    capsys.readouterr()
    monkeypatch.setattr(inference_work, "predict", lambda *_: pytest.fail("predicted"))
    assert run(weights[:1], source, out, "--save", "masks,page") == 0
    errors = problems(capsys.readouterr().err)
    assert errors[1:] == [f"{source / 'b' / 'three.json'}: its spacing_mm is no spacing; write [between rows, between "
                          "columns] in millimetres, or remove it"]
    one, *others = tables(out)[0]
    assert others == before[1:]
    assert {column: value for column, value in one.items() if "mm" not in column} | {"spacing_source": ""} == {
        column: value for column, value in before[0].items() if "mm" not in column
    }
    assert (one["spacing_y_mm"], one["spacing_x_mm"], one["spacing_source"]) == ("0.5", "0.25", "spacing_mm")
    found = [side for side in ("left", "right") if one[f"{side}_found"] == "1"]
    assert found and all(
        float(one[f"{side}_area_mm2"]) == pytest.approx(int(one[f"{side}_area_px"]) / 8, abs=0.006) for side in found
    )


def test_a_dataset_of_the_same_films_loads_the_results(
    weights: list[str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``COCO("dataset.json").loadRes("results.json")``: a film has one id in whatever the commands write."""
    from stand_in import STANDS_IN, write_weights

    from create_dataset.command import main as create_dataset

    write_dicom(source / "b" / "four.dcm", ten_bit(read_film(PHANTOMS[3])), "MONOCHROME2", 10)
    for replacement in STANDS_IN:
        monkeypatch.setattr(*replacement)
    dark = write_weights(tmp_path / "dark.weights.h5")
    assert create_dataset(["--src", str(source), "--out", str(tmp_path / "dataset"), "--unet", str(dark)]) == 0
    assert run(weights[:1], source, tmp_path / "out") == 0
    truth = COCO(str(tmp_path / "dataset" / "dataset.json"))
    found = truth.loadRes(str(tmp_path / "out" / "results.json"))
    rows, results, provenance = tables(tmp_path / "out")
    assert len(found.anns) == len(results) > 0
    names = {image["id"]: image["file_name"] for image in truth.dataset["images"]}
    assert names == {int(row["image_id"]): row["file"] for row in rows} and len(names) == 4
    assert names == {image["id"]: image["file_name"] for image in provenance["images"]}
    assert {category["id"]: category["name"] for category in truth.dataset["categories"]} == CATEGORIES
    for entry in results:
        image = truth.imgs[entry["image_id"]]
        assert entry["segmentation"]["size"] == [image["height"], image["width"]]


def test_parts_come_to_the_bytes_of_one_run(
    weights: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three shares of phantoms, predicted in any order into folders of their own, and put together."""
    for k in (3, 4):
        shutil.copy(PHANTOMS[k], source / "b" / f"film_{k}.png")
    (source / "torn.png").write_bytes(b"no film")
    save = ["--save", "masks,overlays,probabilities,page", "--batch", "1"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(weights, source, whole, *save) == 0
    assert run(weights, source, parts, *save, "--part", "3/3") == 0
    out = capsys.readouterr().out
    assert f"{parts / 'part-3-of-3'}: part 3 of 3 is done, 1 films predicted and 1 files skipped now; --part merge" in out
    assert run(weights, source, parts, *save, "--part", "merge") == 1
    assert problems(capsys.readouterr().err)[-1].endswith("part 1 of 3 is missing; run the command with --part 1/3")
    for number in (1, 2):
        assert run(weights, source, parts, *save, "--part", f"{number}/3") == 0
    assert not (parts / "results.json").exists() and not (parts / "part-1-of-3" / "measurements.csv").exists()
    predicted = {path.relative_to(parts).parts[0] for path in parts.rglob("masks/**/*.png")}
    assert predicted == {f"part-{number}-of-3" for number in (1, 2, 3)}

    assert run(weights, source, parts, *save, "--part", "merge") == 0
    assert "going on with a run of the same weights and source, 5 of 6 films are done" in capsys.readouterr().out
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(parts) for path in parts.rglob("*")
                     if path.is_file() and not path.relative_to(parts).parts[0].startswith("part-")}  # fmt: skip
    told_apart = {"run.json", "report.html", "films.jsonl"}  # by their command, time and order
    for name in names:
        assert name.name in told_apart or (whole / name).read_bytes() == (parts / name).read_bytes(), name
    lines = [sorted((folder / "films.jsonl").read_text().splitlines()[2:]) for folder in (whole, parts)]
    assert lines[0] == lines[1]
    facts = [{key: value for key, value in tables(folder)[2].items() if key not in ("command", "seconds")}
             for folder in (whole, parts)]  # fmt: skip
    assert facts[0] == facts[1] and len(facts[0]["skipped"]) == 1
