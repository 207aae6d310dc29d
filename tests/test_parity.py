"""The whole network, with weights that anyone can regenerate, against what the reference implementation answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import naive
import numpy as np
import pytest
from tiny import eager_networks

from mask_rcnn import model as model_module
from mask_rcnn.model import MaskRCNN
from mask_rcnn.network.layers import refine_detections
from mask_rcnn.utils import mold_film, norm_boxes

TOLERANCE = 1e-3
ROUNDING = 1e-6
DRAWN, REAL = (0, 1, 2), 3  # the reference's films; the real one is no part of the repository


@pytest.fixture(scope="module")
def reference(parity: Path) -> dict[str, np.ndarray]:
    return dict(np.load(parity / "network_resnet50.npz"))


@pytest.fixture(scope="module")
def model(parity: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaskRCNN]:
    """The port, filled from a checkpoint in the reference's own layout."""
    weights = tmp_path_factory.mktemp("parity") / "reference.h5"
    script, manifest = parity / "synthetic_weights.py", parity / "manifest_resnet50.json"
    subprocess.run([sys.executable, script, manifest, weights], check=True)
    model = MaskRCNN.load(weights)
    with eager_networks():  # a refinement of each film's own takes part, below
        yield model


def refine_with_ties_as_in(expected: np.ndarray) -> Callable[..., Any]:
    """``refine_detections`` with the reference's scores [n, c] where ours differ by rounding alone.

    Of two boxes that overlap the better stays; those of 0.99999994 and 1 here may both be 1 there.
    """

    def refine(rois: Any, probabilities: Any, *others: Any) -> Any:
        ours = keras.ops.convert_to_numpy(probabilities)
        scores = np.where(np.abs(ours - expected) <= ROUNDING, expected, ours)
        return refine_detections(rois, keras.ops.convert_to_tensor(scores), *others)

    return refine


@pytest.fixture(scope="module", params=[*DRAWN, REAL])
def answers(
    request: pytest.FixtureRequest, model: MaskRCNN, reference: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What both say of one film: ours by the reference's names, and ``reference`` without the film's number."""
    film = request.param
    if film == REAL:
        reference = dict(np.load(request.getfixturevalue("shared_parity") / "network_resnet50.npz"))
    expected = {
        name[: -len(f"_{film}")]: value for name, value in reference.items() if name.endswith(f"_{film}")
    }
    molded, window, _ = mold_film(expected["image"], model.config.network)
    network, counts = model.network, model.config.proposals
    windows = norm_boxes(np.array([window], np.float32), (256, 256))
    # From the reference's own square, so that a grey level of rounding in the resizing is not counted here.
    pyramid = network.pyramid(expected["molded"].astype(np.float32)[None])
    logits, deltas = network.score_anchors(pyramid)
    rois = network.proposals(logits, deltas, counts.inference_count)
    class_logits, box_deltas = network.classify(rois, pyramid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "refine_detections", refine_with_ties_as_in(expected["mrcnn_class"]))
        detected = network._detect(pyramid, logits, deltas, windows)
        (result,) = model.detect([expected["image"]])
    tensors = {
        "rpn_class": keras.ops.softmax(logits),
        "rpn_bbox": deltas,
        "rpn_rois": rois,
        "mrcnn_class": keras.ops.softmax(class_logits),
        "mrcnn_bbox": box_deltas,
        "detections": detected["detections"],
        "mrcnn_mask": detected["masks"],
    }
    ours = {name: keras.ops.convert_to_numpy(tensor)[0] for name, tensor in tensors.items()}
    return {
        **ours,
        "molded": molded,
        "window": window,
        "result": result,
        "reference": expected,
    }


def test_no_real_film_is_in_the_repository(reference: dict[str, np.ndarray]) -> None:
    assert {name.rsplit("_", 1)[-1] for name in reference} == {"anchors", *map(str, DRAWN)}


def test_the_checkpoint_tells_the_architecture(model: MaskRCNN) -> None:
    network = model.config.network
    assert (network.backbone, network.class_count, network.image_size) == ("resnet50", 3, 256)
    assert model.config.laterality == "image"  # the reference named its lungs by image side


def test_anchors(model: MaskRCNN, reference: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(model.network.anchors, reference["anchors"], atol=1e-5)


def test_films_are_fitted_alike(answers: dict[str, Any]) -> None:
    assert answers["window"] == tuple(answers["reference"]["window"])
    assert np.abs(answers["molded"] - answers["reference"]["molded"]).max() <= 1 + TOLERANCE  # one grey level


@pytest.mark.parametrize("name", ["rpn_class", "rpn_bbox", "rpn_rois", "mrcnn_class", "mrcnn_bbox"])
def test_what_the_network_says(answers: dict[str, Any], name: str) -> None:
    np.testing.assert_allclose(answers[name], answers["reference"][name], atol=TOLERANCE, rtol=0)


def pair(
    boxes: np.ndarray, class_ids: np.ndarray, expected_boxes: np.ndarray, expected_ids: np.ndarray
) -> list[int]:
    """For each expected detection the place of ours: of its class, the box most like its own; each is taken once."""
    overlaps = np.array([[naive.iou(a, b) for b in boxes.tolist()] for a in expected_boxes.tolist()])
    overlaps[expected_ids[:, None] != class_ids] = -1
    places = overlaps.argmax(axis=1).tolist()
    assert sorted(places) == list(range(len(boxes)))
    return places


def test_detections_and_their_masks(answers: dict[str, Any]) -> None:
    expected, found = answers["reference"]["detections"], answers["detections"]
    there = expected[:, 4] > 0
    assert there.any()
    np.testing.assert_array_equal(found[:, 4] > 0, there)
    expected, found = expected[there], found[there]
    places = pair(found[:, :4], found[:, 4], expected[:, :4], expected[:, 4])
    np.testing.assert_allclose(found[places], expected, atol=TOLERANCE, rtol=0)
    masks = answers["reference"]["mrcnn_mask"].astype(np.float32)
    np.testing.assert_allclose(answers["mrcnn_mask"][there][places], masks[there], atol=TOLERANCE, rtol=0)


def test_detect(answers: dict[str, Any]) -> None:
    expected, result = answers["reference"], answers["result"]
    assert len(expected["result_rois"]) > 0
    places = pair(result["rois"], result["class_ids"], expected["result_rois"], expected["result_class_ids"])
    result = {name: values[..., places] if name == "masks" else values[places] for name, values in result.items()}
    assert np.abs(result["rois"] - expected["result_rois"]).max() <= 1  # a pixel: the rounding of a corner
    np.testing.assert_allclose(result["scores"], expected["result_scores"], atol=TOLERANCE)
    height, width, count = expected["result_masks_shape"]
    masks = np.unpackbits(expected["result_masks"], axis=0, count=height).astype(bool)
    assert result["masks"].shape == (height, width, count) == masks.shape
    for ours, theirs in zip(np.moveaxis(result["masks"], -1, 0), np.moveaxis(masks, -1, 0), strict=True):
        union = (ours | theirs).sum()
        assert union == 0 or (ours & theirs).sum() / union >= 0.99
