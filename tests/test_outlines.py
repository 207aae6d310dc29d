"""What other tools write as COCO: read as it is meant, or refused by annotation, film and reason."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn.dataset import run_lengths
from mask_rcnn.dataset.coco import FORMAT, new_dataset, read_dataset
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.outlines import check_runs
from mask_rcnn.dataset.records import read_annotated
from mask_rcnn.dataset.run_lengths import compress, decode_mask, encode_mask
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import write_json

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Change = Callable[[dict[str, Any]], object]


def polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask, as an annotation tool writes them."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [[float(value) + 0.5 for value in contour.ravel()] for contour in contours if len(contour) > 2]


def labels_of(number: int) -> np.ndarray:
    return np.asarray(Image.open(PHANTOMS / "masks" / f"phantom_{number:04}.png"))


def foreign(folder: Path, change: Change = lambda dataset: None, count: int = 3, runs: bool = False) -> Path:
    """A COCO file as another tool writes it, of phantoms 1, 2, ...; annotation 10 n + c is lung c of film n."""
    (folder / "images").mkdir(parents=True)
    dataset: dict[str, Any] = {"images": [], "annotations": [], "categories": [
        {"id": LEFT_LUNG, "name": "left_lung"}, {"id": RIGHT_LUNG, "name": "right_lung"}]}  # fmt: skip
    for n in range(1, count + 1):
        shutil.copy(PHANTOMS / "images" / f"phantom_{n:04}.png", folder / "images" / f"p{n}.png")
        labels = labels_of(n)
        dataset["images"].append({"id": n, "file_name": f"p{n}.png", "height": labels.shape[0], "width": labels.shape[1]})
        for lung in CATEGORIES:
            outline = encode_mask(labels == lung) if runs else polygons(labels == lung)
            dataset["annotations"].append(
                {"id": 10 * n + lung, "image_id": n, "category_id": lung, "segmentation": outline, "iscrowd": int(runs)}
            )
    change(dataset)
    (folder / "lungs.json").write_text(json.dumps(dataset))
    return folder / "lungs.json"


def segment(value: Any) -> Change:
    """Gives annotation 11 another outline."""
    def change(dataset: dict[str, Any]) -> None:
        own = dataset["annotations"][0]
        own["segmentation"] = value(own["segmentation"]) if callable(value) else value
    return change


def scaled(across: float, down: float) -> Change:
    """All polygons counted in other units: the film is this wide and high."""
    def change(dataset: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["width"] / across, image["height"] / down) for image in dataset["images"]}
        for record in dataset["annotations"]:
            units = sizes[record["image_id"]]
            record["segmentation"] = [
                [value / units[k % 2] for k, value in enumerate(part)] for part in record["segmentation"]
            ]
    return change


def with_first(part: list[float], value: Any) -> list[list[Any]]:
    return [[value, *part[1:]]]


@pytest.mark.parametrize("runs", [False, True])
def test_lungs_of_another_tool_are_read(tmp_path: Path, runs: bool) -> None:
    for n, record in enumerate(read_records(foreign(tmp_path / "set", runs=runs), "patient"), 1):
        read = read_annotated(record).labels
        truth = labels_of(n)
        for lung in CATEGORIES:
            both = np.count_nonzero((read == lung) & (truth == lung))
            assert 2 * both / (np.count_nonzero(read == lung) + np.count_nonzero(truth == lung)) > 0.98


BAD = {
    "nan": (lambda s: with_first(s[0], float("nan")), "no number but nan"),
    "infinite": (lambda s: with_first(s[0], float("inf")), "no number but inf"),
    "minus infinite": (lambda s: with_first(s[0], float("-inf")), "no number but -inf"),
    "text": (lambda s: with_first(s[0], "12.5"), "no number but '12.5'"),
    "null": (lambda s: with_first(s[0], None), "no number but None"),
    "bool": (lambda s: with_first(s[0], True), "no number but True"),
    "object": ([{"x": 1, "y": 2}], "no number but {'x': 1"),
    "far": (lambda s: with_first(s[0], 1e9), "far outside the film"),
    "far left": (lambda s: with_first(s[0], -4000), "far outside the film"),
    "twice as far": (lambda s: [[2 * value for value in s[0]]], "far outside the film"),
    "odd": (lambda s: [s[0][:7]], "no pairs"),
    "two corners": ([[1, 1, 5, 5]], "three corners or more"),
    "no pixel": ([[10.1, 10.1, 10.2, 10.1, 10.2, 10.2]], "cover no pixel"),
    "outside the edge": ([[-5, 10, -1, 10, -1, 50, -5, 50]], "cover no pixel"),
    "empty": ([], "no outline"),
    "absent": (None, "no outline"),
    "number": (7, "no outline"),
    "runs that do not cover": ({"size": [64, 64], "counts": [64, 64]}, "cover 128 pixels"),
    "runs that cover twice": ({"size": [64, 64], "counts": [64 * 64, 64 * 64]}, "cover 8192 pixels"),
    "negative runs": ({"size": [64, 64], "counts": [-64, 64 * 65]}, "negative"),
    "broken runs": ({"size": [64, 64], "counts": [64.5, 64 * 64 - 64.5]}, "a run length is 64.5"),
    "runs of text": ({"size": [64, 64], "counts": ["64", 64 * 63]}, "a run length is '64'"),
    "endless runs": ({"size": [64, 64], "counts": [float("inf")]}, "a run length is inf"),
    "no runs": ({"size": [64, 64], "counts": []}, "no run lengths"),
    "no counts": ({"size": [64, 64]}, "no run lengths"),
    "no size": ({"counts": [64]}, "height and width are None"),
    "vast size": ({"size": [10**6, 10**6], "counts": [10**12]}, "a film of 1000000 x 1000000"),
    "odd size": ({"size": [64], "counts": [64]}, "height and width"),
    "compressed, another size": ({**encode_mask(np.eye(64) > 0), "size": [64, 65]}, "cover 4096 pixels"),
    "compressed, cut off": ({"size": [64, 64], "counts": "PPP"}, "cut off"),
    "compressed, no such letter": ({"size": [64, 64], "counts": "ab!c"}, "never have"),
    "compressed, not ASCII": ({"size": [64, 64], "counts": "é폐"}, "torn"),
    "compressed, long": ({"size": [64, 64], "counts": "o" * 900 + "0"}, "longer than any film"),
    "compressed, nothing": ({"size": [64, 64], "counts": ""}, "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_annotation_costs_its_film(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value, said = BAD[name]
    path = foreign(tmp_path / "set", segment(value))
    records = read_records(path, "patient")
    assert [record.path.name for record in records] == ["p2.png", "p3.png"]
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert f"{path}: 1 films left out" in printed.out
    assert line.startswith(f"left out {path.parent / 'images' / 'p1.png'}: annotation 11 ") and said in line
    assert "create_dataset" not in line and line.endswith("in the tool that it was annotated with and export it again")


def test_where_none_can_be_read_the_file_is_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path / "set", segment(lambda s: with_first(s[0], float("nan"))), count=1)
    with pytest.raises(DatasetError, match="p1.png: annotation 11 .*no number but nan; correct it in the tool") as caught:
        read_records(path, "patient")
    assert "create_dataset" not in str(caught.value)
    made_here = json.loads(path.read_text()) | {"info": new_dataset("patient", {})["info"]}
    path.write_text(json.dumps(made_here))
    with pytest.raises(DatasetError, match="make the file again with create_dataset.py"):
        read_records(path, "patient")


def test_hostile_segmentations_take_no_memory(tmp_path: Path) -> None:
    """In a process of its own, since pycocotools would be killed there."""
    cases = [value for value, _ in BAD.values() if not callable(value)]
    cases += [[[value, 1, 5, 1, 5, 5]] for value in (float("nan"), float("inf"), 1e9, -1e300, 10**400)]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(cases))
    code = (
        "import json, sys; from mask_rcnn.dataset.run_lengths import compress\n"
        "for case in json.load(open(sys.argv[1])):\n"
        "    try:\n        compress(case, (64, 64))\n        print('read', case)\n    except ValueError:\n        pass\n"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    run = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, preexec_fn=limit,
                         timeout=120)  # fmt: skip
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_a_little_outside_is_clipped() -> None:
    inside = [[0.0, 0.0, 30.0, 0.0, 30.0, 60.0, 0.0, 60.0]]
    outside = [[-5.0, -6.0, 30.0, -6.0, 30.0, 65.0, -5.0, 65.0]]
    np.testing.assert_array_equal(decode_mask(compress(outside, (60, 80))), decode_mask(compress(inside, (60, 80))))
    corner = decode_mask(compress([[-8.0, 20.0, 20.0, -8.0, 40.0, 40.0]], (60, 80)))
    shifted = decode_mask(compress([[12.0, 40.0, 40.0, 12.0, 60.0, 60.0]], (80, 100)))  # the same, wholly on a larger film
    assert np.count_nonzero(corner ^ shifted[20:, 20:]) < 0.03 * np.count_nonzero(corner), "but for rounding below 0"


@pytest.mark.parametrize(
    "nested",
    [lambda s: s[0], lambda s: [[s[0][k], s[0][k + 1]] for k in range(0, len(s[0]), 2)],
     lambda s: [[[s[0][k], s[0][k + 1]] for k in range(0, len(s[0]), 2)]], lambda s: [*s, [3, 3, 4, 4]]],
    ids=["flat", "corners", "polygons of corners", "a slip of the mouse"],
)  # fmt: skip
def test_polygons_are_read_however_they_are_nested(tmp_path: Path, nested: Callable[[Any], Any]) -> None:
    plain = read_records(foreign(tmp_path / "plain"), "patient")
    other = read_records(foreign(tmp_path / "other", segment(nested)), "patient")
    assert plain[0].segmentations == other[0].segmentations


def test_runs_are_those_that_pycocotools_reads() -> None:
    rng = np.random.default_rng(0)
    for share in (0, 0.01, 0.5, 0.99, 1):
        for _ in range(20):
            mask = rng.random(rng.integers(1, 70, 2)) < share
            text = encode_mask(mask)["counts"]
            runs = check_runs(text, (mask.shape[0], mask.shape[1]))
            again = coco_mask.frPyObjects({"size": list(mask.shape), "counts": runs.tolist()}, *mask.shape)
            assert again["counts"].decode() == text
            decoded = np.repeat(np.arange(len(runs)) % 2, runs).reshape(mask.shape[::-1]).T
            np.testing.assert_array_equal(decoded, mask)


def test_run_lengths_are_checked_many_at_once_as_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(segmentation: Any, size: Any) -> dict[str, Any] | str:
        try:
            return compress(segmentation, size)
        except ValueError as error:
            return str(error)

    rng = np.random.default_rng(1)
    texts = ("", "4", "04", "\u00e9", "oooooooo0", "nO")
    cases: list[tuple[Any, Any]] = [({"size": [2, 2], "counts": text}, None) for text in texts]
    for share in (0, 0.01, 0.3, 1):
        for _ in range(30):
            mask = rng.random(rng.integers(1, 40, 2)) < share
            whole = encode_mask(mask)
            torn = list(whole["counts"])
            torn[int(rng.integers(len(torn)))] = chr(int(rng.integers(40, 120)))
            counts = whole["counts"]
            cases += [(whole | {"counts": text}, None) for text in (counts, "".join(torn), counts[:-1])]
    cases += [(whole | {"size": [0, 3]}, None), ([[1, 1, 9, 1, 9, 9]], (20, 20)), ([[1, 1]], (20, 20)), (None, None),
              (whole | {"counts": check_runs(whole["counts"], whole["size"]).tolist()}, None)]  # fmt: skip
    for at_a_time in (1000, 7):
        monkeypatch.setattr(run_lengths, "AT_A_TIME", at_a_time)
        found = [str(rle) if isinstance(rle, ValueError) else rle for rle in run_lengths.compress_all(cases)]
        assert found == [alone(*case) for case in cases]
    assert sum(isinstance(rle, str) for rle in found) > 100 and sum(isinstance(rle, dict) for rle in found) > 120


# Units


@pytest.mark.parametrize(("units", "said"), [((1, 1), "in shares of the film?"), ((100, 100), "in percent of the film?")])
def test_other_units_than_pixels_are_noticed(tmp_path: Path, units: tuple[float, float], said: str) -> None:
    def change(dataset: dict[str, Any]) -> None:
        for image, record in zip(dataset["images"], dataset["annotations"][::2], strict=True):
            assert record["image_id"] == image["id"]
        scaled(*units)(dataset)
        for image in dataset["images"]:
            factor = 2 if image["height"] < 400 else 1  # as large as films are
            image["height"], image["width"] = factor * image["height"], factor * image["width"]

    path = foreign(tmp_path / "set", change)
    with pytest.raises(DatasetError) as caught:
        read_records(path, "patient")
    assert str(caught.value).startswith(f"{path}: annotation 11, of p1.png: ") and said in str(caught.value)


def test_a_small_outline_is_in_pixels_all_the_same(tmp_path: Path) -> None:
    """A tiny lung in a corner of one film; and one film alone, with one lung within 100 pixels."""
    tiny = segment([[0, 0, 1, 0, 1, 1, 0, 1]])
    assert len(read_records(foreign(tmp_path / "one", tiny), "patient")) == 3

    def single(dataset: dict[str, Any]) -> None:
        dataset["annotations"] = [{**dataset["annotations"][1], "segmentation": [[20, 15, 90, 15, 90, 99, 20, 99]]}]

    assert len(read_records(foreign(tmp_path / "two", single), "patient")) == 3


# The whole file


def test_two_images_of_one_id_are_refused_by_both_names(tmp_path: Path) -> None:
    path = foreign(tmp_path / "set", lambda dataset: dataset["images"][1].update(id=1.0))
    with pytest.raises(DatasetError, match="two images have the id 1, p1.png and p2.png; "):
        read_records(path, "patient")


def test_a_film_named_twice(tmp_path: Path) -> None:
    def again(dataset: dict[str, Any], annotate: bool, move: float = 0) -> None:
        dataset["images"].append({**dataset["images"][0], "id": 9})
        for record in dataset["annotations"][:2] if annotate else ():
            part = [[value + move for value in record["segmentation"][0]]]
            dataset["annotations"].append({**record, "id": 90, "image_id": 9, "segmentation": part})

    for name, annotate in ("alike", True), ("blank", False):
        records = read_records(foreign(tmp_path / name, lambda dataset: again(dataset, annotate)), "patient")
        assert [record.path.name for record in records] == ["p1.png", "p2.png", "p3.png"]
        assert all(len(record.segmentations) == 2 for record in records)
    with pytest.raises(DatasetError, match="two images, one of them 9, are p1.png and have other lungs; keep one"):
        read_records(foreign(tmp_path / "other", lambda dataset: again(dataset, True, 1)), "patient")


def test_parts_of_a_lung_are_one_lung_and_repeats_change_nothing(tmp_path: Path) -> None:
    plain = read_annotated(read_records(foreign(tmp_path / "plain"), "patient")[0]).labels

    def halves(dataset: dict[str, Any]) -> None:
        upper = labels_of(1) == LEFT_LUNG
        lower = upper.copy()
        upper[150:], lower[:150] = False, False
        own = dataset["annotations"][0]
        parts = [{**own, "id": 11, "segmentation": encode_mask(mask)} for mask in (upper, lower, lower)]
        dataset["annotations"][:1] = parts

    parted = read_annotated(read_records(foreign(tmp_path / "parts", halves), "patient")[0]).labels
    assert np.count_nonzero((parted != plain) & (labels_of(1) == LEFT_LUNG)) < 0.02 * np.count_nonzero(plain)


def test_one_outline_with_two_names_is_no_pair_of_lungs(tmp_path: Path) -> None:
    def doubled(dataset: dict[str, Any]) -> None:
        dataset["annotations"][1]["segmentation"] = dataset["annotations"][0]["segmentation"]

    record = read_records(foreign(tmp_path / "set", doubled), "patient")[0]
    with pytest.raises(DatasetError, match="p1.png: its two lungs lie over each other; "):
        read_annotated(record)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_and_wide_text_are_read(tmp_path: Path, encoding: str) -> None:
    path = foreign(tmp_path / "set")
    path.write_bytes(path.read_text().encode(encoding))
    assert len(read_records(path, "patient")) == 3


@pytest.mark.parametrize("kind", [float, str])
def test_ids_are_whole_numbers_however_they_are_written(tmp_path: Path, kind: Callable[[int], Any]) -> None:
    def rewrite(dataset: dict[str, Any]) -> None:
        for record in dataset["annotations"]:
            record["image_id"], record["category_id"] = kind(record["image_id"]), kind(record["category_id"])

    records = read_records(foreign(tmp_path / "set", rewrite), "patient")
    assert [len(record.segmentations) for record in records] == [2, 2, 2]


@pytest.mark.parametrize("value", [None, True, [1], {"a": 1}, 1.5])
def test_ids_that_are_none_are_refused(tmp_path: Path, value: Any) -> None:
    path = foreign(tmp_path / "set", lambda dataset: dataset["images"][0].update(id=value))
    with pytest.raises(DatasetError, match=f"^{path}: a record of 'images' has the id "):
        read_dataset(path)


@pytest.mark.parametrize(
    ("left", "right"),
    [("Left Lung", "Right Lung"), ("left lung", "right lung"), ("lung_left", "lung_right"), ("LeftLung", "RightLung"),
     ("LEFT_LUNG", "RIGHT_LUNG"), ("lung L", "lung R"), ("leftlung", "rightlung"), ("lung-l", "lung-r"), ("left", "right"),
     ("Lung (left)", "Lung (right)"), ("Left lung field", "Right lung field"), ("L lung", "R lung"), ("Left", "Right")],
)  # fmt: skip
def test_categories_are_known_by_name(tmp_path: Path, left: str, right: str) -> None:
    def renamed(dataset: dict[str, Any]) -> None:
        dataset["categories"] = [
            {"id": 0, "name": "Heart"}, {"id": 1, "name": right}, {"id": 7, "name": left, "supercategory": "x"},
        ]  # fmt: skip
        for record in dataset["annotations"]:
            record["category_id"] = 7 if record["category_id"] == LEFT_LUNG else 1
        dataset["annotations"].append({"id": 99, "image_id": 1, "category_id": 0, "segmentation": "nothing"})

    plain = read_records(foreign(tmp_path / "plain"), "patient")
    records = read_records(foreign(tmp_path / "set", renamed), "patient")
    assert [record.segmentations for record in records] == [record.segmentations for record in plain]


@pytest.mark.parametrize(
    "names",
    [("lung",), ("lungs", "heart"), ("left_lung",), ("left lung nodule", "right lung nodule"), ("lung 1", "lung 2"), ()],
)
def test_categories_that_do_not_tell_the_lungs_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    path = foreign(tmp_path / "set", lambda dataset: dataset.update(categories=categories))
    with pytest.raises(DatasetError, match="its categories are ") as caught:
        read_dataset(path)
    assert all(name in str(caught.value) for name in names) and "create_dataset" not in str(caught.value)


def test_an_annotation_of_an_unnamed_category_costs_its_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign(tmp_path / "set", lambda dataset: dataset["annotations"][2].update(category_id=5))
    assert [record.path.name for record in read_records(path, "patient")] == ["p1.png", "p3.png"]
    assert "annotation 21" in (line := capsys.readouterr().err) and "category 5 is not in the file's list" in line


# Formats


def test_formats(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    dataset = new_dataset("patient", {})
    assert dataset["info"]["format"] == FORMAT == 2 and dataset["info"]["program"] == "1.0.0"
    del dataset["info"]["format"], dataset["info"]["program"]
    write_json(path, dataset)
    assert read_dataset(path) == dataset, "a file without a format is of the first"
    dataset["info"]["format"] = 3
    write_json(path, dataset)
    with pytest.raises(DatasetError) as caught:
        read_dataset(path)
    assert str(caught.value) == (
        f"{path}: written by a newer program (format 3, this program reads up to 2); update the program"
    )


@pytest.mark.parametrize("info", [None, [], "Label Studio", {"format": "COCO 1.0"}, {"program": "VIA", "version": "1.0"}])
def test_what_other_tools_say_of_themselves_does_not_matter(tmp_path: Path, info: Any) -> None:
    assert len(read_records(foreign(tmp_path / "set", lambda dataset: dataset.update(info=info)), "patient")) == 3


@pytest.mark.parametrize("name", [None, "", 7, ["p1.png"], "p\0.png"])
def test_a_film_without_a_name_is_refused(tmp_path: Path, name: Any) -> None:
    path = foreign(tmp_path / "set", lambda dataset: dataset["images"][0].update(file_name=name))
    with pytest.raises(DatasetError, match="image 1 names no file"):
        read_records(path, "patient")
