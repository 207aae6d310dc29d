"""The networks that ship, through ``inference.py``'s ``main``, on the phantoms, whose lungs are known exactly.

The figures are a little below what ``python scripts/evaluate.py --weights models/*.h5 --data data/phantoms`` printed when
the networks were committed: mean Dice 0.970 (left) and 0.973 (right), worst film 0.950 and 0.968.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from films import write_dicom
from PIL import Image

from mask_rcnn.commands import inference as inference_command
from mask_rcnn.config import load_config
from mask_rcnn.evaluation.overlap import dice, laterality_swapped
from mask_rcnn.lungs import CATEGORIES

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS = ROOT / "data" / "phantoms"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, networks_once: None) -> Path:
    weights = sorted(str(path) for path in (ROOT / "models").glob("*.h5"))
    assert len(weights) == 5
    out = tmp_path_factory.mktemp("shipped")
    assert inference_command.main(["--weights", *weights, "--src", str(PHANTOMS), "--out", str(out), "--save", "masks"]) == 0
    return out


def test_both_lungs_are_found_on_their_own_sides(results: Path) -> None:
    scores: dict[int, list[float]] = {category: [] for category in CATEGORIES}
    for truth_path in sorted((PHANTOMS / "masks").glob("*.png")):
        truth = np.asarray(Image.open(truth_path))
        found = np.asarray(Image.open(results / "masks" / "images" / truth_path.name))
        assert found.shape == truth.shape
        assert not laterality_swapped(found, truth)
        for category, values in scores.items():
            values.append(dice(found == category, truth == category))
    for values in scores.values():
        assert len(values) == 16
        assert np.mean(values) > 0.965
        assert min(values) > 0.94


def test_the_members_agree(results: Path) -> None:
    with (results / "measurements.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        for side in ("left", "right"):
            assert int(row[f"{side}_votes"]) >= 4
            assert float(row[f"{side}_score"]) > 0.9
            assert float(row[f"{side}_agreement"]) > 0.95


@pytest.fixture(scope="module")
def one_network(
    tmp_path_factory: pytest.TempPathFactory, networks_once: None
) -> Callable[[Path], tuple[Path, dict[str, dict[str, str]]]]:
    """Runs one of the networks on a folder of films; where its results are, and its table by file."""
    weights = ROOT / "models" / "lungs_small_1.weights.h5"

    def run(films: Path) -> tuple[Path, dict[str, dict[str, str]]]:
        out = tmp_path_factory.mktemp("out")
        saved = ["--out", str(out), "--save", "masks"]
        assert inference_command.main(["--weights", str(weights), "--src", str(films), *saved]) == 0
        with (out / "measurements.csv").open(newline="") as file:
            return out, {row["file"]: row for row in csv.DictReader(file)}

    return run


def test_mirrored_films_are_noticed_or_turned(
    one_network: Callable[[Path], tuple[Path, dict[str, dict[str, str]]]], tmp_path: Path
) -> None:
    """A PNG tells nothing of how it lies, and the side of the heart does; a DICOM header that tells is obeyed."""
    for number in range(1, 17):
        film = np.asarray(Image.open(PHANTOMS / "images" / f"phantom_{number:04}.png"))
        Image.fromarray(film[:, ::-1]).save(tmp_path / f"{number}.png")
    levels = film.astype(np.uint16) * 16
    headers = {
        "mirrored": (levels[:, ::-1], {"PatientOrientation": ["R", "F"]}, "mirrored"),
        "quarter": (np.rot90(levels), {"PatientOrientation": ["F", "R"]}, "turned by 90 degrees clockwise"),
        "lateral": (levels, {"ViewPosition": "LL"}, ""),
        "plain": (levels, {"PatientOrientation": ["L", "F"], "ViewPosition": "PA"}, ""),
    }
    for name, (pixels, attributes, _) in headers.items():
        write_dicom(tmp_path / f"{name}.dcm", np.ascontiguousarray(pixels), "MONOCHROME2", 12, **attributes)
    out, rows = one_network(tmp_path)
    told = ["mirrored" in row["reasons"] and row["review"] == "1" for file, row in rows.items() if file.endswith(".png")]
    assert len(told) == 16 and sum(told) >= 15
    truth = np.asarray(Image.open(PHANTOMS / "masks" / "phantom_0016.png"))
    for name, (_, _, turned) in headers.items():
        row = rows[f"{name}.dcm"]
        found = np.asarray(Image.open(out / "masks" / row["result"]))
        assert row["turned"] == turned and (int(row["height"]), int(row["width"])) == found.shape == truth.shape
        assert all(dice(found == category, truth == category) > 0.9 for category in CATEGORIES), name
        assert row["reasons"] == ("a lateral film by its ViewPosition (LL)" if name == "lateral" else ""), name


def test_a_trained_network_leaves_no_positive_place_to_padding() -> None:
    """So no padded RoI enters the batch statistics of its heads at the end of a training (``layers.detection_targets``)."""
    from mask_rcnn.dataset.batches import TrainingBatches
    from mask_rcnn.dataset.sources import read_records
    from mask_rcnn.dataset.training_films import load_films
    from mask_rcnn.model import MaskRCNN
    from mask_rcnn.network.layers import detection_targets

    config = load_config("lungs_small")
    films = load_films(read_records(PHANTOMS, config.laterality)[:4], config.network.image_size)
    inputs, _ = TrainingBatches(films, config, 0, augment=True)[0]
    padded = {}
    model = MaskRCNN(config)
    for kind in ("random", "trained"):
        if kind == "trained":
            model.load_weights(ROOT / "models" / "lungs_small_1.weights.h5")
        network = model.network
        scored = network.score_anchors(network.pyramid(inputs["images"], training=False))
        proposals = network.proposals(*scored, config.proposals.training_count)
        truth = (inputs[name] for name in ("class_ids", "boxes", "masks"))
        sampled = detection_targets(proposals, *truth, config, network.lots)
        padded[kind] = np.asarray(sampled["class_ids"])[:, : sampled["masks"].shape[1]] < 0
    assert padded["random"].any() and not padded["trained"].any()
