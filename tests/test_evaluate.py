"""The evaluation script and its measures, on found lungs that are known to be right, shifted, swapped or missing."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import films
import numpy as np
import pytest
import tiny
from PIL import Image
from script import copy_phantoms, load_script

from mask_rcnn.bag.lung import Lung, label_mask
from mask_rcnn.config import config_from_dict
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.run_lengths import encode_mask
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.evaluation import predictors
from mask_rcnn.evaluation.film import LUNGS, dice_moved, error_map, is_right, measure_film
from mask_rcnn.evaluation.over_sets import WHOLE, set_lines, summarise_set
from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.evaluation.predictors import Finding
from mask_rcnn.evaluation.report import compare, csv_text, table_lines, write_worst
from mask_rcnn.evaluation.sets import evaluate, summaries_of
from mask_rcnn.evaluation.summary import average_precision, bootstrap_intervals, calibration, drawn_offset, summarise
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import write_json
from mask_rcnn.utils import mask_box

HEIGHT, WIDTH = 50, 80


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("evaluate")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return copy_phantoms(tmp_path / "data", 3)


def rectangles() -> np.ndarray:
    """Two lungs of 30 x 20 pixels."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:40, 50:70], labels[10:40, 10:30] = LEFT_LUNG, RIGHT_LUNG
    return labels


def write_rectangles(folder: Path, count: int) -> Path:
    """A folder of equal drawings."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(count):
        Image.fromarray(films.film_of(HEIGHT, WIDTH, seed=k)).save(folder / "images" / f"{k:02}.png")
        Image.fromarray(rectangles()).save(folder / "masks" / f"{k:02}.png")
    return folder


def lungs_of(labels: np.ndarray, score: float = 0.9) -> dict[int, Lung]:
    masks = {category: labels == category for category in CATEGORIES if (labels == category).any()}
    return {category: Lung(mask, mask_box(mask), score, 1, math.nan) for category, mask in masks.items()}


def finder(data: Path, change: Callable[[int, np.ndarray], np.ndarray], score: float = 0.9) -> Callable:
    """Finds the drawn lungs themselves, each film's changed in its own way, in the order of the films."""
    drawn = enumerate([np.asarray(Image.open(path)) for path in sorted((data / "masks").glob("*.png"))])

    def find(batch: Sequence[np.ndarray]) -> dict[str, list]:
        lungs = [lungs_of(change(*next(drawn)), score) for _ in batch]
        return {"network": [Finding(of_film, list(of_film.items())) for of_film in lungs]}

    return find


def evaluated(data: Path, change: Callable, **options: Any) -> Any:
    return evaluate(finder(data, change), "network", read_records(data, "patient"), **options)


@pytest.mark.parametrize(
    ("change", "left", "both", "missed", "swapped", "precision"),
    [
        (lambda k, labels: labels, 1, 1, 0, 0, 1),
        (lambda k, labels: (3 - labels) * (labels > 0), 0, 1, 0, 1, 0),
        (lambda k, labels: labels * (labels == RIGHT_LUNG), 0, None, 1, 0, 0.5),
        (lambda k, labels: np.zeros_like(labels), 0, 0, 2, 0, 0),
        (lambda k, labels: labels.repeat(2, axis=0).repeat(2, axis=1), 1, 1, 0, 0, 1),  # a film twice its mask's size
    ],
    ids=["right", "swapped", "no left lung", "nothing", "larger"],
)
def test_measures(
    data: Path, change: Callable, left: float, both: float | None, missed: int, swapped: int,
    precision: float,
) -> None:
    kept = evaluated(data, change)
    rows = kept.networks["network"].rows
    assert [row["film"] for row in rows] == [path.name for path in sorted((data / "images").glob("*"))]
    for row in rows:
        assert row["dice_left"] == row["iou_left"] == left and row["missed"] == missed and row["swapped"] == swapped
        assert row["dice_both"] == both if both is not None else 0.5 < row["dice_both"] < 0.8
        if missed:
            assert math.isnan(row["hd95_px_left"]) and math.isnan(row["box_iou_left"]) and math.isnan(row["score_left"])
        elif not swapped:
            assert row["hd95_px_left"] == row["msd_px_left"] == 0 and row["box_iou_left"] == 1
            assert row["score_left"] == 0.9
    summary = summaries_of(kept)["network"]
    assert summary["left"]["dice"]["mean"] == summary["left"]["dice"]["worst"] == left
    assert summary["missed"] == 3 * missed and summary["swapped"] == 3 * swapped
    assert summary["left"]["hd95_px"]["undefined"] == (3 if missed else 0)
    for kind in ("mask", "box"):
        assert summary["average_precision"][kind]["ap"] == pytest.approx(precision)
    if missed < 2:  # of scores of 0.9
        error = summary["calibration"]["expected_calibration_error"]
        assert error == pytest.approx(0.9 if swapped else 0.1)
    else:
        assert summary["calibration"] is None


