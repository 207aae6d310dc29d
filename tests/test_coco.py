"""The dataset JSON: masks and boxes as inverse pairs, the published categories, files refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mask_rcnn.dataset.coco import annotation, new_dataset, read_dataset, to_xywh
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.run_lengths import decode_mask, encode_mask
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.system.files import write_json
from mask_rcnn.utils import mask_box

# pycocotools 2.0.11 does not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def random_masks() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = [(1, 1), (1, 9), (13, 1), (31, 17), (64, 64)]
    masks = [rng.random(shape) < share for shape in shapes for share in (0.02, 0.5, 0.98)]
    return [*masks, np.zeros((7, 5), bool), np.ones((7, 5), bool)]


def naive_runs(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed runs: column by column, background first."""
    runs, current, length = [], False, 0
    for x in range(mask.shape[1]):
        for y in range(mask.shape[0]):
            if mask[y, x] != current:
                runs.append(length)
                current, length = bool(mask[y, x]), 0
            length += 1
    return [*runs, length]


@pytest.mark.parametrize("mask", random_masks(), ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_masks_survive_encoding(mask: np.ndarray) -> None:
    segmentation = encode_mask(mask)
    assert segmentation["size"] == list(mask.shape)
    stored = json.loads(json.dumps(segmentation))
    decoded = decode_mask(stored)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("mask", random_masks(), ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_uncompressed_runs_are_read_column_by_column(mask: np.ndarray) -> None:
    decoded = decode_mask({"size": list(mask.shape), "counts": naive_runs(mask)})
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize("mask", random_masks(), ids=lambda mask: f"{mask.shape}-{mask.sum()}")
def test_mask_box_is_tight(mask: np.ndarray) -> None:
    points = [(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    expected = (0, 0, 0, 0)
    if points:
        ys, xs = [y for y, _ in points], [x for _, x in points]
        expected = min(ys), min(xs), max(ys) + 1, max(xs) + 1
    assert mask_box(mask) == expected


def test_boxes_survive_coco_order() -> None:
    box = (3.0, 5.0, 11.0, 25.0)
    assert to_xywh(box) == [5.0, 3.0, 20.0, 8.0]


def test_annotation_describes_the_mask() -> None:
    mask = np.zeros((30, 40), bool)
    mask[4:10, 20:35] = True
    record = annotation(7, 3, RIGHT_LUNG, mask)
    assert (record["id"], record["image_id"], record["category_id"], record["iscrowd"]) == (7, 3, 2, 0)
    assert record["area"] == 6 * 15
    assert record["bbox"] == [20, 4, 15, 6]
    np.testing.assert_array_equal(decode_mask(json.loads(json.dumps(record))["segmentation"]), mask)


def test_categories_are_the_published_ones() -> None:
    assert CATEGORIES == {1: "left_lung", 2: "right_lung"}
    assert (LEFT_LUNG, RIGHT_LUNG) == (1, 2)


def test_a_dataset_survives_writing(tmp_path: Path) -> None:
    dataset = new_dataset("patient", {"seed": 3, "remark": "폐 & poumon"})
    dataset["images"].append({"id": 1, "file_name": "ü.png", "height": 30, "width": 40})
    dataset["annotations"].append(annotation(1, 1, LEFT_LUNG, np.ones((30, 40), bool)))
    path = tmp_path / "deep" / "er" / "dataset.json"
    write_json(path, dataset)
    assert read_dataset(path) == dataset
    assert dataset["info"]["laterality"] == "patient" and dataset["info"]["seed"] == 3
    assert [file.name for file in path.parent.iterdir()] == ["dataset.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}


def changed(**changes: Any) -> str:
    dataset = new_dataset("patient", {})
    return json.dumps({**dataset, **changes})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable as JSON"),
        (b'{"images": [', "not readable as JSON"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not readable as JSON"),
        (b"[1, 2]", "no COCO dataset"),
        (b'"text"', "no COCO dataset"),
        (b"{}", "lacks 'images'"),
        (b'{"images": [], "annotations": []}', "lacks 'categories'"),
        (changed(categories=[{"id": 1, "name": "right_lung"}]).encode(), "its categories are"),
        (changed(categories=[]).encode(), "its categories are"),
        (changed(annotations=[{"id": 9, "image_id": 4, "category_id": 1}]).encode(), "annotation 9 belongs to no image"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


def test_an_absent_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="create_dataset.py"):
        read_dataset(tmp_path / "none.json")
