"""Sets whose masks are not what they claim: one label for both lungs, exchanged labels, films that EXIF turns."""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from films import film_of, write_dicom
from PIL import Image

from mask_rcnn.dataset import sides
from mask_rcnn.dataset.coco import annotation, new_dataset
from mask_rcnn.dataset.errors import DatasetError
from mask_rcnn.dataset.records import FilmRecord, read_annotated
from mask_rcnn.dataset.run_lengths import encode_mask
from mask_rcnn.dataset.sides import are_exchanged, check_sides, exif_orientation, on_both_sides, sides_of, turn_back
from mask_rcnn.dataset.sources import read_records
from mask_rcnn.dataset.training_films import load_films
from mask_rcnn.films.images import FilmError, open_image
from mask_rcnn.films.radiograph import read_labels
from mask_rcnn.lungs import CATEGORIES, LEFT_LUNG, RIGHT_LUNG

PHANTOMS = Path(__file__).resolve().parent.parent / "data" / "phantoms"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STORED = {  # what a camera that turns the film as EXIF says has stored of an upright film
    1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.T,
    6: lambda x: np.rot90(x), 7: lambda x: np.rot90(x, 2).T, 8: lambda x: np.rot90(x, -1),
}  # fmt: skip


@functools.cache
def phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    film, labels = (np.asarray(Image.open(PHANTOMS / kind / f"phantom_{number:04}.png")) for kind in ("images", "masks"))
    return film, labels


def both(labels: np.ndarray) -> np.ndarray:
    return (labels > 0).astype(np.uint8)


def exchanged(labels: np.ndarray) -> np.ndarray:
    return np.array([0, RIGHT_LUNG, LEFT_LUNG], np.uint8)[labels]