def test_distances_of_a_shifted_lung() -> None:
    drawn = rectangles()
    row = measure_film(lungs_of(np.roll(drawn, 4, axis=1)), drawn, (2.0, 0.5))
    for lung in LUNGS:
        assert row[f"hd95_px_{lung}"] == 4 and row[f"hd95_percent_{lung}"] == 100 * 4 / WIDTH
        assert row[f"hd95_mm_{lung}"] == 2
        assert row[f"dice_{lung}"] == pytest.approx(16 / 20) and row[f"iou_{lung}"] == pytest.approx(16 / 24)
    assert row["box_iou_left"] == pytest.approx(16 / 24)
    row = measure_film(lungs_of(np.roll(drawn, 4, axis=1)), drawn, None)
    assert row["hd95_px_left"] == 4 and math.isnan(row["hd95_mm_left"]) and math.isnan(row["msd_mm_both"])


def test_what_is_neither_found_nor_drawn_is_undefined() -> None:
    only_right = rectangles() * (rectangles() == RIGHT_LUNG)
    row = measure_film(lungs_of(only_right), only_right, None)
    assert math.isnan(row["dice_left"]) and row["dice_right"] == row["dice_both"] == 1 and row["missed"] == 0
    summary = summarise([{"film": "a", **row}, {"film": "b", **row, "dice_right": 0.5}])
    assert summary["left"]["dice"] == {
        "mean": None, "interval": None, "median": None, "worst": None, "worst_film": None, "undefined": 2
    }
    right = summary["right"]["dice"]
    assert (right["mean"], right["worst"], right["worst_film"], right["interval"]) == (0.75, 0.5, "b", [0.5, 1])
    found_too_much = measure_film(lungs_of(rectangles()), only_right, None)
    assert found_too_much["dice_left"] == 0 and math.isnan(found_too_much["box_iou_left"])


def test_average_precision_counts_what_is_too_much_and_too_little(tmp_path: Path) -> None:
    kept = evaluated(write_rectangles(tmp_path / "data", 2), lambda k, labels: np.roll(labels, 4 * k, axis=1))
    network = kept.networks["network"]
    precision = average_precision(kept.images, kept.annotations, network.results)
    # One film is perfect; the other's IoU is 2 / 3: above four of the ten thresholds. With one film of two found, COCO
    # reads precision 1 at 51 of its 101 recalls.
    assert precision is not None
    assert precision["mask"]["ap50"] == 1 and precision["mask"]["ap75"] == pytest.approx(51 / 101)
    assert precision["mask"]["ap"] == pytest.approx(0.4 + 0.6 * 51 / 101) == precision["box"]["ap"]
    stray = {**network.results[0], "score": 1.0, "category_id": RIGHT_LUNG}
    worse = average_precision(kept.images, kept.annotations, [*network.results, stray])
    assert worse is not None and worse["mask"]["ap75"] < precision["mask"]["ap75"]
    unknown = [{**result, "score": math.nan} for result in network.results]
    assert average_precision(kept.images, kept.annotations, unknown) is None
    assert average_precision(kept.images, [], network.results) is None
    assert calibration([result["score"] for result in unknown], network.right) is None


def test_where_the_errors_lie() -> None:
    drawn = np.zeros((60, 50), bool)
    drawn[10:50, 20:32] = True
    found = drawn.copy()
    found[10:13, 20:24] = False  # at the top, on the image's left: medial in a left lung
    found[45:55, 32:34] = True  # at the base, beyond the other side
    left, right = (error_map(found, drawn, category) for category in (LEFT_LUNG, 3 - LEFT_LUNG))
    expected = np.zeros((2, 4, 3))
    expected[0, 0, 0], expected[1, 3, 2] = 12 / 480, 20 / 480
    np.testing.assert_allclose(left, expected)
    np.testing.assert_allclose(right, expected[:, :, ::-1])
    assert not error_map(drawn, drawn, LEFT_LUNG).any()


