"""Whose a film is: names, folders, tables, records and patterns; and that nobody stands on both sides of the split."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import write_dicom
from PIL import Image

from mask_rcnn.config import ConfigError, config_from_dict
from mask_rcnn.dataset.coco import annotation, new_dataset
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.patient_tables import read_table
from mask_rcnn.dataset.patients import patient_of, state_patients, tell_patients
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.split import split_records, split_report
from mask_rcnn.films.names import film_stem
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.system.files import write_json

PHANTOMS = Path(__file__).resolve().parent.parent / "data" / "phantoms"
PATIENTS, FILMS = range(1, 31), range(1, 5)
NAMES = ("anna", "bert", "carl", "dora", "Doe_John")


def series(template: str, patients: Any = PATIENTS, films: Any = FILMS) -> list[tuple[str, object]]:
    """Films of each patient, and whose they are; ``{p}`` is the patient and ``{f}`` the film."""
    return [(template.format(p=patient, f=film), patient) for patient in patients for film in films]


@pytest.mark.parametrize(
    "films",
    [
        series("patient{p}_{f}.png"),
        series("Patient {p:03} ({f}).png"),
        series("p{p:03}_film{f}.png"),
        series("{p:08}_{f:03}.png"),
        series("person{p}_virus_{f}.jpeg"),
        series("s{p:04}_{f}.png"),
        series("{p}-{f}.png"),
        series("123{p:02}-{f}.png"),
        series("{p}{f}.png", films="abcd"),
        series("case_{p}_{f}.png", films="abcd"),
        series("ID{p:05}_{f}.png", films=("AP", "LAT")),
        series("{p}_2020-01-0{f}_ap.png"),
        series("chest_xray_{p}_{f}.png"),
        series("icu{p}_{f:02}.png", films=range(30)),
        series("sub-S{p:02}/ses-E0{f}/mod-rx/sub-S{p:02}_ses-E0{f}_run-1_vp-ap.png"),
        series("sub-S{p:02}_ses-E0{f}_run-1_vp-ap.png"),
        series("train/patient{p:05}/study{f}/view1_frontal.jpg"),
        series("files/p10/p100000{p:02}/s5041426{f}/02aa804e.dcm"),
        series("images/{p}/film{f}.png"),
        series("images/{p}/{f}.png", NAMES),
        series("{p:04}/{f}.png", range(1900, 2400, 10)),
        series("{p:04}/{f}.png", range(1, 2500, 7)),
        series("DICOM/PA{p:06}/ST000001/SE000001/IM{f:06}"),
        series("DICOM/PA{p:06}/ST00000{f}/SE000001/IM000001"),
        series("PAT{p:05}/ST00000{f}/SE000001/IM000001"),
        series("PT{p:06}/ST00000{f}/SE000001/IM000001"),
        series("P{p:07}/S000000{f}/I0000001"),
        series("{p:08}/0000000{f}/00000001"),
        series("DICOM/{p}/A/{f}", "ABC"),
        series("DICOM/{p}/{f}/A", "AB"),
        series("DICOM/S{p:05}/SER00001/I{f:05}"),
        series("E{p:05}/I{f:05}"),
        series("{p}/2020013{f}/IM1.dcm", NAMES),
        series("{p}/2020-01-3{f}/IM1", NAMES),
        series("{p}/{f:03}/IM1", NAMES),
        series("{p}/CHEST_{f}/PA/IM-0001-0001.dcm", NAMES),
        series("{p}/IM-0001-000{f}.dcm", NAMES),
        series("cd{p}/DICOM/PA000001/ST000001/SE000001/IM{f:06}"),
        series("{p}/DICOM/PA000001/ST00000{f}/SE000001/IM000001", NAMES),
        [(f"cd{c}/DICOM/PA00000{n}/ST000001/IM{f}", (c, n)) for c in (1, 2) for n in (1, 2, 3) for f in (1, 2)],
        [(f"cd{c}/0000000{n}/00000001/0000000{f}", (c, n)) for c in (1, 2) for n in (1, 2, 3) for f in (1, 2)],
        [(f"{year}/{p:04}/{f}.png", p) for year in (2018, 2019) for p in PATIENTS for f in (1, 2)],
        [(f"{label}/{p}_{f}.png", p) for f, label in enumerate(("fibrosis", "edema", "mass", "cyst")) for p in PATIENTS],
        [(f"Bonn/202001{day}/PA000001/ST000001/IM{f}", day) for day in range(10, 31) for f in FILMS],
        series("DICOM/{p}/A/{f}", "A"),
        [(f"images/{7919 * p * f + 0xa0000000:08x}-patient{p}_{f}.png", p) for p in PATIENTS for f in FILMS],
        [(f"p{p:03}_{f}_png.rf.{p * f:032x}.jpg", p) for p in PATIENTS for f in FILMS],
        series("202001{p:02}/PA000001/ST000001/SE000001/IM{f:06}"),
        series("1.2.840.{p}.9.9/1.2.840.{p}.{f}.9/1.2.840.{p}.{f}.1.dcm"),
        series("NORMAL/patient{p:03}/{f}.png"),
        series("DICOM/PA000001/ST00000{p}/SE000001/IM{f:06}", [1]),
        series("DICOM/S{p:05}/SER00001/I{f:05}", [1]),
    ],
    ids=lambda films: films[0][0],
)
def test_patients_are_told_apart_and_together(films: list[tuple[str, object]]) -> None:
    told = tell_patients([name for name, _ in films])
    assert all(told)
    pairs = {(own, patient) for own, (_, patient) in zip(told, films, strict=True)}
    assert len(pairs) == len(set(told)) == len({patient for _, patient in films})


@pytest.mark.parametrize(
    "template",
    ["film_{:03}", "IMG_{:04}", "image{}", "cxr_{:04}", "phantom_{:04}", "JPCLN{:03}", "{}", "{:05}", "Normal-{}",
     "COVID-19_{}", "img ({})", "1 ({})", "IM-0001-{:04}", "set1_{:03}", "s1_{:03}", "p1_{}", "train_{}", "1.2.3.{}",
     "IMG_20200131_{:06}", "20200131_{:03}", "001_{:03}", "CHNCXR_{:04}_0", "MCUCXR_{:04}_1", "IMAGES/IM{:05}", "Doe/{}",
     "20200131/IM{:04}", "001/film_{:03}", "/data/2345/images/{}"],
)  # fmt: skip
def test_a_plain_series_is_a_film_each(template: str) -> None:
    names = [f"{template.format(k)}.png" for k in range(1, 201)]
    assert set(tell_patients(names)) == {""}


def test_classes_and_sets_are_no_patients() -> None:
    for names in (
        [f"{label}/{k}.png" for label in ("fibrosis", "edema", "mass", "normal") for k in range(50)],
        [f"{label}/images/{label}-{k}.png" for label in ("COVID", "Normal", "Viral Pneumonia") for k in range(50)],
        [f"set{k % 6}_{k:03}.png" for k in range(300)],
        [f"fold{k % 5}/{k:03}.png" for k in range(40)],
        [f"COVID-19_{k}.png" for k in range(150)] + [f"NORMAL_{k}.png" for k in range(150)],
        [f"{day}/IM{k:04}" for day in ("20200131", "20200301", "20200302", "20200303") for k in range(9)],
    ):
        assert set(tell_patients(names)) == {""}, names[0]


def test_a_series_beside_patients_stays_a_series() -> None:
    names = [f"film_{k:03}.png" for k in range(100)] + [f"p{k // 5:03}_{k % 5}.png" for k in range(100)]
    told = tell_patients(names)
    assert set(told[:100]) == {""} and len(set(told[100:])) == 20


@pytest.mark.parametrize(
    ("name", "patient"),
    [("patient12_3.png", "patient12"), ("p012_film4.png", "p012"), ("12345-2.png", "12345"), ("case_7_b.png", "case_7"),
     ("ID00123_AP.png", "ID00123"), ("sub-S03_ses-E06_run-1_vp-ap.png", "sub-S03"), ("20200131_001.png", ""),
     ("identity.png", ""), ("film.png", ""), ("suburb 12.png", "")],
)  # fmt: skip
def test_a_name_by_itself(name: str, patient: str) -> None:
    assert patient_of(name) == patient


@pytest.mark.parametrize(
    ("name", "stem"),
    [("a.png", "a"), ("a.b.JPG", "a.b"), ("1.2.3.10", "1.2.3.10"), ("1.2.3.dcm", "1.2.3"), ("IM000001", "IM000001"),
     (".png", ".png"), ("p/a.png", "p/a"), ("a.png.png", "a.png")],
)  # fmt: skip
def test_a_suffix_is_only_a_films(name: str, stem: str) -> None:
    assert film_stem(name) == stem


# Tables


@pytest.mark.parametrize(
    ("heading", "row"),
    [("file,patient", "{path},{p}"), ("name,class,patient", "{stem},x,{p}"), ("Image Index,Patient ID", "{name},{p}"),
     ("id,image,patient", "7,{name},{p}"),
     ("image_id;subject_id", "{stem};{p}"), ("PatientID\tfilename", "{p}\t{name}"), ("\ufefffilm,subject", "{stem},{p}")],
)  # fmt: skip
def test_a_table_tells_patients_by_any_of_its_names(tmp_path: Path, heading: str, row: str) -> None:
    names = [f"images/film_{k:03}.png" for k in range(12)]
    paths = [Path(name) for name in names]
    rows = [row.format(path=path, name=path.name, stem=path.stem, p=f"x{k // 3}") for k, path in enumerate(paths)]
    (tmp_path / "films.csv").write_text("\n".join([heading, *rows]), encoding="utf-8")
    assert read_table(tmp_path, names) == ("films.csv", {name: f"x{k // 3}" for k, name in enumerate(names)})


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"file,patient\nb,1\n", "names none of the films, such as images/a.png"),
     (b"patient,age\n1,2\n", "has a column 'patient' and none for the film"),
     (b"file,patient\na,1\na,2\n", "gives a to patient 1 and to 2"),
     (b"file,patient\n\xff\xfe,1\n", "not readable as a table")],
)  # fmt: skip
def test_tables_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "patients.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=said) as caught:
        read_table(tmp_path, ["images/a.png"])
    assert str(tmp_path / "patients.csv") in str(caught.value) and "; " in str(caught.value)


def test_a_table_without_patients_says_nothing(tmp_path: Path) -> None:
    assert read_table(tmp_path, ["a.png"]) == ("", {})
    (tmp_path / "films.csv").write_text("name,ratio\na,0.5\n")
    assert read_table(tmp_path, ["a.png"]) == ("", {})


def test_nobody_is_no_patient(tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("index,file,patient\n0,a,1\n1,b,nan\n2,c,Unknown\n3,d,\n4,e,-\n5,f,N/A\n")
    assert read_table(tmp_path, [f"images/{name}.png" for name in "abcdef"]) == ("films.csv", {"images/a.png": "1"})
    folder = fill(tmp_path / "set", [f"film_{k}.png" for k in range(4)])
    records = read_records(as_json(folder, lambda image: image.update(patient="unknown")), "patient")
    assert [record.patient for record in records] == [""] * 4


def test_pattern_table_record_and_names_in_this_order() -> None:
    names = ["x7/patient1_1.png", "x8/patient1_2.png", "patient1_3.png", "patient1_4.png", "other.png"]
    table = ("films.csv", {names[1]: "t", names[2]: "t"})
    told = state_patients(names, ["r", "r", "r", "r", ""], table, r"^x(7)/")
    assert told == [
        ("7", "data.patient_pattern"), ("t", "films.csv"), ("t", "films.csv"), ("r", "its records"), ("", ""),
    ]  # fmt: skip
    assert state_patients(names[3:], ["", ""], ("", {}), "") == [("patient1", "the names"), ("", "")]


@pytest.mark.parametrize("pattern", ["(", "no group", "(two)(groups)", "(a"])
def test_a_pattern_has_one_group(pattern: str) -> None:
    with pytest.raises(ConfigError, match="data.patient_pattern must be a regular expression with one group"):
        config_from_dict({"data": {"patient_pattern": pattern}})


# Sources


def fill(folder: Path, names: list[str]) -> Path:
    """Phantoms under these names, with their masks."""
    for k, name in enumerate(names):
        phantom = f"phantom_{k % 16 + 1:04}.png"
        film, mask = folder / "images" / name, folder / "masks" / Path(name).with_suffix(".png")
        for path, kind in (film, "images"), (mask, "masks"):
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PHANTOMS / kind / phantom, path)
    return folder


def as_json(folder: Path, change: Callable[[dict[str, Any]], object] = lambda image: None) -> Path:
    """The films of a folder as a COCO file beside it, as other tools write one."""
    images, annotations = [], []
    for number, film in enumerate(sorted((folder / "images").rglob("*.png")), 1):
        name = film.relative_to(folder / "images").as_posix()
        labels = np.asarray(Image.open(folder / "masks" / name))
        images.append({"id": number, "file_name": name, "height": labels.shape[0], "width": labels.shape[1]})
        change(images[-1])
        annotations += [annotation(2 * number + lung, number, lung, labels == lung) for lung in CATEGORIES]
    categories = new_dataset("patient", {})["categories"]
    write_json(folder / "lungs.json", {"images": images, "annotations": annotations, "categories": categories})
    return folder / "lungs.json"


@pytest.mark.parametrize("kind", ["folder", "json"])
@pytest.mark.parametrize("template", ["patient{}_{}.png", "p{:02}/film {}.png"])
def test_no_patient_is_on_both_sides(tmp_path: Path, kind: str, template: str) -> None:
    names = [template.format(p, f) for p in range(10) for f in range(3)]
    source = fill(tmp_path / "set", names)
    records = read_records(source if kind == "folder" else as_json(source), "patient")
    assert len(records) == 30 and len({record.group for record in records}) == 10
    for seed in range(5):
        train, validation = split_records(records, 0.8, seed)
        assert not {record.patient for record in train} & {record.patient for record in validation}
        place = source if kind == "folder" else source / "lungs.json"
        assert split_report(train, validation) == [
            f"{place}: 30 films of 10 patients: 8 patients (24 films) to train, 2 (6) to validate; "
            "patients told by the names"
        ]


def test_what_the_user_states_wins(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", [f"film_{k}.png" for k in range(6)])
    unknown = read_records(folder, "patient")
    assert [record.group for record in unknown] == [f"set:images/film_{k}.png" for k in range(6)]
    assert split_report(unknown[:4], unknown[4:]) == [
        f"{folder}: 6 films of 6 patients: 4 patients (4 films) to train, 2 (2) to validate; "
        "6 films whose patient is not known, each taken for a patient of its own"
    ]
    (folder / "films.csv").write_text("film,patient\n" + "".join(f"film_{k},{k // 2}\n" for k in range(5)))
    for source in (folder, as_json(folder)):
        by_table = read_records(source, "patient")
        assert [record.patient for record in by_table] == ["0", "0", "1", "1", "2", ""]
        assert "told by films.csv; 1 film whose patient" in split_report(by_table, [])[0]
        assert [record.patient for record in read_records(source, "patient", r"_(\d)")] == list("012345")
    (folder / "films.csv").unlink()
    for key in ("patient", "patient_id"):
        stated = read_records(as_json(folder, lambda image: image.update({key: image["id"] // 3})), "patient")
        assert [record.patient for record in stated] == list("001112")
        assert "patients told by its records" in split_report(stated, [])[0]


def test_a_film_in_a_folder_source_is_what_it_is_elsewhere(tmp_path: Path) -> None:
    """DICOM without a suffix, and a name that ends in a number: neither is taken for a suffix."""
    film = np.asarray(Image.open(PHANTOMS / "images" / "phantom_0001.png"))
    folder = tmp_path / "set"
    for name in ("IM000001", "1.2.3.10", "1.2.3.11"):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        write_dicom(folder / "images" / name, film, "MONOCHROME2", 8)
        shutil.copy(PHANTOMS / "masks" / "phantom_0001.png", folder / "masks" / f"{name}.png")
    records = read_records(folder, "patient")
    assert [record.path.name for record in records] == ["1.2.3.10", "1.2.3.11", "IM000001"]
    assert [record.mask_path and record.mask_path.name for record in records] == [
        "1.2.3.10.png", "1.2.3.11.png", "IM000001.png",
    ]  # fmt: skip


def test_the_real_sets(shared_data: Path) -> None:
    for name in ("shenzhen", "openist", "wingspan"):
        records = read_records(shared_data / name, "patient")
        assert len({record.group for record in records}) == len(records)
    children = read_records(shared_data / "v7_children", "patient")
    assert {record.patient_from for record in children} == {"films.csv"}
    assert len({record.group for record in children}) < len(children)