def write(
    folder: Path, change: Callable[[np.ndarray], np.ndarray], count: int = 4, changed: int = 4, orientation: int = 1,
    kind: str = "folder",
) -> Path:  # fmt: skip
    """Phantoms, the masks of the first ``changed`` of them changed; as a folder or a COCO file."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    images, annotations = [], []
    for n in range(1, count + 1):
        film, labels = (pixels[::2, ::2] for pixels in phantom(n))
        labels = change(labels) if n <= changed else labels
        exif = Image.Exif()
        if orientation != 1:
            exif[0x0112] = orientation
        stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](film)))
        stored.save(folder / "images" / f"film_{n}.jpg", exif=exif, quality=95)
        Image.fromarray(np.ascontiguousarray(labels)).save(folder / "masks" / f"film_{n}.png")
        images.append({"id": n, "file_name": f"film_{n}.jpg", "height": labels.shape[0], "width": labels.shape[1]})
        drawn = [lung for lung in CATEGORIES if (labels == lung).any()]
        annotations += [annotation(2 * n + lung, n, lung, labels == lung) for lung in drawn]
    if kind == "folder":
        return folder
    categories = new_dataset("patient", {})["categories"]
    (folder / "lungs.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder / "lungs.json"


def load(source: Path) -> list[FilmRecord]:
    return [film.record for film in load_films(read_records(source, "patient"), 128)]


@pytest.mark.parametrize("kind", ["folder", "json"])
@pytest.mark.parametrize(
    ("change", "said"),
    [(both, "one label for both lungs?"), (lambda labels: 2 * both(labels), "one label for both lungs?"),
     (exchanged, "labels exchanged?"), (np.fliplr, "labels exchanged?")],
)  # fmt: skip
def test_sets_that_are_labelled_otherwise_are_refused(
    tmp_path: Path, kind: str, change: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    source = write(tmp_path / "set", change, kind=kind)
    with pytest.raises(DatasetError) as caught:
        load(source)
    message = str(caught.value)
    assert message.startswith(f"{source}: {said} 4 of 4 films") and "film_1.jpg, film_2.jpg, film_3.jpg; " in message
    assert "left_lung" in message and "\n" not in message and "create_dataset" not in message


def test_one_film_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(load(write(tmp_path / "one", both, count=8, changed=1))) == 7
    assert "film_1.jpg: one label for both lungs?" in capsys.readouterr().err
    assert len(load(write(tmp_path / "mirrored", exchanged, count=8, changed=2))) == 8, "a heart may lie on the right"


def test_a_source_is_judged_by_itself(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good", lambda x: x, count=12), write(tmp_path / "bad", both, count=2)
    with pytest.raises(DatasetError, match=f"^{bad}: one label"):
        load_films([record for source in (good, bad) for record in read_records(source, "patient")], 128)


def test_films_with_one_lung_or_none_are_no_mistake(tmp_path: Path) -> None:
    for lung in CATEGORIES:
        assert len(load(write(tmp_path / str(lung), lambda labels, lung=lung: labels * (labels == lung)))) == 4
    assert len(load(write(tmp_path / "none", np.zeros_like))) == 4


def test_a_lung_in_two_parts_is_one_lung() -> None:
    labels = phantom(1)[1] * (phantom(1)[1] == LEFT_LUNG)
    rows, columns = np.flatnonzero(labels.any(1)), np.flatnonzero(labels.any(0))
    for parted in (labels.copy(), labels.copy()):
        assert not on_both_sides(parted)
    across, along = labels.copy(), labels.copy()
    across[(rows[0] + rows[-1]) // 2 + np.arange(-3, 4)] = 0
    along[:, (columns[0] + columns[-1]) // 2 + np.arange(-3, 4)] = 0
    assert not on_both_sides(across) and not on_both_sides(along)


def test_sides_are_judged_as_they_are_named() -> None:
    labels = phantom(1)[1]
    assert are_exchanged(labels) is False and are_exchanged(exchanged(labels)) is True
    assert are_exchanged(both(labels)) is None
    record = FilmRecord(Path("a.png"), "set", "a")
    assert check_sides([record], [sides_of(labels)]) == []
    assert check_sides([replace(record, laterality="image")], [sides_of(exchanged(labels))]) == []
    with pytest.raises(DatasetError, match="labels exchanged"):
        check_sides([record], [sides_of(exchanged(labels))])


@pytest.mark.parametrize("orientation", range(2, 9))
def test_films_that_exif_turns(tmp_path: Path, orientation: int) -> None:
    stored = STORED[orientation]
    for number in range(1, 5):
        np.testing.assert_array_equal(turn_back(phantom(number)[0], orientation), stored(phantom(number)[0]))
    assert len(load(write(tmp_path / "turned alike", lambda labels: labels, orientation=orientation))) == 4
    for kind in ("folder", "json"):
        source = write(tmp_path / kind, stored, orientation=orientation, kind=kind)
        with pytest.raises(DatasetError) as caught:
            load(source)
        assert str(caught.value).startswith(f"{source}: EXIF turns 4 films and not their masks, the first film_1.jpg, ")


def test_a_film_is_decoded_for_its_orientation_only_where_it_holds_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif, film = Image.Exif(), Image.fromarray(phantom(1)[0])
    exif[0x0112] = 3
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    for suffix in ("jpg", "png"):
        film.save(tmp_path / f"plain.{suffix}")
        film.save(tmp_path / f"turned.{suffix}", exif=exif)
    film.save(tmp_path / "turned_by_xmp.jpg", xmp=packet)
    content, body = (tmp_path / "plain.png").read_bytes(), exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    (tmp_path / "turned_behind_the_pixels.png").write_bytes(content[:-12] + chunk + content[-12:])
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    opened = []

    def open_and_note(path: Path) -> AbstractContextManager[Image.Image]:
        opened.append(path.name)
        return open_image(path)

    monkeypatch.setattr(sides, "open_image", open_and_note)
    for path in sorted(tmp_path.iterdir()):
        is_turned = path.name.startswith("turned")
        assert exif_orientation(path) == (3 if is_turned else 1) and (path.name in opened) == is_turned, path
    assert exif_orientation(tmp_path / "absent.png") == 1


@pytest.mark.parametrize(
    ("values", "said"), [((0, 255, 255), "one value for both lungs"), ((0, 128, 255), "128 and 255 for the two lungs")]
)
def test_masks_of_other_values_say_what_they_hold(tmp_path: Path, values: tuple[int, int, int], said: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array(values, np.uint8)[phantom(1)[1]]).save(path)
    with pytest.raises(FilmError, match=f"mask.png: is no label mask .{said}.*: it holds label 255; save it in grey"):
        read_labels(path)


@pytest.mark.parametrize("name", ["shenzhen", "openist", "wingspan", "v7_children", "v7_bedside"])
def test_real_sets_are_not_suspected(shared_data: Path, name: str) -> None:
    records = read_records(shared_data / name, "patient")[::4]
    labels = [read_labels(record.mask_path) for record in records if record.mask_path]
    assert check_sides(records, [sides_of(own) for own in labels]) == []
    assert not any(on_both_sides(own * (own == lung)) for own in labels for lung in CATEGORIES)
    noticed = [on_both_sides(both(own)) for own in labels if len(np.unique(own)) == 3]
    assert np.mean(noticed) > 0.95, "all but those with next to nothing left of a lung"


@pytest.mark.parametrize("orientation", [["R", "F"], ["F", "R"], ["R", "H"], ["H", "L"]])
def test_masks_of_a_film_that_its_header_turns_turn_with_it(orientation: list[str], tmp_path: Path) -> None:
    """Annotators draw on the film as it is stored; this program's own datasets lie on the film as it is read."""
    upright, labels = film_of(60, 48), np.zeros((60, 48), np.uint8)
    labels[10:50, 28:40], labels[12:45, 5:20] = LEFT_LUNG, RIGHT_LUNG
    stored, drawn = {  # what turning back gives, by hand
        "RF": (upright[:, ::-1], labels[:, ::-1]), "RH": (upright[::-1, ::-1], labels[::-1, ::-1]),
        "FR": (np.rot90(upright), np.rot90(labels)), "HL": (np.rot90(upright, -1), np.rot90(labels, -1)),
    }["".join(orientation)]  # fmt: skip
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    path = tmp_path / "images" / "film.dcm"
    write_dicom(path, np.ascontiguousarray(stored), "MONOCHROME2", 8, PatientOrientation=orientation)
    Image.fromarray(np.ascontiguousarray(drawn)).save(tmp_path / "masks" / "film.png")
    (record,) = read_records(tmp_path, "patient")
    read = read_annotated(record)
    assert np.array_equal(read.labels, labels) and read.film.shape == labels.shape
    own = replace(record, mask_path=None, are_upright=True, segmentations=tuple(
        (category, labels.shape, encode_mask(labels == category)["counts"]) for category in CATEGORIES
    ))  # fmt: skip
    assert np.array_equal(read_annotated(own).labels, labels)
