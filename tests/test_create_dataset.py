"""From folders to dataset.json: what is written of each film, what the options do, how bad files are borne."""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import hostile
import keras
import numpy as np
import pytest
from films import film_of, write_dicom
from lines import problems
from pycocotools.coco import COCO
from stand_in import DarkFields, draw_film, load_stand_in, write_weights

from create_dataset import members as ensemble, pipeline
from create_dataset.assemble import TABLE, group_films
from create_dataset.command import main
from create_dataset.lungs import find_lungs
from create_dataset.run import BATCH, LEGACY
from create_dataset.sources import find_films
from create_dataset.unet import prepare
from mask_rcnn.checks.quality import ACCEPTED, REJECTED, STATUSES
from mask_rcnn.config import QualityConfig
from mask_rcnn.dataset.coco import read_dataset
from mask_rcnn.dataset.run_lengths import decode_mask
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.films.radiograph import read_film
from mask_rcnn.lungs import LEFT_LUNG, RIGHT_LUNG
from mask_rcnn.results.names import DATASET, PAGE, PAGE_FILES
from mask_rcnn.system.shipped import shipped_unet

REPOSITORY = Path(__file__).resolve().parents[1]
PHANTOMS = sorted((REPOSITORY / "data" / "phantoms" / "images").glob("*.png"))

needs_unet = pytest.mark.skipif(
    not shipped_unet().exists(), reason="the U-Net is not in models/unet; scripts/train_unet.py makes it"
)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that load as the stand-in, whatever is dark being lung."""
    monkeypatch.setattr(ensemble, "load_unet", load_stand_in)
    return write_weights(tmp_path / "dark.weights.h5")


@pytest.fixture
def own_unet(unet_once: None) -> keras.Model:
    """The U-Net that ships."""
    return ensemble.load_unet(shipped_unet())


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """A config by which any film is accepted."""
    path = tmp_path / "lenient.yaml"
    lowest = {"min_heart_side": -1000, "min_likeness": -1, "reject_likeness": -1}
    quality = {key: 1000 if key.startswith("max") else lowest.get(key, 0) for key in asdict(QualityConfig())}
    quality["max_side_contact"] = 1
    path.write_text(json.dumps({"quality": quality}), encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Six films as Kaggle lays them out, and masks beside some."""
    root = tmp_path / "kaggle"
    for name in (
        "chest_xray/train/NORMAL/IM-0326-0001.jpeg",
        "chest_xray/train/PNEUMONIA/person12_virus_34.jpeg",
        "chest_xray/val/PNEUMONIA/person12_virus_35.jpeg",
        "Covid19-dataset/test/Viral Pneumonia/0112.png",
        "COVID-19_Radiography_Dataset/Normal/images/Normal-1.png",
        "COVID-19_Radiography_Dataset/Normal/masks/Normal-1.png",
        "COVID-19_Radiography_Dataset/Normal/images/Normal-2.png",
        "COVID-19_Radiography_Dataset/Normal/Masks/Normal-2.png",
    ):
        draw_film(root / name)
    return root


def images_of(out: Path) -> dict[str, dict[str, Any]]:
    """The image records by file name."""
    return {image["file_name"]: image for image in read_dataset(out / DATASET)["images"]}


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    """The rows of quality.csv by file name."""
    with (out / TABLE).open(encoding="utf-8", newline="") as table:
        return {row["file"]: row for row in csv.DictReader(table)}


# What is written


