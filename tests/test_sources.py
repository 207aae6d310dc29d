"""What is a film in a folder tree, and what its folders and its name say of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from create_dataset.sources import SourceError, describe, find_films, patient_of


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
        ("/data/chest_xray", "chest_xray/train/NORMAL/a.jpeg", ("chest_xray", "train", "NORMAL")),
        ("/data", "chest-xray-pneumonia/chest_xray/test/NORMAL/a.jpeg", ("chest_xray", "test", "NORMAL")),
        ("/data", "covid-patients-chest-xray/Data/train/COVID/1.jpg", ("covid-patients-chest-xray", "train", "COVID")),
        ("/data", "covid-patients-chest-xray/Normal/1.jpg", ("covid-patients-chest-xray", "", "Normal")),
        ("/data/covid-patients-chest-xray", "Data/Test/Normal/1.jpg", ("covid-patients-chest-xray", "test", "Normal")),
        ("/data", "COVID-19_Radiography_Dataset/Lung_Opacity/images/Lung_Opacity-1.png",
         ("COVID-19_Radiography_Dataset", "", "Lung_Opacity")),
        ("/data/COVID-19_Radiography_Dataset/COVID", "images/COVID-1.png",
         ("COVID-19_Radiography_Dataset", "", "COVID")),
        ("/data/NIH", "images_001/images/00000001_000.png", ("NIH", "", "")),
        ("/data", "NIH/images_012/images/00000001_000.png", ("NIH", "", "")),
        ("/data/NIH/images_001/images", "00000001_000.png", ("NIH", "", "")),
        ("/data", "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", ("CheXpert-v1.0", "train", "")),
        ("/data", "mimic/files/p10/p10000032/s50414267/02aa804e.dcm", ("mimic", "", "")),
        ("/data", "hospital/DICOM/PA000001/ST000001/SE000001/IM000001", ("hospital", "", "")),
        ("/data", "hospital/0042/20200131/IM1.dcm", ("hospital", "", "")),
        ("/data", "hospital/2019/fibrosis/a.dcm", ("hospital", "", "fibrosis")),
        ("/data", "a/train_set/normal/a.png", ("a", "train", "normal")),
        ("/my films", "a.png", ("my films", "", "")),
    ],
)  # fmt: skip
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
        ("BACTERIA-1351146-0003.jpeg", "BACTERIA-1351146"),
        ("ryct.2020200034.fig5-day4.jpeg", "ryct.2020200034.fig5"),
        ("Viral Pneumonia-10.png", ""),
        ("CHNCXR_0001_0.png", ""),
        ("019.jpeg", ""),
        ("Normal-4.png", ""),
    ],
)
def test_file_names_tell_the_patient(file_name: str, patient: str) -> None:
    assert patient_of(file_name) == patient


@pytest.mark.parametrize(
    ("file_name", "patient"),
    [
        ("CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", "patient00001"),
        ("mimic/files/p10/p10000032/s50414267/02aa804e.dcm", "p10000032"),
        ("hospital/DICOM/PA000001/ST000001/SE000001/IM000001", "PA000001"),
        ("hospital/0042/20200131/IM1.dcm", "0042"),
        ("hospital/p01/IM1.dcm", "p01"),
        ("hospital/0042/person7_virus_1.jpeg", "person7"),
        ("hospital/2019/a.dcm", ""),
        ("hospital/20190131/a.dcm", ""),
        ("hospital/12/a.dcm", ""),
        ("hospital/batch 001/a.dcm", ""),
        ("hospital/images_001/a.dcm", ""),
    ],
)
def test_folders_tell_the_patient(file_name: str, patient: str) -> None:
    assert describe(Path("/data"), file_name).patient == patient


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


def test_the_real_kaggle_tree(shared_data: Path) -> None:
    films = find_films(shared_data / "kaggle")
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


def lay_out(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.rpartition("/")[2].encode() * 9)


def test_chest_xray_inside_chest_xray_is_taken_once(tmp_path: Path) -> None:
    films = ["test/NORMAL/IM-0001-0001.jpeg", "train/PNEUMONIA/person1_virus_6.jpeg", "val/NORMAL/IM-0003-0001.jpeg"]
    kaggle = tmp_path / "kaggle"
    lay_out(kaggle / "chest_xray", *films, "__MACOSX/chest_xray/train/NORMAL/._IM-0001-0001.jpeg")
    shutil.copytree(kaggle / "chest_xray", kaggle / "chest_xray" / "chest_xray")
    lay_out(kaggle / "chest_xray" / "chest_xray", "train/NORMAL/only here.jpeg")
    (kaggle / "chest_xray" / "chest_xray" / "val" / "NORMAL" / "IM-0003-0001.jpeg").write_bytes(b"another film")
    kept = [*films, "chest_xray/train/NORMAL/only here.jpeg", "chest_xray/val/NORMAL/IM-0003-0001.jpeg"]
    for root, above in (kaggle, "chest_xray/"), (kaggle / "chest_xray", ""):
        lines: list[str] = []
        found = find_films(root, lines.append)
        assert [source.file_name for source in found] == sorted(above + name for name in kept)
        assert {source.collection for source in found} == {"chest_xray"} and all(source.split for source in found)
        doubled = kaggle / "chest_xray" / "chest_xray"
        assert lines == [
            f"{root}: passed over 2 hidden; no films by their place or name",
            f"{doubled}: 2 of its films lie in {doubled.parent} too; each is taken once",
        ]
    assert len(find_films(kaggle / "chest_xray" / "chest_xray", lines.append)) == 4 and len(lines) == 3


def test_the_radiography_dataset(tmp_path: Path) -> None:
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for label in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        lay_out(root, f"{label}/images/{label}-1.png", f"{label}/masks/{label}-1.png", f"{label}.metadata.xlsx")
    lay_out(root, "README.md.txt")
    found = [(source.collection, source.split, source.label, source.patient) for source in find_films(tmp_path)]
    labels = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert found == [("COVID-19_Radiography_Dataset", "", label, "") for label in labels]
