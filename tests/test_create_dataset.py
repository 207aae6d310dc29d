"""From folders to dataset.json: what is a film, what is written, how bad files and being stopped are borne."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from pycocotools.coco import COCO

from create_dataset import command
from create_dataset.command import OWN_UNET, main
from create_dataset.lungs import find_lungs
from create_dataset.sources import SourceError, describe, find_films, patient_of
from create_dataset.unet import build_unet, load_unet, prepare, probabilities
from mask_rcnn.coco import LEFT_LUNG, RIGHT_LUNG, decode_mask, read_dataset
from mask_rcnn.radiograph import read_film

REPOSITORY = Path(__file__).resolve().parents[1]
PHANTOMS = sorted((REPOSITORY / "data" / "phantoms" / "images").glob("*.png"))
KAGGLE = REPOSITORY.parent / "shared" / "data" / "kaggle"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net of random weights: its lungs are nonsense, but films go in and masks of every kind come out."""
    keras.utils.set_random_seed(5)
    path = tmp_path_factory.mktemp("unet") / "random.weights.h5"
    build_unet().save_weights(path)
    return path


@pytest.fixture(scope="module")
def load_once() -> Callable[[Path], keras.Model]:
    return functools.cache(load_unet)  # building the network takes longer than all else in these tests


@pytest.fixture(autouse=True)
def _load_once(monkeypatch: pytest.MonkeyPatch, load_once: Callable[[Path], keras.Model]) -> None:
    monkeypatch.setattr(command, "load_unet", load_once)