def test_the_dataset_loads_in_pycocotools_and_holds_what_the_unet_saw(
    tree: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["--src", str(tree), "--out", str(out), "--unet", str(weights), "--batch", "4"]) == 0
    printed = capsys.readouterr().out
    assert f"{out / DATASET}: 6 films" in printed and f"{out / PAGE}" in printed

    coco = COCO(str(out / DATASET))
    capsys.readouterr()
    assert {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())} == {
        1: "left_lung", 2: "right_lung",
    }  # fmt: skip
    images = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    assert len(images) == 6
    virus = images["chest_xray/train/PNEUMONIA/person12_virus_34.jpeg"]
    sister = images["chest_xray/val/PNEUMONIA/person12_virus_35.jpeg"]
    assert virus.items() >= {
        "height": 96, "width": 80, "collection": "chest_xray", "split": "train", "label": "PNEUMONIA",
        "patient": "person12", "inverted": False, "spacing_mm": None, "agreement": 1.0,
    }.items()  # fmt: skip
    assert virus["group"] == sister["group"] == min(virus["id"], sister["id"]), "one patient, one group"
    assert all(0 < image["id"] < 2**53 for image in images.values())
    assert all(0 < annotation["id"] < 2**53 for annotation in coco.anns.values())

    for image in images.values():
        root = out / coco.dataset["info"]["roots"][image["root"]]
        film = read_film(root / image["file_name"])
        votes = DarkFields().predict_on_batch(prepare(film)[None])[None, 0, :, :, 0]
        expected = find_lungs(votes, *film.shape)
        assert sorted(expected) == [LEFT_LUNG, RIGHT_LUNG]
        records = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert sorted(record["category_id"] for record in records) == sorted(expected)
        assert image["quality"] in STATUSES and bool(image.get("reasons")) == (image["quality"] != ACCEPTED)
        for record in records:
            mask = decode_mask(record["segmentation"])
            np.testing.assert_array_equal(mask, expected[record["category_id"]])
            rows, columns = np.nonzero(mask)
            x, y, width, height = record["bbox"]
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert record["area"] == mask.sum() == coco.annToMask(record).sum()

    info = coco.dataset["info"]
    assert info["laterality"] == "patient"
    assert info["unet"][0]["file"] == weights.name and len(info["unet"][0]["sha256"]) == 64
    assert info["unet"][0]["encoder"] == "efficientnetb0"
    assert {"tensorflow", "keras", "segmentation_models", "numpy"} <= info["versions"].keys()
    assert str(tree) in info["command"] and info["date_created"]
    counts = info["counts"]
    assert counts["films"] == 6 == counts["two_lungs"] == sum(counts[status] for status in STATUSES)

    rows = rows_of(out)
    assert rows.keys() == images.keys()
    for name, row in rows.items():
        assert row["status"] == images[name]["quality"] and int(row["group"]) == images[name]["group"]
        assert float(row["agreement"]) == images[name]["agreement"]
    assert "person12_virus_34" in (out / PAGE_FILES / "index.js").read_text(encoding="ascii")


def test_laterality_image_names_the_same_lungs_the_other_way_round(tree: Path, weights: Path, tmp_path: Path) -> None:
    lungs = {}
    for laterality in ("patient", "image"):
        out = tmp_path / laterality
        arguments = ["--src", str(tree), "--out", str(out), "--unet", str(weights), "--laterality", laterality]
        assert main(arguments) == 0
        dataset = read_dataset(out / DATASET)
        assert dataset["info"]["laterality"] == laterality
        lungs[laterality] = {
            (record["image_id"], record["category_id"]): record["segmentation"]["counts"]
            for record in dataset["annotations"]
        }
    swapped = {(film, LEFT_LUNG + RIGHT_LUNG - lung): mask for (film, lung), mask in lungs["image"].items()}
    assert swapped == lungs["patient"] and swapped


def test_equal_paths_under_two_roots_get_two_ids_that_stay_when_films_are_added(weights: Path, tmp_path: Path) -> None:
    roots = [tmp_path / "one" / "films", tmp_path / "two" / "films"]
    for root in roots:
        draw_film(root / "1.png")
    draw_film(roots[1] / "2.png", height=70)
    out = tmp_path / "out"
    arguments = ["--src", *map(str, roots), str(tmp_path / "one"), "--out", str(out), "--unet", str(weights)]

    def ids() -> dict[Path, int]:
        dataset = read_dataset(out / DATASET)
        folders = [out / root for root in dataset["info"]["roots"]]
        return {
            (folders[image["root"]] / image["file_name"]).resolve(): image["id"] for image in dataset["images"]
        }  # fmt: skip

    assert main(arguments) == 0
    before = ids()
    assert before.keys() == {(root / "1.png").resolve() for root in roots} | {(roots[1] / "2.png").resolve()}
    assert len(set(before.values())) == 3, "the film that a third root holds too is taken once"
    draw_film(roots[0] / "2.png", height=80)  # whose id is taken by now
    assert main(arguments) == 0
    after = ids()
    assert before.items() <= after.items() and len(set(after.values())) == 4