@pytest.mark.parametrize("side", [200, 480])
def test_an_offset_of_the_drawn_lungs_is_told(side: int) -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:side, :side]

    def lung(y: float, x: float) -> np.ndarray:
        return ((rows - y) / (0.35 * side)) ** 2 + ((columns - x) / (0.16 * side)) ** 2 <= 1

    moved, true = [], []
    for _ in range(30):
        y, x = rng.uniform(0.45, 0.55, 2) * side
        found, drawn = lung(y, x), lung(y + 0.0012 * side, x - 0.002 * side)
        moved.append(dice_moved(found, drawn))
        true.append(dice(found, drawn))
        assert moved[-1][0][0] == pytest.approx(true[-1]) and moved[-1][1] == pytest.approx({200: 0.5, 480: 200 / 480}[side])
    offset = drawn_offset(moved)
    assert offset is not None
    assert offset["right"] == pytest.approx(-0.2, abs=0.04) and offset["down"] == pytest.approx(0.12, abs=0.04)
    assert 0 < offset["dice_gained"] < 1 - np.mean(true)


def test_an_offset_that_cannot_be_told() -> None:
    drawn = rectangles() == LEFT_LUNG
    assert drawn_offset([]) is None
    assert drawn_offset([dice_moved(np.zeros_like(drawn), drawn)]) is None, "nothing found"
    assert drawn_offset([dice_moved(np.roll(drawn, 5, axis=1), drawn)]) is None, "beyond the step"


def test_calibration_of_known_scores() -> None:
    answer = calibration([0.95] * 10 + [0.55] * 30, [True] * 9 + [False] + [True] * 24 + [False] * 6)
    assert answer is not None
    assert answer["expected_calibration_error"] == pytest.approx(0.25 * 0.05 + 0.75 * 0.25)
    assert answer["bins"][9] == {"from": 0.9, "to": 1.0, "detections": 10, "score": pytest.approx(0.95), "right": 0.9}
    assert [of_bin["detections"] for of_bin in answer["bins"]] == [0, 0, 0, 0, 0, 30, 0, 0, 0, 10]
    assert answer["bins"][0]["score"] is None
    at_edges = calibration([0.0, 0.1, 0.9, 1.0], [True] * 4)
    assert at_edges is not None and [of_bin["detections"] for of_bin in at_edges["bins"]] == [2] + [0] * 7 + [1, 1]
    assert calibration([], []) is None


def test_what_counts_as_right() -> None:
    drawn = rectangles()
    left = drawn == LEFT_LUNG
    assert is_right(LEFT_LUNG, left, drawn) and not is_right(RIGHT_LUNG, left, drawn)
    assert is_right(LEFT_LUNG, left & (np.arange(WIDTH) < 65), drawn)  # an IoU of 15 / 20
    assert not is_right(LEFT_LUNG, left & (np.arange(WIDTH) < 64), drawn)
    assert not is_right(LEFT_LUNG, left, drawn * (drawn == RIGHT_LUNG))


def test_intervals_hold_the_mean_and_are_the_same_each_time() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.05, (200, 3))
    values[:150, 1] = math.nan
    values[:, 2] = math.nan
    low, high = ends = bootstrap_intervals(values)
    np.testing.assert_array_equal(ends, bootstrap_intervals(values))
    assert np.isnan(ends[:, 2]).all()
    for k, sample in ((0, values[:, 0]), (1, values[150:, 1])):
        assert low[k] < sample.mean() < high[k]
        # What the central limit theorem says of as many normal values.
        assert high[k] - low[k] == pytest.approx(2 * 1.96 * sample.std() / math.sqrt(len(sample)), rel=0.1)
    assert not np.array_equal(ends[:, :2], bootstrap_intervals(values, seed=1)[:, :2])
    np.testing.assert_array_equal(bootstrap_intervals(np.full((1, 1), 0.5)), [[0.5], [0.5]])


