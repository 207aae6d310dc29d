"""The way of a new user: the lungs on DICOM films, two rejected on the page, one corrected in CVAT, a training."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotation_tools import cvat_export
from films import write_dicom
from PIL import Image

from create_dataset.command import main as create_dataset
from mask_rcnn.commands.corrections import main as corrections
from mask_rcnn.commands.train import main as train
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.run_lengths import decode_mask, encode_polygons
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG
from mask_rcnn.results.page.server import ReviewServer
from mask_rcnn.system.shipped import shipped_unet

PHANTOMS = sorted((Path(__file__).parents[1] / "data" / "phantoms" / "images").glob("*.png"))[:6]
CONFIG = {
    "name": "ward",
    "seed": 1,  # by which the corrected film is one to train on
    "network": {
        "image_size": 64, "backbone": "resnet14", "backbone_width": 4, "pyramid_channels": 8, "pyramid_output_channels": 8,
        "rpn_channels": 8, "box_head_channels": 16, "mask_head_channels": 8, "anchor_scales": [4, 8, 16, 32, 64],
        "train_batch_norm": True,
    },
    "proposals": {"before_nms": 40, "training_count": 8, "inference_count": 8},
    "targets": {"rois_per_image": 8, "add_ground_truth": True},
    "data": {"members": "all", "train_fraction": 0.75, "corrected_weight": 3},
    "training": {"heads_epochs": 0, "all_epochs": 1, "batch_size": 5, "optimiser": "sgd"},
    "bag": {"members": 1, "min_votes": 1},
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not shipped_unet().exists(), reason="the U-Net is not in models/unet; scripts/train_unet.py makes it"
)


def decide(server: ReviewServer, image_id: int, file: str, *wrong: str) -> None:
    """Rejects a film, as its page does when R or a mark's key is pressed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    body = {"image_id": image_id, "file": file, "decision": "reject", "wrong": wrong}
    connection.request("POST", "/decisions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    assert connection.getresponse().status == 204
    connection.close()


@pytest.mark.usefixtures("eagerly", "unet_once")
def test_from_dicom_films_to_a_training_on_corrected_lungs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ward, pack, dataset = (tmp_path / name for name in ("ward", "to_correct", "dataset"))
    ward.mkdir()
    for k, path in enumerate(PHANTOMS):
        film = np.asarray(Image.open(path)).astype(np.uint16) * 16  # 12 bits, the second one's bones black
        kind, film = ("MONOCHROME1", 4095 - film) if k == 1 else ("MONOCHROME2", film)
        write_dicom(ward / f"{path.stem}.dcm", film, kind, 12, PatientID=f"P{k}", PatientName="Nobody^Knows")

    # Lungs on the films, and the page.
    assert create_dataset(["--src", str(ward), "--out", str(dataset), "-q"]) == 0
    assert (dataset / "report.html").is_file()
    ids = {image["file_name"]: image["id"] for image in read_dataset(dataset / "dataset.json")["images"]}
    names = [f"{path.stem}.dcm" for path in PHANTOMS]
    assert list(ids) == names

    # Two films are rejected on the page, and a third one's left lung is marked as wrong.
    server = ReviewServer(dataset)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    decide(server, ids[names[0]], names[0])
    decide(server, ids[names[1]], names[1], "spoilt")
    decide(server, ids[names[2]], names[2], "left_lung")
    server.shutdown()
    server.server_close()
    thread.join()

    # That one goes to CVAT, where it is corrected, and comes back.
    assert corrections(["export", str(dataset), str(pack)]) == 0
    name = f"{ids[names[2]]}.png"
    assert name in {path.name for path in (pack / "images").iterdir()}
    assert not any(b"Nobody" in path.read_bytes() or b"P2" in path.read_bytes()[:200] for path in pack.rglob("*.*"))
    labels = np.array(Image.open(pack / "masks" / name))
    rows = np.flatnonzero((labels == LEFT_LUNG).any(axis=1))
    labels[rows[-len(rows) // 4] :][labels[rows[-len(rows) // 4] :] == LEFT_LUNG] = 0  # its lowest quarter is none
    polygons = {lung: encode_polygons(labels == category) for category, lung in CATEGORIES.items()}
    exported = cvat_export(tmp_path / "cvat.zip", {name: (labels.shape, polygons)})
    assert corrections(["import", str(dataset), str(exported)]) == 0
    assert "films corrected: 1; as they were: 0; left out: 0" in capsys.readouterr().out

    # The dataset obeys, whatever its thresholds, and a training learns from it.
    assert create_dataset(["--src", str(ward), "--out", str(dataset), "--set", "quality.min_area=0.09", "-q"]) == 0
    made = read_dataset(dataset / "dataset.json")
    images = {image["file_name"]: image for image in made["images"]}
    assert {name for name, image in images.items() if image["quality"] == "rejected"} == set(names[:2])
    assert images[names[2]]["quality"] == "accepted" and images[names[2]]["corrected"]
    [left] = [record for record in made["annotations"]
              if record["image_id"] == ids[names[2]] and record["category_id"] == LEFT_LUNG]
    corrected = decode_mask(left["segmentation"])
    assert np.count_nonzero(corrected != (labels == LEFT_LUNG)) < 0.02 * np.count_nonzero(corrected)
    config = tmp_path / "ward.yaml"
    config.write_text(yaml.safe_dump({**CONFIG, "data": {**CONFIG["data"], "sources": [str(dataset / "dataset.json")]}}))
    folders = ["--out", str(tmp_path / "models"), "--runs", str(tmp_path / "runs")]
    capsys.readouterr()
    assert train(["--config", str(config), *folders]) == 0
    printed = capsys.readouterr().out
    assert "2 films not accepted are left out" in printed
    assert "films to train on are corrected by a person, each counts 3 times" in printed
    assert (tmp_path / "models" / "ward_1.weights.h5").is_file()