def test_an_ensemble_votes_and_needs_no_mirrored_films(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three members are one network: whatever the third says, the majority is what that network says."""

    class BrightFields(DarkFields):
        def predict_on_batch(self, inputs: np.ndarray) -> np.ndarray:
            return 1 - super().predict_on_batch(inputs)

    asked: list[int] = []

    def load(path: Path) -> DarkFields:
        return BrightFields() if path == other else DarkFields()

    probabilities = pipeline.probabilities

    def counted(members: Any, inputs: np.ndarray) -> np.ndarray:
        asked.append(len(inputs))
        return probabilities(members, inputs)

    monkeypatch.setattr(ensemble, "load_unet", load)
    monkeypatch.setattr(pipeline, "probabilities", counted)
    dark, other = (write_weights(tmp_path / name) for name in ("dark.weights.h5", "other.weights.h5"))
    found = []
    for members in ([dark], [dark, other, dark]):
        out = tmp_path / str(len(members))
        assert main(["--src", str(tree), "--out", str(out), "--unet", *map(str, members), "--batch", "3"]) == 0
        found.append(read_dataset(out / DATASET))
        assert len(found[-1]["info"]["unet"]) == len(members)
    assert found[0]["annotations"] == found[1]["annotations"] != []
    assert asked == [6, 6, 3, 3]
    agreements = [[image["agreement"] for image in dataset["images"]] for dataset in found]
    assert all(alone > voted for alone, voted in zip(*agreements, strict=True))


def test_groups_join_copies_and_patients() -> None:
    """Film 2 copies 0, and film 3 is of 2's patient; film 4 of the same number is in another collection."""
    ids = [70, 60, 50, 40, 30, 20]
    patients = [("a", ""), ("a", "p2"), ("b", "p1"), ("b", "p1"), ("a", "p1"), ("a", "")]
    assert group_films(ids, [0, 1, 0, 3, 4, 5], patients) == [40, 60, 40, 40, 30, 20]
    assert group_films([], [], []) == []


def test_spacing_is_kept_and_no_patient_is_named(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "src" / "film.dcm"
    path.parent.mkdir()
    write_dicom(
        path, film_of().astype(np.uint16), "MONOCHROME2", 8, PatientName="Secret^Sally", PatientID="SECRET-1",
        PatientBirthDate="19700101", PixelSpacing=[0.2, 0.143],
    )  # fmt: skip
    out = tmp_path / "out"
    assert main(["--src", str(tmp_path / "src"), "--out", str(out), "--unet", str(weights)]) == 0
    assert images_of(out)["film.dcm"]["spacing_mm"] == [0.2, 0.143]
    for written in filter(Path.is_file, out.rglob("*")):
        content = written.read_bytes().lower()
        assert not any(word in content for word in (b"secret", b"sally", b"19700101")), written.name


# Options


def test_other_thresholds_need_no_unet(
    tree: Path, weights: Path, lenient: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["--src", str(tree), "--out", str(tmp_path / "out"), "--unet", str(weights)]
    assert main(arguments) == 0
    images = images_of(tmp_path / "out").values()
    assert len(images) == 6 and not any(image["quality"] == ACCEPTED for image in images), "a drawing is no chest"
    assert all(image["reasons"] for image in images)

    monkeypatch.setattr(ensemble, "load_unet", pytest.fail)
    assert main([*arguments, "--config", str(lenient)]) == 0
    images = images_of(tmp_path / "out").values()
    assert len(images) == 6 and all(image["quality"] == ACCEPTED and "reasons" not in image for image in images)
    assert read_dataset(tmp_path / "out" / DATASET)["info"]["quality"]["min_agreement"] == 0

    capsys.readouterr()
    lenient.write_text("quality: {min_agrement: 0}", encoding="utf-8")
    assert main([*arguments, "--config", str(lenient)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and "min_agreement" in errors[0]


def test_exports(tree: Path, weights: Path, lenient: Path, tmp_path: Path) -> None:
    """Both exports hold what training reads; a moved folder of copies needs the films no more."""
    out = tmp_path / "out"
    arguments = ["--src", str(tree), "--out", str(out), "--unet", str(weights), "--config", str(lenient)]
    for _ in range(2):  # as a run that goes on does
        assert main([*arguments, "--export", "legacy", "--copy-images", "64"]) == 0
    moved = out.rename(tmp_path / "moved")
    tree.rename(tmp_path / "gone")
    images = read_dataset(moved / DATASET)["images"]
    assert len(images) == 6
    for image in images:
        assert (image["height"], image["width"]) == read_film(moved / image["file_name"]).shape == (64, 53)
    copied = read_records(moved / DATASET, "patient")
    assert len(copied) == 6 and all(record.path.is_file() for record in copied)
    assert len(read_records(moved / LEGACY, "image")) == 6


def test_films_in_the_output_folder_are_no_films_of_the_source(weights: Path, tmp_path: Path) -> None:
    draw_film(tmp_path / "a.png")
    arguments = ["--src", str(tmp_path), "--out", str(tmp_path / "out"), "--unet", str(weights), "--copy-images", "64"]
    for _ in range(2):
        assert main(arguments) == 0
        assert len(read_dataset(tmp_path / "out" / DATASET)["images"]) == 1


# Bad input


@needs_unet
def test_every_hostile_file_gets_its_answer(
    own_unet: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "hostile" / "images", tmp_path / "out"
    hostile.make_hostile_folder(source)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (no_unet := tmp_path / "torn.hdf5").write_bytes(b"no weights")
    assert main(["--src", str(source), "--out", str(out), "--unet", str(no_unet), str(shipped_unet())]) == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**20, "the bomb would take 3.6 GB"
    errors = capsys.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in errors)
    assert sum(line.startswith(f"{no_unet}: ") for line in errors) == 1
    for name, words in hostile.SKIPPED.items():
        told = [line for line in errors if f"{source / name}: " in line]
        assert len(told) == 1 and told[0].startswith("skipped ") and words in told[0] and "; " in told[0], name
    assert not any(name in line for name in hostile.NEVER_LOOKED_AT for line in errors)

    dataset = read_dataset(out / DATASET)
    images = images_of(out)
    assert images.keys() == set(hostile.FILMS)
    assert {Path(record["file"]).name for record in dataset["info"]["skipped"]} == hostile.SKIPPED.keys()
    assert dataset["info"]["counts"]["skipped"] == len(hostile.SKIPPED)
    assert {name for name, image in images.items() if image["inverted"]} == {hostile.INVERTED}
    assert len({images[name]["group"] for name in hostile.SAME_FILM}) == 1
    assert len({image["group"] for image in images.values()}) > len(images) - len(hostile.SAME_FILM)
    for name in hostile.NO_CHEST:
        assert images[name]["quality"] == REJECTED and images[name]["reasons"], name
    for name in ("half_lung_only.png", "rotated_90.png"):
        assert images[name]["quality"] != ACCEPTED and images[name]["reasons"], name
    for name in (*hostile.SAME_FILM, "name with spaces & ünïcode 폐.png"):
        assert images[name]["quality"] == ACCEPTED, (name, images[name])
    page = (out / PAGE).read_text(encoding="utf-8")
    assert r"name with spaces & \u00fcn\u00efcode \ud3d0.png" in (out / PAGE_FILES / "index.js").read_text(encoding="ascii")
    assert "claims 60000 x 60000 pixels" in page


def test_a_path_that_is_not_there_stops_the_command_before_any_work(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_film(tmp_path / "src" / "a.png")
    there, out = str(tmp_path / "src"), tmp_path / "out"
    for arguments in (
        ["--src", there, "--unet", str(weights), str(tmp_path / "typo.hdf5")],
        ["--src", there, str(tmp_path / "typo"), "--unet", str(weights)],
    ):
        assert main([*arguments, "--out", str(out)]) == 1
        (error,) = [line for line in capsys.readouterr().err.splitlines() if "typo" in line]
        assert "there is no such file" in error and "; " in error
        assert not out.exists()


@pytest.mark.parametrize("case", ["no folder", "no film", "no film that opens", "no weights", "no folder to write to"])
def test_where_nothing_can_be_done_the_status_is_1(
    case: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, unet, out = tmp_path / "src", weights, tmp_path / "out"
    if case != "no folder":
        source.mkdir()
        (source / "notes.txt").write_text("no film")
        if case == "no film that opens":
            (source / "a.png").touch()
        elif case != "no film":
            draw_film(source / "a.png")
    if case == "no weights":
        unet = tmp_path / "absent.hdf5"
    if case == "no folder to write to":
        out.write_text("a file where the folder should be")
    assert main(["--src", str(source), "--out", str(out), "--unet", str(unet)]) == 1
    errors = problems(capsys.readouterr().err)
    assert 1 <= len(errors) <= 3 and all("; " in line for line in errors), errors
    assert not (out / DATASET).exists()


def test_wrong_arguments_have_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = (["--batch", "0"], ["--laterality", "mine"], ["--export", "other"], ["--copy-images", "-1"])
    for arguments in ([], *(["--src", str(tmp_path), *more] for more in wrong)):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "--src" in capsys.readouterr().err


def test_the_launcher_runs_and_help_needs_no_tensorflow() -> None:
    code = "import sys; sys.argv = ['create_dataset.py', '--help']\nimport runpy\n"
    code += "try: runpy.run_path('create_dataset.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--laterality" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


# The U-Net that ships


@needs_unet
def test_the_unet_says_the_same_of_a_film_whatever_lies_beside_it(own_unet: keras.Model) -> None:
    one, two, three = (pipeline.read(source) for source in find_films(PHANTOMS[0].parent)[:3])
    votes, mirrored = pipeline.predict_votes([own_unet], [one, two], BATCH)
    assert votes.shape == mirrored.shape == (1, 2, 256, 256)
    for films, place in (([two], 0), ([two, three], 0), ([three, two], 1)):
        again, again_mirrored = pipeline.predict_votes([own_unet], films, BATCH)
        np.testing.assert_array_equal(again[:, place], votes[:, 1])
        np.testing.assert_array_equal(again_mirrored[:, place], mirrored[:, 1])
    turned = two._replace(inputs=two.inputs[:, ::-1])
    back = pipeline.predict_votes([own_unet], [turned], BATCH)[0][:, 0, :, ::-1]
    np.testing.assert_array_equal(back, mirrored[:, 1])


@needs_unet
@pytest.mark.skipif(not PHANTOMS, reason="data/phantoms is not here; scripts/make_phantoms.py draws it")
def test_the_shipped_unet_finds_both_lungs_of_the_phantoms(own_unet: keras.Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--src", str(PHANTOMS[0].parent), "--out", str(out)]) == 0
    dataset = read_dataset(out / DATASET)
    counts = dataset["info"]["counts"]
    assert counts["films"] == len(PHANTOMS)
    assert counts["accepted"] >= 0.9 * len(PHANTOMS)
    assert (out / DATASET).stat().st_size < 4096 * len(PHANTOMS)
    names = {image["id"]: image["file_name"] for image in dataset["images"]}
    dices = []
    for record in dataset["annotations"]:
        path = PHANTOMS[0].parent.parent / "masks" / names[record["image_id"]]
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == record["category_id"]
        mask = decode_mask(record["segmentation"])
        dices.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(dices) > 0.9