def polygons(mask: np.ndarray) -> list[list[int]]:
    y1, x1, y2, x2 = mask_box(mask)
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def runs(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths, column by column."""
    pixels = mask.ravel(order="F").astype(int)
    changes = np.flatnonzero(np.diff(pixels)) + 1
    return {"size": list(mask.shape), "counts": np.diff([0, *changes, len(pixels)]).tolist()}


@pytest.mark.parametrize("segment", [encode_mask, runs, polygons])
@pytest.mark.parametrize("beside", [True, False])
def test_a_coco_file_says_the_same_as_a_folder(
    tmp_path: Path, segment: Callable[[np.ndarray], Any], beside: bool
) -> None:
    folder = write_rectangles(tmp_path / "data", 2)
    dataset: dict[str, Any] = {"categories": [{"id": k, "name": name} for k, name in CATEGORIES.items()]}
    dataset["images"] = [
        {"id": k, "file_name": f"{k:02}.png", "height": HEIGHT, "width": WIDTH, "spacing_mm": [0.5, 0.25]} for k in range(2)
    ]
    dataset["annotations"] = [
        {"id": 10 * k + category, "image_id": k, "category_id": category,
         "segmentation": segment(rectangles() == category)}
        for k in range(2) for category in CATEGORIES
    ]
    path = folder / ("images/coco.json" if beside else "coco.json")
    write_json(path, dataset)

    def shift(k: int, labels: np.ndarray) -> np.ndarray:
        return np.roll(labels, 2 + k, axis=1)

    of_folder = evaluated(folder, shift)
    of_json = evaluate(finder(folder, shift), "network", read_records(path, "patient"), spacing=9.0)
    for from_folder, from_json in zip(of_folder.networks["network"].rows, of_json.networks["network"].rows, strict=True):
        in_mm = {key for key in from_folder if "_mm_" in key}
        assert {k: v for k, v in from_folder.items() if k not in in_mm and v == v} == {
            k: v for k, v in from_json.items() if k not in in_mm and v == v
        }
        assert all(math.isnan(from_folder[key]) for key in in_mm)
        assert from_json["hd95_mm_left"] == 0.25 * from_json["hd95_px_left"] > 0
    assert of_folder.annotations == of_json.annotations


def test_spacing_is_that_of_the_drawn_pixels(tmp_path: Path) -> None:
    folder = write_rectangles(tmp_path / "data", 2)
    (folder / "images" / "00.png").unlink()
    pixels = films.film_of(2 * HEIGHT, 2 * WIDTH)
    films.write_dicom(folder / "images" / "00.dcm", pixels, "MONOCHROME2", 8, PixelSpacing=[0.2, 0.2])
    assert read_annotated(read_records(folder, "patient")[0]).spacing == (0.4, 0.4)
    kept = evaluated(folder, lambda k, labels: np.roll(labels, 4, axis=1), spacing=3.0)
    assert [row["hd95_mm_both"] for row in kept.networks["network"].rows] == [pytest.approx(4 * 0.4), 4 * 3]


def test_pictures_of_the_worst_films(tmp_path: Path) -> None:
    shifts = [0, 5, 1, 9, 2, 8, 3, 7, 4, 6, 0, 10]
    kept = evaluated(write_rectangles(tmp_path / "data", 12), lambda k, labels: np.roll(labels, shifts[k], axis=1))
    (tmp_path / "worst").mkdir()
    for stale in ("01_old.png", "notes.png"):
        (tmp_path / "worst" / stale).touch()
    write_worst(kept, tmp_path / "worst")
    by_shift = sorted(range(12), key=lambda k: -shifts[k])[:10]
    names = [f"{place:02}_{k:02}.png" for place, k in enumerate(by_shift, start=1)]
    assert sorted(path.name for path in (tmp_path / "worst").iterdir()) == [*names, "notes.png"]

    film, drawn, _ = read_annotated(read_records(tmp_path / "data", "patient")[0])
    plain = compare(film, np.zeros_like(drawn), {})
    outlined, found = compare(film, drawn, {}), compare(film, drawn, lungs_of(drawn))
    assert plain.shape == outlined.shape == found.shape
    left_half = slice(0, plain.shape[1] // 2)
    changed = (outlined[:, left_half] != plain[:, left_half]).any(axis=-1)
    assert changed.any() and outlined[:, left_half][changed].min(axis=-1).max() > 250
    np.testing.assert_array_equal(found[60:, left_half], outlined[60:, left_half])
    assert (found != outlined).any()


def member(name: str, labels: np.ndarray, probability: float, laterality: str) -> Any:
    """A stand-in for a network that is as sure of a lung's pixels as it is told to be."""
    masks = np.stack([(labels == category) * np.float32(probability) for category in CATEGORIES], axis=-1)
    boxes = np.array([mask_box(masks[..., k]) for k in range(2)], np.int32)
    found = {"class_ids": np.array(list(CATEGORIES)), "scores": np.array([0.75, 0.5], np.float32), "masks": masks,
             "rois": boxes, "windows": boxes}
    config = config_from_dict({"laterality": laterality, "bag": {"pixels": "probabilities", "opening": 1}})
    return SimpleNamespace(path=Path(f"{name}.weights.h5"), network=SimpleNamespace(config=config), found=found)


@pytest.mark.parametrize("laterality", ["patient", "image"])
def test_members_are_bagged_both_ways(monkeypatch: pytest.MonkeyPatch, laterality: str) -> None:
    drawn = rectangles()
    small = drawn * (np.arange(HEIGHT)[:, None] < 30)
    sides = [labels if laterality == "patient" else (3 - labels) * (labels > 0) for labels in (small, drawn, drawn)]
    members = [member(name, labels, p, laterality) for name, labels, p in zip("abc", sides, (0.9, 0.6, 0.6), strict=True)]
    monkeypatch.setattr(predictors, "detect", lambda bag, films, soft: [[one.found for one in bag] for _ in films])
    find, judged = predictors.with_members(members)
    assert judged == "bag by probabilities"
    found = {network: findings[0] for network, findings in find([drawn]).items()}
    assert list(found) == ["a", "b", "c", "bag by votes", "bag by probabilities"]
    for network, expected in (("a", small), ("b", drawn), ("bag by votes", drawn), ("bag by probabilities", small)):
        labels = label_mask(found[network].lungs, drawn.shape)
        np.testing.assert_array_equal(labels, expected)
        score_of_left = 0.75 if laterality == "patient" else 0.5
        assert {category: lung.score for category, lung in found[network].detections}[LEFT_LUNG] == score_of_left
        for category, lung in found[network].detections:
            np.testing.assert_array_equal(lung.mask, expected == category)
    assert math.isnan(found["a"].lungs[LEFT_LUNG].agreement) and 0.8 < found["bag by votes"].lungs[LEFT_LUNG].agreement < 1
    find, judged = predictors.with_members(members[:1])
    assert list(find([drawn])) == [judged] == ["a"]


@pytest.mark.usefixtures("eagerly")
def test_the_command(script: ModuleType, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny.build_sober(tiny.drawing_all_config())
    for name in "ab":
        model.save(tmp_path / f"{name}.weights.h5")
        bias = model.network.named_layers()["mrcnn_class_logits"].bias
        bias.assign(bias + np.array([0, 0.1, 0], np.float32))
    names = sorted(path.name for path in (data / "images").glob("*"))
    Image.fromarray(np.full((50, 50), 7, np.uint8)).save(data / "masks" / names[1])
    (data / "masks" / names[2]).unlink()
    arguments = ["--weights", str(tmp_path / "*.weights.h5"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert script.main([*arguments, "--spacing", "0.5", "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "left lung, % of its area: missed, excess" in said.out
    assert "is no label mask" in said.err and "has no mask" in said.err and "bag by probabilities" in said.out
    networks = ["a", "b", "bag by votes", "bag by probabilities"]
    with (tmp_path / "out" / "films.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["film"]) for row in rows] == [(network, names[0]) for network in networks]
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(content["networks"]) == networks and "--spacing 0.5" in content["command"]
    for row, summary in zip(rows, content["networks"].values(), strict=True):
        assert summary["films"] == 1 and 0 <= summary["average_precision"]["mask"]["ap"] <= 1
        assert summary["calibration"] is not None  # both networks find something
        for side in ("left", "right"):
            maps = summary["error_map"][side]
            area = 1 - sum(map(sum, maps["missed"])) + sum(map(sum, maps["excess"]))
            assert np.shape(maps["missed"]) == (4, 3) and area >= 0
        assert round(summary["both"]["dice"]["mean"], 6) == float(row["dice_both"])
        assert summary["drawn_offset"] is None or summary["drawn_offset"]["dice_gained"] >= 0
        if row["hd95_px_both"]:
            assert float(row["hd95_mm_both"]) == pytest.approx(0.5 * float(row["hd95_px_both"]))
    assert [path.name for path in (tmp_path / "out" / "worst").iterdir()] == [f"01_{Path(names[0]).stem}.png"]


def test_the_table_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    find = finder(write_rectangles(tmp_path / "data", 2), lambda k, labels: labels, score=math.nan)
    kept = evaluate(find, "network", read_records(tmp_path / "data", "patient"))
    heading, left, right, both = table_lines(summaries_of(kept))
    assert left.split() == ["network", "left", "1.0000", "[1.0000,", "1.0000]", "1.0000", "1.0000", "0.00", "0.00", "0.00",
                            "1.0000"]
    place = heading.index("AP mask")
    assert not right[place:].strip() and both[place:].split() == ["0", "0"] and heading.index("missed") == both.rindex("0  ")
    assert json.dumps(summaries_of(kept), allow_nan=False)
    assert "nan" not in csv_text(kept)


def test_what_cannot_be_evaluated_is_said_in_a_line(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.main(["--weights", "none.h5", "--data", str(tmp_path / "absent")]) == 1
    assert "no such file" in capsys.readouterr().err
    write_rectangles(tmp_path / "data", 1)
    assert script.main(["--weights", str(tmp_path / "none.h5"), "--data", str(tmp_path / "data"), "--device", "cpu"]) == 1
    assert "none.h5: there is no such file or folder; " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--weights", "none.h5", "--data", str(tmp_path), "--spacing", "0"])
    assert "must be above 0" in capsys.readouterr().err


@pytest.mark.usefixtures("unet_once")
def test_several_sets_give_one_table(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A set that holds the heart is judged by its lateral thirds; of a set in the list only its films to report by count."""
    copy_phantoms(tmp_path / "openist", 3)
    copy_phantoms(tmp_path / "v7_children", 2)
    held = sorted((tmp_path / "openist" / "images").glob("*"))[:2]
    lines = "".join(f"openist,images/{path.name},{why}\n" for path, why in zip(held, ("held", "patient"), strict=True))
    (tmp_path / "held_out.csv").write_text(f"set,file,why\n{lines}")
    unet = Path(script.__file__).parents[1] / "models" / "unet" / "efficientnetb0.weights.h5"
    arguments = ["--unet", str(unet), "--data", str(tmp_path / "openist"), str(tmp_path / "v7_children"),
                 "--held-out", str(tmp_path / "held_out.csv"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert script.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "openist      whole lungs    1" in printed and "v7_children  lateral third  2" in printed
    assert "2 sets, 3 films: 0 with a lung below 0.90, least mean 0.9" in printed
    content = json.loads((tmp_path / "out" / "sets.json").read_text())
    assert [(one["set"], one["films"], one["failed"], one["missed"]) for one in content["sets"]] == [
        ("openist", 1, 0, 0), ("v7_children", 2, 0, 0)]  # fmt: skip
    for one in content["sets"]:
        with (tmp_path / "out" / one["set"] / "films.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        column = "dice_left" if one["set"] == "openist" else "third_left"
        assert len(rows) == one["films"]
        assert one["left"]["mean"] == pytest.approx(np.mean([float(row[column]) for row in rows]), abs=1e-6)


def test_what_sets_come_to() -> None:
    rows = [{"third_left": left, "third_right": right, "missed": 0, "swapped": 0}
            for left, right in ((0.95, 0.89), (0.97, math.nan), (0.9, 0.99))]
    one = summarise_set("a", rows, ("third_left", "third_right"))
    assert one["measure"] == "lateral third" and one["films"] == 3 and one["failed"] == 1
    assert one["left"]["mean"] == pytest.approx(0.94) and one["right"]["mean"] == pytest.approx(0.94)
    low, high = one["left"]["interval"]
    assert 0.899 <= low < 0.94 < high <= 0.971
    nobody = summarise_set("b", [{"dice_left": math.nan, "dice_right": 0.5, "missed": 1, "swapped": 0}], WHOLE)
    assert nobody["left"] == {"mean": None, "interval": None} and nobody["missed"] == nobody["failed"] == 1
    heading, _, second, last = set_lines([one, nobody])
    assert "a lung below 0.90" in heading and "undefined" in second
    assert last == "2 sets, 4 films: 2 with a lung below 0.90, least mean 0.5000, mean of means 0.7933"
