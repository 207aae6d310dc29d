"""What the shipped networks predict on a few phantoms, kept for tests: tests/golden/phantoms.

    python scripts/make_golden.py

Run it where a result is meant to change, and commit what it writes. The tests run the three commands again and compare.

``bag/NAME.png`` are the label masks of ``inference.py`` with ``models/*.h5``, ``unet/NAME.png`` those of
``create_dataset.py`` with its own U-Net; ``figures.json`` has their other figures and those of ``scripts/evaluate.py``.

Shapes
    film    uint8 [height, width], grey, bones white
    labels  uint8 [height, width], 0 background, else the category id
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"  # as in the tests: other runtimes compute in 16 bits where they can

import cv2
import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.films.radiograph import read_film, read_labels
from mask_rcnn.results.pictures import label_png
from mask_rcnn.system.console import forgiving_streams
from mask_rcnn.system.files import write_bytes

ROOT = Path(__file__).resolve().parent.parent
PHANTOMS, GOLDEN = ROOT / "data" / "phantoms", ROOT / "tests" / "golden" / "phantoms"
WEIGHTS = sorted((ROOT / "models").glob("*.h5"))
UNET = ROOT / "models" / "unet" / "efficientnetb0.weights.h5"
EVALUATED = (1, 6, 12)  # phantoms
MEASURES = ("agreement", "area", "ratio", "side_contact", "shape_distance", "likeness", "heart_side", "sharpness", "aspect")


class Found(NamedTuple):
    """What a command gives of one film."""

    labels: np.ndarray
    figures: dict[str, Any]


def render_films(folder: Path) -> None:
    """Phantoms as films come: inverted, of 16 bits, small, not square, mirrored, DICOM with oblong pixels."""
    folder.mkdir(parents=True, exist_ok=True)

    def phantom(number: int) -> np.ndarray:
        return read_film(PHANTOMS / "images" / f"phantom_{number:04}.png")

    films = {
        "plain": phantom(2),
        "inverted": 255 - phantom(3),
        "deep": phantom(5).astype(np.uint16) * 180 + 900,
        "small": cv2.resize(phantom(7), (130, 150), interpolation=cv2.INTER_AREA),
        "wide": cv2.copyMakeBorder(phantom(9), 0, 0, 90, 40, cv2.BORDER_REPLICATE),
        "mirrored": phantom(14)[:, ::-1],
    }
    for name, film in films.items():
        write_bytes(folder / f"{name}.png", cv2.imencode(".png", film)[1].tobytes())
    height, width = phantom(11).shape
    oblong = cv2.resize(phantom(11), (4 * width // 5, height), interpolation=cv2.INTER_AREA)
    write_dicom(folder / "oblong.dcm", oblong.astype(np.uint16) * 16, (0.8, 1.0))


def write_dicom(path: Path, pixels: np.ndarray, spacing: tuple[float, float]) -> None:
    """A film of 12 bits; ``spacing`` in millimetres between rows and between columns."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PhotometricInterpretation = "DX", "MONOCHROME2"
    data.Rows, data.Columns, data.SamplesPerPixel = *pixels.shape, 1
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelSpacing = [f"{value:g}" for value in spacing]
    data.PixelData = pixels.astype("<u2").tobytes()
    data.save_as(path, enforce_file_format=True)


def read_inference(out: Path) -> dict[str, Found]:
    """By film, what a folder of ``inference.py``'s results holds."""
    with (out / "measurements.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return {name: Found(read_labels(out / "masks" / row["result"]), {
        "inverted": row["inverted"] == "1",
        "agreement": float(row["agreement"]),
        **{f"{side}_{key}": float(row[f"{side}_{key}"]) for side in ("left", "right") for key in ("score", "votes")},
    }) for name, row in rows.items()}


def read_found(out: Path) -> dict[str, Found]:
    """By film, what a dataset of ``create_dataset.py`` holds."""
    dataset = read_dataset(out / "dataset.json")
    with (out / "quality.csv").open(newline="", encoding="utf-8") as file:
        measures = {row["file"]: row for row in csv.DictReader(file)}
    found = {}
    for image in dataset["images"]:
        labels = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in dataset["annotations"]:
            if annotation["image_id"] == image["id"]:
                labels[decode_mask(annotation["segmentation"])] = annotation["category_id"]
        figures = {key: image[key] for key in ("inverted", "spacing_mm", "quality")}
        row = measures[image["file_name"]]
        found[image["file_name"]] = Found(labels, figures | {key: float(row[key]) for key in MEASURES})
    return found


def read_evaluation(out: Path) -> dict[str, float]:
    """The Dice of each lung, by network and film, of ``scripts/evaluate.py``."""
    with (out / "films.csv").open(newline="", encoding="utf-8") as file:
        return {f"{row['network']}, {row['film']}, {side}": float(row[f"dice_{side}"])
                for row in csv.DictReader(file) for side in ("left", "right")}


def copy_evaluated(folder: Path) -> Path:
    """The phantoms that are evaluated, as a folder of films and masks."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number in EVALUATED:
            shutil.copy(PHANTOMS / kind / f"phantom_{number:04}.png", folder / kind)
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    forgiving_streams()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=GOLDEN, metavar="DIR", help="default: tests/golden/phantoms")
    out = parser.parse_args(argv).out
    import evaluate

    from create_dataset import command
    from mask_rcnn.commands import inference as inference_command

    weights = ["--weights", *map(str, WEIGHTS)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films, drawn = str(folder / "films"), str(copy_evaluated(folder / "drawn"))
        render_films(folder / "films")
        failed = (
            inference_command.main([*weights, "--src", films, "--out", f"{folder}/bag"])
            or command.main(["--src", films, "--out", f"{folder}/unet", "--unet", str(UNET)])
            or evaluate.main([*weights, "--data", drawn, "--out", f"{folder}/bag_evaluated"])
            or evaluate.main(["--unet", str(UNET), "--data", drawn, "--out", f"{folder}/unet_evaluated"])
        )
        if failed:
            return failed
        results = {"bag": read_inference(folder / "bag"), "unet": read_found(folder / "unet")}
        evaluations = {kind: read_evaluation(folder / f"{kind}_evaluated") for kind in results}
    shutil.rmtree(out, ignore_errors=True)
    for kind, found in results.items():
        for film, (labels, _) in found.items():
            write_bytes(out / kind / f"{Path(film).stem}.png", label_png(labels, "patient"))
    figures = {kind: {film: found.figures for film, found in sorted(films_.items())} for kind, films_ in results.items()}
    text = json.dumps(figures | {"evaluation": evaluations["bag"] | evaluations["unet"]}, indent=1)
    write_bytes(out / "figures.json", (text + "\n").encode("utf-8"))
    print(f"{out}: {len(results['bag'])} films by {len(WEIGHTS)} networks and by the U-Net")
    return 0


if __name__ == "__main__":
    sys.exit(main())