def draw_film(path: Path, height: int = 96, width: int = 80) -> Path:
    """Two dark fields in a bright chest, a little different for each path."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    film = rng.integers(150, 190, (height, width), np.uint8)
    for x in (0.3, 0.7):
        centre = (int(width * x), height // 2)
        cv2.ellipse(film, centre, (width // 7, height // 3), 0, 0, 360, int(rng.integers(30, 90)), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, film)[1].tobytes())
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


def read_info(out: Path) -> dict[str, Any]:
    return read_dataset(out / "dataset.json")["info"]


# What is a film, and what its folders say


def described(root: str, file_name: str) -> tuple[str, str, str]:
    source = describe(Path(root), file_name)
    return source.collection, source.split, source.label


@pytest.mark.parametrize(
    ("root", "file_name", "expected"),
    [
        ("/data/kaggle", "chest_xray/train/NORMAL/a.jpeg", ("chest_xray", "train", "NORMAL")),
        ("/data", "kaggle/chest_xray/val/PNEUMONIA/a.jpeg", ("chest_xray", "val", "PNEUMONIA")),
        ("/data/chest_xray", "test/NORMAL/a.jpeg", ("chest_xray", "test", "NORMAL")),
        ("/data/chest_xray/train", "NORMAL/a.jpeg", ("chest_xray", "train", "NORMAL")),
        ("/data/chest_xray/train/NORMAL", "a.jpeg", ("chest_xray", "train", "NORMAL")),
        ("/data/kaggle", "Covid19-dataset/test/Viral Pneumonia/1.png", ("Covid19-dataset", "test", "Viral Pneumonia")),
        ("/data/kaggle", "Radiography/Normal/images/1.png", ("Radiography", "", "Normal")),
        ("/data/Radiography", "Normal/images/1.png", ("Radiography", "", "Normal")),
        ("/data", "QU-Ex/Validation/COVID-19/images/1.png", ("QU-Ex", "val", "COVID-19")),
        ("/data", "heart/Cardiomegaly/1.png", ("heart", "", "Cardiomegaly")),
        ("/data", "heart/Cardiomegaly/train/1.png", ("heart", "train", "Cardiomegaly")),
        ("/data", "heart/training/Cardiomegaly/1.png", ("heart", "train", "Cardiomegaly")),
        ("/data", "shenzhen/images/1.png", ("shenzhen", "", "")),
        ("/data/shenzhen/images", "1.png", ("shenzhen", "", "")),
        ("/data/shenzhen", "1.png", ("shenzhen", "", "")),
    ],
)
def test_folders_tell_collection_split_and_label(root: str, file_name: str, expected: tuple[str, str, str]) -> None:
    assert described(root, file_name) == expected


@pytest.mark.parametrize(
    ("file_name", "patient"),
    [
        ("person12_virus_34.jpeg", "person12"),
        ("person1_bacteria_2.jpeg", "person1"),
        ("IM-0326-0001.jpeg", "IM-0326"),
        ("NORMAL2-IM-0825-0001.jpeg", "NORMAL2-IM-0825"),
        ("NORMAL2-IM-1094-0001-0002.jpeg", "NORMAL2-IM-1094"),
        ("00000013_005.png", "00000013"),
        ("019.jpeg", ""),
        ("Normal-4.png", ""),
    ],
)
def test_file_names_tell_the_patient(file_name: str, patient: str) -> None:
    assert patient_of(file_name) == patient


def test_only_films_are_found(tmp_path: Path) -> None:
    films = ["a film 폐 & ü.PNG", "b/1.jpeg", "b/2.tif", "b/c/3.dcm", "b/unmasked film.png"]
    others = [
        "masks/1.png", "b/Mask/1.png", "b/Lung Masks/1.png", "b/1_mask.png", "__MACOSX/b/._1.jpeg", "b/.DS_Store",
        "b/._1.jpeg", "Thumbs.db", "metadata.csv", "b/README", ".cache/1.png",
    ]  # fmt: skip
    for name in films + others:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes(b"x" * 200)
    (tmp_path / "src" / "b" / "IM000001").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    (tmp_path / "src" / "b" / "loop").symlink_to(tmp_path / "src")
    (tmp_path / "src" / "z again.png").symlink_to(tmp_path / "src" / films[0])
    found = find_films(tmp_path / "src")
    assert [source.file_name for source in found] == sorted([*films, "b/IM000001"])
    assert all(source.path.is_file() for source in found)
    assert [source.file_name for source in find_films(tmp_path / "src" / "b" / "1.jpeg")] == ["1.jpeg"]
    assert find_films(tmp_path / "src" / "masks") == find_films(tmp_path / "src" / "masks" / "1.png") == []
    with pytest.raises(SourceError, match="no such file or folder; "):
        find_films(tmp_path / "absent")


def test_a_name_that_is_no_utf_8_is_told_and_left_out(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    lines: list[str] = []
    assert find_films(tmp_path, lines.append) == []
    assert len(lines) == 1 and "no UTF-8" in lines[0] and lines[0].isascii()


@pytest.mark.skipif(not KAGGLE.exists(), reason="the real Kaggle films are in ../shared/data, which is not here")
def test_the_real_kaggle_tree() -> None:
    films = find_films(KAGGLE)
    assert len(films) == 300 + 170 + 12
    assert not any("masks" in source.file_name.lower() for source in films)
    by_collection = {name: [s for s in films if s.collection == name] for name in {s.collection for s in films}}
    assert {name: {s.label for s in found} for name, found in by_collection.items()} == {
        "chest_xray": {"NORMAL", "PNEUMONIA"},
        "Covid19-dataset": {"Covid", "Normal", "Viral Pneumonia"},
        "COVID-19_Radiography_Dataset": {"Normal"},
    }
    assert {s.split for s in by_collection["chest_xray"]} == {"train", "val", "test"}
    assert all(s.patient for s in by_collection["chest_xray"])


# What is written


def test_the_dataset_loads_in_pycocotools_and_holds_what_the_unet_saw(
    tree: Path, weights: Path, load_once: Callable[[Path], keras.Model], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert main(["--src", str(tree), "--out", str(out), "--unet", str(weights), "--batch", "4"]) == 0
    printed = capsys.readouterr().out
    assert f"{out / 'dataset.json'}: 6 films" in printed

    coco = COCO(str(out / "dataset.json"))
    capsys.readouterr()
    assert {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())} == {
        1: "left_lung", 2: "right_lung",
    }  # fmt: skip
    images = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    assert len(images) == 6
    virus = images["chest_xray/train/PNEUMONIA/person12_virus_34.jpeg"]
    told = {key: virus[key] for key in ("height", "width", "collection", "split", "label", "patient")}
    assert told == {
        "height": 96, "width": 80, "collection": "chest_xray", "split": "train", "label": "PNEUMONIA",
        "patient": "person12",
    }  # fmt: skip
    assert all(0 < image["id"] < 2**53 for image in images.values())
    assert all(0 < annotation["id"] < 2**53 for annotation in coco.anns.values())
    assert all(len(coco.getAnnIds(imgIds=image["id"])) <= 2 for image in images.values())

    for image in images.values():
        root = out / coco.dataset["info"]["roots"][image["root"]]
        film = read_film(root / image["file_name"])
        votes = probabilities([load_once(weights)], prepare(film)[None])[:, 0]
        expected = find_lungs(votes, *film.shape)
        records = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert sorted(record["category_id"] for record in records) == sorted(expected)
        assert image["quality"] == ("accepted" if len(records) == 2 else "review")
        for record in records:
            mask = decode_mask(record["segmentation"])
            # A batch and a single film round differently: a probability of almost 0.5 may fall to either side.
            assert (mask ^ expected[record["category_id"]]).mean() < 0.01
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
    assert counts["films"] == 6 == counts["two_lungs"] + counts["one_lung"] + counts["no_lung"]
    assert len(coco.anns) == 2 * counts["two_lungs"] + counts["one_lung"] > 0


def test_laterality_image_names_the_same_lungs_the_other_way_round(tree: Path, weights: Path, tmp_path: Path) -> None:
    lungs = {}
    for laterality in ("patient", "image"):
        out = tmp_path / laterality
        arguments = ["--src", str(tree), "--out", str(out), "--unet", str(weights), "--laterality", laterality]
        assert main(arguments) == 0
        dataset = read_dataset(out / "dataset.json")
        assert dataset["info"]["laterality"] == laterality
        lungs[laterality] = {
            (record["image_id"], record["category_id"]): record["segmentation"]["counts"]
            for record in dataset["annotations"]
        }
    swapped = {(film, LEFT_LUNG + RIGHT_LUNG - lung): mask for (film, lung), mask in lungs["image"].items()}
    assert swapped == lungs["patient"] and swapped


def test_image_ids_stay_when_films_are_added(tree: Path, weights: Path, tmp_path: Path) -> None:
    arguments = ["--src", str(tree), "--out", str(tmp_path / "out"), "--unet", str(weights)]

    def ids() -> dict[str, int]:
        images = read_dataset(tmp_path / "out" / "dataset.json")["images"]
        return {image["file_name"]: image["id"] for image in images}

    assert main(arguments) == 0
    before = ids()
    draw_film(tree / "a new collection" / "1.png")
    assert main(arguments) == 0
    after = ids()
    assert len(after) == len(before) + 1 == len(set(after.values()))
    assert before.items() <= after.items()


def test_equal_paths_under_two_roots_get_two_ids_and_a_shared_film_is_taken_once(weights: Path, tmp_path: Path) -> None:
    roots = [tmp_path / "one" / "films", tmp_path / "two" / "films"]
    for root in roots:
        draw_film(root / "1.png")
    out = tmp_path / "out"
    sources = [str(roots[0]), str(roots[1]), str(tmp_path / "one")]
    assert main(["--src", *sources, "--out", str(out), "--unet", str(weights)]) == 0
    dataset = read_dataset(out / "dataset.json")
    assert [image["root"] for image in dataset["images"]] == [0, 1]
    assert len({image["id"] for image in dataset["images"]}) == 2
    paths = [(out / dataset["info"]["roots"][image["root"]] / image["file_name"]) for image in dataset["images"]]
    assert [path.resolve() for path in paths] == [(root / "1.png").resolve() for root in roots]


def test_an_ensemble_votes(tree: Path, weights: Path, load_once: Callable[[Path], keras.Model], tmp_path: Path) -> None:
    """Two of three members are one network: whatever the third says, the majority is what that network says."""
    other = tmp_path / "other.weights.h5"
    member = load_once(weights)
    own = member.get_weights()
    member.set_weights([*own[:-2], -own[-2], own[-1]])  # the last convolution: lung and background change places
    member.save_weights(other)
    member.set_weights(own)
    found = []
    for members in ([weights], [weights, other, weights]):
        out = tmp_path / str(len(members))
        assert main(["--src", str(tree), "--out", str(out), "--unet", *map(str, members)]) == 0
        found.append(read_dataset(out / "dataset.json"))
        assert len(found[-1]["info"]["unet"]) == len(members)
    assert found[0]["annotations"] == found[1]["annotations"] != []


# Bad input


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def test_hostile_files_are_told_and_the_rest_goes_on(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hostile" / "images"
    good = [draw_film(source / name) for name in ("good.jpeg", "name with spaces & ünïcode 폐.png")]
    draw_film(source / "wide.png", height=40, width=2000)
    whole = good[0].read_bytes()
    bad = {
        "empty.jpeg": b"",
        "truncated.jpeg": whole[: len(whole) // 2],
        "text.png": b"this is a letter, not a film",
        "bomb.png": png_header(60000, 60000),
        "torn.dcm": b"\0" * 128 + b"DICM" + b"\xff" * 40,
    }
    for name, content in bad.items():
        (source / name).write_bytes(content)
    draw_film(source / "tiny.png", height=3, width=3)
    draw_film(source / "__MACOSX" / "x.png")
    draw_film(source / "masks" / "good.png")
    (source / "absent.png").symlink_to(tmp_path / "nowhere.png")

    out = tmp_path / "out"
    arguments = ["--src", str(tmp_path / "no such folder"), str(source), "--out", str(out)]
    assert main([*arguments, "--unet", str(tmp_path / "none.hdf5"), str(weights)]) == 0
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    for name in [*bad, "tiny.png", "absent.png"]:
        lines = [line for line in errors.splitlines() if str(source / name) in line]
        assert len(lines) == 1 and lines[0].startswith("skipped ") and "; " in lines[0], name
    assert sum("no such folder" in line for line in errors.splitlines()) == 1
    assert sum("none.hdf5" in line for line in errors.splitlines()) == 1

    dataset = read_dataset(out / "dataset.json")
    assert {image["file_name"] for image in dataset["images"]} == {path.name for path in good} | {"wide.png"}
    assert {Path(record["file"]).name for record in dataset["info"]["skipped"]} == {*bad, "tiny.png", "absent.png"}
    assert dataset["info"]["counts"]["skipped"] == 7


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
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert 1 <= len(errors.splitlines()) <= 2
    assert all("; " in line for line in errors.splitlines())
    assert not (out / "dataset.json").exists()


def test_wrong_arguments_have_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--src", str(tmp_path), "--batch", "0"], ["--src", str(tmp_path), "--laterality", "mine"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "--src" in capsys.readouterr().err


# Stopping and going on


@pytest.fixture
def batches_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the films of every batch that goes through the U-Nets."""
    seen: list[int] = []

    def counted(members: Any, inputs: np.ndarray) -> np.ndarray:
        seen.append(len(inputs))
        return probabilities(members, inputs)

    monkeypatch.setattr(command, "probabilities", counted)
    return seen


def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(
    tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--src", str(tree), "--out", str(out), "--unet", str(weights), "--batch", "2"]
    with monkeypatch.context() as patch:
        calls = iter([probabilities, probabilities])

        def stop_at_the_third(members: Any, inputs: np.ndarray) -> np.ndarray:
            try:
                return next(calls)(members, inputs)
            except StopIteration:
                raise KeyboardInterrupt from None

        patch.setattr(command, "probabilities", stop_at_the_third)
        assert main(arguments) == 130
    assert "goes on" in capsys.readouterr().err
    stopped = read_dataset(out / "dataset.json")
    assert len(stopped["images"]) == 4
    assert stopped["info"]["counts"]["not_done"] == 2

    with (out / "films.jsonl").open("a") as journal:
        journal.write('{"film": "/torn by a ki')
    assert main(arguments) == 0
    assert "4 of 6 films are done already" in capsys.readouterr().err
    whole = read_dataset(out / "dataset.json")
    assert main(["--src", str(tree), "--out", str(tmp_path / "fresh"), "--unet", str(weights), "--batch", "2"]) == 0
    fresh = read_dataset(tmp_path / "fresh" / "dataset.json")
    assert whole["images"] == fresh["images"]
    assert whole["annotations"] == fresh["annotations"]
    assert stopped["images"] == whole["images"][:4]


def test_only_what_changed_is_done_again(
    tree: Path, weights: Path, tmp_path: Path, batches_seen: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--src", str(tree), "--out", str(out), "--unet", str(weights)]
    broken = tree / "chest_xray" / "train" / "NORMAL" / "broken.png"
    broken.touch()
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert sum(batches_seen) == 6  # the second run had nothing to do

    draw_film(broken, height=50)  # mended
    changed = tree / "chest_xray" / "val" / "PNEUMONIA" / "person12_virus_35.jpeg"
    shutil.copy(draw_film(tmp_path / "other.jpeg", height=70), changed)
    (tree / "Covid19-dataset" / "test" / "Viral Pneumonia" / "0112.png").unlink()
    assert main(arguments) == 0
    assert sum(batches_seen) == 6 + 2
    heights = {image["file_name"]: image["height"] for image in read_dataset(out / "dataset.json")["images"]}
    assert len(heights) == 6
    assert heights[broken.relative_to(tree).as_posix()] == 50
    assert heights[changed.relative_to(tree).as_posix()] == 70

    capsys.readouterr()
    assert main([*arguments, "--laterality", "image"]) == 0
    assert "beginning anew" in capsys.readouterr().err
    assert sum(batches_seen) == 6 + 2 + 6
    assert read_info(out)["laterality"] == "image"


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe\x00", b"[1, 2]\n{}\n", b'{"settings": null}\n{"film": 3}\n'])
def test_a_journal_of_junk_is_begun_anew(junk: bytes, weights: Path, tmp_path: Path) -> None:
    draw_film(tmp_path / "src" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "films.jsonl").write_bytes(junk)
    assert main(["--src", str(tmp_path / "src"), "--out", str(tmp_path / "out"), "--unet", str(weights)]) == 0
    assert read_info(tmp_path / "out")["counts"]["films"] == 1


def run_launcher(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "create_dataset.py", *arguments], cwd=REPOSITORY, env=environment)


def test_the_launcher_runs_and_help_needs_no_tensorflow() -> None:
    code = "import sys; sys.argv = ['create_dataset.py', '--help']\nimport runpy\n"
    code += "try: runpy.run_path('create_dataset.py', run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--laterality" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_a_killed_run_loses_the_batch_at_hand_alone(weights: Path, tmp_path: Path, batches_seen: list[int]) -> None:
    for k in range(60):
        draw_film(tmp_path / "src" / f"{k}.png")
    out = tmp_path / "out"
    arguments = ["--src", str(tmp_path / "src"), "--out", str(out), "--unet", str(weights), "--batch", "1"]
    process = run_launcher(arguments)
    deadline = time.monotonic() + 120
    journal = out / "films.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") > 3:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    assert process.wait(60) == -signal.SIGKILL
    whole_lines = journal.read_text().splitlines(keepends=True)
    done = sum("lungs" in json.loads(line) for line in whole_lines if line.endswith("\n"))
    assert 3 <= done < 60
    assert main(arguments) == 0
    assert sum(batches_seen) == 60 - done
    assert read_info(out)["counts"]["films"] == 60


# The U-Net that ships


@pytest.mark.skipif(not OWN_UNET.exists(), reason="the U-Net is not in models/unet; scripts/train_unet.py makes it")
@pytest.mark.skipif(not PHANTOMS, reason="data/phantoms is not here; scripts/make_phantoms.py draws it")
def test_the_shipped_unet_finds_both_lungs_of_the_phantoms(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--src", str(PHANTOMS[0].parent), "--out", str(out)]) == 0
    dataset = read_dataset(out / "dataset.json")
    counts = dataset["info"]["counts"]
    assert counts["films"] == len(PHANTOMS)
    assert counts["two_lungs"] >= 0.9 * len(PHANTOMS)
    names = {image["id"]: image["file_name"] for image in dataset["images"]}
    dices = []
    for record in dataset["annotations"]:
        path = PHANTOMS[0].parent.parent / "masks" / names[record["image_id"]]
        truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) == record["category_id"]
        mask = decode_mask(record["segmentation"])
        dices.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(dices) > 0.9
